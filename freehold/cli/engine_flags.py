"""What a team wants of an engine, on the command line of `plan` and `size`, and its own load tests from a file.

It says which flags there are and reads them; which engine follows is freehold/sizing/fleet/advise. A file of load tests is JSON, a
list of {engine, gpu, gpus, quant, output_tokens_per_s, concurrency, source}; only source may be left out.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.numbers import Reader
from freehold.sizing.model.words import Churn, Engine, Prefer, Quant

if TYPE_CHECKING:  # a command's help need not wait for these
    from freehold.catalog.facts import Gpu
    from freehold.sizing.fleet.advise import Wish
    from freehold.sizing.model.shape import ModelShape
    from freehold.sizing.replica.answer import Measured

PREFERS: tuple[str, ...] = tuple(word for word in get_args(Prefer) if word)
CHURNS: tuple[str, ...] = tuple(word for word in get_args(Churn) if word)
ENGINES: tuple[str, ...] = get_args(Engine)
QUANTS: tuple[str, ...] = get_args(Quant)
ENGINE_FLAGS = ("prefer", "team", "model_churn", "measured", "bench")
"""The flags' names as click passes them."""
FILE_BYTES_MAX = 1024 * 1024
"""Largest file of load tests that is read. Source: our own bound: some 5,000 tests."""
NUMBERS: dict[str, tuple[float, bool]] = {
    "gpus": (1024, True),
    "output_tokens_per_s": (1e8, False),
    "concurrency": (1e6, True),
}
"""Most that is believed of each, and whether it is a whole number. Source: our own bounds, far beyond a rack's."""
FIELDS = {"engine", "gpu", "gpus", "quant", "output_tokens_per_s", "concurrency", "source"}
"""Of one test: the fields of freehold.sizing.replica.answer.Measured."""
_PROBLEMS_MOST = 20  # Of one file: more help nobody.
_HINT = "a JSON list of {engine, gpu, gpus, quant, output_tokens_per_s, concurrency, source}"


def engine_options(command: Any) -> Any:
    """Return the command with --prefer, --team, --model-churn, --measured and --bench."""
    rows: tuple[Callable[[Any], Any], ...] = (
        click.option("--prefer", metavar="|".join(PREFERS), help="What counts first in choosing an engine."),
        click.option(
            "--team",
            metavar="A,B",
            multiple=True,
            help=f"Engines that somebody in the team has run: {', '.join(ENGINES)}; can be given again.",
        ),
        click.option(
            "--model-churn", metavar="|".join(CHURNS), help="How often models change [default: high]."
        ),
        click.option(
            "--measured",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Your own load tests, JSON; they override the advice and the figures.",
        ),
        click.option(
            "--bench",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="The same from the results of freehold bench on a GPU of the catalog.",
        ),
    )
    for option in reversed(rows):
        command = option(command)
    return command


def read_engine_flags(
    flags: dict[str, Any], reader: Reader, *, gpus: Collection[str]
) -> "tuple[Wish, tuple[Measured, ...]]":
    """Return what the flags say; problems are in the reader. `gpus` are the catalog's ids.

    `flags` are click's: prefer, team, model_churn, measured and bench, None or empty where nobody said.
    """
    from freehold.sizing.fleet.advise import Wish  # noqa: PLC0415 - see above
    from freehold.sizing.replica.answer import Measured  # noqa: PLC0415 - see above

    prefer = _one_of("--prefer", flags.get("prefer"), PREFERS, reader)
    said = [word.strip() for text in flags.get("team") or () for word in text.split(",") if word.strip()]
    team = tuple(dict.fromkeys(_one_of("--team", word, ENGINES, reader) for word in said))
    wish = Wish(
        prefer=prefer,  # type: ignore[arg-type] # checked
        team=team,  # type: ignore[arg-type] # checked
        model_churn=_one_of("--model-churn", flags.get("model_churn"), CHURNS, reader),  # type: ignore[arg-type] # checked
    )
    path = flags.get("measured")
    found = [
        *(read_measured(path, gpus=gpus) if path is not None else ()),
        *_benched(flags.get("bench"), gpus),
    ]
    reader.problems += [each for each in found if isinstance(each, Problem)]
    return wish, tuple(each for each in found if isinstance(each, Measured))


def _benched(path: Path | None, gpus: Collection[str]) -> "Sequence[Measured | Problem]":
    if path is None:
        return ()
    from freehold.bench.load_tests import rows_from_bench  # noqa: PLC0415 - seldom wanted

    return rows_from_bench(path, gpus)


def _one_of(flag: str, said: str | None, words: tuple[str, ...], reader: Reader) -> str:
    word = (said or "").strip()
    if said is not None and word not in words:
        reader.wrong(flag, f"{word!r} is not known", nearest_hint(word, words))
    return word


def read_measured(path: Path, *, gpus: Collection[str]) -> "Sequence[Measured | Problem]":
    """Return the load tests of a file, or its problems and nothing else, each with `file[index].field`."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return [Problem(where=str(path), message="is too large for a file of load tests", hint=_HINT)]
        said = msgspec.json.decode(path.read_bytes())
    except OSError as exc:
        return [Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return [Problem(where=str(path), message=f"is no JSON: {exc}", hint=_HINT)]
    if not isinstance(said, list) or not said:
        return [Problem(where=str(path), message="has no list of load tests", hint=_HINT)]
    problems = [each for index, row in enumerate(said) for each in _wrong(row, f"{path}[{index}]", gpus)]
    return problems[:_PROBLEMS_MOST] or [_measured(row) for row in said]


def impossible(
    measured: "Sequence[Measured]", shape: "ModelShape", gpus: "Mapping[str, Gpu]"
) -> list[Problem]:
    """Return a problem for each load test that no GPU can have done with this model (freehold/catalog/physics)."""
    from freehold.catalog.physics import Speed, implausible_tokens_per_s  # noqa: PLC0415 - see above
    from freehold.sizing.replica.memory import weights_bytes  # noqa: PLC0415 - see above

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


def _wrong(row: object, where: str, gpus: Collection[str]) -> Iterator[Problem]:
    if not isinstance(row, dict):
        yield Problem(where=where, message="is no object", hint=_HINT)
        return
    for name, words in (("engine", ENGINES), ("gpu", gpus), ("quant", QUANTS)):
        if not isinstance(row.get(name), str) or row[name] not in words:
            hint = nearest_hint(str(row.get(name, ""))[:60], words)
            yield Problem(where=f"{where}.{name}", message=_unknown(row, name), hint=hint)
    for name, (most, whole) in NUMBERS.items():
        if not _is_number(row.get(name), most, whole=whole):
            kind = "a whole number" if whole else "a number"
            message = f"must be {kind} above 0 and at most {most:,.0f}" if name in row else "is missing"
            yield Problem(where=f"{where}.{name}", message=message)
    if not isinstance(row.get("source", ""), str):
        yield Problem(where=f"{where}.source", message="must be text")
    for name in sorted({*row} - FIELDS):
        yield Problem(where=f"{where}.{name[:60]}", message="is not known", hint=_HINT)


def _unknown(row: dict[str, Any], name: str) -> str:
    return f"{str(row[name])[:60]!r} is not known" if name in row else "is missing"


def _is_number(value: object, most: float, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 < value <= most and math.isfinite(value)


def _measured(row: dict[str, Any]) -> "Measured":
    from freehold.sizing.replica.answer import Measured  # noqa: PLC0415 - see above

    return Measured(**{**row, "output_tokens_per_s": float(row["output_tokens_per_s"])})
