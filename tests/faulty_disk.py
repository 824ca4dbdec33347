"""A block device that is slow, fails or hangs when told to: nbdkit filters behind nbdfuse behind a loop device.

Needs root, /dev/fuse, free loop devices and the Debian packages nbdkit and nbdfuse (libnbd-bin); `why_not` says what is missing. What it
makes (processes, mounts, loop device) it takes away again, also after a failure; it touches nothing else.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from waiting import wait_until

SIZE_BYTES = 96 << 20
QUICK, SLOW = "10G", "690K"
"""Bits a second of nbdkit's rate filter. With its small bucket SLOW makes a read of 4 KiB take some 80 ms (measured)."""
TOOLS = ("nbdkit", "nbdfuse", "losetup", "mkfs.ext4", "mount", "umount")
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not() -> str:
    """Return what is missing for a faulty disk here; empty: nothing."""
    if not os.environ.get("FAULTS"):
        return "wants minutes of real faults and a quiet machine: make faults"
    if not may_mount():
        return "needs root with the right to mount (CAP_SYS_ADMIN)"
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=SBIN)]
    if missing:
        return f"needs {', '.join(missing)} (Debian: nbdkit libnbd-bin mount e2fsprogs)"
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "needs /dev/fuse and loop devices"
    return ""


def may_mount() -> bool:
    """Return whether this process has CAP_SYS_ADMIN, which root in a container has not."""
    status = dict(line.partition(":")[::2] for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) & 1 << 21)  # CAP_SYS_ADMIN is 21 (linux/capability.h)


def run(*argv: str) -> str:
    """Run a command to its end and return what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True, env={"PATH": SBIN})
    return done.stdout.strip()


def _quietly(*argv: str) -> bool:
    try:
        run(*argv)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True


class FaultyDisk:
    """An ext4 volume at `path` on `device`; its reads or writes are delayed from the start, or it is slow, fails or hangs when told to."""

    def __init__(self, folder: Path, *, read_delay_ms: int = 0, write_delay_ms: int = 0) -> None:
        self._folder = folder
        self._delays = {"rdelay": read_delay_ms, "wdelay": write_delay_ms}
        self._error, self._rate = folder / "error", folder / "rate"
        self._write_error = folder / "write-error"
        self._fuse, self.path = folder / "fuse", folder / "volume"
        self._server: subprocess.Popen[bytes] | None = None
        self._mounter: subprocess.Popen[bytes] | None = None
        self.device = ""

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._take_away()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_away()

    def _make(self) -> None:
        for folder in (self._fuse, self.path):
            folder.mkdir()
        image, socket = self._folder / "image", self._folder / "socket"
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        self._server = self._serve(image, socket)
        wait_until(socket.exists, what="nbdkit's socket")
        uri = f"nbd+unix:///?socket={socket}"
        self._mounter = subprocess.Popen(
            ["nbdfuse", str(self._fuse), uri],
            stderr=subprocess.DEVNULL,
            env={"PATH": SBIN},
            start_new_session=True,
        )
        wait_until((self._fuse / "nbd").exists, what="nbdfuse's mount")
        self.device = run("losetup", "--find", "--show", "--direct-io=on", str(self._fuse / "nbd"))
        run("mount", "-o", "noatime", self.device, str(self.path))

    def _serve(self, image: Path, socket: Path) -> "subprocess.Popen[bytes]":
        self.slow(on=False)
        delays = [f"{name}={ms}ms" for name, ms in self._delays.items() if ms]
        delay = ("--filter=delay", *delays) if delays else ()
        return subprocess.Popen(
            [
                *("nbdkit", "--foreground", "--unix", str(socket), "--filter=error", "--filter=rate"),
                *delay[:1],
                *("file", str(image), *delay[1:]),
                *("error-pread-rate=100%", f"error-pread-file={self._error}"),
                *("error-pwrite-rate=100%", f"error-pwrite-file={self._write_error}"),
                *(f"rate={QUICK}", f"rate-file={self._rate}", "burstiness=0.01"),
            ],
            stderr=subprocess.DEVNULL,
            env={"PATH": SBIN},
            start_new_session=True,
        )

    def slow(self, *, on: bool) -> None:
        """Let each read and write of 4 KiB take some 80 ms, or no more."""
        self._rate.write_text(SLOW if on else QUICK)

    def fail(self, *, on: bool) -> None:
        """Let each read fail with EIO, or no more."""
        if on:
            self._error.touch()
        else:
            self._error.unlink(missing_ok=True)

    def fail_writes(self) -> None:
        """Let each write fail with EIO from now on; ext4 gives its journal up and does not come back."""
        self._write_error.touch()

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Let no read end while this lasts."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def _take_away(self) -> None:
        self.fail(on=False)
        self.slow(on=False)
        self._write_error.unlink(missing_ok=True)
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)
        # A reader that was just killed may hold the volume a moment longer: try again, and at last let go lazily.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: _quietly("umount", str(self.path)) or not self.path.is_mount(), timeout_s=10)
        _quietly("umount", "--lazy", str(self.path))
        if self.device:
            _quietly("losetup", "--detach", self.device)
        _quietly("fusermount3", "-u", str(self._fuse)) or _quietly("fusermount3", "-uz", str(self._fuse))
        for process in (self._mounter, self._server):
            if process is not None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
                if process.poll() is None:
                    process.kill()
                    process.wait(timeout=5)


@contextlib.contextmanager
def throttled(device: str, pids: tuple[int, ...], *, reads_per_s: int) -> Iterator[Path]:
    """Let these processes read so often from the device and no more, by a cgroup of their own (v1 blkio or v2 io.max)."""
    top = blkio_cgroup()
    assert top is not None
    numbers = run("lsblk", "--noheadings", "--nodeps", "--output", "MAJ:MIN", device).strip()
    group = top / f"freehold-test-{os.getpid()}"
    group.mkdir()
    try:
        v1 = group / "blkio.throttle.read_iops_device"
        if v1.exists():
            v1.write_text(f"{numbers} {reads_per_s}")
        else:
            (group / "io.max").write_text(f"{numbers} riops={reads_per_s}")
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (top / "cgroup.procs").write_text(pid)
        group.rmdir()


def blkio_cgroup() -> Path | None:
    """Return the cgroup that can hold one with a blkio limit; None: there is none, or it may not be written."""
    for top in (Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")):
        known = (top / "blkio.throttle.read_iops_device").exists() or "io" in _words(
            top / "cgroup.subtree_control"
        )
        if known and os.access(top, os.W_OK):
            return top
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
