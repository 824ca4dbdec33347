"""The cage of an engine on this kernel, tried from inside: by a small program, and by llama.cpp and vLLM themselves."""

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import freehold
from freehold.engines import llama_cpp, vllm
from freehold.engines.base import Command, Engine, Option, Placement
from freehold.fleet.control import audit
from freehold.fleet.control.client import Line
from freehold.fleet.control.server import ControlServer
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan, log_path
from freehold.fleet.environments.lookup import Environment
from freehold.fleet.probe import HttpProber
from freehold.fleet.processes import cage
from freehold.fleet.processes.cage_rules import MARK, NAMES, PREFIXES, cage_of
from freehold.fleet.processes.launch_process import EngineExited, EngineStarted, ProcessLauncher, Report
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from freehold.weights.convert import Converted
from waiting import until

SECRETS = {
    "DATABASE_URL": "postgres://u:p@h/d",
    "PGPASSWORD": "p",
    "GITHUB_PAT": "ghp",
    "HF_TOKEN": "hf",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "PYTHONPATH": "/nowhere",
}
SPOOL = Path(f"/dev/shm/freehold-test-{os.getpid()}")
landlocked = pytest.mark.skipif(
    cage.landlock_version(ctypes.CDLL(None, use_errno=True)) == 0, reason="this kernel has no Landlock"
)
CONTROL = """
import json, os, socket, sys
def stop_stack(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.sendall(b'{"op": "stop"}\\n')
    return client.makefile().readline()
"""
NO_CONTROL = "an engine may not control the stack"
TRY = f"""
{CONTROL}
def tried(do):
    try:
        do()
        return "yes"
    except OSError as exc:
        return type(exc).__name__
reads, writes, pid, control = json.loads(sys.argv.pop(1))
found = {{path: tried(lambda: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)) for path in reads}}
found |= {{"write " + path: tried(lambda: open(path, "ab").close()) for path in writes}}
found["signal"] = tried(lambda: os.kill(pid, 0))
found["environ"] = tried(lambda: open(f"/proc/{{pid}}/environ", "rb").read(1))
for name in ("HOME", "TMPDIR"):
    found[name] = tried(lambda: open(os.environ[name] + "/mine", "wb").write(b"x"))
found["scratch"] = os.environ["TMPDIR"]
found["control"] = stop_stack(control)
print("TRIED " + json.dumps(found), flush=True)
"""


@dataclass
class Owner:
    """What the user who runs the stack has, and an engine must not reach."""

    root: Path
    private: list[Path] = field(default_factory=list)

    @classmethod
    def at(cls, root: Path) -> "Owner":
        names = (
            "keys.json",
            "state/ledger.sqlite",
            "state/logs/gateway.log",
            "state/logs/other.files/secret",
            ".ssh/id",
        )
        owner = cls(root)
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("private")
            owner.private.append(path)
        return owner

    @property
    def settings(self) -> FleetSettings:
        return FleetSettings(log_dir=self.root / "state/logs", stop_grace_s=3.0)


def trying(engine: Engine, owner: Owner, weights: Path, then: str) -> Engine:
    """Return the engine with a program that first tries everything and then runs `then` as the engine's own program."""
    made = engine.command
    reads = [
        str(path) for path in (*owner.private, SPOOL, weights, Path("/etc/shadow"), Path("/usr"), owner.root)
    ]
    weights_file = next((each for each in weights.glob("*")), weights)
    control = str(owner.root / "state/control.sock")
    asked = json.dumps([reads, [str(owner.private[0]), str(weights_file)], os.getpid(), control])

    def command(placement: Placement) -> Command:
        assert made is not None
        plain = made(placement)
        python = str(placement.environment / "bin/python") if placement.environment else sys.executable
        words = plain.argv[4:] if plain.argv[0] == sys.executable else plain.argv[1:]
        return replace(plain, argv=(python, "-P", "-c", TRY + then, asked, *words))

    return replace(engine, command=command)


def told_by(log: Path) -> dict[str, str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("TRIED ")]
    found: dict[str, str] = json.loads(lines[0][6:]) if lines else {}
    return found


@contextlib.asynccontextmanager
async def controlled(owner: Owner) -> AsyncIterator[None]:
    """Run the stack's control socket; at its end it was asked nothing that it heard."""
    asked: list[object] = []

    async def answer(request: dict[str, Any]) -> AsyncIterator[Line]:
        asked.append(request)
        yield {"done": True}

    state = StateDir(owner.root / "state")
    assert state.claim(config_path="x.yaml") is None
    try:
        async with ControlServer(state, answer):
            yield
    finally:
        state.release()
    assert not asked
    (line,) = (owner.root / "state" / "logs" / audit.REJECTED_NAME).read_text().splitlines()
    assert json.loads(line)["why"] == NO_CONTROL


def caged(
    plan: ReplicaPlan, owner: Owner, look: Callable[[psutil.Process], None], wait_s: float
) -> dict[str, str]:
    """Start a replica, wait until it answers, look at its process, end it; return what it found from inside."""
    settings, log = owner.settings, log_path(owner.settings.log_dir, plan.id)

    async def run() -> dict[str, str]:
        async with controlled(owner):
            return await try_it()

    async def try_it() -> dict[str, str]:
        reports: list[Report] = []
        launcher = ProcessLauncher(settings)
        launcher.launch(plan, reports.append)
        try:
            await until(lambda: told_by(log), what="what the engine tried", timeout_s=wait_s)
            await until(lambda: reports, what="a report")
            first = reports[0]
            assert isinstance(first, EngineStarted), log.read_text()
            prober = HttpProber(settings)
            async with asyncio.timeout(wait_s):
                while not (await prober.ask(plan, first.url)).ok:
                    assert not isinstance(reports[-1], EngineExited), log.read_text()
                    await asyncio.sleep(0.2)
            look(psutil.Process(first.pid))
        finally:
            await launcher.close()
        return told_by(log)

    return asyncio.run(run())


async def end_of(owner: Owner, engine: Engine, **options: str) -> EngineExited:
    """Run an engine whose program ends by itself; return its last report."""
    reports: list[Report] = []
    launcher = ProcessLauncher(owner.settings)
    launcher.launch(ReplicaPlan(id="m-0", model="m", engine=engine, options=options), reports.append)
    try:
        await until(lambda: reports and isinstance(reports[-1], EngineExited), what="the end")
    finally:
        await launcher.close()
    last = reports[-1]
    assert isinstance(last, EngineExited)
    return last


def ended(owner: Owner, engine: Engine, **options: str) -> EngineExited:
    return asyncio.run(end_of(owner, engine, **options))


def check_process(process: psutil.Process, engine: Engine) -> None:
    """Check what the kernel says of an engine: environment by the list, no new privileges, no capabilities, no core files."""
    prefixes = (*PREFIXES, *(name for name in engine.variables if name.endswith("_")))
    names = {*NAMES, *engine.variables, MARK, "HOME", "TMPDIR", "PYTHONUSERBASE", "CUDA_VISIBLE_DEVICES"}
    names |= {"DO_NOT_TRACK", "LD_LIBRARY_PATH"}
    for each in (process, *process.children(recursive=True)):
        seen = Path(f"/proc/{each.pid}/status").read_text().split("\n")
        status = dict(line.split(":\t", 1) for line in seen if ":\t" in line)
        assert status["NoNewPrivs"] == "1"
        assert {status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
        assert each.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    held = process.environ()
    assert not {name for name in held if name not in names and not name.startswith(prefixes)}
    assert not set(held) & set(SECRETS)


def check_spool(found: dict[str, str]) -> None:
    """Check that the machine's shared memory was out of reach; without the right to mount, vLLM's engines are let in."""
    if os.geteuid() == 0:
        assert found[str(SPOOL)] in ("PermissionError", "FileNotFoundError")


def check_tried(found: dict[str, str], owner: Owner, weights: Path) -> None:
    assert {found[str(path)] for path in owner.private} == {"PermissionError"}
    refused = (
        "/etc/shadow",
        str(owner.root),
        "signal",
        "environ",
        *(name for name in found if name.startswith("write ")),
    )
    assert {name: found[name] for name in refused} == dict.fromkeys(refused, "PermissionError")
    assert {found[name] for name in (str(weights), "/usr", "HOME", "TMPDIR")} == {"yes"}
    assert f'"error":"{NO_CONTROL}"' in found["control"]


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    SPOOL.write_text("private")
    yield Owner.at(tmp_path)
    SPOOL.unlink()


LLAMA = "import runpy; runpy.run_module('freehold.engines.programs.xllamacpp_server', run_name='__main__')"


VLLM = "import runpy; sys.argv[0] = 'vllm'; from vllm.entrypoints.cli.main import main; main()"


@landlocked
@pytest.mark.real_model
def test_llama_cpp_reaches_its_weights_and_nothing_of_the_owner(owner: Owner, weights_path: Path) -> None:
    engine = trying(llama_cpp.ENGINE, owner, weights_path, LLAMA)
    plan = ReplicaPlan(id="m-0", model="m", engine=engine, weights=weights_path, options={"n_ctx": 512})
    found = caged(plan, owner, lambda process: check_process(process, engine), 30.0)
    check_tried(found, owner, weights_path)
    check_spool(found)
    assert not Path(found["scratch"]).exists()


@landlocked
@pytest.mark.real_model
@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get("ENGINES"), reason="a minute of a real server: make engines")
def test_vllm_reaches_its_weights_and_nothing_of_the_owner(
    owner: Owner, vllm_environment: Environment, vllm_weights: Converted
) -> None:
    engine = trying(vllm.ENGINE, owner, vllm_weights.path, VLLM)
    options = {"max_model_len": 512, "enforce_eager": True, "cpu_kv_cache_gib": 1, "cpu_threads": 1}
    plan = ReplicaPlan(
        id="m-0",
        model="m",
        engine=engine,
        weights=vllm_weights.path,
        options=options,
        environment=vllm_environment.path,
    )
    found = caged(plan, owner, lambda process: check_process(process, engine), 250.0)
    check_tried(found, owner, vllm_weights.path)
    check_spool(found)


@landlocked
def test_a_program_that_is_not_among_the_systems_runs_with_what_lies_beside_it(
    owner: Owner, tmp_path: Path
) -> None:
    program = tmp_path / "own" / "bin" / "serve"
    for name, text in (
        ("bin/serve", "#!/bin/sh\ncat ${0%/*}/../lib/words ${0%/*}/../secret\n"),
        ("lib/words", "it ran\n"),
        ("secret", "no\n"),
    ):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program.chmod(0o755)
    last = ended(owner, replace(FAKE_ENGINE, command=lambda _placement: Command(argv=(str(program),))))
    assert last.tail[0] == "it ran"
    assert "Permission denied" in last.tail[1]


@landlocked
def test_what_an_option_names_is_reached_and_only_folders_to_write_to_are_changed(
    owner: Owner, tmp_path: Path
) -> None:
    slots, draft, template = tmp_path / "slots", tmp_path / "draft", tmp_path / "template"
    slots.mkdir()
    draft.mkdir()
    (draft / "config").write_text("draft")
    template.write_text("hello")
    code = f"""
import os
def tried(path, mode):
    try:
        return open(path, mode).read() if mode == "r" else str(open(path, mode))[:0] + "written"
    except OSError as exc:
        return type(exc).__name__
print(tried('{slots}/x', 'w'), tried('{draft}/config', 'r'), tried('{draft}/config', 'a'), tried('{template}', 'r'), tried('{template}', 'a'))
print(tried('{owner.private[0]}', 'r'))
"""
    options = (
        Option(name="slot_save_path", type="str", help="h", file=True),
        Option(name="lora_scaled", type="str", help="h", file=True),
        Option(name="speculative_config", type="str", help="h", json="any"),
        Option(name="root_path", type="str", help="h"),
    )
    engine = replace(
        FAKE_ENGINE, options=options, command=lambda _placement: Command(argv=(sys.executable, "-c", code))
    )
    values = {
        "slot_save_path": str(slots),
        "lora_scaled": f"{template}:0.5,/nowhere:1",
        "speculative_config": json.dumps({"model": str(draft)}),
        "root_path": "/",
    }
    last = ended(owner, engine, **values)
    assert last.tail == ("written draft PermissionError hello PermissionError", "PermissionError")


def test_an_engine_may_not_control_the_stack(owner: Owner) -> None:
    """Nor where the kernel has no Landlock."""
    code = CONTROL + "print(stop_stack(sys.argv[1]))"
    argv = (sys.executable, "-c", code, str(owner.root / "state/control.sock"))

    async def run() -> EngineExited:
        async with controlled(owner):
            return await end_of(owner, replace(FAKE_ENGINE, command=lambda _placement: Command(argv=argv)))

    assert f'"error":"{NO_CONTROL}"' in asyncio.run(run()).tail[0]


def test_without_landlock_the_rest_of_the_cage_holds(owner: Owner) -> None:
    """The minder's own code, with a kernel whose system call answers ENOSYS."""
    rules = cage_of(
        ReplicaPlan(id="m-0", model="m", engine=FAKE_ENGINE),
        {MARK: secrets.token_hex(8)},
        folder=owner.root / "own",
    )
    code = "import sys; from pathlib import Path; print(Path('/proc/self/status').read_text()); print(Path(sys.argv[1]).read_text())"
    wrapped = f"""
import ctypes, json, os, sys
sys.path[:0] = [{str(Path(freehold.__file__).parent.parent)!r}]
from freehold.fleet.processes import cage
cage.landlock_version = lambda libc: 0
argv = [sys.executable, "-c", {code!r}, {str(owner.private[0])!r}]
cage.confine(json.loads(sys.argv[1]), argv, ctypes.CDLL(None, use_errno=True))
os.execv(argv[0], argv)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", wrapped, json.dumps(rules)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "NoNewPrivs:\t1" in done.stdout
    assert f"CapEff:\t{'0' * 16}" in done.stdout
    assert done.stdout.endswith("private\n")


def test_the_device_for_cudas_memory_is_made_before_the_cage_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modprobe = tmp_path / "nvidia-modprobe"
    modprobe.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    modprobe.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    cage._load_uvm(str(tmp_path))
    assert not (tmp_path / "asked").exists()
    (tmp_path / "nvidiactl").touch()
    cage._load_uvm(str(tmp_path))
    assert (tmp_path / "asked").read_text() == "-u -c 0\n"
    (tmp_path / "asked").unlink()
    (tmp_path / "nvidia-uvm").touch()
    cage._load_uvm(str(tmp_path))
    assert not (tmp_path / "asked").exists()


class Kernel:
    """A kernel with a version of Landlock; negative: it does not know the system call."""

    def __init__(self, version: int) -> None:
        self.version = version

    def syscall(self, *_words: object) -> int:
        return self.version


def test_what_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def ways(version: int) -> list[str]:
        return [said.split(":")[0] for said, _ in cage.open_ways(Kernel(version))]  # type: ignore[arg-type]

    monkeypatch.setattr(cage, "_may_mount", lambda: True)
    assert ways(7) == []
    signals = "sending signals to this user's processes"
    assert ways(5) == [f"Landlock's version 5 cannot keep engines from {signals}"]
    lacks = ("emptying this user's files, keys and ledger too", signals)
    assert ways(2) == [f"Landlock's version 2 cannot keep engines from {lack}" for lack in lacks]
    assert ways(-1) == ["the kernel has no Landlock"]
    monkeypatch.setattr(cage, "_may_mount", lambda: False)
    assert "/dev/shm" in ways(7)[0]
