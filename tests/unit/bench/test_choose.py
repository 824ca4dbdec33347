"""Which engine wins: by goodput beyond the spread, then memory, then options; and what must be doubted."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.bench.analysis.choose import choose
from freehold.bench.analysis.compare import Differs, Runs, differs, runs
from freehold.bench.analysis.figures import Distribution, Figures, SloBounds
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.results import (
    VERSION,
    BenchFile,
    Candidate,
    Conditions,
    Machine,
    Resources,
    Result,
)

LOADS = (Load(kind="concurrency", value=1), Load(kind="concurrency", value=4))


def bench(
    goodput: dict[str, tuple[tuple[float, ...], ...]], *, memory: dict[str, int] | None = None, **changes: Any
) -> BenchFile:
    """Return a bench in which each candidate gave these tokens/s, by load and run."""
    results = [
        Result(
            candidate=name,
            through="direct",
            load=load,
            run=run,
            figures=Figures(
                window_s=10, requests=30, whole=30, refused=0, goodput_tokens_per_s=value, late_s=late(0.001)
            ),
            resources=Resources(memory_peak_bytes=(memory or {}).get(name)),
        )
        for name, by_load in goodput.items()
        for load, values in zip(LOADS, by_load, strict=True)
        for run, value in enumerate(values)
    ]
    made = BenchFile(
        version=VERSION,
        freehold="0",
        made_at="2026-11-27T00:00:00Z",
        machine=Machine(cores=2, load_before=0.1),
        conditions=Conditions(
            shape="",
            loads=LOADS,
            slo=SloBounds(ttft_s=0.5, itl_s=0.1),
            runs=max(len(values) for by_load in goodput.values() for values in by_load),
            seed=1,
            warm_up_s=1,
            duration_s=10,
            timeout_s=60,
        ),
        candidates=tuple(
            Candidate(id=name, model="m", engine=name, options={"n": 1} if "+" in name else {})
            for name in goodput
        ),
        results=tuple(results),
    )
    return msgspec.structs.replace(made, **changes)


def late(seconds: float) -> Distribution:
    return Distribution(
        count=1, mean=seconds, p50=seconds, p90=seconds, p95=seconds, p99=seconds, most=seconds
    )


def test_the_highest_goodput_at_any_load_wins():
    found = choose(bench({"a": ((50, 51, 52), (90, 91, 92)), "b": ((60, 61, 62), (10, 10, 10))}))
    assert found.winner is not None
    assert (found.winner.candidate.id, found.winner.load) == ("a", LOADS[1])
    assert [(best.candidate.id, best.against) for best in found.others] == [("b", Differs.LESS)]
    assert found.reasons[0] == "a gave 91.0 (90.0 to 92.0) output tokens/s within the SLO at 4 callers"
    assert "1.49 times" in found.reasons[1]
    assert found.doubts == ()


TIE = {"a+": ((50, 60, 70), (0, 0, 0)), "b": ((48, 58, 66), (0, 0, 0))}


def test_a_tie_goes_to_the_smaller():
    assert (winner := choose(bench(TIE, memory={"a+": 300, "b": 200})).winner)
    assert winner.candidate.id == "b"
    assert (winner := choose(bench(TIE, memory={"a+": 200, "b": 300})).winner)
    assert winner.candidate.id == "a+"


def test_a_tie_of_unknown_memory_goes_to_fewer_options():
    found = choose(bench(TIE, memory={"a+": 200}))
    assert found.winner is not None
    assert found.winner.candidate.id == "b"
    assert "no difference beyond the runs' spread" in found.reasons[1]
    assert "has the fewest options" in found.reasons[-1]


def test_one_run_tells_no_difference_but_names_the_highest():
    found = choose(bench({"a": ((50,), (0,)), "b": ((49,), (0,))}))
    assert found.winner is not None
    assert found.winner.candidate.id == "a"
    assert found.others[0].against is Differs.UNKNOWN
    assert any("--runs 3" in doubt for doubt in found.doubts)


def test_nobody_who_never_kept_the_slo_is_chosen():
    found = choose(bench({"a": ((0, 0), (0, 0))}))
    assert found.winner is None
    assert "no engine kept the SLO" in found.reasons[0]


def test_a_load_that_the_bench_sent_late_does_not_count():
    made = bench({"a": ((50, 51), (900, 900))})
    results = tuple(
        msgspec.structs.replace(each, figures=msgspec.structs.replace(each.figures, late_s=late(0.2)))
        if each.load == LOADS[1] and each.run == 1
        else each
        for each in made.results
    )
    found = choose(msgspec.structs.replace(made, results=results))
    assert found.winner is not None
    assert found.winner.load == LOADS[0]
    assert "the bench could not send in time at 4 callers: these loads do not count" in found.doubts


def test_a_load_without_all_its_runs_does_not_count():
    made = bench({"a": ((50, 51), (900, 901)), "b": ((40, 41), (42, 43))})
    results = tuple(
        each for each in made.results if (each.candidate, each.load, each.run) != ("a", LOADS[1], 1)
    )
    found = choose(msgspec.structs.replace(made, results=results))
    assert found.winner is not None
    assert found.winner.goodput.median == pytest.approx(50.5)


def test_failures_and_a_busy_machine_are_doubts():
    made = bench({"a": ((50, 51), (1, 1))}, machine=Machine(cores=2, load_before=5.0))
    made = msgspec.structs.replace(
        made,
        candidates=(
            *made.candidates,
            Candidate(id="b", model="m", engine="b", failed="no such program"),
        ),
    )
    assert choose(made).doubts == (
        "b: no such program",
        "the machine was busy before it began: load 5.0 on 2 cores",
    )


def test_few_requests_are_doubted():
    made = bench({"a": ((50, 51), (1, 1))})
    few = tuple(
        msgspec.structs.replace(each, figures=msgspec.structs.replace(each.figures, requests=7))
        for each in made.results
    )
    assert choose(msgspec.structs.replace(made, results=few)).doubts == (
        "a run of the winner measured 7 requests: a longer --duration gives more certainty",
    )


def test_a_bench_that_was_ended_says_so():
    made = bench({"a": ((50, 51), (90, 91))}, interrupted=True)
    assert any("ended before all was measured" in doubt for doubt in choose(made).doubts)
    found = choose(msgspec.structs.replace(made, results=made.results[:1]))
    assert found.winner is None
    assert "before any load had all its runs" in found.reasons[0]


FLOATS = st.lists(st.floats(0, 1e6), min_size=1, max_size=5)


@given(FLOATS, FLOATS)
def test_a_difference_is_the_other_way_round_from_the_other_side(
    one: list[float], other: list[float]
) -> None:
    a, b = Runs(values=tuple(one)), Runs(values=tuple(other))
    back = {Differs.MORE: Differs.LESS, Differs.LESS: Differs.MORE}
    assert differs(b, a) is back.get(differs(a, b), differs(a, b))
    assert differs(a, a) in {Differs.SAME, Differs.UNKNOWN}
    assert a.low <= a.median <= a.high


def test_runs_without_a_figure():
    assert runs([None, None]) is None
    assert runs([None, 2.0]) == Runs(values=(2.0,))


def test_one_bad_run_of_the_better_does_not_give_the_prize_to_the_worse():
    found = choose(
        bench(
            {"good": ((100.0, 101.0, 10.0), (1.0,) * 3), "small": ((20.0, 21.0, 22.0), (1.0,) * 3)},
            memory={"good": 9, "small": 1},
        )
    )
    assert found.winner is not None
    assert found.winner.candidate.id == "good"


def test_other_weights_are_a_doubt():
    made = bench({"a": ((10.0,), (9.0,)), "b": ((20.0,), (19.0,))})
    assert not any("weights" in doubt for doubt in choose(made).doubts)
    kept = zip(made.candidates, ("q8.gguf", "bf16"), strict=True)
    candidates = tuple(msgspec.structs.replace(each, weights=name) for each, name in kept)
    doubts = choose(msgspec.structs.replace(made, candidates=candidates)).doubts
    assert any("not the same weights (a q8.gguf, b bf16)" in doubt for doubt in doubts)


def test_why_nobody_is_chosen_is_told_apart():
    made = bench({"a": ((50, 51), (90, 91))})
    failed = tuple(msgspec.structs.replace(each, failed="run 1: it ended") for each in made.candidates)
    nothing = choose(msgspec.structs.replace(made, candidates=failed, results=()))
    assert nothing.winner is None
    assert "no engine started" in nothing.reasons[0]
    assert nothing.doubts[0] == "a: run 1: it ended"
    once = choose(
        msgspec.structs.replace(made, results=tuple(each for each in made.results if each.run == 0))
    )
    assert once.winner is None
    assert "no engine completed all runs" in once.reasons[0]


def test_two_models_have_no_common_winner_without_a_doubt():
    made = bench({"a": ((50, 51), (90, 91)), "b": ((5, 5), (9, 9))})
    other = msgspec.structs.replace(made.candidates[1], model="n")
    found = choose(msgspec.structs.replace(made, candidates=(made.candidates[0], other)))
    assert any("2 models are measured" in doubt for doubt in found.doubts)


def test_one_that_never_started_leaves_the_others_the_choice():
    made = bench({"a": ((50, 51), (90, 91)), "b": ((500, 510), (900, 910))})
    results = tuple(each for each in made.results if each.candidate == "a")
    found = choose(msgspec.structs.replace(made, results=results))
    assert found.winner is not None
    assert found.winner.candidate.id == "a"
    assert found.others == ()
