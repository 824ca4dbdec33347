"""`freehold health` and `freehold doctor` as a script sees them, without a stack: one look, a record, its replay, a diagnosis."""

import ctypes
import json
import socket
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from freehold.cli.main import cli
from freehold.core.findings import Verdict
from freehold.fleet.processes.cage import open_ways
from freehold.health.agent.recording import RecordingHead, load_recording
from freehold.health.model.probe import Expected
from freehold.health.model.view import Reading, View
from healthy_node import DATA, healthy_views
from recordings import record

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEHOLD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FREEHOLD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def said(result: Result) -> dict[str, object]:
    answer = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def test_one_look_leaves_nothing_behind(place: Path) -> None:
    folder = place / "cache" / "weights"
    folder.mkdir(parents=True)
    result = run("health", "--json")
    assert result.return_value in (0, 3), result.output  # this machine may well have something
    answer = said(result)
    assert answer["pid"] == 0
    probes = {each["finding"]["probe"] for each in answer["findings"]}  # type: ignore[union-attr]
    assert {
        "storage_latency",
        "storage_write",
        "disk_space",
        "memory_pressure",
        "clock",
        "network_link",
        "gpu_present",
    } <= probes
    assert "engine_progress" not in probes  # nobody knows of any engine
    assert reasons(answer, "storage_write") != {f"disk:{folder}": "learning"}  # enough writes for a word
    assert not list(folder.iterdir())


def test_a_record_is_what_is_replayed(place: Path) -> None:
    result = run("health", "record", "here.jsonl", "--for", "5s", "--json")
    assert result.return_value == 0, result.output
    assert int(str(said(result)["views"])) >= 1
    replayed = run("health", "replay", "here.jsonl", "--json")
    assert replayed.return_value in (0, 3), replayed.output
    assert said(replayed)["findings"]
    again = run("health", "record", "here.jsonl", "--for", "5s")
    assert "is there already" in str(again.exception)


def later(view: View, seconds: int) -> View:
    """Return a recorded view as it would be so much later: the card draws its 124 W meanwhile."""
    assert view.gpus is not None
    (card,) = view.gpus.gpus
    energy = card.readings["energy_mj"].value
    assert isinstance(energy, int)
    readings = {**card.readings, "energy_mj": Reading(value=energy + 124_400 * seconds)}
    gpus = msgspec.structs.replace(view.gpus, gpus=(msgspec.structs.replace(card, readings=readings),))
    at_s, monotonic_s = view.at_s + seconds, view.monotonic_s + seconds
    return msgspec.structs.replace(view, at_s=at_s, monotonic_s=monotonic_s, gpus=gpus)


def test_the_recorded_card_replays_as_healthy_and_a_kernel_that_hangs_on_does_not(tmp_path: Path) -> None:
    healthy = run("health", "replay", str(DATA / "h100_healthy_full_load.jsonl"))
    assert healthy.return_value == 0, healthy.output
    assert "incident" not in healthy.output
    # It was recorded for some seconds only: here it hangs for minutes.
    view = load_recording(DATA / "h100_hung_kernel.jsonl").views[-2]
    views = [later(view, seconds) for seconds in range(0, 200, 10)]
    record(tmp_path / "hung.jsonl", views)
    hung = run("health", "replay", str(tmp_path / "hung.jsonl"), "--json")
    assert hung.return_value == 3, hung.output
    assert said(hung)["problem_seen"] is True
    (incident,) = said(hung)["incidents"]  # type: ignore[misc]
    assert (incident["hypothesis"], incident["action"]) == ("software", "restart_engine")


EXPECT = "version: 1\nmodels:\n  - {name: a, engine: external, endpoints: ['http://127.0.0.1:1']}\nhealth:\n"


def expecting(place: Path, expect: str, name: str = "freehold.yaml") -> None:
    (place / name).write_text(f"{EXPECT}  storage: {{path: 'off'}}\n  expect: {{{expect}}}\n")


def reasons(answer: dict[str, object], probe: str) -> dict[str, str]:
    found = [each["finding"] for each in answer["findings"]]  # type: ignore[attr-defined]
    return {each["component"]: each["reason"] for each in found if each["probe"] == probe}


def test_one_look_a_record_and_the_doctor_compare_with_what_the_node_should_have(place: Path) -> None:
    expecting(place, "gpus: 63, rdma_ports: [nobody_has_this], link_mbit_s: {nobody0: 1000, lo: 1}")
    looked = said(run("health", "--json"))
    assert reasons(looked, "gpu_present")["gpus"] == "missing"
    assert reasons(looked, "rdma")["link:nobody_has_this"] == "missing"
    links = reasons(looked, "network_link")
    assert links["link:nobody0"] == "missing"
    assert links["link:lo"] != "missing"  # what is named is read, whatever it is
    result = run("doctor", "--json")
    assert result.return_value == 3
    checks = [c for c in said(result)["checks"] if c["name"] == "gpu_present"]  # type: ignore[attr-defined]
    assert any("of 63 GPUs are there" in check["said"] for check in checks if check["found"] == "problem")
    run("health", "record", "here.jsonl", "--for", "4s")
    (place / "freehold.yaml").unlink()
    assert load_recording(place / "here.jsonl").head.expected.gpus == 63
    assert reasons(said(run("health", "replay", "here.jsonl", "--json")), "gpu_present")["gpus"] == "missing"


def test_a_replay_compares_with_what_stands_in_the_record_or_in_a_configuration_that_is_named(
    place: Path,
) -> None:
    def replayed(*more: str) -> tuple[object, str, str]:
        result = run("health", "replay", "node.jsonl", "--json", *more)
        answer = said(result)
        return (
            result.return_value,
            reasons(answer, "gpu_present")["gpus"],
            reasons(answer, "driver")["driver"],
        )

    views = healthy_views(2)
    gpus = views[-1].gpus
    assert gpus is not None
    record(
        place / "node.jsonl",
        views,
        RecordingHead(expected=Expected(gpus=len(gpus.gpus) + 1, driver_version="1.2")),
    )
    expecting(place, f"gpus: {len(gpus.gpus)}")  # of this node, not of the recorded one
    assert replayed() == (3, "missing", "not_as_locked")
    expecting(place, f"gpus: {len(gpus.gpus)}", "other.yaml")
    assert replayed("--config", "other.yaml") == (0, "ok", "ok")


def test_a_replay_of_a_whole_node(tmp_path: Path) -> None:
    path = tmp_path / "node.jsonl"
    record(path, healthy_views(2))
    result = run("health", "replay", str(path), "--json")
    assert result.return_value == 0, result.output
    assert said(result)["verdict"] == Verdict.HEALTHY


@pytest.mark.parametrize(
    "arguments",
    [
        ("health", "record", "x", "--for", "soon"),
        ("health", "replay", "nowhere.jsonl"),
        ("health", "diagnose"),
    ],
)
def test_mistakes_are_the_users(place: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert getattr(result.exception, "exit_code", None) == 2, result.output


def test_the_doctor_finds_this_machine_ready_or_says_what_is_missing(place: Path) -> None:
    result = run("doctor", "--json")
    answer = said(result)
    checks = {each["name"]: each for each in answer["checks"]}  # type: ignore[union-attr]
    assert checks["configuration"]["found"] == "good"
    assert checks["weights"]["found"] == "warning"
    assert "`freehold up` fetches them" in checks["weights"]["fix"]
    lacks = list(open_ways(ctypes.CDLL(None, use_errno=True)))
    assert checks["engine_cage"]["found"] == ("warning" if lacks else "good")
    assert all(what in checks["engine_cage"]["said"] for what, _ in lacks)
    assert all(fix in checks["engine_cage"]["fix"] for _, fix in lacks)
    assert {
        "python",
        "cores",
        "memory",
        "port",
        "spool",
        "state_folder",
        "open_files",
        "engine",
        "clock",
    } <= set(checks)
    problems = [check for check in checks.values() if check["found"] == "problem"]
    assert answer["ready"] is not bool(problems)
    assert result.return_value == (3 if problems else 0)
    assert all(check.get("fix") for check in problems)


def test_the_doctor_names_a_wrong_configuration_and_a_taken_port(place: Path, free_port: int) -> None:
    (place / "freehold.yaml").write_text("version: 1\nmodels: []\n")
    result = run("doctor", "--json")
    assert result.return_value == 3
    found = said(result)["checks"]
    assert "f" in found[0]["said"]  # type: ignore[index]
    assert found[0]["found"] == "problem"  # type: ignore[index]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        (place / "freehold.yaml").write_text(
            "version: 1\nmodels:\n  - {name: a, engine: external, endpoints: ['http://127.0.0.1:1']}\n"
            f"gateway: {{listen: '127.0.0.1:{free_port}'}}\nhealth: {{storage: {{path: 'off'}}}}\n"
        )
        result = run("doctor", "--json")
    checks = {each["name"]: each for each in said(result)["checks"]}  # type: ignore[union-attr]
    assert checks["port"]["found"] == "problem"
    assert "ss -ltnp" in checks["port"]["fix"]
    assert result.return_value == 3
