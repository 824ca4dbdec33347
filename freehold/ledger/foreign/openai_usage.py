"""What OpenAI's organization usage and costs endpoints answer, and the CSV files that its dashboard exports.

Sources: OpenAI's published OpenAPI description, version 2.3.0 (`UsageTimeBucket`, `UsageCompletionsResult`,
`CostsResult`), read in the clients generated from it (docs.rs openai-client-base 0.16.0, hexdocs ExOpenAI 2.0.0): a bucket
has `start_time` and `end_time` in Unix seconds and a list of results; `input_tokens` include the cached ones;
`bucket_width` is 1m, 1h or 1d. How to fetch them: OpenAI cookbook, "How to use the Usage API and Cost API". The CSV columns
are those seen in files that people published (2025-10 and 2026-09): a row per bucket and group, whole numbers written
`10.0`, a row with only times for a bucket without usage, costs as `amount_value` and `amount_currency`; no documentation names
them. Embeddings, images, audio and the like are left out. The export that the dashboard had before 2025 is not read.
"""

import json
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from freehold.ledger.foreign import cells
from freehold.ledger.foreign.use import Item, LeftOut, Paid, Record, Unusable, UsageFormat, Use

_LONGEST_S = 32 * 86_400  # No bucket is longer than a month: more is a misread end.
_TIMES = {"start_time", "end_time", "start_time_iso", "end_time_iso"}
_COMPLETIONS = "organization.usage.completions.result"
_COSTS = "organization.costs.result"


def _recognises(names: AbstractSet[str]) -> bool:
    lists = {"results", "result", "input_tokens", "amount_value", "start_time_iso"}
    return {"start_time", "end_time"} <= names and bool(lists & names)


def _read(record: Record) -> Iterable[Item]:
    start_s, end_s = _bucket(record)
    results = record["results"] if "results" in record else record.get("result")
    if results is None:
        return [_flat(record, start_s, end_s)]
    if type(results) is not list:
        raise Unusable("results is not a list")
    return _bucket_items(results, start_s, end_s)


def _bucket(record: Record) -> tuple[float, float]:
    start_s = cells.moment_s(record, ("start_time", "start_time_iso"))
    end_s = cells.moment_s(record, ("end_time", "end_time_iso"))
    if not 0 < end_s - start_s <= _LONGEST_S:
        raise Unusable("end_time is not shortly after start_time")
    return start_s, end_s


def _bucket_items(results: list[Any], start_s: float, end_s: float) -> Iterator[Item]:
    if not results:
        yield _nothing(start_s, end_s)
    for result in results:
        try:
            yield _result(cells.part_of(result), start_s, end_s)
        except Unusable as exc:
            yield exc


def _result(result: Record, start_s: float, end_s: float) -> Item:
    kind = result.get("object", _COMPLETIONS)
    if kind == _COSTS or "amount" in result:
        amount = cells.part_of(result.get("amount"))
        return _paid(
            amount.get("value"), amount.get("currency"), _identity(result, start_s), (start_s, end_s)
        )
    if kind != _COMPLETIONS:
        return LeftOut("no text completions", start_s)
    return _used(result, start_s, end_s)


def _flat(record: Record, start_s: float, end_s: float) -> Item:
    """Return what a row of CSV says, in which the bucket and the result stand side by side."""
    if not any(value for name, value in record.items() if name not in _TIMES):
        return _nothing(start_s, end_s)
    if "amount_value" in record:
        identity = _identity(record, start_s)
        return _paid(record["amount_value"], record.get("amount_currency"), identity, (start_s, end_s))
    return _used(record, start_s, end_s)


def _used(result: Record, start_s: float, end_s: float) -> Use:
    input_tokens = cells.count(result, "input_tokens")
    return Use(
        start_s,
        end_s,
        cells.count(result, "num_model_requests"),
        input_tokens,
        cells.cached_within(cells.optional_count(result, "input_cached_tokens"), input_tokens),
        cells.count(result, "output_tokens"),
        cells.name_of(result.get("model")),
        None,
        _identity(result, start_s),
        result.get("batch") is True or str(result.get("batch")).lower() == "true",
    )


def _paid(value: Any, currency: Any, identity: str, bucket: tuple[float, float]) -> Paid:
    usd = cells.money(value, "amount")
    if usd is None:
        raise Unusable("amount is missing")
    if str(currency).lower() != "usd":
        raise Unusable("amount is not in US dollars")
    return Paid(*bucket, usd, identity)


def _nothing(start_s: float, end_s: float) -> Use:
    """Return a bucket in which nothing was used: it says that the time is covered."""
    return Use(start_s, end_s, 0, 0, 0, 0)


def _identity(result: Record, start_s: float) -> str:
    """Return all that the row says: groups alone do not distinguish rows (two of one group and bucket were seen)."""
    return f"{start_s} {json.dumps(result, sort_keys=True, default=str)}"


FORMAT = UsageFormat(
    name="openai_usage",
    looked_for="columns or keys start_time and end_time, with input_tokens, amount_value or a list of results",
    recognises=_recognises,
    read=_read,
)
"""OpenAI's usage and costs, as JSON of the API or CSV of the dashboard."""
