"""The command on files of every kind: exit codes, JSON keys, mistakes all at once; the schema and the corpus it must hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from freehold.cli.node.health_diagnose import diagnose
from freehold.cli.terminal.output import UserMistakes
from freehold.core.places import read_tree
from freehold.health.agent.history_file import HistoryFile
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incident_file.read import read_incident, read_kernel_log
from freehold.health.incident_file.schema import IncidentFile, schema_text
from freehold.health.incidents.conclusions import diagnose_all, foremost
from freehold.health.incidents.history import Mark
from freehold.health.model.view import EngineView, Gpu, Gpus, Kernel, KernelLine, Reading, State, View, Volume

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests" / "corpus" / "incidents"
XID = "[  110.661566] NVRM: Xid (PCI:0000:65:00): 48, pid=7, name=python3, DBE (double bit error) ECC Error"
KEYS = [
    "hypothesis",
    "component",
    "confidence",
    "action",
    "evidence",
    "evidence_against",
    "what_would_change_it",
]


def run(*args: str, text: str | None = None) -> tuple[int, Result]:
    result = CliRunner().invoke(diagnose, list(args), input=text, standalone_mode=False)
    if isinstance(result.exception, UserMistakes):
        return 2, result
    assert result.exception is None, result.exception
    return result.return_value, result


def problems(result: Result) -> list[str]:
    assert isinstance(result.exception, UserMistakes)
    return [str(problem) for problem in result.exception.problems]


def test_a_fault_is_exit_3_and_json_has_every_key(tmp_path: Path) -> None:
    path = tmp_path / "incident.json"
    path.write_text(json.dumps({"kernel": [XID]}))
    code, result = run(str(path), "--json")
    said = json.loads(result.stdout)
    assert code == 3
    assert list(said)[:7] == KEYS
    assert (said["hypothesis"], said["action"], said["component"]) == (
        "hardware",
        "reset_gpu",
        "gpu:0000:65:00",
    )
    assert set(said["evidence"][0]) == {"what", "value", "source", "at_s", "baseline"}


@pytest.mark.parametrize(
    "data", ["{}", '{"kernel": []}', '{"kernel": ["usb 1-1: new high-speed USB device"], "node": "a"}']
)
def test_nothing_wrong_is_exit_0(tmp_path: Path, data: str) -> None:
    path = tmp_path / "incident.json"
    path.write_text(data)
    if data == "{}":
        assert run(str(path))[0] == 2, "an empty object tells nothing: that is a mistake"
        return
    code, result = run(str(path), "--json")
    said = json.loads(result.stdout)
    assert (code, said["hypothesis"], said["action"], said["problem"]) == (0, "undetermined", "none", False)


def test_a_kernel_log_alone_from_standard_input() -> None:
    code, result = run("--kernel-log", "-", text=f"{XID}\n[  111.0] usb 1-1: new device\n")
    assert code == 3
    assert "hardware" in result.stdout
    assert "what would change it" in result.stdout


def test_every_mistake_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "incident.json"
    wrong = {
        "kernal": [],
        "at": "soon",
        "counters": [{"name": "x", "before": [{}]}, 7],
        "findings": [{"verdict": "purple"}],
        "weather": "rain",
    }
    path.write_text(json.dumps(wrong))
    code, result = run(str(path))
    told = problems(result)
    assert code == 2
    for where in (
        "$.kernal",
        "$.at",
        "$.counters[0].before",
        "$.counters[1]",
        "$.findings[0].verdict",
        "$.findings[0].probe",
        "$.weather",
    ):
        assert any(where in line for line in told), where
    assert "did you mean 'kernel'?" in " ".join(told)


def test_lines_that_are_not_a_kernels_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "incident.json"
    path.write_text(json.dumps({"kernel": [XID, "Dear all,"]}))
    code, result = run(str(path), "--json")
    assert (code, json.loads(result.stdout)["ignored"]) == (3, ["$.kernel:2:1"])


def test_broken_json_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "incident.json"
    path.write_text('{"kernel": [\n  "x",,\n]}')
    code, result = run(str(path))
    assert code == 2
    assert problems(result)[0].startswith(f"{path}:2:")


def test_a_text_without_a_kernel_line_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("Dear all,\nplease find the log attached.\n")
    assert run("--kernel-log", str(path))[0] == 2


def test_a_byte_order_mark_in_front_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "incident.json"
    path.write_text(json.dumps({"kernel": [XID]}), encoding="utf-8-sig")
    code, result = run(str(path))
    assert code == 3, result.output


def test_yaml_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "incident.yaml"
    path.write_text(f'kernel:\n- "{XID}"\n')
    assert run(str(path))[0] == 3


def test_history_makes_a_repetition(tmp_path: Path) -> None:
    past = tmp_path / "history.jsonl"
    line = {"at_s": 1.0, "subject": "gpu:0000:61:00", "signature": "xid 119", "action": "reset_gpu"}
    past.write_text(json.dumps(line) + '\n{"torn')
    path = tmp_path / "incident.json"
    gsp = "NVRM: Xid (PCI:0000:61:00): 119, pid=7, name=python3, Timeout waiting for RPC from GSP!"
    path.write_text(json.dumps({"at": 1_764_237_600, "kernel": [{"text": gsp, "at": 1_764_237_600}]}))
    first = json.loads(run(str(path), "--json")[1].stdout)
    again = json.loads(run(str(path), "--json", "--history", str(past))[1].stdout)
    assert (first["action"], again["action"]) == ("reset_gpu", "reboot")


def view(at_s: float, *, lost: bool = False, tokens: int = 0, lines: tuple[KernelLine, ...] = ()) -> View:
    ecc = Reading(state=State.LOST) if lost else Reading(value=0)
    return View(
        at_s=at_s,
        monotonic_s=at_s,
        node="a",
        gpus=Gpus(gpus=(Gpu(index=0, readings={"ecc_uncorrected_volatile": ecc}),)),
        kernel=Kernel(lines=lines),
        volumes=(Volume(path="/models", reads_s=(0.0003,)),),
        engines=(
            EngineView(
                replica="r0", engine="vllm", tokens_total=Reading(value=tokens), running=Reading(value=2)
            ),
        ),
    )


@pytest.mark.parametrize("lines", [False, True])
def test_a_recording_is_read_as_a_list_or_a_view_a_line(tmp_path: Path, lines: bool) -> None:  # noqa: FBT001
    recording = [view(1_764_237_600.0), view(1_764_237_660.0, lost=True, tokens=50)]
    path = tmp_path / "views.json"
    parts = [msgspec.json.encode(one).decode() for one in recording]
    path.write_text("\n".join(parts) if lines else f"[{', '.join(parts)}]")
    code, result = run(str(path), "--json")
    said = json.loads(result.stdout)
    assert (code, said["hypothesis"], said["incident"]["node"]) == (3, "hardware", "a")


def test_a_recording_of_a_healthy_node_is_healthy(tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    path.write_bytes(msgspec.json.encode([view(1_764_237_600.0 + i, tokens=i * 10) for i in range(5)]))
    assert run(str(path))[0] == 0


def test_the_schema_in_the_documents_is_the_one_that_is_printed() -> None:
    assert run("--schema")[1].stdout == schema_text()
    assert (ROOT / "docs" / "incident.schema.json").read_text() == schema_text()


def test_every_key_of_the_schema_is_read() -> None:
    one: dict[str, Any] = {
        "node": "a", "at": 1_764_237_600, "about": "x", "xids": [{"xid": 13, "at": 1, "gpu": 0, "pid": "7", "name": "python3"}], "kernel": [{"text": XID, "at": 1_764_237_600, "facility": 0}],
        "gpus": [{"index": 0, "pci": "0000:65:00.0", "uuid": "GPU-1", "serial": "1"}],
        "counters": [
            {"name": "x", "gpu": 0, "before": 0, "after": 1, "siblings": [{"before": 0, "after": 0}], "unit": "ms", "source": "nvml"},
            {"name": "x", "disk": "/m"}, {"name": "x", "interface": "eth0"}, {"name": "x", "peer": "b"}, {"name": "x", "replica": "r0"},
            {"name": "x", "host": "a"}, {"name": "x", "component": "gpu:0"},
        ],
        "findings": [{"probe": "clock", "component": "clock", "verdict": "healthy", "reason": "", "message": "", "at": 1}],
        "engines": [
            {"replica": "r0", "engine": "vllm", "exit_code": 0, "signal": None, "log_tail": [], "state": "", "tokens_before": 1,
             "tokens_after": 2, "running": 1, "at": 1}
        ],
        "context": {"lock_changed_at": 1, "drift": [], "other_nodes": [], "operator": {"action": "x", "at": 1, "component": ""},
                    "follows_workload": False, "stays_with_gpu": False, "notes": []},
        "history": [{"at": 1, "gpu": "0", "serial": "1", "component": "", "xid": 1, "signature": "", "place": "", "action": "none"}],
        "views": [],
    }  # fmt: skip
    msgspec.convert(one, IncidentFile)
    assert set(one) == {field.name for field in msgspec.structs.fields(IncidentFile)}
    told = read_incident(one, "x")
    assert (told.problems, told.ignored) == ((), ())


def corpus() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(CORPUS.glob("*.yaml")):
        tree = read_tree(path.read_text("utf-8"), path.name)
        assert not tree.mistakes, tree.mistakes
        assert isinstance(tree.data, dict)
        found.extend((path.stem, entry) for entry in tree.data["incidents"])
    return found


def test_the_corpus_is_large_and_justified() -> None:
    entries = [entry for _, entry in corpus()]
    assert len(entries) >= 60
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert all(len(entry["why"]) > 20 for entry in entries)
    labels = {entry["label"] for entry in entries}
    assert labels == {
        "hardware",
        "software",
        "driver",
        "facility",
        "network",
        "storage",
        "configuration",
        "undetermined",
        "none",
    }


def test_the_bars_hold_on_the_corpus() -> None:
    scored = []
    for part, entry in corpus():
        told = read_incident(entry["file"], entry["id"])
        assert not told.problems, told.problems
        assert not told.ignored, told.ignored
        main = foremost(diagnose_all(told.cases))
        scored.append(
            (part, entry["label"], "none" if main is None or not main.problem else str(main.hypothesis))
        )
    for chosen in ([s for s in scored if s[0] == "held_out"], [s for s in scored if s[0] != "held_out"]):
        good = [said in {label, "undetermined"} for _, label, said in chosen]
        hardware = [said == "hardware" != label for _, label, said in chosen]
        dodged = [said == "undetermined" != label for _, label, said in chosen]
        assert sum(good) >= 0.95 * len(chosen)
        assert sum(hardware) <= 0.01 * len(chosen)
        assert sum(dodged) <= 0.15 * len(chosen)


VICTIMS: list[tuple[str, list[Any]]] = [
    ("engines", [{"replica": "zz", "engine": "vllm", "exit_code": 1, "log_tail": ["Traceback (most recent call last):", "RuntimeError: died"]}]),
    ("engines", [{"replica": "zz", "engine": "llama-cpp", "exit_code": -9}]),
    ("engines", [{"replica": "zz", "engine": "vllm", "state": "stalled", "tokens_before": 5, "tokens_after": 5, "running": 2}]),
    ("xids", [{"xid": 45}]),
    ("notes", ["all power supplies are fine, inlet 24 C"]),
]  # fmt: skip


@pytest.mark.parametrize("victim", VICTIMS, ids=["exception", "killed", "stalled", "preempted", "note"])
def test_what_only_suffers_or_says_nothing_changes_no_verdict(victim: tuple[str, list[Any]]) -> None:
    key, more = victim
    changed = []
    for _, entry in corpus():
        if entry["label"] in {"software", "undetermined", "none"}:
            continue
        file = {**entry["file"], "context": {**entry["file"].get("context", {})}}
        holder = file["context"] if key == "notes" else file
        holder[key] = [*holder.get(key, []), *more]
        main = foremost(diagnose_all(read_incident(file, entry["id"]).cases))
        said = str(main.hypothesis) if main is not None else "none"
        if said not in {entry["label"], "undetermined"}:
            changed.append((entry["id"], said))
    assert not changed


def test_benign_kernel_lines_raise_nothing() -> None:
    path = CORPUS.parent / "kernel_benign.txt"
    lines = [
        line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("# ")
    ]
    for start in range(0, len(lines), 25):
        for end in (start + 25, start + 150, len(lines)):
            main = foremost(diagnose_all(read_kernel_log("\n".join(lines[start:end])).cases))
            assert main is None or not main.problem, (start, end, main.summary)


def test_the_report_reads_as_it_did(golden: Callable[[str, str], None], tmp_path: Path) -> None:
    shown = []
    for name in ("h01-dbe-with-cascade", "h08-one-109", "h12-throttled-volume", "h16-busy-at-its-cap"):
        entry = next(entry for _, entry in corpus() if entry["id"] == name)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(entry["file"]))
        code, result = run(str(path))
        shown.append(f"$ freehold health diagnose {name}.json\n{result.stdout}(exit code {code})\n")
    golden("health_diagnose.txt", "\n".join(shown))


GSP = "NVRM: Xid (PCI:0000:61:00): 119, pid=7, name=python3, Timeout waiting for RPC from GSP!"
NOW_S = 1_764_237_600


def gsp_incident(tmp_path: Path) -> Path:
    path = tmp_path / "incident.json"
    card = {"index": 0, "pci": "00000000:61:00.0", "serial": "1650522000001"}
    path.write_text(
        json.dumps({"at": NOW_S, "gpus": [card], "kernel": [{"text": GSP, "at": NOW_S}], "node": "a"})
    )
    return path


def test_a_history_by_serial_number_is_found_and_what_was_set_healthy_does_not_trip_again(
    tmp_path: Path,
) -> None:
    keeper = HistoryFile(tmp_path / "history.jsonl")
    earlier = PastFault(
        at_s=NOW_S - 900, subject="gpu:1650522000001", signature="xid 119", action="reset_gpu"
    )
    keeper.add([earlier], now_s=NOW_S)
    arguments = (str(gsp_incident(tmp_path)), "--json", "--history", str(keeper.path))
    assert json.loads(run(*arguments)[1].stdout)["action"] == "reboot"
    keeper.mark(Mark(set_healthy_s=NOW_S - 600, subject="gpu:1650522000001", by="ann"))
    assert (
        json.loads(run(*arguments)[1].stdout)["action"] == "reset_gpu"
    )  # a new fault: it trips, as the first
    keeper.mark(Mark(set_healthy_s=NOW_S + 5, subject="gpu:another", by="ann"))
    assert run(*arguments)[0] == 3
    keeper.mark(Mark(set_healthy_s=NOW_S + 5, by="ann"))
    code, result = run(*arguments)
    assert (code, json.loads(result.stdout)["problem"]) == (0, False)


def test_lines_without_a_date_are_not_taken_for_older_than_a_mark(tmp_path: Path) -> None:
    keeper = HistoryFile(tmp_path / "history.jsonl")
    keeper.mark(Mark(set_healthy_s=NOW_S, by="ann"))
    log = tmp_path / "dmesg"
    log.write_text(f"{XID}\n")
    assert run("--kernel-log", str(log), "--history", str(keeper.path))[0] == 3


@pytest.mark.parametrize("flag", [(), ("--kernel-log",)])
def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path: Path, flag: tuple[str, ...]) -> None:
    for path, words in ((tmp_path / "nope.json", "No such file"), (tmp_path, "Is a directory")):
        code, result = run(*flag, str(path))
        assert code == 2
        assert isinstance(result.exception, UserMistakes)
        (problem,) = result.exception.problems
        assert problem.where == str(path)
        assert words in problem.message
