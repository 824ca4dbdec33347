"""A bench whose engines do not start: all of them are told, each by its own words, and the bench ends as any other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench_samples import MADE
from freehold.bench.analysis.results import Candidate
from freehold.bench.analysis.sizes import Given, Range
from freehold.bench.measure import run as bench_run
from freehold.bench.measure.run import Bench, BenchSetup, Contender
from freehold.bench.measure.stage import Stage
from freehold.core.errors import Permanent
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import ReplicaPlan


def contender(number: int) -> Contender:
    plan = ReplicaPlan(
        id=f"m-bench-{number}", model="m", engine=all_engines()["llama-cpp"], options={"n_parallel": number}
    )
    candidate = Candidate(
        id=f"llama-cpp n_parallel={number}", model="m", engine="llama-cpp", options=dict(plan.options)
    )
    return Contender(candidate=candidate, plan=plan)


@asynccontextmanager
async def no_start(plan: ReplicaPlan, folder: Path, **_: object) -> AsyncIterator[Stage]:
    raise Permanent(f"{plan.id} did not start")
    yield  # a context manager has one


def test_several_candidates_of_one_engine_that_do_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "staged", no_start)
    setup = BenchSetup(
        contenders=[contender(number) for number in (1, 2, 4)],
        conditions=MADE.conditions,
        sizes=Given(prompt=Range(8, 8), answer=Range(4, 4)),
        through=("direct",),
        gateway=None,
        folder=tmp_path,
        ready_timeout_s=1.0,
    )
    measured = asyncio.run(Bench(setup=setup, report=lambda _: None).run())
    assert MADE.conditions.runs > 1
    assert measured.whole
    assert measured.results == ()
    said = [each.failed for each in measured.candidates]
    assert said == [f"run 2: m-bench-{number} did not start" for number in (1, 2, 4)]
