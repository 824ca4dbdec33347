"""Let another engine finish an answer that one engine began. Pure: requests and events in, bytes out.

The second engine gets the prompt and the text that the client has; its events are made to look like the rest of the
first answer: same id, no second role, usage as of one request, at most as many tokens as were asked for. Blanks at the
end of the text are not given back but made again and left out: templates may trim them, and a tokenizer joins them
with what follows. Where more than text would have to be carried over (tools, formats, probabilities, several choices)
nothing is continued.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from freehold.engines.base import Continues
from freehold.gateway.answers.stream_log import HEAD_KEYS, Json, StreamText, read_json

_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
"""Names of the most tokens an answer may have. Source: OpenAI API reference; llama.cpp tools/server/README.md."""
_MEAN_MORE = frozenset(
    {
        "tools", "functions", "grammar", "json_schema", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar", "structured_outputs", "regex", "ebnf", "echo", "suffix", "audio", "return_token_ids",
        "return_tokens_as_token_ids", "prompt_logprobs", "top_logprobs", "use_beam_search", "return_progress",
        "n_probs", "input_suffix", "input_prefix",
    }
)  # fmt: skip
"""Keys with which an answer, or the state behind it, is more than its text. Source: OpenAI API reference; the servers'
own documents: vLLM (sampling and structured output parameters), SGLang, llama.cpp."""

_MARKS = r"!-/:-@\[-`{-~\u2010-\u205e"
_WORD = re.compile(rf"[{_MARKS}]?[^\s{_MARKS}]+(?:['\u2019_][^\s{_MARKS}]+)*|[{_MARKS}]+")
"""A piece of text that is at least one token. Source: the patterns with which byte-pair tokenizers (GPT-2 to o200k, Llama 3)
split a text before anything else: a mark belongs to the word after it, never to the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """How an answer is continued."""

    body: bytes
    """What the next engine is asked."""
    rest: "RestOfStream"
    """Turns its answer into the rest of the first one."""


def plan(path: str, body: bytes, *, sent: StreamText, how: Continues) -> Continuation | str:
    """Return how to continue an answer, or a code that says why that is not possible."""
    request = read_json(body)
    if request is None or sent.why_not:
        return sent.why_not or "no_json"
    why_not = _why_not(request) or ("stop" if how is Continues.VLLM and _holds_text_back(request) else "")
    if why_not:
        return why_not
    texts, owed = _without_blanks(sent.texts)
    begun = _begin(path, request, "".join(texts), how)
    if isinstance(begun, str):
        return begun
    tokens = _tokens(texts, request)
    left = _less(begun, tokens)
    silent = sent.finished or (left is not None and left <= 0)
    if silent:
        _least(begun)
    rest = RestOfStream(sent, owed=owed, tokens=tokens, silent=silent)
    try:
        return Continuation(body=msgspec.json.encode(begun), rest=rest)
    except RecursionError:  # nested too deeply to be written
        return "too_deep"


def ending(path: str, body: bytes, *, sent: StreamText, hides_usage: bool) -> bytes | None:
    """Return the events that end an answer of which nothing is missing but its end; None: more is missing.

    If usage has to be sent, more is missing: only an engine knows the prompt's tokens. `hides_usage`: the client does not
    get it, although the request asks for it.
    """
    request = read_json(body)
    if request is None or sent.why_not or _why_not(request):
        return None
    options = request.get("stream_options")
    has_usage = sent.usage_sent or hides_usage
    if isinstance(options, dict) and options.get("include_usage") and not has_usage:
        return None
    left = _less(dict(request), _tokens(sent.texts, request))
    if sent.finished:
        return b"data: [DONE]\n\n"
    if left is None or left > 0:
        return None
    return _finish_event(sent, chat="chat" in path) + b"data: [DONE]\n\n"


def _why_not(request: Json) -> str:
    """Return the field that makes the answer more than a text; empty: there is none."""
    for key in sorted(_MEAN_MORE & request.keys()):
        if request[key]:
            return key
    probabilities = request.get("logprobs")
    if probabilities is not None and probabilities is not False:  # 0 asks for those of the answer itself
        return "logprobs"
    form = request.get("response_format")
    if form and form != {"type": "text"}:
        return "response_format"
    if any(request.get(key) not in (None, 1) for key in ("n", "best_of")):
        return "n"
    return "modalities" if request.get("modalities") not in (None, ["text"]) else ""


def _begin(path: str, request: Json, text: str, how: Continues) -> Json | str:
    """Return the request with the beginning of its answer in it, or a code that says why that is not possible."""
    if not text:
        return dict(request)
    if path == "/v1/completions":
        return _begin_text(request, text)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return "messages"
    last = messages[-1]
    goes_on = how is Continues.FINAL_MESSAGE or request.get("continue_final_message") is True
    if last.get("role") == "assistant" and goes_on:
        # The client wrote the beginning of the answer; the engine continued it, so both are one text.
        if not isinstance(last.get("content"), str):
            return "messages"
        messages = [*messages[:-1], {**last, "content": last["content"] + text}]
    elif request.get("add_generation_prompt") is False:
        return "add_generation_prompt"
    else:
        messages = [*messages, {"role": "assistant", "content": text}]
    more = {"continue_final_message": True, "add_generation_prompt": False} if how is Continues.VLLM else {}
    return {**request, "messages": messages, **more}


def _begin_text(request: Json, text: str) -> Json | str:
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return {**request, "prompt": prompt + text} if isinstance(prompt, str) else "prompt"


def _less(request: Json, tokens: int) -> int | None:
    """Take the tokens that are there off the request's limits; return how many are left, None for no limit."""
    left: int | None = None
    for key in _LIMITS:
        limit = request.get(key)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
            rest = limit - tokens
            left = rest if left is None else min(left, rest)
            request[key] = max(1, rest)
    least = request.get("min_tokens")
    if isinstance(least, int):
        request["min_tokens"] = max(0, least - tokens)
    return left


def _holds_text_back(request: Json) -> bool:
    """Return whether vLLM sends text cut anywhere, so that no engine would continue half a word as vLLM did.

    It holds back as many characters as its longest stop string has, less one. Source: vLLM 0.32.0, measured.
    """
    stop = request.get("stop")
    return any(
        isinstance(each, str) and len(each) > 1 for each in (stop if isinstance(stop, list) else [stop])
    )


def _tokens(texts: list[str], request: Json) -> int:
    """Return about how many tokens these texts have; hardly ever too many.

    vLLM sends an event for a token that ends inside a character, and joins tokens that it had no time to send one by
    one. With `stop` it holds text back, and sends it cut anywhere. Source: vLLM 0.32.0, measured.
    """
    if request.get("stop"):
        return sum(map(bool, texts))
    return sum(len(_WORD.findall(text)) or 1 for text in texts)


def _least(request: Json) -> None:
    """Ask for no more than the end and the usage: one token, which the client does not get."""
    given = [key for key in _LIMITS if request.get(key) is not None]
    request |= dict.fromkeys(given or _LIMITS[:1], 1)
    if "min_tokens" in request:
        request["min_tokens"] = 0


def _without_blanks(texts: list[str]) -> tuple[list[str], str]:
    """Return the texts up to the last that is not blank, and the blanks after it."""
    kept = list(texts)
    owed = ""
    while kept and not kept[-1].strip():
        owed = kept.pop() + owed
    if kept:
        solid = kept[-1].rstrip()
        owed = kept[-1][len(solid) :] + owed
        kept[-1] = solid
    return kept, owed


class RestOfStream:
    """Turns another engine's stream into the rest of an answer that was begun."""

    __slots__ = (
        "_announced",
        "_finished",
        "_head",
        "_held",
        "_owed",
        "_owed_first",
        "_role",
        "_sent",
        "_silent",
        "_tokens",
        "tokens_before",
    )

    def __init__(self, sent: StreamText, *, owed: str, tokens: int, silent: bool) -> None:
        self._sent, self._owed_first = sent, owed
        self._head = sent.head
        self._role = sent.role
        self._finished = sent.finished
        self._owed = owed
        """Blanks that the client has and this engine makes again."""
        self._tokens = tokens
        self._silent = silent
        """The text is complete: only the end and the usage are wanted."""
        self._held = b""
        self._announced = False
        self.tokens_before = sum(map(bool, sent.texts))

    def __repr__(self) -> str:
        return f"<RestOfStream after {self._tokens} tokens>"

    def copy(self) -> "RestOfStream":
        """Return the same for yet another engine, where of this one's answer nothing has gone to the client."""
        return RestOfStream(self._sent, owed=self._owed_first, tokens=self._tokens, silent=self._silent)

    def feed(self, payload: bytes) -> bytes:
        """Return what the client gets for bytes of the new stream, cut anywhere; only whole events."""
        lines = (self._held + payload).split(b"\n")
        self._held = lines.pop()
        out = b"".join(map(self._line, lines))
        if out and not self._announced:
            self._announced = True
            out = b": x-freehold-resumed tokens=%d\n\n%b" % (self.tokens_before, out)
        return out

    def _line(self, line: bytes) -> bytes:
        data = line[5:].strip() if line.startswith(b"data:") else b""
        if not data:
            # Events have one line each here; what is left are blank lines, comments and names of events.
            return line + b"\n\n" if line.startswith(b":") else b""
        event = read_json(data)
        if event is None or not isinstance(event.get("choices"), list):
            return b"data: %b\n\n" % data  # the end, or an error: passed on unchanged
        changed = self._event(event)
        return b"" if changed is None else b"data: %b\n\n" % msgspec.json.encode(changed)

    def _event(self, event: Json) -> Json | None:
        """Return an event as the rest of the first answer; None: the client has it already."""
        usage = event.get("usage")
        if isinstance(usage, dict):
            event["usage"] = self._sum(usage)
        choices = event["choices"]
        wanted = [choice for choice in choices if isinstance(choice, dict) and self._choice(choice)]
        if choices and not wanted:
            return None
        self._head = self._head or {key: event[key] for key in HEAD_KEYS if key in event}
        return {**event, **self._head, "choices": wanted}

    def _choice(self, choice: Json) -> bool:
        """Change one choice and return whether anything is left of it."""
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else None
        holder, key = (choice, "text") if delta is None else (delta, "content")
        text = holder.get(key)
        fresh = self._fresh(text) if isinstance(text, str) else text
        if text is not None:
            holder[key] = fresh
        if delta is not None and delta.get("role"):
            if self._role:
                del delta["role"]
            self._role = True
        if choice.get("finish_reason") is not None:
            return self._finish(choice)
        more = delta if delta is not None else {}
        return bool(fresh) or any(more[name] for name in more)

    def _finish(self, choice: Json) -> bool:
        again, self._finished = self._finished, True
        if self._silent:
            choice["finish_reason"] = "length"
        return not again

    def _fresh(self, text: str) -> str:
        """Return a text without what the client has of it."""
        if self._silent:
            return ""
        if not self._owed:
            return text
        same = _common(self._owed, text)
        # If the engine continues with other text, its blanks are as good as these.
        self._owed = self._owed[same:] if same == len(text) else ""
        return text[same:]

    def _sum(self, usage: Json) -> Json:
        """Return usage as of one request: what was given back to the engine was its answer, not its prompt."""
        prompt, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(made, int):
            return usage
        prompt = max(0, prompt - self._tokens)
        made = self._tokens + (0 if self._silent else made)
        usage = {**usage, "prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            cached = min(prompt, details["cached_tokens"])
            usage["prompt_tokens_details"] = {**details, "cached_tokens": cached}
        return usage


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    both = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))


def _finish_event(sent: StreamText, *, chat: bool) -> bytes:
    delta: Mapping[str, Any] = {"delta": {}} if chat else {"text": ""}
    choice = {"index": 0, **delta, "logprobs": None, "finish_reason": "length"}
    return b"data: %b\n\n" % msgspec.json.encode({**sent.head, "choices": [choice]})
