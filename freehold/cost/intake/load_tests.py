"""What a team wants of an engine, from flags, and its own load tests, from a file: a JSON list of `LoadTest`.

It chooses no engine: that is freehold/sizing/fleet/advise. Whether a GPU can have done a test is asked of catalog/physics.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from freehold.catalog.facts import GpuFacts
from freehold.catalog.physics import Speed, implausible_tokens_per_s
from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.flags import ENGINES, QUANTS, FlagReader, flags_in
from freehold.sizing.fleet.advise import Wish
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.answer import MeasuredSpeed
from freehold.sizing.replica.memory import weights_bytes

FILE_BYTES_MAX = 1024 * 1024
"""Largest file of load tests that is read. Source: our own bound: some 5,000 tests."""
_PROBLEMS_MOST = 20  # Of one file: more do not help.
_HINT = "a JSON list of {engine, gpu, gpus, quant, output_tokens_per_s, concurrency, source}"


def _in_catalog(gpu: str, info: ValidationInfo) -> str:
    if info.context is not None and gpu not in info.context:
        raise ValueError(gpu)
    return gpu


class LoadTest(BaseModel):
    """One load test as its file has it. The bounds are our own, far beyond a rack's."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    engine: Engine
    gpu: Annotated[str, AfterValidator(_in_catalog)]
    gpus: Annotated[int, Field(gt=0, le=1024)]
    quant: Quant
    output_tokens_per_s: Annotated[float, Field(gt=0, le=1e8)]
    concurrency: Annotated[int, Field(gt=0, le=1_000_000)]
    source: str = ""


_FILE = TypeAdapter(list[LoadTest])


def read_wish(given: Mapping[str, Any], reader: FlagReader) -> Wish:
    """Return what the team wants of an engine, as the flags of [engine] say; problems are in the reader."""
    flags = {name: flag for name, flag in flags_in("engine").items() if flag.reads != "path"}
    found = reader.fields(flags, given)
    team = dict.fromkeys(name for names in found.get("team", ()) for name in names)
    return Wish(**{**found, "team": tuple(team)})


def read_load_tests(path: Path, *, gpus: Collection[str]) -> Sequence[MeasuredSpeed | Problem]:
    """Return the load tests of a file, or its problems and nothing else, each with `file[index].field`; `gpus` are the catalog's ids."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return [Problem(where=str(path), message="is too large for a file of load tests", hint=_HINT)]
        rows = msgspec.json.decode(path.read_bytes())
        found = _FILE.validate_python(rows, context=gpus)
    except OSError as exc:
        return [Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")]
    except ValidationError as exc:
        return [_problem(each, path, gpus) for each in exc.errors()][:_PROBLEMS_MOST]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return [Problem(where=str(path), message=f"is not JSON: {exc}", hint=_HINT)]
    if not found:
        return [Problem(where=str(path), message="has no list of load tests", hint=_HINT)]
    return [MeasuredSpeed(**each.model_dump()) for each in found]


_MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "list_type": "is not a list of load tests",
    "model_type": "is not an object",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:,.0f}",
}
"""What pydantic's error types mean here; the names are pydantic's (its documentation, "Validation Errors")."""


def _problem(error: ErrorDetails, path: Path, gpus: Collection[str]) -> Problem:
    where = str(path) + "".join(f"[{at}]" if isinstance(at, int) else f".{at[:60]}" for at in error["loc"])
    known = {"engine": ENGINES, "gpu": gpus, "quant": QUANTS}
    words = known.get(str(error["loc"][-1])) if error["loc"] else None
    if words is not None and error["type"] != "missing":
        word = str(error["input"])[:60]
        return Problem(where=where, message=f"{word!r} is not known", hint=nearest_hint(word, words))
    message = _MESSAGES.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    return Problem(where=where, message=message, hint=_HINT)


def impossible(
    measured: Sequence[MeasuredSpeed], shape: ModelShape, gpus: Mapping[str, GpuFacts]
) -> list[Problem]:
    """Return a problem for each load test that no GPU can have done with this model (freehold/catalog/physics)."""
    problems = []
    for each in measured:
        speed = Speed(
            gpu=gpus[each.gpu],
            gpus=each.gpus,
            active_gb=weights_bytes(shape, each.quant) / 1e9 * shape.params_active / shape.params_total,
            params_active_b=shape.params_active / 1e9,
            concurrency=each.concurrency,
            output_tokens_per_s=each.output_tokens_per_s,
        )
        if why := implausible_tokens_per_s(speed):
            problems.append(Problem(where="--measured", message=why, hint="another model, GPU or unit?"))
    return problems
