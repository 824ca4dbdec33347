"""The checks of `freehold doctor` besides the health checks: interpreter, cores, memory, space, ports, limits, engines, folders.

Each check states what it found and, if that is not good, what to do. What cannot be read is unknown, never good. A check
leaves nothing behind.
"""

import ctypes
import importlib.util
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.engines import all_engines
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.processes.cage import open_ways
from freehold.gateway.callers.keys import why_refused
from freehold.gateway.server.descriptors import WANTED
from freehold.health.collectors.cgroup_limits import cpu_quota
from freehold.health.collectors.host import HostReader
from freehold.ledger.spool import spool_folder
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.config import Config
from freehold.stack.engine_environment import program_of
from freehold.stack.key_file import keys_path_for, read_keys_of
from freehold.stack.prebuilt_engines import engine_fits, local_folders
from freehold.stack.status import listen_hint
from freehold.weights.blobs import WeightsState
from freehold.weights.store import Store, store_root

PYTHON_LEAST = (3, 11)
"""Source: `requires-python` of the package."""
FREE_LEAST_BYTES = 5 * 1024**3
"""Room for logs (128 MiB each), the ledger and an update. Source: our own choice."""
ENGINE_ROOM = 1.3
"""Memory of a replica per byte of its weights, for KV cache and buffers. Source: our own choice; SmolLM2-135M with 98 MB of
weights and a context of 8192 tokens needs more in proportion, a 70B model less."""
DESCRIPTORS_LEAST = 4096
"""With fewer, few clients can connect: the gateway reserves some for other files. Source: `gateway/process/descriptors`."""


def machine_checks() -> list[Check]:
    """Return the checks that do not depend on a configuration."""
    return [_python(), _system(), _cores(), _descriptors(), _cage()]


def stack_checks(config: Config, state_path: Path) -> list[Check]:
    """Return the checks of this machine for a configuration."""
    running = StateDir(state_path).holder() is not None
    return [
        *_engines(config),
        *_engine_folders(config),
        *_weights(config),
        _memory(config, running=running),
        _state(state_path),
        _space(state_path, "state_space"),
        _spool(state_path),
        _port(config, running=running),
        *_keys(config),
    ]


# --- the machine ----------------------------------------------------------------------------------------------------


def _python() -> Check:
    found = CheckResult.GOOD if sys.version_info >= PYTHON_LEAST else CheckResult.PROBLEM
    least = ".".join(map(str, PYTHON_LEAST))
    return Check("python", found, f"Python {platform.python_version()}", f"install Python {least} or newer")


def _system() -> Check:
    system, machine = platform.system(), platform.machine()
    good = system == "Linux" and machine in {"x86_64", "aarch64"}
    said = f"{system} {platform.release()} on {machine}"
    fix = "use Linux on x86-64 or ARM64; on other systems escaped processes are not found"
    return Check("system", CheckResult.GOOD if good else CheckResult.WARNING, said, fix)


def _cores() -> Check:
    usable, there = float(len(os.sched_getaffinity(0))), os.cpu_count() or 0
    quota = cpu_quota()
    said = f"{usable:g} of {there} cores are usable"
    if quota is not None and quota < usable:
        usable, said = quota, f"{said}, and a cgroup limits them to the time of {quota:g}"
    if usable >= 2:
        return Check("cores", CheckResult.GOOD, said)
    fix = "give it two cores: gateway and engine share one now (check cgroups and taskset)"
    return Check("cores", CheckResult.WARNING, said, fix)


def _descriptors() -> Check:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = "open files: " + ("no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}")
    if hard == resource.RLIM_INFINITY or hard >= WANTED:
        return Check("open_files", CheckResult.GOOD, said)
    found = CheckResult.WARNING if hard >= DESCRIPTORS_LEAST else CheckResult.PROBLEM
    fix = (
        f"raise the hard limit to {WANTED}: `ulimit -Hn`, LimitNOFILE= of systemd, /etc/security/limits.conf"
    )
    return Check("open_files", found, said, fix)


def _cage() -> Check:
    if sys.platform != "linux":
        return Check("engine_cage", CheckResult.UNKNOWN, "engines are confined on Linux only")
    ways = list(open_ways(ctypes.CDLL(None, use_errno=True)))
    if not ways:
        return Check(
            "engine_cage", CheckResult.GOOD, "engines reach their weights and their own folders only"
        )
    found = "; ".join(said for said, _ in ways)
    return Check("engine_cage", CheckResult.WARNING, found, "; ".join(fix for _, fix in ways))


# --- the stack ------------------------------------------------------------------------------------------------------


def _engines(config: Config) -> Iterator[Check]:
    for name in dict.fromkeys(model.engine for model in config.spec.models if model.managed):
        models = [model for model in config.spec.models if model.engine == name]
        needs_wheel = any("server_binary" not in model.engine_options for model in models)
        if name != "llama-cpp" or not needs_wheel:
            programs = {program_of(all_engines()[name], model.engine_options) for model in models}
            said = ", ".join(sorted(str(program) for program in programs if program is not None))
            yield Check("engine", CheckResult.GOOD, f"{name}: {said or 'its programs are installed'}")
        elif importlib.util.find_spec("xllamacpp") is None:
            fix = "run `pip install xllamacpp`, or set engine_options.server_binary"
            yield Check("engine", CheckResult.PROBLEM, f"{name}: the package xllamacpp is not installed", fix)
        else:
            yield Check("engine", CheckResult.GOOD, f"{name}: the package xllamacpp is installed")


def _engine_folders(config: Config) -> Iterator[Check]:
    for fit in engine_fits(config, local_folders(config)):
        yield from (Check("engine_folder", CheckResult.PROBLEM, p.message, p.hint) for p in fit.problems)
        said = f"{fit.model}: " + ("; ".join(fit.unknown) or "the engines are built for this node")
        fix = "run `freehold model record FOLDER` on the node where they were built" if fit.unknown else ""
        if not fit.problems:
            yield Check("engine_folder", CheckResult.UNKNOWN if fit.unknown else CheckResult.GOOD, said, fix)


def _weights(config: Config) -> Iterator[Check]:
    managed = [model for model in config.spec.models if model.managed]
    if not managed:
        return
    root, stored = store_root(os.environ), _stored()
    wanted = [each for model in managed for each in model.named]
    missing = [each.name for each in wanted if each.sha256 not in stored]
    if missing:
        said = f"{', '.join(missing)}: weights are not here yet"
        yield Check(
            "weights",
            CheckResult.WARNING,
            said,
            "run `freehold model pull`; otherwise `freehold up` fetches them",
        )
    else:
        yield Check(
            "weights", CheckResult.GOOD, f"the weights of all managed models ({len(managed)}) are in {root}"
        )
    yield _space(root, "weights_space")


def _stored() -> dict[str, int]:
    """Return the size of each complete weights file, by its hash."""
    try:
        found = Store(store_root(os.environ)).list_models()
    except FreeholdError:
        return {}
    return {
        each.sha256: each.size_bytes
        for each in found
        if each.state in {WeightsState.VERIFIED, WeightsState.CHANGED}
    }


def _memory(config: Config, *, running: bool) -> Check:
    memory = HostReader().read().memory
    available = memory["available_bytes"].value
    limited = memory["limit_available_bytes"].value
    stored = _stored()
    managed = [model for model in config.spec.models if model.managed]
    needed = sum(stored.get(model.sha256, 0) * model.replicas * ENGINE_ROOM for model in managed)
    if not isinstance(available, int | float):
        return Check("memory", CheckResult.UNKNOWN, "the free memory could not be read")
    if isinstance(limited, int | float):
        available = min(available, limited)
    said = f"{_size(available)} free, the stored weights need about {_size(needed)}"
    if running or needed <= available:
        return Check("memory", CheckResult.GOOD, said + (" (partly in use already)" if running else ""))
    return Check(
        "memory",
        CheckResult.PROBLEM,
        said,
        "use fewer replicas, smaller weights (another quantisation), or more memory",
    )


def _state(path: Path) -> Check:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return Check("state_folder", CheckResult.GOOD, f"{path} is writable")
    fix = "name another folder with --state-dir, or make this one writable for this user"
    return Check("state_folder", CheckResult.PROBLEM, f"{there} is not writable", fix)


def _space(path: Path, name: str) -> Check:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as exc:
        return Check(name, CheckResult.UNKNOWN, f"{there}: {exc.strerror}")
    said = f"{_size(free)} free for {path}"
    if free >= FREE_LEAST_BYTES:
        return Check(name, CheckResult.GOOD, said)
    found = CheckResult.WARNING if free >= FREE_LEAST_BYTES / 10 else CheckResult.PROBLEM
    return Check(name, found, said, f"free {_size(FREE_LEAST_BYTES)}, or choose another disk")


def _spool(state_path: Path) -> Check:
    folder = spool_folder(state_path)
    if not folder.is_relative_to(state_path):
        return Check("spool", CheckResult.GOOD, f"the ledger's spool is in memory ({folder.parent})")
    fix = "make /dev/shm writable (in a container: --shm-size or --tmpfs /dev/shm)"
    return Check(
        "spool", CheckResult.WARNING, "the ledger's spool is on a disk: each request waits for it", fix
    )


def _port(config: Config, *, running: bool) -> Check:
    address = config.spec.gateway.address
    said = f"{config.spec.gateway.listen}"
    if running:
        return Check("port", CheckResult.GOOD, f"{said} is held by the stack that runs here")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as exc:
            fix = listen_hint(exc, address.port, "end the program that holds it (`ss -ltnp` names it)")
            fix += ", or change gateway.listen"
            return Check("port", CheckResult.PROBLEM, f"{said} is not available: {exc.strerror}", fix)
    return Check("port", CheckResult.GOOD, f"{said} is free")


def _keys(config: Config) -> Iterator[Check]:
    if config.spec.gateway.auth != "keys":
        yield Check("keys", CheckResult.GOOD, "no key is required, and only this machine can connect")
        return
    try:
        keys = read_keys_of(config)
    except FreeholdError as exc:
        yield Check("keys", CheckResult.PROBLEM, exc.message, exc.hint)
        return
    if not keys_path_for(config).exists():
        said = f"there is no keys file {keys_path_for(config)}; a stack that runs keeps the keys that it has read"
        fix = "`freehold key create NAME` begins one; restore one that was lost: keys that the new file lacks are rejected"
        yield Check("keys", CheckResult.WARNING, said, fix)
        return
    good = sum(not why_refused(record, wall_s()) for record in keys)
    found = CheckResult.GOOD if good else CheckResult.WARNING
    yield Check("keys", found, f"{good} API keys are accepted", "run `freehold key create NAME`")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
