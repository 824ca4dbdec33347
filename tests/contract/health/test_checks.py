"""Every probe keeps the contract, the kit notices each way to break it, and what is known of a card gives what it must."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.agent.recording import load_recording
from freehold.health.model.probe import Expected, Probe, Threshold
from freehold.health.model.view import View
from freehold.health.registry import all_probes
from freehold.testing.check_probe import check_probe
from health_facts import recordings
from healthy_node import DATA, healthy_views
from recordings import record

PROBES = all_probes()
FACTS = Path(__file__).resolve().parents[3].parent / "shared" / "facts"
CARD = "gpu:GPU-00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize("name", PROBES)
def test_the_probe_keeps_the_contract(name: str) -> None:
    check_probe(PROBES[name], healthy_views())


def test_each_probe_file_is_found() -> None:
    folder = Path(__file__).resolve().parents[3] / "freehold" / "health" / "checks"
    files = {path.stem for path in folder.glob("[!_]*.py")}
    assert set(PROBES) == files
    assert {"gpu_temperature", "gpu_present", "driver"} <= files


GOOD = PROBES["gpu_temperature"]


def told(probe: Probe) -> str:
    with pytest.raises(AssertionError) as failure:
        check_probe(probe, healthy_views(1))
    return str(failure.value)


def test_the_kit_tells_what_is_not_declared() -> None:
    probe = dataclasses.replace(
        GOOD,
        summary="",
        reasons={"Bad": "x"},
        thresholds=(Threshold(name="t", value=float("nan"), source=""),),
        window_s=0,
        reads=(),
    )
    words = told(probe)
    for part in (
        "summary",
        "'Bad' must be",
        "'t' has no source",
        "must be positive",
        "must read some",
        "is not declared",
    ):
        assert part in words


def answering(verdict: Verdict, views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    return [Finding(probe="gpu_temperature", component="gpu:x", verdict=verdict, reason="ok", message="m")]


def altered(change: dict[str, object], views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    return [dataclasses.replace(finding, **change) for finding in GOOD.check(views, expected)]  # type: ignore[arg-type]


def behaving(check: partial[Sequence[Finding]]) -> Probe:
    # The kit takes the file's name from the function's module.
    def run(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
        return check(views, expected)

    return dataclasses.replace(GOOD, check=run)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (partial(answering, Verdict.HEALTHY), "an empty view: it is HEALTHY without data"),
        (partial(answering, Verdict.DEGRADED), "on a healthy node it says gpu:x degraded ok"),
        (partial(answering, Verdict.NOT_APPLICABLE), "it says nothing is healthy"),
        (partial(altered, {"reason": "other"}), "the reason 'other' is not declared"),
        (partial(altered, {"message": ""}), "no message of one line"),
        (partial(altered, {"probe": "me"}), "calls its probe 'me'"),
    ],
)
def test_the_kit_tells_how_it_answers(check: partial[Sequence[Finding]], words: str) -> None:
    assert words in told(behaving(check))


def test_the_kit_tells_a_reading_whose_failure_is_taken_for_health() -> None:
    def blind(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
        return [
            dataclasses.replace(finding, verdict=Verdict.HEALTHY, reason="ok")
            if finding.reason == "unreadable"
            else finding
            for finding in GOOD.check(views, expected)
        ]

    words = told(dataclasses.replace(GOOD, check=blind))
    assert "all its readings hung: it is still HEALTHY" in words
    assert "gpus.gpus.0.readings.margin_c denied: it is still HEALTHY" in words


def test_the_kit_tells_an_impure_probe() -> None:
    def timed(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
        return GOOD.check(views, expected)

    timed.__module__ = "freehold.health.collectors.nvml_process"
    words = told(dataclasses.replace(GOOD, check=timed))
    assert "it imports freehold.core.clock" in words
    assert "it imports subprocess" in words


def replayed(name: str, until: int | None = None) -> dict[tuple[str, str], Finding]:
    views = load_recording(DATA / f"{name}.jsonl").views[:until]
    expected = Expected(gpus=1, driver_version="580.159.04")
    found = [
        finding
        for probe in PROBES.values()
        if probe.reads[0] == "gpus"
        for finding in probe.check(views, expected)
    ]
    return {(finding.probe, finding.component): finding for finding in found}


@pytest.mark.parametrize("name", ["h100_idle", "h100_healthy_full_load"])
def test_a_healthy_card_replays_as_healthy_at_every_moment(name: str) -> None:
    """At its power cap, with clocks far below their maximum: all normal."""
    for moment in range(1, len(load_recording(DATA / f"{name}.jsonl").views) + 1):
        findings = replayed(name, moment)
        assert findings.pop(("gpu_nvlink", CARD)).verdict is Verdict.NOT_APPLICABLE
        assert {finding.verdict for finding in findings.values()} == {Verdict.HEALTHY}


def test_a_hung_kernel_is_seen_in_the_power_alone() -> None:
    findings = replayed("h100_hung_kernel", -1)
    bad = {
        key for key, finding in findings.items() if finding.verdict in (Verdict.DEGRADED, Verdict.UNHEALTHY)
    }
    assert bad == {("gpu_power", CARD)}
    found = findings["gpu_power", CARD]
    assert (found.reason, found.action) == ("busy_at_idle_power", Action.RESTART_ENGINE)
    assert {item.what for item in found.evidence} == {"utilisation_percent", "power_w", "sm_clock_mhz"}


def test_a_programs_illegal_address_blames_no_hardware() -> None:
    findings = replayed("h100_illegal_address")
    assert not [f for f in findings.values() if f.verdict in (Verdict.DEGRADED, Verdict.UNHEALTHY)]
    views = load_recording(DATA / "h100_illegal_address.jsonl").views
    assert views[-1].kernel is not None
    assert "NVRM: Xid (PCI:0000:00:06): 31" in views[-1].kernel.lines[0].text


@pytest.mark.skipif(not FACTS.exists(), reason="the measured facts are not beside this checkout")
def test_the_recordings_are_what_was_measured(tmp_path: Path) -> None:
    """Written anew by `python tests/health_facts.py`."""
    for name, head, views in recordings(FACTS):
        record(tmp_path / "again.jsonl", views, head)
        assert (tmp_path / "again.jsonl").read_bytes() == (DATA / f"{name}.jsonl").read_bytes(), name
