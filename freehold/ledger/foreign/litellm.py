"""LiteLLM's spend logs: the table LiteLLM_SpendLogs as CSV, JSON or JSON lines, or what `/spend/logs` answers.

Sources: BerriAI/litellm: `schema.prisma` (columns; `request_id` is the primary key), `litellm-js/spend-logs/src/_types.ts`,
`litellm/proxy/spend_tracking/spend_tracking_utils.py` (times are UTC; `cache_hit` is the text of a boolean; what else a
provider's usage says lies in `metadata.additional_usage_values`), `docs/my-website/docs/proxy/logging_spec.md` (the
payload that its loggers write: `id`, `response_cost`). Answers from LiteLLM's own cache, failures and calls that generate no
text are left out. Its daily summaries (`/user/daily/activity`) are not read: they have no hours.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from functools import lru_cache

import msgspec

from freehold.ledger.foreign.cells import (
    cached_within,
    count,
    moment_s,
    money,
    name_of,
    optional_count,
    part_of,
)
from freehold.ledger.foreign.use import Item, LeftOut, Record, UsageFormat, Use

_TIMES = ("startTime", "start_time")
_NO_TEXT = ("embedding", "image", "transcription", "speech", "moderation", "rerank", "ocr", "file", "list_")


class _TokenDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None
    input_tokens_details: _TokenDetails | None = None


class _Metadata(msgspec.Struct, gc=False):
    usage_object: _Usage | None = None
    additional_usage_values: _Usage | None = None


_METADATA = msgspec.json.Decoder(_Metadata)


def _recognises(names: AbstractSet[str]) -> bool:
    return (
        bool(names & set(_TIMES))
        and "prompt_tokens" in names
        and bool(names & {"call_type", "spend", "request_id"})
    )


def _read(record: Record) -> Iterable[Item]:
    start_s = moment_s(record, _TIMES)
    reason = _left_out(record)
    if reason:
        return [LeftOut(reason, start_s)]
    input_tokens, output_tokens = count(record, "prompt_tokens"), count(record, "completion_tokens")
    usd = money(record["spend"] if "spend" in record else record.get("response_cost"), "spend")
    if not input_tokens and not output_tokens:
        return [LeftOut("no tokens", start_s)]
    tokens = (input_tokens, cached_within(_cached(record), input_tokens), output_tokens)
    identity = record.get("request_id") or record.get("id") or ""
    model = name_of(record.get("model")) or name_of(record.get("model_group"))
    batch = "batch" in _call(record)
    return [Use(start_s, start_s, 1, *tokens, model, usd, str(identity), batch)]


def _call(record: Record) -> str:
    kind = record.get("call_type")
    return kind if type(kind) is str else ""


def _left_out(record: Record) -> str:
    hit = record.get("cache_hit")
    if hit is True or hit in ("True", "true"):
        return "answered from LiteLLM's own cache"
    status = record.get("status")
    if status is not None and status == "failure":
        return "failed"
    return "no text is generated" if _is_no_text(_call(record)) else ""


@lru_cache(maxsize=64)  # a file has a handful of call types, and each row has one
def _is_no_text(call: str) -> bool:
    return any(word in call for word in _NO_TEXT)


def _cached(record: Record) -> int | None:
    """Return the tokens that the provider's cache held; None: the row does not say."""
    metadata = record.get("metadata")
    if not metadata or (type(metadata) is str and "cache" not in metadata):
        return None
    try:
        found = (
            _METADATA.decode(metadata)
            if type(metadata) is str
            else msgspec.convert(part_of(metadata), _Metadata)
        )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None  # what a proxy's plugins put there is not the row's fault
    cached = _cached_of(found.usage_object)
    return _cached_of(found.additional_usage_values) if cached is None else cached


def _cached_of(usage: _Usage | None) -> int | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = details.cached_tokens if details is not None else None
    return optional_count({"cached": usage.cache_read_input_tokens if cached is None else cached}, "cached")


FORMAT = UsageFormat(
    name="litellm",
    looked_for="columns or keys startTime and prompt_tokens, with spend, request_id or call_type",
    recognises=_recognises,
    read=_read,
)
"""LiteLLM's spend logs."""
