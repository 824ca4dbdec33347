"""What a client of the gateway may rely on whichever engine answers, asked with OpenAI's own library.

A file per engine starts its stack once and takes this suite as its own: `class TestClients(ClientSuite)`, with a module's fixture
`stack` that serves MODEL with a context of CONTEXT tokens, and `embeds`, which embeds. What an engine cannot do stands in
`client_table`. What only one engine has (grammars, adapters, preemption) is in that engine's file and not here.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx2
import openai
import pytest

from agent_requests import CLAUDE_CODE, CLAUDE_CODE_HEAD, CODEX, CODEX_OWN
from e2e import client_table as table
from e2e.box import Stack, http
from e2e.client_asks import (
    CONTEXT,
    LONG,
    MODEL,
    PARIS,
    PATIENCE_S,
    PICTURE,
    PLACE,
    QUESTION,
    SAME,
    STREAMS,
    TOOL,
    Place,
    aborts,
    alike,
    chat,
    events_of,
    message,
    progress,
    recorded,
    running,
    streams_at_once,
    text_of,
)
from e2e.client_table import row
from waiting import wait_until


class ClientSuite:
    """The suite; an engine's file gives it a stack."""

    engine: ClassVar[str]
    embeds: ClassVar[str] = "smollm2-embed"
    """Name of the stack's model that embeds."""
    would_embed: ClassVar[str] = ""
    """The option that is named where MODEL is asked for embeddings; empty: its engine has none."""

    @pytest.fixture
    def client(self, stack: Stack) -> Iterator[openai.OpenAI]:
        url = f"{stack.url}/v1"
        with (
            http(PATIENCE_S) as transport,
            openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=transport) as client,
        ):
            yield client

    @pytest.fixture
    def raw(self, stack: Stack) -> Iterator[httpx2.Client]:
        with http(PATIENCE_S) as client:
            client.base_url = httpx2.URL(stack.url)
            yield client

    def test_it_is_this_engine(self, stack: Stack) -> None:
        assert {replica["engine"] for replica in stack.replicas()} == {self.engine}

    @row("`/v1/models`, with each model's context")
    def test_models(self, client: openai.OpenAI) -> None:
        assert MODEL in {model.id for model in client.models.list()}
        model = client.models.retrieve(MODEL)
        assert (model.id, model.object, model.owned_by) == (MODEL, "model", "freehold")
        assert model.to_dict()["max_model_len"] == CONTEXT
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4")

    @row("`/v1/chat/completions`, streamed the same text, usage")
    def test_chat_and_the_same_text_as_a_stream(self, client: openai.OpenAI) -> None:
        whole = chat(client, max_tokens=40)
        text = whole.choices[0].message.content
        assert text
        assert whole.model == MODEL
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        chunks = list(chat(client, max_tokens=40, stream=True, stream_options={"include_usage": True}))
        assert text_of(chunks) == text
        assert sum(bool(chunk.choices) for chunk in chunks) > 5
        assert chunks[-1].usage == whole.usage
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        plain = list(chat(client, max_tokens=40, stream=True))
        assert text_of(plain) == text
        assert all(chunk.choices and chunk.usage is None for chunk in plain), "nobody asked for usage"

    @row("words come as they are made")
    def test_words_come_while_the_engine_works(self, stack: Stack, client: openai.OpenAI) -> None:
        asked: Any = SAME | {"extra_body": {"ignore_eos": True}, "max_tokens": 100}
        story = [{"role": "user", "content": "Write a long story about the sea."}]
        chunks = iter(chat(client, messages=story, stream=True, **asked))
        next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        assert running(stack) == 1
        assert sum(bool(text_of([chunk])) for chunk in chunks) > 10

    @row("`max_completion_tokens`, texts in parts, a system's message")
    def test_other_ways_to_say_the_same(self, client: openai.OpenAI) -> None:
        system = {"role": "system", "content": "Answer in one word."}
        plain = chat(client, messages=[system, *QUESTION], max_tokens=6)
        said = [system, {"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
        other = chat(client, messages=said, max_completion_tokens=6)
        assert other.choices[0].message.content == plain.choices[0].message.content
        assert (other.usage, other.choices[0].finish_reason) == (plain.usage, "length")

    @row("`/v1/completions`, streamed the same text")
    def test_completions(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4, **SAME}
        answer = client.completions.create(**asked)
        assert answer.choices[0].text.startswith(" Paris")
        assert answer.usage.completion_tokens == 4
        parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert "".join(part.choices[0].text for part in parts if part.choices) == answer.choices[0].text
        assert parts[-1].usage == answer.usage

    @row(table.RESPONSES)
    def test_responses(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 16, "temperature": 0}
        answer = client.responses.create(**asked)
        assert answer.output_text
        assert answer.usage
        assert 0 < answer.usage.output_tokens <= 16
        events = list(client.responses.create(**asked, stream=True))
        assert events[0].type == "response.created"
        assert events[-1].type in {"response.completed", "response.incomplete"}
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == events[-1].response.output_text
        assert events[-1].response.usage.output_tokens == answer.usage.output_tokens

    @row(table.MESSAGES)
    def test_messages_in_anthropics_shape(self, client: openai.OpenAI, raw: httpx2.Client) -> None:
        answer = message(client)
        kinds = (answer["type"], answer["role"], answer["stop_reason"], answer["usage"]["output_tokens"])
        assert kinds == ("message", "assistant", "max_tokens", 4)
        body = {"model": MODEL, "max_tokens": 4, "temperature": 0, "messages": QUESTION, "stream": True}
        events = events_of(raw.post("/v1/messages", json=body))
        assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
        text = "".join(event["delta"].get("text", "") for event in events if "delta" in event)
        assert text == answer["content"][0]["text"]

    @row(table.CODEX)
    def test_responses_as_codex_sends_them(self, client: openai.OpenAI) -> None:
        asked: Any = CODEX | {"model": MODEL, "max_output_tokens": 16, "extra_body": CODEX_OWN}
        events = list(client.responses.create(**asked))
        assert events[0].type == "response.created"
        assert events[-1].type in {"response.completed", "response.incomplete"}
        assert 0 < events[-1].response.usage.output_tokens <= 16

    @row(table.CLAUDE_CODE)
    def test_messages_as_claude_code_sends_them(self, client: openai.OpenAI) -> None:
        body = CLAUDE_CODE | {"model": MODEL, "max_tokens": 16}
        headers = dict(line.split(": ", 1) for line in CLAUDE_CODE_HEAD.split("\r\n") if line)
        answer = client.post(
            "/messages?beta=true", cast_to=httpx2.Response, body=body, options={"headers": headers}
        )
        events = events_of(answer)
        assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
        (end,) = [event for event in events if event["type"] == "message_delta"]
        assert end["delta"]["stop_reason"] in {"max_tokens", "end_turn", "tool_use"}
        assert 0 < end["usage"]["output_tokens"] <= 16

    @row(table.COUNT_CHAT)
    def test_a_chat_is_counted_as_it_would_be_read(self, stack: Stack, client: openai.OpenAI) -> None:
        before = recorded(stack)[1]
        body = {"model": MODEL, "messages": QUESTION}
        counted: Any = client.post("/chat/completions/input_tokens", cast_to=object, body=body)
        read = chat(client, max_tokens=1).usage.prompt_tokens
        assert counted["input_tokens"] == read
        wait_until(lambda: recorded(stack)[1] == before + read, what="only the answered prompt in the ledger")

    @row(table.COUNT_MESSAGES)
    def test_messages_are_counted_as_they_would_be_read(self, client: openai.OpenAI) -> None:
        body = {"model": MODEL, "messages": QUESTION}
        counted: Any = client.post("/messages/count_tokens", cast_to=object, body=body)
        usage = message(client)["usage"]
        assert counted["input_tokens"] == usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)

    @pytest.mark.parametrize(
        ("change", "status", "kind"),
        [
            ({"messages": []}, 400, "invalid_request_error"),
            ({"messages": None}, 400, "invalid_request_error"),
            ({"model": "claude"}, 404, "not_found_error"),
            ({"model": 5}, 400, "invalid_request_error"),
            ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "invalid_request_error"),
        ],
    )
    def test_errors_in_anthropics_shape(
        self, raw: httpx2.Client, change: dict[str, Any], status: int, kind: str
    ) -> None:
        body = {"model": MODEL, "max_tokens": 8, "messages": QUESTION} | change
        answer = raw.post("/v1/messages", json=body)
        said = answer.json()
        assert (answer.status_code, said["type"], said["error"]["type"]) == (status, "error", kind)
        assert said["error"]["message"]

    # Formats

    @row(table.SCHEMA)
    def test_a_json_schema_is_kept(self, client: openai.OpenAI) -> None:
        said: Any = [{"role": "user", "content": "Name a city and how many people live there."}]
        answer = client.chat.completions.parse(
            model=MODEL, messages=said, max_tokens=60, response_format=Place, temperature=0
        )
        assert isinstance(answer.choices[0].message.parsed, Place)

    @row(table.SCHEMA_STREAM)
    def test_a_json_schema_is_kept_in_a_stream(self, client: openai.OpenAI) -> None:
        said = [{"role": "user", "content": "Name a city."}]
        chunks = list(chat(client, messages=said, max_tokens=60, response_format=PLACE, stream=True))
        Place.model_validate_json(text_of(chunks), strict=True)

    @row(table.SCHEMA_RESPONSES)
    def test_a_json_schema_is_kept_in_a_response(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "input": "Name a city.", "max_output_tokens": 60, "temperature": 0}
        shape: Any = {"format": {"type": "json_schema", **PLACE["json_schema"]}}
        Place.model_validate_json(client.responses.create(**asked, text=shape).output_text, strict=True)

    @row(table.SCHEMA_MESSAGES)
    def test_a_json_schema_is_kept_in_a_message(self, client: openai.OpenAI) -> None:
        shape = {"type": "json_schema", "schema": PLACE["json_schema"]["schema"]}
        answer = message(client, max_tokens=60, output_config={"format": shape})
        Place.model_validate_json(answer["content"][0]["text"], strict=True)

    @row("a JSON schema that is none: 400")
    def test_a_schema_that_is_none(self, client: openai.OpenAI) -> None:
        shape = {"name": "x", "schema": {"type": "objekt"}}
        with pytest.raises(openai.BadRequestError) as refused:
            chat(client, response_format={"type": "json_schema", "json_schema": shape}, max_tokens=8)
        if table.SCHEMA in table.DIFFERENCES[self.engine]:
            assert refused.value.code == "not_supported_by_engine"
        else:
            assert (refused.value.code, refused.value.param) == ("invalid_json_schema", "response_format")

    @row(table.TOOL)
    def test_a_tool_that_must_be_called(self, client: openai.OpenAI) -> None:
        answer = chat(client, tools=[TOOL], tool_choice="required", max_tokens=60)
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        assert (call.type, call.function.name) == ("function", "look_up")
        assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}

    @row(table.TOOL_STREAM)
    def test_a_tool_that_must_be_called_in_a_stream(self, client: openai.OpenAI) -> None:
        chunks = list(chat(client, tools=[TOOL], tool_choice="required", max_tokens=60, stream=True))
        choices = [choice for chunk in chunks for choice in chunk.choices]
        calls = [call for choice in choices for call in choice.delta.tool_calls or []]
        assert calls[0].id
        assert "".join(call.function.name or "" for call in calls) == "look_up"
        told = "".join(call.function.arguments or "" for call in calls)
        assert json.loads(told)["city"] in {"Paris", "Rome"}
        assert choices[-1].finish_reason == "tool_calls"

    @row(table.TOOL_NAMED)
    def test_a_tool_that_is_named(self, client: openai.OpenAI) -> None:
        other = {"type": "function", "function": {"name": "wait", "parameters": {"type": "object"}}}
        choice = {"type": "function", "function": {"name": "look_up"}}
        answer = chat(client, tools=[other, TOOL], tool_choice=choice, max_tokens=60)
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "look_up"
        assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}

    @row(table.TOOL_ONE)
    def test_one_call_at_most(self, client: openai.OpenAI) -> None:
        answer = chat(client, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=120)
        assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["look_up"]

    @row(table.SEED)
    def test_a_seed(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "prompt": "Once", "max_tokens": 12} | SAME | {"temperature": 1.0}
        texts = [client.completions.create(**asked, seed=seed).choices[0].text for seed in (1, 1, 2, 3)]
        assert texts[0] == texts[1]
        assert len(set(texts)) >= 2

    @row(table.BIAS)
    def test_a_bias(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4, **SAME}
        assert client.completions.create(**asked).choices[0].text.startswith(" Paris")
        text = client.completions.create(**asked, logit_bias={PARIS: -100}).choices[0].text
        assert text
        assert not text.startswith(" Paris")

    @row(table.LOGPROBS)
    def test_log_probabilities(self, client: openai.OpenAI) -> None:
        answer = chat(client, max_tokens=3, logprobs=True, top_logprobs=2)
        told = answer.choices[0].logprobs.content
        assert len(told) == 3
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in told)
        assert "".join(token.token for token in told) == answer.choices[0].message.content

    @row(table.STOP)
    def test_stop_texts(self, client: openai.OpenAI) -> None:
        asked: Any = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 30, **SAME}
        free = client.completions.create(**asked).choices[0].text
        answer = client.completions.create(**asked, stop=["Paris", "\n"])
        assert "Paris" in free
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
            free.partition("Paris")[0],
            "stop",
        )
        parts = list(client.completions.create(**asked, stop=["Paris", "\n"], stream=True))
        assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
        assert parts[-1].choices[0].finish_reason == "stop"

    @row(table.CHOICES)
    def test_several_choices(self, client: openai.OpenAI) -> None:
        asked: Any = {"n": 2, "max_tokens": 8, "temperature": 1.0, "extra_body": {"ignore_eos": True}}
        answer = chat(client, **asked)
        assert sorted(choice.index for choice in answer.choices) == [0, 1]
        assert all(choice.message.content for choice in answer.choices)
        one = chat(client, max_tokens=8).usage
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (one.prompt_tokens, 16)
        chunks = list(chat(client, **asked, stream=True, stream_options={"include_usage": True}))
        assert sum(chunk.usage.completion_tokens for chunk in chunks if chunk.usage) == 16
        ends = [
            choice.index
            for chunk in chunks
            for choice in chunk.choices
            if choice.finish_reason in {"length", "stop"}
        ]
        assert sorted(ends) == [0, 1]

    @row(table.GREEDY)
    def test_several_choices_of_the_likeliest(self, client: openai.OpenAI) -> None:
        answer = chat(client, n=2, max_tokens=4)
        assert [choice.message.content for choice in answer.choices] == [
            answer.choices[0].message.content
        ] * 2

    @row(table.EMBEDDINGS)
    def test_embeddings(self, client: openai.OpenAI) -> None:
        # The library asks for base64 and makes numbers of it, unless it is told otherwise.
        model = self.embeds if self.would_embed else MODEL
        texts = ["The cat sleeps on the sofa.", "Interest rates rose."]
        answer = client.embeddings.create(model=model, input=texts)
        assert [(row.index, len(row.embedding)) for row in answer.data] == [(0, 576), (1, 576)]
        assert answer.data[0].embedding != answer.data[1].embedding
        plain = client.embeddings.create(model=model, input=texts[0], encoding_format="float")
        assert alike(plain.data[0].embedding, answer.data[0].embedding) > 0.999, (
            "whatever else is asked with it"
        )
        assert 0 < plain.usage.prompt_tokens == plain.usage.total_tokens < answer.usage.prompt_tokens

    @row("embeddings and reranking of a model that does not serve them: 400")
    def test_what_the_model_does_not_serve(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model=MODEL, input="hello")
        assert refused.value.code == "not_supported_by_engine"
        assert self.would_embed in refused.value.message
        with pytest.raises(openai.BadRequestError) as refused:
            client.post(
                "/rerank", cast_to=object, body={"model": MODEL, "query": "a", "documents": ["b", "c"]}
            )
        assert refused.value.code == "not_supported_by_engine"

    # Many at once

    @row(table.AT_ONCE)
    def test_streams_are_worked_on_together(self, stack: Stack, client: openai.OpenAI) -> None:
        with streams_at_once(client, STREAMS) as got:
            wait_until(lambda: running(stack) >= 2, timeout_s=30, what="two requests to run at once")
        self.all_are_whole(got)

    def streams_wait_for_each_other(self, stack: Stack, client: openai.OpenAI) -> None:
        with streams_at_once(client, STREAMS) as got:
            seen = {running(stack) for _ in range(20)}
        assert max(seen) == 1
        self.all_are_whole(got)

    def all_are_whole(self, got: list[Any]) -> None:
        assert [chunks[-1].usage.completion_tokens for chunks in got] == [24 + i for i in range(STREAMS)]
        assert all(text_of(chunks) for chunks in got)

    # Mistakes of a client

    @row("a prompt beyond the context: 400 `context_length_exceeded`")
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_request_beyond_the_context(self, client: openai.OpenAI, *, stream: bool) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            chat(client, messages=[{"role": "user", "content": "word " * 5000}], stream=stream)
        error = refused.value
        assert (error.code, error.type) == ("context_length_exceeded", "invalid_request_error")
        assert f"{CONTEXT} tokens" in error.message

    @row("an unknown model: 404 `model_not_found`")
    def test_an_unknown_model(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as refused:
            chat(client, model="gpt-4")
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        assert MODEL in refused.value.message

    @row("a value of the wrong type, messages that are missing: 400")
    @pytest.mark.parametrize(
        "wrong",
        [
            {"temperature": "hot"},
            {"max_tokens": "many"},
            {"top_p": [1]},
            {"messages": None},
            {"messages": []},
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_wrong_type(self, raw: httpx2.Client, wrong: dict[str, Any], *, stream: bool) -> None:
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, "stream": stream, **wrong}
        answer = raw.post("/v1/chat/completions", json=body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}

    @row(table.RANGE)
    def test_a_value_out_of_range(self, client: openai.OpenAI) -> None:
        for wrong in ({"temperature": -1}, {"top_p": 7}):
            with pytest.raises(openai.BadRequestError) as refused:
                chat(client, max_tokens=4, **wrong)
            assert refused.value.type == "invalid_request_error"
            assert next(iter(wrong)) in refused.value.message

    def any_number_is_taken(self, client: openai.OpenAI) -> None:
        greedy = chat(client, max_tokens=4).choices[0].message.content
        assert chat(client, max_tokens=4, temperature=-1).choices[0].message.content == greedy
        assert chat(client, max_tokens=4, top_p=7).choices[0].message.content == greedy

    @row("a picture for a model that sees none: 400 `not_supported_by_engine`")
    def test_a_picture(self, client: openai.OpenAI) -> None:
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PICTURE}},
        ]
        with pytest.raises(openai.BadRequestError) as refused:
            chat(client, messages=[{"role": "user", "content": parts}], max_tokens=4)
        assert refused.value.code == "not_supported_by_engine"

    # What belongs to every request

    @row("`x-request-id`: the client's, or one that is made")
    def test_request_ids(self, client: openai.OpenAI, raw: httpx2.Client) -> None:
        for stream in (False, True):
            answer = client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=QUESTION,
                max_tokens=1,
                stream=stream,
                extra_headers={"x-request-id": "mine-1"},
            )
            assert answer.headers["x-request-id"] == "mine-1"
        made = {raw.get("/v1/models").headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3
        odd = raw.get("/v1/models", headers={"x-request-id": "no spaces"})
        assert odd.headers["x-request-id"] != "no spaces"

    @row("a client that leaves ends its request in the engine, streamed or not")
    @pytest.mark.parametrize("stream", [True, False])
    def test_a_client_that_leaves_frees_the_engine(
        self, stack: Stack, raw: httpx2.Client, *, stream: bool
    ) -> None:
        text = json.dumps({**LONG, "stream": stream})
        before, left = progress(stack), aborts(raw)
        host, port = stack.url.removeprefix("http://").split(":")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(text)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall((head + text).encode())
            wait_until(lambda: progress(stack) >= before + 5, timeout_s=60, what="the first tokens")
            assert running(stack) == 1
        wait_until(lambda: running(stack) == 0, timeout_s=5, what="the engine to stop")
        assert progress(stack) - before < 500
        wait_until(lambda: aborts(raw) == left + 1, what="the gateway to count it")

    @row("the ledger's tokens are those of the answers")
    def test_the_ledger_says_what_the_answers_said(self, stack: Stack, client: openai.OpenAI) -> None:
        before = recorded(stack)
        whole = chat(client, max_tokens=9).usage
        streamed = list(chat(client, max_tokens=9, stream=True, stream_options={"include_usage": True}))
        list(
            chat(client, max_tokens=9, stream=True)
        )  # nobody asks for its usage, and it is known all the same
        text = client.completions.create(model=MODEL, prompt="One, two,", max_tokens=5, **SAME).usage
        told = [whole, streamed[-1].usage, whole, text]
        if table.CHOICES not in table.DIFFERENCES[self.engine]:
            asked: Any = {"n": 3, "max_tokens": 5, "temperature": 1.0, "extra_body": {"ignore_eos": True}}
            several = chat(client, **asked).usage
            assert several.completion_tokens == 15
            list(chat(client, **asked, stream=True))
            told += [several, several]
        more = (len(told), sum(u.prompt_tokens for u in told), sum(u.completion_tokens for u in told))
        wanted = tuple(a + b for a, b in zip(before, more, strict=True))
        wait_until(lambda: recorded(stack) == wanted, what=f"{wanted} in the ledger, from {before}")
