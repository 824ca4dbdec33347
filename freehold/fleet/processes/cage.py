"""The cage: what an engine's process gives up before its program starts, so that it reaches its weights and nothing of Freehold.

It runs in the minder's fork, so it imports little beside the standard library. The kernel keeps all of it over exec and for every
descendant. Which files an engine may reach beside those named here: `cage_rules`. It does not limit TCP connections, memory or CPU time.
"""
# ruff: noqa: PTH100, PTH102, PTH103, PTH110, PTH112, PTH114, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208, S606
# Why: pathlib would add half to the minder's start-up.

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct

from freehold.core.trust import why_distrusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/proc", "/sys")
"""Folders of the system that an engine may read and run programs from. Of processes outside its cage, /proc shows it no memory,
environment or open file: the kernel checks Landlock for these too."""
ETC = (
    "alternatives ca-certificates crypto-policies group host.conf hosts ld.so.cache ld.so.conf ld.so.conf.d localtime mime.types "
    "nsswitch.conf nvidia OpenCL os-release passwd pki protocols resolv.conf services ssl timezone vulkan"
)
"""What it may read of /etc, beside Python's settings: not all, since keys, and for root the password hashes, lie there too."""
DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd", "infiniband", "dxg")
"""What it may use of /dev, beside everything that begins with `nvidia`: not all, since root owns the disks there."""
_SHM = "/dev/shm"  # noqa: S108 (the POSIX place for shared memory)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Source: asm-generic/unistd.h; the same on x86-64 and ARM64."""
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = (
    1 << bit for bit in (0, 1, 2, 3, 14, 15)
)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_CHANGE = 0xFFFF & ~(_EXECUTE | 1 << 6 | 1 << 11)
"""Everything but running programs and making devices."""
_DEVICE = _READ | _WRITE_FILE | _IOCTL_DEV
_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))
"""How many rights on files the kernel knows, by the first version of Landlock that has them. Source: linux/landlock.h."""
_NET_SINCE, _SCOPES_SINCE = 4, 6
_SINCE = (
    (3, "emptying this user's files, keys and ledger too", "6.2"),
    (_SCOPES_SINCE, "sending signals to this user's processes", "6.12"),
)
"""What engines may do on a kernel whose Landlock is older than this version, and which Linux has it. Source: landlock(7)."""
_SCOPES = 0b11
"""No connection to an abstract socket, and no signal, to a process outside the cage."""
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
"""Source: linux/prctl.h."""
_CAPABILITIES_V3, _CAPABILITIES_MAX = 0x20080522, 64
_CAP_SYS_ADMIN = 21
"""Source of these three: linux/capability.h."""
_CLONE_NEWNS, _MS_SLAVE_ALL, _MS_NOSUID_NODEV = 0x20000, (1 << 19) | (1 << 14), 2 | 4
"""Source: linux/sched.h, linux/mount.h."""


def landlock_version(libc: ctypes.CDLL) -> int:
    """Return which version of Landlock the kernel has; 0: none, or it is switched off."""
    version: int = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, version)


def open_ways(libc: ctypes.CDLL) -> Iterator[tuple[str, str]]:
    """Yield what this kernel or this user leaves open to engines, with what closes it; nothing: the cage is whole."""
    version = landlock_version(libc)
    if version == 0:
        said = "the kernel has no Landlock: engines can open every file of this user, keys and ledger too"
        yield said, "use Linux 5.13 or newer with `landlock` in the boot option lsm="
    for since, what, linux in _SINCE if version else ():
        if version < since:
            yield (
                f"Landlock's version {version} cannot keep engines from {what}",
                f"use Linux {linux} or newer",
            )
    if not _may_mount():
        said = (
            "engines that share memory (vLLM, SGLang, TensorRT-LLM) can open the ledger's spool in /dev/shm"
        )
        yield said, "run `freehold up` with CAP_SYS_ADMIN (as root), which engines do not keep"


def _may_mount() -> bool:
    with open("/proc/self/status", encoding="utf-8") as file:
        held = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> _CAP_SYS_ADMIN & 1)


def make_folders(rules: dict[str, Any]) -> None:
    """Make an engine's own folder and the scratch folder of its launch, for this user alone.

    Raises OSError if the second exists, or if other users could put another one in its place.
    """
    os.makedirs(rules["folder"], mode=0o700, exist_ok=True)
    above = os.path.dirname(rules["scratch"])
    if said := why_distrusted(os.stat(above)):
        raise PermissionError(errno.EPERM, f"it {said}: set TMPDIR to a folder of this user", above)
    os.mkdir(rules["scratch"], mode=0o700)


def confine(rules: dict[str, Any], argv: list[str], libc: ctypes.CDLL) -> None:
    """Confine this process, for good, to `rules` (see `cage_rules.cage_of`); raise OSError if the kernel rejects them.

    Without Landlock everything else still holds; `freehold doctor` reports it.
    """
    _load_uvm()
    _limit()
    own_shm = rules["shared_memory"] and _mount_own_shm(libc)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    version = landlock_version(libc)
    if version:
        _restrict(libc, version, _allowed(rules, argv, own_shm=own_shm))
    _drop_capabilities(libc)


def remove_scratch(folder: str) -> None:
    """Remove the scratch folder of a launch whose processes have all ended."""
    import shutil  # noqa: PLC0415 (at its end, where a minder has the time)

    shutil.rmtree(folder, ignore_errors=True)


def _load_uvm(devices: str = "/dev") -> None:
    """Make the device for CUDA's memory, if the driver is loaded but no CUDA program ran yet: in the cage, libcuda could not."""
    if os.path.exists(f"{devices}/nvidiactl") and not os.path.exists(f"{devices}/nvidia-uvm"):
        os.spawnvp(os.P_WAIT, "nvidia-modprobe", ["nvidia-modprobe", "-u", "-c", "0"])


def _limit() -> None:
    """Forbid core files, which hold prompts; keep what locking memory (`mlock`, RDMA) needs without a capability."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for most in (resource.RLIM_INFINITY, hard):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
        except (OSError, ValueError):
            continue
        return


def _mount_own_shm(libc: ctypes.CDLL) -> bool:
    """Give the process shared memory of its own, where it is allowed to: the machine's holds the ledger's spool."""
    if libc.unshare(_CLONE_NEWNS):
        return False
    if libc.mount(None, b"/", None, ctypes.c_ulong(_MS_SLAVE_ALL), None):
        return False
    shm = _SHM.encode()
    return not libc.mount(b"tmpfs", shm, b"tmpfs", ctypes.c_ulong(_MS_NOSUID_NODEV), b"mode=1777")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    for capability in range(
        _CAPABILITIES_MAX
    ):  # without CAP_SETPCAP it fails, and no_new_privs does the same
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _check(libc.capset(struct.pack("=Ii", _CAPABILITIES_V3, 0), bytes(24)))


# --- which paths ----------------------------------------------------------------------------------------------------


def _allowed(rules: dict[str, Any], argv: list[str], *, own_shm: bool) -> Iterator[tuple[str, int]]:
    """Yield paths with what is allowed on them and below; they need not exist."""
    for path in (*SYSTEM, *_of_program(argv[0]), *_of_environment(rules["environment"]), *rules["run"]):
        yield path, _RUN
    yield "/run/systemd/resolve", _READ
    for name in os.listdir("/etc"):
        if name in ETC.split() or name.startswith("python3"):
            yield f"/etc/{name}", _READ
    for name in os.listdir("/dev"):
        if name in DEVICES or name.startswith("nvidia"):
            yield f"/dev/{name}", _DEVICE
    if rules["shared_memory"]:
        yield _SHM, _CHANGE if own_shm else _CHANGE & ~_READ_DIR
    yield from _of_rules(rules)


def _of_rules(rules: dict[str, Any]) -> Iterator[tuple[str, int]]:
    folder = os.path.realpath(rules["folder"])
    for path in (folder, rules["scratch"], *rules["write"]):
        yield path, _CHANGE
    asked = [(path, _READ) for path in rules["read"]]
    asked += [(path, _CHANGE if os.path.isdir(path) else _READ) for path in rules["named"]]
    for path, rights in asked:
        if not folder.startswith(
            os.path.join(os.path.realpath(path), "")
        ):  # never all of the state folder or the disk
            yield from ((each, rights) for each in _with_targets(path))


def _of_program(program: str) -> Iterator[str]:
    """Yield what a program is made of: its folder, the libraries beside it, and the environment that it belongs to."""
    if os.sep not in program:
        there = (os.path.join(each, program) for each in os.get_exec_path())
        program = next((path for path in there if os.access(path, os.X_OK)), program)
    for path in (os.path.abspath(program), os.path.realpath(program)):
        folder = os.path.dirname(path)
        above = os.path.dirname(folder)
        yield folder
        yield from (os.path.join(above, name) for name in ("lib", "lib64", "libexec", "share"))
        if os.path.exists(os.path.join(above, "pyvenv.cfg")):
            yield from _of_environment(above)


def _of_environment(folder: str | None) -> Iterator[str]:
    """Yield a Python environment and the interpreter that it was made from."""
    if not folder:
        return
    yield folder
    try:
        with open(os.path.join(folder, "pyvenv.cfg"), encoding="utf-8") as file:
            words = dict(line.partition("=")[::2] for line in file if "=" in line)
    except (OSError, ValueError):
        return
    home = next((value.strip() for name, value in words.items() if name.strip() == "home"), "")
    if os.path.basename(home) == "bin":
        yield os.path.dirname(os.path.realpath(home))


def _with_targets(path: str) -> Iterator[str]:
    """Yield a path, the other parts of a model in several files, and what the links in a folder of weights point at."""
    yield path
    first, _, parts = path.rpartition("-00001-of-")
    if first:
        yield from (f"{first}-{place:05}-of-{parts}" for place in range(2, int(parts[:5]) + 1))
    for folder, _, names in os.walk(path):
        for each in (os.path.join(folder, name) for name in names):
            if os.path.islink(each):
                yield os.path.realpath(each)


# --- Landlock -------------------------------------------------------------------------------------------------------


def _restrict(libc: ctypes.CDLL, version: int, allowed: Iterable[tuple[str, int]]) -> None:
    handled = (1 << next(count for since, count in _RIGHTS if version >= since)) - 1
    fields = struct.pack("=QQQ", handled, 0, _SCOPES)
    length = 24 if version >= _SCOPES_SINCE else 16 if version >= _NET_SINCE else 8
    ruleset = _check(libc.syscall(_CREATE_RULESET, fields, ctypes.c_size_t(length), 0))
    for path, rights in allowed:
        _allow(libc, ruleset, path, rights & handled)
    _check(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there, or may not be entered, needs no rule
        return
    try:
        is_folder = os.path.isdir(path)
        rule = struct.pack("=Qi", rights if is_folder else rights & _OF_FILES, fd)
        _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)


def _check(result: int) -> int:
    """Return a system call's result; raise OSError with its error if it failed."""
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"cannot confine it: {os.strerror(number)}")
    return result
