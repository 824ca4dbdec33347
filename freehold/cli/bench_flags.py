"""The flags of `freehold bench`: which load, on what, how long, within which SLO; read into values, all mistakes at once.

It reads the ledger for `--shape own`, and no configuration: which engines are meant is `bench_contenders`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from freehold.bench.analysis.figures import SloBounds
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.published import published
from freehold.bench.analysis.results import Conditions, Through
from freehold.bench.analysis.sizes import Given, Range, Recorded, Size, Sizes
from freehold.core.clock import wall_s
from freehold.core.problems import Problem, nearest_hint
from freehold.core.units import Unreadable, parse_duration_s, parse_time_us
from freehold.cost.intake.numbers import Reader, read_count, read_seconds
from freehold.ledger.journal import JOURNAL_NAME, Journal, Span

OWN = "own"
"""The shape of what the stack's own ledger recorded."""
DEFAULT_CALLERS = (1, 2, 4, 8)
"""Callers where no load is named. Source: our own choice: from alone to twice the slots of a default llama.cpp."""
_TOKENS_MAX = 10_000_000
"""Longest prompt or answer. Source: our own bound, beyond every context."""
_RATE_MAX, _CALLERS_MAX, _RUNS_MAX = 10_000.0, 2048, 100
"""Most requests/s, callers at once (what `drive` keeps under way) and runs. Source: our own bounds."""
_LOADS_MAX = 64
"""Most points of one sweep. Source: our own bound: at 30 s each and three runs they take two hours an engine."""
_REQUESTS_PER_CALLER = 4
"""Fewest measured requests per caller where a count bounds a load: fewer than that and the window is all edges."""
_THROUGH: dict[str, tuple[Through, ...]] = {
    "direct": ("direct",),
    "gateway": ("gateway",),
    "both": ("direct", "gateway"),
}
_OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("--shape", "NAME", f"Sizes: {OWN} (as your ledger recorded), {', '.join(sorted(published()))}."),
    ("--since", "TIME", "Of your own shape: from then on, UTC: 2026-11-24, or 7d ago [default: 7d]."),
    ("--until", "TIME", "Of your own shape: up to then [default: now]."),
    ("--prompt-tokens", "COUNT|A..B", "Instead of a shape: of a prompt [default: 512]."),
    ("--answer-tokens", "COUNT|A..B", "Instead of a shape: of an answer [default: 128]."),
    ("--rate", "R,R,...", "Requests/s, in a Poisson stream that waits for nobody; each is a load."),
    ("--concurrency", "N,N,...", "Callers that each wait for their answer; each is a load [default: 1,2,4,8]."),
    ("--speed", "FACTOR,...", "Your own arrivals replayed so many times faster; each is a load."),
    ("--warm-up", "TIME", "Of each load, what is not measured [default: 5s]."),
    ("--duration", "TIME", "Of each load, what is measured [default: 30s]."),
    ("--requests", "COUNT", "End a load after so many measured requests, if that is sooner."),
    ("--timeout", "TIME", "A request that has not ended by then has failed [default: 120s]."),
    ("--slo-ttft", "TIME", "Time to first token that a request must keep to count [default: 2s]."),
    ("--slo-itl", "TIME", "Mean time between its tokens that it must keep [default: 50ms]."),
    ("--runs", "COUNT", "How often all is repeated, in turn [default: 3]."),
    ("--seed", "NUMBER", "Of sizes, arrivals and words [default: 1]."),
    ("--shared-prefix", "COUNT", "Tokens that all prompts begin with; none: no cache helps [default: 0]."),
    ("--through", "|".join(_THROUGH), "Ask the engine, a gateway before it, or both in turn [default: direct]."),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the flags say."""

    conditions: Conditions
    sizes: Sizes
    through: tuple[Through, ...]


def load_options(command: Any) -> Any:
    """Return the command with all flags of the load."""
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


LOAD_FLAGS = tuple(name.removeprefix("--").replace("-", "_") for name, _, _ in _OPTIONS)
"""The flags' names as click passes them."""


def read_load(
    flags: Mapping[str, str | None], reader: Reader, *, state_path: Path, models: tuple[str, ...]
) -> Asked | None:
    """Return what is asked for; None: problems are in the reader. `models` are those whose records count."""
    given = {
        f"--{name.replace('_', '-')}": text for name in LOAD_FLAGS if (text := flags.get(name)) is not None
    }
    sizes = _sizes(given, reader, state_path, models)
    loads = _loads(given, reader, recorded=isinstance(sizes, Recorded))
    through = _through(given, reader)
    numbers = {name: reader.take(read, name, given.get(name)) for name, read in _NUMBERS.items()}
    requests = numbers["--requests"]
    most = max((load.value for load in loads if load.kind == "concurrency"), default=0)
    if requests is not None and requests < _REQUESTS_PER_CALLER * most:
        hint = f"at least {_REQUESTS_PER_CALLER * most:g}, or leave --requests out"
        reader.wrong("--requests", f"{requests:g} are too few for {most:g} callers", hint)
    if sizes is None or reader.problems:
        return None

    def number(flag: str, default: float) -> float:
        value = numbers[flag]
        return default if value is None else value

    return Asked(
        conditions=Conditions(
            shape=sizes.words(),
            loads=loads,
            slo=SloBounds(ttft_s=number("--slo-ttft", 2.0), itl_s=number("--slo-itl", 0.05)),
            runs=int(number("--runs", 3)),
            seed=int(number("--seed", 1)),
            warm_up_s=number("--warm-up", 5.0),
            duration_s=number("--duration", 30.0),
            requests=None if requests is None else int(requests),
            timeout_s=number("--timeout", 120.0),
            shared_prefix_tokens=int(number("--shared-prefix", 0)),
        ),
        sizes=sizes,
        through=through,
    )


def _sizes(
    given: Mapping[str, str], reader: Reader, state_path: Path, models: tuple[str, ...]
) -> Sizes | None:
    prompt = reader.take(read_tokens, "--prompt-tokens", given.get("--prompt-tokens"))
    answer = reader.take(read_tokens, "--answer-tokens", given.get("--answer-tokens"))
    shape = given.get("--shape")
    if shape is None:
        return Given(prompt=prompt or Range(512, 512), answer=answer or Range(128, 128))
    if prompt or answer:
        reader.wrong("--shape", "says the sizes, and so do --prompt-tokens or --answer-tokens", "name one")
    if shape == OWN:
        return _own(given, reader, state_path, models)
    found = published().get(shape)
    if found is None:
        known = (OWN, *published())
        reader.wrong("--shape", f"{shape!r} is not known", nearest_hint(shape, known))
        return None
    return found.sizes()


def _own(
    given: Mapping[str, str], reader: Reader, state_path: Path, models: tuple[str, ...]
) -> Recorded | None:
    now_s = wall_s()
    times = {"--since": int((now_s - 7 * 86400) * 1e6), "--until": int(now_s * 1e6)}
    for flag, usual_us in times.items():
        found = parse_time_us(given[flag], now_s) if flag in given else usual_us
        if found is None:
            reader.wrong(flag, f"{given[flag]!r} is no time", "for example 2026-11-24, 24h or 7d")
            return None
        times[flag] = max(0, found)
    path = state_path / JOURNAL_NAME
    hint = "--since goes further back, --state-dir names another stack; or say --prompt-tokens"
    if not path.exists():
        reader.wrong("--shape", f"there is no ledger in {state_path}", hint)
        return None
    journal = Journal(path, read_only=True)
    try:
        arrivals = journal.arrivals(Span(since_us=times["--since"], until_us=times["--until"]), models)
    finally:
        journal.close()
    if not arrivals.rows:
        reader.wrong("--shape", f"the ledger has no whole chat answer of {', '.join(models)} then", hint)
        return None
    first_us = arrivals.rows[0][0]
    return Recorded(
        sizes=tuple(Size(prompt_tokens=row[1], answer_tokens=row[2]) for row in arrivals.rows),
        at_s=tuple((row[0] - first_us) / 1e6 for row in arrivals.rows),
        left_out=arrivals.unknown,
    )


def _loads(given: Mapping[str, str], reader: Reader, *, recorded: bool) -> tuple[Load, ...]:
    rates = _numbers("--rate", given.get("--rate", ""), reader, most=_RATE_MAX)
    callers = _numbers("--concurrency", given.get("--concurrency", ""), reader, most=_CALLERS_MAX, whole=True)
    speeds = _numbers("--speed", given.get("--speed", ""), reader, most=_RATE_MAX)
    loads = [
        *(Load(kind="rate", value=value) for value in rates),
        *(Load(kind="concurrency", value=value) for value in callers),
        *(Load(kind="recorded", value=value) for value in speeds),
    ]
    if "--speed" in given and not recorded:
        reader.wrong("--speed", "replays recorded arrivals", f"with --shape {OWN}")
    if len(loads) > _LOADS_MAX:
        reader.wrong("--rate", f"{len(loads)} loads are more than {_LOADS_MAX}", "a coarser sweep")
    named = any(flag in given for flag in ("--rate", "--concurrency", "--speed"))
    if loads or named:
        return tuple(dict.fromkeys(loads))
    if recorded:
        return (Load(kind="recorded", value=1.0),)
    return tuple(Load(kind="concurrency", value=float(callers)) for callers in DEFAULT_CALLERS)


def _numbers(flag: str, text: str, reader: Reader, *, most: float, whole: bool = False) -> list[float]:
    found = []
    for word in (part.strip() for part in text.split(",") if part.strip()):
        value = _number(word)
        if value is None or not 0 < value <= most or (whole and value != int(value)):
            kind = "whole numbers" if whole else "numbers"
            reader.wrong(
                flag, f"{word!r} is none of the {kind} above 0 up to {most:g}", "for example 1,2,4,8"
            )
        else:
            found.append(value)
    return found


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _through(given: Mapping[str, str], reader: Reader) -> tuple[Through, ...]:
    word = given.get("--through", "direct")
    if word not in _THROUGH:
        reader.wrong("--through", f"{word!r} is not known", nearest_hint(word, _THROUGH))
        return ("direct",)
    return _THROUGH[word]


def read_tokens(flag: str, text: str) -> Range | Problem:
    """Return `512`, or `100..900`, as a range of whole numbers of at least 1."""
    low_text, _, high_text = text.partition("..")
    low = read_count(flag, low_text.strip())
    high = read_count(flag, high_text.strip()) if high_text else low
    for each in (low, high):
        if isinstance(each, Problem):
            return each
    assert not isinstance(low, Problem)
    assert not isinstance(high, Problem)
    if low > high or high > _TOKENS_MAX:
        hint = f"from less to more, at most {_TOKENS_MAX:,}"
        return Problem(where=flag, message=f"{text!r} is no range of tokens", hint=hint)
    return Range(int(low), int(high))


def _time(flag: str, text: str) -> float | Problem:
    """Return seconds, nought allowed."""
    found = parse_duration_s(text)
    return (
        Problem(where=flag, message=f"{text!r} {found.message}") if isinstance(found, Unreadable) else found
    )


def _runs(flag: str, text: str) -> float | Problem:
    found = read_count(flag, text)
    if isinstance(found, Problem) or found <= _RUNS_MAX:
        return found
    return Problem(where=flag, message=f"{text!r} is more than {_RUNS_MAX}")


def _whole(flag: str, text: str) -> float | Problem:
    if text.isascii() and text.isdigit() and int(text) <= _TOKENS_MAX:
        return float(text)
    return Problem(where=flag, message=f"{text!r} is no whole number of at most {_TOKENS_MAX:,}")


_NUMBERS: Mapping[str, Callable[[str, str], float | Problem]] = {
    "--warm-up": _time,
    "--duration": read_seconds,
    "--requests": read_count,
    "--timeout": read_seconds,
    "--slo-ttft": read_seconds,
    "--slo-itl": read_seconds,
    "--runs": _runs,
    "--seed": _whole,
    "--shared-prefix": _whole,
}
