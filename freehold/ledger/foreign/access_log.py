"""An access log: Freehold's own, or any JSON lines or CSV with a time and a usage as OpenAI's answers have it.

Sources: freehold/gateway/exchange/access_log.py (`at`, `id`, `path`, `status`, `end`, `model`, `prompt_tokens`, `completion_tokens`); OpenAI's
OpenAPI description 2.3.0 (`CompletionUsage`, `ResponseUsage`: cached tokens are part of the input, in
`prompt_tokens_details` or `input_tokens_details`; `created`, `created_at`; the lines of a batch's output have `custom_id` and
`response.body`); Anthropic's Messages API reference (`input_tokens` is without `cache_read_input_tokens` and
`cache_creation_input_tokens`). Of Freehold's log, requests that no model answered are left out. Combined Log Format is not
read: it has no tokens.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from freehold.ledger.foreign import cells
from freehold.ledger.foreign.use import Item, LeftOut, Record, Unusable, UsageFormat, Use

_TIMES = ("at", "timestamp", "time", "ts", "@timestamp", "created", "created_at", "start_time", "date")
_TOKENS = ({"prompt_tokens", "completion_tokens"}, {"input_tokens", "output_tokens"})
_WRAPPERS = ("response", "body", "result", "message")
_NO_TEXT = ("/v1/embeddings", "/v1/rerank")


def _recognises(names: AbstractSet[str]) -> bool:
    if {"at", "path", "status", "took_s"} <= names:
        return True
    holds = "usage" in names or "response" in names or any(pair <= names for pair in _TOKENS)
    return holds and bool(names & {*_TIMES, "custom_id"})


def _read(record: Record) -> Iterable[Item]:
    return [_own(record)] if "took_s" in record and "at" in record else [_generic(record)]


def _own(record: Record) -> Item:
    """Return what a line of Freehold's own access log says."""
    at_s = cells.moment_s(record, ("at",))
    if str(record.get("path")).startswith(_NO_TEXT):
        return LeftOut("no text is generated", at_s)
    if "completion_tokens" not in record and "prompt_tokens" not in record:
        if record.get("end") == "complete" and record.get("attempts"):
            raise Unusable("it was answered, and its tokens are not known")
        return LeftOut("no model answered", at_s)
    return Use(
        at_s, at_s, 1, cells.count(record, "prompt_tokens"), None, cells.count(record, "completion_tokens"),
        cells.name_of(record.get("model")), None, _text(record.get("id")),
    )  # fmt: skip


def _generic(record: Record) -> Item:
    layers = _layers(record)
    at_s = next(
        (cells.moment_s(layer, _TIMES) for layer in layers if any(layer.get(name) for name in _TIMES)), None
    )
    if at_s is None:
        raise Unusable("it has no time")
    usage, layer = _usage(layers)
    model = next((name for each in layers if (name := cells.name_of(each.get("model")))), "")
    identity = _text(layer.get("id")) or _text(record.get("request_id")) or _text(record.get("id"))
    tokens = _prompt_form(usage) if "prompt_tokens" in usage else _input_form(usage)
    if not tokens[0] and not tokens[2]:
        return LeftOut("no tokens", at_s)
    usd = cells.money(record.get("cost_usd", record.get("spend")), "cost")
    return Use(at_s, at_s, 1, *tokens, model, usd, identity, "custom_id" in record)


def _layers(record: Record) -> list[Record]:
    """Return the record, and the answer that it may wrap, at most three deep."""
    layers = [record]
    while len(layers) < 4:
        inner = next((record[name] for name in _WRAPPERS if type(record.get(name)) is dict), None)
        if inner is None:
            break
        record = inner
        layers.append(record)
    return layers


def _usage(layers: list[Record]) -> tuple[Record, Record]:
    """Return the usage and the layer that holds it; the innermost one is the answer itself."""
    for layer in reversed(layers):
        if type(layer.get("usage")) is dict:
            return layer["usage"], layer
    for layer in reversed(layers):
        if any(pair <= layer.keys() for pair in _TOKENS):
            return layer, layer
    raise Unusable("it has no usage")


def _prompt_form(usage: Record) -> tuple[int, int | None, int]:
    """Return input, cached and output tokens of a chat completion; one without an answer (an embedding) has no output."""
    whole = cells.count(usage, "prompt_tokens")
    return whole, _cached(usage, "prompt_tokens_details", whole), cells.count(usage, "completion_tokens")


def _input_form(usage: Record) -> tuple[int, int | None, int]:
    """Return them of a response (cached are part of the input) or a message of Anthropic's API (they come on top)."""
    whole, output = cells.count(usage, "input_tokens"), cells.count(usage, "output_tokens")
    read = cells.optional_count(usage, "cache_read_input_tokens")
    written = cells.optional_count(usage, "cache_creation_input_tokens")
    if read is not None or written is not None:
        return whole + (read or 0) + (written or 0), read or 0, output
    return whole, _cached(usage, "input_tokens_details", whole), output


def _cached(usage: Record, details: str, whole: int) -> int | None:
    cached = cells.optional_count(cells.part_of(usage.get(details)), "cached_tokens")
    if cached is None:
        cached = cells.optional_count(usage, "cached_tokens")
    return cells.cached_within(cached, whole)


def _text(value: object) -> str:
    return value if type(value) is str else ""


FORMAT = UsageFormat(
    name="access_log",
    looked_for="a time (at, timestamp, created, …) beside a usage or prompt_tokens and completion_tokens",
    recognises=_recognises,
    read=_read,
    times=_TIMES,
)
"""Freehold's access log, or another in which each row has a time and tokens."""
