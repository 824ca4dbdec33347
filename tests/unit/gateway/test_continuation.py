"""Whatever a client has of a stream, what another engine says after it makes it whole: no text lost, none twice."""

import itertools
import json
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.base import Continues
from freehold.gateway.answers import continuation
from freehold.gateway.answers.stream_log import (
    ALL_BYTES_MAX,
    ONE_BYTES_MAX,
    PACK_BYTES,
    PackBudget,
    StreamLog,
    StreamText,
)
from gateway_rig.engines import chunk, delta, event

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
DONE = b"data: [DONE]\n\n"
PROMPT_TOKENS = 7
Json = dict[str, Any]

TOKENS = st.lists(
    st.sampled_from(
        ["a", " the", "\n", "\n\n", "    ", " ", "é✓", '"', "data: [DONE]\n\n", "\\n", "0\r\n\r\n", "b \n"]
    ),
    min_size=1,
    max_size=12,
)


def stream(
    path: str, tokens: list[str], *, start: int = 0, name: str = "one", usage: bool = True
) -> list[bytes]:
    """Return the events of an engine that says `tokens` and has read the first `start` of them as a prompt."""
    head = {"id": name, "created": len(name), "model": name, "system_fingerprint": name}
    said: list[Json] = [] if path == TEXT else [{"delta": {"role": "assistant", "content": None}}]
    said += [{"text": token} if path == TEXT else {"delta": {"content": token}} for token in tokens[start:]]
    events = [
        head | {"choices": [{"index": 0, "finish_reason": None, "logprobs": None, **each}]} for each in said
    ]
    last: Json = {"text": ""} if path == TEXT else {"delta": {}}
    events.append(head | {"choices": [{"index": 0, "finish_reason": "stop", **last}]})
    if usage:
        made, prompt = len(tokens) - start, PROMPT_TOKENS + start
        counted = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": made + prompt}
        events.append(head | {"choices": [], "usage": counted})
    return [*map(event, events), DONE]


def asked(path: str, **more: Any) -> bytes:
    said = {"prompt": "hi"} if path == TEXT else {"messages": [{"role": "user", "content": "hi"}]}
    return json.dumps({"model": "m", "stream": True, **said, **more}).encode()


def heard(events: list[bytes]) -> StreamText:
    kept = StreamLog()
    for each in events:
        kept.add(each)
    return kept.text()


def given_back(body: Mapping[str, Any]) -> str:
    """Return the text that an engine is given as the beginning of its answer."""
    if "prompt" in body:
        return str(body["prompt"]).removeprefix("hi")
    return str(body["messages"][1]["content"]) if len(body["messages"]) > 1 else ""


def parsed(said: bytes) -> list[Json]:
    blocks = said.split(b"\n\n")
    assert blocks.pop() == b""
    assert blocks.pop() == b"data: [DONE]"
    assert all(block.startswith((b"data: {", b": ")) for block in blocks), blocks
    return [msgspec.json.decode(block[5:]) for block in blocks if block.startswith(b"data:")]


def text_of(events: list[Json]) -> str:
    choices = [choice for each in events for choice in each["choices"]]
    return "".join(c["text"] if "text" in c else c["delta"].get("content") or "" for c in choices)


@given(
    path=st.sampled_from([CHAT, TEXT]),
    tokens=TOKENS,
    cut=st.integers(0, 16),
    at=st.lists(st.integers(0, 2000), max_size=4),
    wanted=st.booleans(),
)
def test_wherever_it_ends_the_client_gets_the_whole_answer(
    path: str, tokens: list[str], cut: int, at: list[int], *, wanted: bool
) -> None:
    first = stream(path, tokens, usage=wanted)
    before = first[: min(cut, len(first) - 1)]
    known = heard(before)
    body = asked(path, stream_options={"include_usage": wanted})
    end = continuation.ending(path, body, sent=known, hides_usage=False)
    if end is None:
        plan = continuation.plan(path, body, sent=known, how=Continues.FINAL_MESSAGE)
        assert isinstance(plan, continuation.Continuation)
        back = given_back(json.loads(plan.body))
        # An engine makes the same text again, if perhaps of other tokens, from wherever its prompt ends.
        left = "".join(tokens).removeprefix(back)
        again = [back, *left] if back else list(left)
        rest = b"".join(stream(path, again, start=int(bool(back)), name="other", usage=wanted))
        borders = sorted({0, len(rest), *(place % len(rest) for place in at)})
        parts = (rest[a:b] for a, b in itertools.pairwise(borders))
        end = b"".join(map(plan.rest.feed, parts))
    events = parsed(b"".join(before) + end)
    assert text_of(events) == "".join(tokens)
    finish = [
        choice["finish_reason"] for each in events for choice in each["choices"] if choice["finish_reason"]
    ]
    assert len(finish) == 1
    assert len({(each["id"], each["created"], each["model"]) for each in events}) == 1
    roles = [choice for each in events for choice in each["choices"] if choice.get("delta", {}).get("role")]
    assert len(roles) == (path == CHAT)
    usages = [each["usage"] for each in events if "usage" in each]
    assert len(usages) == wanted
    assert all(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in usages)


@given(tokens=st.lists(st.sampled_from(["a", " b", "\n"]), min_size=1, max_size=9), cut=st.integers(0, 9))
def test_usage_is_that_of_one_request(tokens: list[str], cut: int) -> None:
    cut = min(cut, len(tokens))
    plan = continuation.plan(
        CHAT, asked(CHAT), sent=heard(stream(CHAT, tokens)[: cut + 1]), how=Continues.VLLM
    )
    assert isinstance(plan, continuation.Continuation)
    back = given_back(json.loads(plan.body))
    start = next(n for n in range(len(tokens) + 1) if "".join(tokens[:n]) == back)
    said = [msgspec.json.decode(line[6:]) for line in
            plan.rest.feed(b"".join(stream(CHAT, tokens, start=start))).split(b"\n") if line[:7] == b"data: {"]  # fmt: skip
    usage = said[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT_TOKENS, len(tokens))


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_only_what_is_left_of_the_limit_is_asked_for(key: str) -> None:
    plan = continuation.plan(
        CHAT, asked(CHAT, **{key: 5}), sent=heard([delta("a"), delta("b")]), how=Continues.VLLM
    )
    assert isinstance(plan, continuation.Continuation)
    body = json.loads(plan.body)
    assert body[key] == 3
    assert body["messages"][-1] == {"role": "assistant", "content": "ab"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


VLLM_EVENT = (
    b'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1795495666,"model":"m","choices":[{"index":0,'
    b'"delta":{%b},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)


@pytest.mark.parametrize(
    ("texts", "more", "tokens"),
    [
        (["", "", "🦄", "", " ž", "lu", "", "ť", "ou"], {}, 9),  # one event a token, some within a character
        ([" that can be either electric or diesel", "."], {}, 8),  # tokens that it joined
        (["2. Bicy", "[1,", "Output: `", "t(fib", " it's", " my_list", "__"], {}, 13),  # at least
        (["a b"], {"stop": "\n"}, 1),
    ],
)
def test_what_vllm_sends_is_counted_in_tokens(texts: list[str], more: Json, tokens: int) -> None:
    said = [VLLM_EVENT % b'"role":"assistant","content":""']
    said += [VLLM_EVENT % b'"content":%b' % msgspec.json.encode(text) for text in texts]
    plan = continuation.plan(CHAT, asked(CHAT, max_tokens=80, **more), sent=heard(said), how=Continues.VLLM)
    assert isinstance(plan, continuation.Continuation)
    assert json.loads(plan.body)["max_tokens"] == 80 - tokens


@pytest.mark.parametrize("stop", ["zebra", ["\n", "zebra"]])
def test_text_that_vllm_holds_back_for_a_stop_string_is_cut_within_words(stop: str | list[str]) -> None:
    said = heard([delta(" he qui")])
    assert continuation.plan(CHAT, asked(CHAT, stop=stop), sent=said, how=Continues.VLLM) == "stop"
    assert isinstance(
        continuation.plan(CHAT, asked(CHAT, stop=stop), sent=said, how=Continues.FINAL_MESSAGE),
        continuation.Continuation,
    )


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 900, "min_tokens": 5}, {"n_predict": -1}])
def test_where_only_usage_is_missing_one_token_is_asked_for(limits: Json) -> None:
    body = asked(CHAT, stream_options={"include_usage": True}, **limits)
    said = heard([delta("done."), delta("", "stop")])
    assert continuation.ending(CHAT, body, sent=said, hides_usage=False) is None
    plan = continuation.plan(CHAT, body, sent=said, how=Continues.FINAL_MESSAGE)
    assert isinstance(plan, continuation.Continuation)
    then = json.loads(plan.body)
    assert then.get("min_tokens", 0) == 0
    assert {then[key] for key in (limits.keys() - {"min_tokens"}) or {"max_tokens"}} == {1}


def test_blanks_that_are_not_made_again_are_owed_no_longer() -> None:
    plan = continuation.plan(CHAT, asked(CHAT), sent=heard([delta("a"), delta("\n\n")]), how=Continues.VLLM)
    assert isinstance(plan, continuation.Continuation)
    said = plan.rest.feed(delta("\n b") + delta("\n") + delta("c", "stop") + DONE)
    assert text_of(parsed(said)) == " b\nc"


def test_an_answer_that_the_caller_began_is_one_text_with_what_was_said() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "He"}]
    begun = heard([delta("llo")])
    last = {}
    for how in Continues:
        plan = continuation.plan(CHAT, asked(CHAT, messages=messages), sent=begun, how=how)
        assert isinstance(plan, continuation.Continuation)
        last[how] = [message["content"] for message in json.loads(plan.body)["messages"]]
    assert last == {Continues.FINAL_MESSAGE: ["hi", "Hello"], Continues.VLLM: ["hi", "He", "llo"]}


@pytest.mark.parametrize(
    ("more", "why"),
    [({"n": 2}, "n"), ({"tools": [1]}, "tools"), ({"response_format": {"type": "json_object"}}, "response_format"),
     ({"logprobs": 0}, "logprobs"), ({"guided_regex": "x"}, "guided_regex"), ({"echo": True}, "echo"),
     ({"modalities": ["audio"]}, "modalities"), ({"add_generation_prompt": False}, "add_generation_prompt"),
     ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}, "messages")],
)  # fmt: skip
def test_what_is_more_than_text_is_not_continued(more: Json, why: str) -> None:
    assert (
        continuation.plan(CHAT, asked(CHAT, **more), sent=heard([delta("a")]), how=Continues.FINAL_MESSAGE)
        == why
    )


@pytest.mark.parametrize("prompt", [[1, 2], ["a", "b"], None])
def test_a_prompt_that_is_not_one_text_is_not_continued(prompt: object) -> None:
    body = asked(TEXT, prompt=prompt)
    known = heard(stream(TEXT, ["a", "b"])[:1])
    assert continuation.plan(TEXT, body, sent=known, how=Continues.VLLM) == "prompt"


@pytest.mark.parametrize(
    ("said", "why"),
    [(event({"choices": [{"index": 0, "delta": {"tool_calls": [{}]}}]}), "not_only_text"),
     (event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}), "not_only_text"),
     (event({"choices": [{"index": 1, "delta": {"content": "x"}}]}), "choices"),
     (event({"error": {"message": "x"}}), "error"), (b"data: {\n\n", "no_json"), (delta("a")[:-1], "part_of_an_event")],
)  # fmt: skip
def test_an_answer_that_is_more_than_text_is_not_continued(said: bytes, why: str) -> None:
    assert continuation.plan(CHAT, asked(CHAT), sent=heard([delta("a"), said]), how=Continues.VLLM) == why


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "a", "\n"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "text", "usage", "finish_reason", "index", "prompt_tokens",
                         "completion_tokens", "role", "messages", "prompt", "max_tokens", "error", "logprobs"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    said=st.lists(JUNK, max_size=3),
    request=JUNK,
    more=st.lists(JUNK, max_size=3),
    path=st.sampled_from([CHAT, TEXT]),
)
def test_nonsense_breaks_nothing(said: list[Any], request: Any, more: list[Any], path: str) -> None:
    body = json.dumps(request).encode()
    kept = StreamLog()
    for each in said:
        kept.add(event(each))
    continuation.ending(path, body, sent=kept.text(), hides_usage=True)
    plan = continuation.plan(path, body, sent=kept.text(), how=Continues.FINAL_MESSAGE)
    if isinstance(plan, str):
        plan = continuation.plan(path, asked(path), sent=heard([delta("a")]), how=Continues.VLLM)
    assert isinstance(plan, continuation.Continuation)
    for each in more:
        plan.rest.feed(event(each))


def test_what_is_long_is_packed() -> None:
    kept, keeping, passed = StreamLog(), PackBudget(), 0
    kept.chunked = True
    for number in range(4000):
        kept.add(chunk(delta(f" {number}")))
        passed += len(chunk(delta(f" {number}")))
        if number % 100 == 0:
            kept.tidy(passed, keeping)
            keeping.turn()
    assert passed > 2 * PACK_BYTES
    assert repr(kept).startswith("<StreamLog 2 packs")
    assert "".join(kept.text().texts) == "".join(f" {number}" for number in range(4000))


def test_an_event_in_several_chunks_is_read_all_the_same() -> None:
    kept = StreamLog()
    kept.chunked = True
    kept.add(chunk(delta("a")))
    kept.add(chunk(delta("b")[:30]) + chunk(delta("b")[30:]))
    assert kept.text().texts == ["a", "b"]
    assert not kept.text().why_not


def test_what_is_too_long_is_given_up() -> None:
    kept, keeping = StreamLog(), PackBudget()
    noise = random.Random(1).randbytes(2 * ONE_BYTES_MAX)
    kept.add(noise)
    kept.tidy(len(noise), keeping)
    kept.add(delta("more"))
    assert kept.text().why_not == "too_long"
    keeping.count(ALL_BYTES_MAX)
    another = StreamLog()
    another.add(delta("x"))
    another.tidy(100, keeping)
    assert another.text().why_not == "too_long"


def test_little_is_packed_at_once() -> None:
    keeping = PackBudget()
    packed = [keeping.may_pack(PACK_BYTES + 1) for _ in range(10)]
    assert packed == [True] * 7 + [False] * 3
    keeping.turn()
    assert keeping.may_pack(100 * PACK_BYTES)
