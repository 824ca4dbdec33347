"""The flags of `freehold bench` that say the load: how much, how long, within which SLO; all mistakes at once.

It reads the ledger for `--shape own`, and no configuration: which engines are meant is `contenders`.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from freehold.bench.analysis.figures import SloBounds
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.published import published
from freehold.bench.analysis.results import Conditions, Through
from freehold.bench.analysis.sizes import Given, Range, Recorded, Size, Sizes
from freehold.core.clock import wall_s
from freehold.core.problems import nearest_hint
from freehold.core.units import parse_time_us
from freehold.cost.intake.flags import FlagReader, flags_in
from freehold.ledger.journal import JOURNAL_NAME, Journal, Span

OWN = "own"
"""The shape of what the stack's own ledger recorded."""
DEFAULT_CALLERS = (1.0, 2.0, 4.0, 8.0)
"""Callers where no load is named. Source: our own choice: from alone to twice the slots of a default llama.cpp."""
_LOADS_MAX = 64
"""Most points of one sweep. Source: our own bound: at 30 s each and three runs they take two hours an engine."""
_REQUESTS_PER_CALLER = 4
"""Fewest measured requests per caller where a count bounds a load: fewer than that and the window is all edges."""
_THROUGH: dict[str, tuple[Through, ...]] = {
    "direct": ("direct",),
    "gateway": ("gateway",),
    "both": ("direct", "gateway"),
}
LOAD_FLAGS = {
    name: structs.replace(flag, help=flag.help.replace("{shapes}", ", ".join(sorted(published()))))
    for name, flag in flags_in("load", package="freehold.bench").items()
}
"""The flags by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAsk:
    """The load that is asked for."""

    conditions: Conditions
    sizes: Sizes
    through: tuple[Through, ...]


def read_load(
    given: Mapping[str, Any], reader: FlagReader, *, state_path: Path, models: tuple[str, ...]
) -> LoadAsk | None:
    """Return what is asked for; None: problems are in the reader. `models` are those whose records count."""
    found = reader.fields(LOAD_FLAGS, given)
    sizes = _sizes(found, reader, state_path, models)
    loads = _loads(found, reader, recorded=isinstance(sizes, Recorded))
    most = max((load.value for load in loads if load.kind == "concurrency"), default=0)
    requests = found.get("requests")
    if requests is not None and requests < _REQUESTS_PER_CALLER * most:
        hint = f"at least {_REQUESTS_PER_CALLER * most:g}, or leave --requests out"
        reader.wrong("--requests", f"{requests:g} are too few for {most:g} callers", hint)
    if sizes is None or reader.problems:
        return None
    return LoadAsk(
        conditions=Conditions(
            shape=sizes.words(),
            loads=loads,
            slo=SloBounds(ttft_s=found.get("slo_ttft", 2.0), itl_s=found.get("slo_itl", 0.05)),
            runs=int(found.get("runs", 3)),
            seed=found.get("seed", 1),
            warm_up_s=found.get("warm_up_s", 5.0),
            duration_s=found.get("duration_s", 30.0),
            requests=None if requests is None else int(requests),
            timeout_s=found.get("timeout_s", 120.0),
            shared_prefix_tokens=found.get("shared_prefix", 0),
        ),
        sizes=sizes,
        through=_THROUGH[found.get("through", "direct")],
    )


def _sizes(
    found: Mapping[str, Any], reader: FlagReader, state_path: Path, models: tuple[str, ...]
) -> Sizes | None:
    shape = found.get("shape")
    if shape is None:
        prompt, answer = found.get("prompt_tokens", (512, 512)), found.get("answer_tokens", (128, 128))
        return Given(prompt=Range(*prompt), answer=Range(*answer))
    if "prompt_tokens" in found or "answer_tokens" in found:
        reader.wrong("--shape", "gives the sizes, and so do --prompt-tokens or --answer-tokens", "name one")
    if shape == OWN:
        return _recorded(found, reader, state_path, models)
    if shape not in published():
        reader.wrong("--shape", f"{shape!r} is not known", nearest_hint(shape, (OWN, *published())))
        return None
    return published()[shape].sizes()


def _recorded(
    found: Mapping[str, Any], reader: FlagReader, state_path: Path, models: tuple[str, ...]
) -> Recorded | None:
    now_s = wall_s()
    times = [parse_time_us(found.get("since", "7d"), now_s), parse_time_us(found.get("until", "0s"), now_s)]
    for name, value in zip(("since", "until"), times, strict=True):
        if value is None:
            message = f"{found[name]!r} is not a time"
            reader.wrong(f"--{name}", message, "for example 2026-11-24, 24h or 7d")
            return None
    since_us, until_us = (max(0, value or 0) for value in times)
    path = state_path / JOURNAL_NAME
    hint = "--since goes further back, --state-dir names another stack; or give --prompt-tokens"
    if not path.exists():
        reader.wrong("--shape", f"there is no ledger in {state_path}", hint)
        return None
    with closing(Journal(path, read_only=True)) as journal:
        arrivals = journal.arrivals(Span(since_us=since_us, until_us=until_us), models)
    if not arrivals.rows:
        reader.wrong("--shape", f"the ledger has no whole chat answer of {', '.join(models)} then", hint)
        return None
    first_us = arrivals.rows[0][0]
    return Recorded(
        sizes=tuple(Size(prompt_tokens=row[1], answer_tokens=row[2]) for row in arrivals.rows),
        at_s=tuple((row[0] - first_us) / 1e6 for row in arrivals.rows),
        left_out=arrivals.unknown,
    )


def _loads(found: Mapping[str, Any], reader: FlagReader, *, recorded: bool) -> tuple[Load, ...]:
    loads = [
        *(Load(kind="rate", value=value) for value in found.get("rate", ())),
        *(Load(kind="concurrency", value=value) for value in found.get("concurrency", ())),
        *(Load(kind="recorded", value=value) for value in found.get("speed", ())),
    ]
    if "speed" in found and not recorded:
        reader.wrong("--speed", "replays recorded arrivals", f"with --shape {OWN}")
    if len(loads) > _LOADS_MAX:
        reader.wrong("--rate", f"{len(loads)} loads are more than {_LOADS_MAX}", "a coarser sweep")
    if loads:
        return tuple(dict.fromkeys(loads))
    if recorded:
        return (Load(kind="recorded", value=1.0),)
    return tuple(Load(kind="concurrency", value=callers) for callers in DEFAULT_CALLERS)
