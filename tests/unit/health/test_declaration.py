"""Declarations of checks are read strictly, and a limit on a reading is a fault exactly past its bound."""

import msgspec
import pytest

from freehold.core.findings import Action, Verdict
from freehold.health.judge.declaration import Declaration, declared
from freehold.health.judge.gpu_limits import GpuLimit, over_limits
from freehold.health.judge.gpus import gpu_windows
from freehold.health.model.view import Gpu, Gpus, Reading, View
from freehold.health.registry import all_probes

WHOLE = {"module": "x", "summary": "s", "reads": ["host"], "window_s": 1, "reasons": {"ok": "fine"}}


def test_a_declaration_becomes_the_probe() -> None:
    probe = declared("freehold.health.checks.clock").probe(lambda _views, _expected: [])
    known = all_probes()["clock"]
    assert (probe.name, probe.thresholds, probe.reasons) == (known.name, known.thresholds, known.reasons)


@pytest.mark.parametrize(
    "change",
    [
        {"windows_s": 2},
        {"reads": ["disk"]},
        {"limits": {"long_s": 5}},
        {"limits": {"long_s": {"value": 5}}},
        {"gpu": {"limits": [{"reading": "r", "least": 1}]}},
        {"gpu": {"limit": []}},
    ],
)
def test_what_is_not_as_it_must_be_is_refused(change: dict[str, object]) -> None:
    msgspec.convert(WHOLE, Declaration)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(WHOLE | change, Declaration)


def limit(**bound: object) -> GpuLimit:
    row = {
        "reading": "r",
        "verdict": "degraded",
        "reason": "x",
        "message": "{shown} of {limit}",
        "action": "watch",
    }
    return msgspec.convert(row | {"source": "a test"} | bound, GpuLimit)


def faults(found: GpuLimit, *looks: dict[str, float]) -> list[str]:
    views = [
        View(
            at_s=10.0 * index,
            monotonic_s=10.0 * index,
            node="n",
            gpus=Gpus(
                source="nvml",
                gpus=(Gpu(index=0, uuid="u", readings={k: Reading(value=v) for k, v in look.items()}),),
            ),
        )
        for index, look in enumerate(looks)
    ]
    (gpu,) = gpu_windows(views)
    results = list(over_limits(gpu, [found]))
    assert all((each.verdict, each.action) == (Verdict.DEGRADED, Action.WATCH) for each in results)
    return [each.message for each in results]


@pytest.mark.parametrize(
    ("bound", "looks", "message"),
    [
        ({"least": 3}, [{"r": 3}], "3 of 3"),
        ({"least": 3}, [{"r": 2}], None),
        ({"above": 3}, [{"r": 3}], None),
        ({"above": 3}, [{"r": 4}], "4 of 3"),
        ({"below": 1}, [{"r": 0}], "0 of 1"),
        ({"least": "most"}, [{"r": 90, "most": 90}], "90 of 90"),
        ({"least": "most"}, [{"r": 90}], None),
        ({"below": "full", "times": 0.9}, [{"r": 95, "full": 100}], None),
        ({"below": "full", "times": 0.9}, [{"r": 80, "full": 100}], "80 of 100"),
        ({"least": 5, "plus": "s"}, [{"r": 2, "s": 3}], "5 of 5"),
        ({"least": 1, "of": "rise"}, [{"r": 7}], None),
        ({"least": 1, "of": "rise"}, [{"r": 7}, {"r": 9}], "+2 in 10 s of 1"),
        ({"least": 1, "of": "per_s"}, [{"r": 0}, {"r": 20}], "2 a second of 1"),
        ({"least": 3}, [{"other": 9}], None),
    ],
)
def test_a_fault_is_past_the_bound(
    bound: dict[str, object], looks: list[dict[str, float]], message: str | None
) -> None:
    assert faults(limit(**bound), *looks) == ([] if message is None else [message])
