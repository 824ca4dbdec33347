"""The child process that reads a watched volume: a read that never ends hangs this and no more.

Started by `disk_process` with `python -S -P -c`, so that it imports little and stays small. It keeps one file of
random bytes on the volume, or takes the largest file there where it may not write, and reads 4 KiB of it with O_DIRECT, at a
random place, once per interval. It reports to its parent, one line each on standard output: `at MAJOR MINOR PATH` where the
volume is, `make` it begins to write its file, `no WHY` it cannot read without the page cache, `space TOTAL FREE INODES
FREE_INODES`, `s SECONDS` a read begins (monotonic clock), `r SECONDS` it took so long, `e ERRNO SECONDS` it failed; of writes
likewise `S`, `w`, `x`. A line for which the pipe has no room is dropped. It knows no deadline and judges nothing. End of standard
input ends it.

Where it is to write as well, a thread makes a new file of 4 KiB, waits for fsync, and puts it in place of the one before: a write
that never ends so holds up no read. A new file each time, since one that only overwrites itself never finds the disk full.

What it cannot see: a cache below the file system (a RAID controller, the host of a virtual machine) may answer some reads.
"""
# pathlib and contextlib cost a megabyte, for as long as the child lives.
# ruff: noqa: PTH105, PTH108, PTH116, PTH123

import errno
import mmap
import os
import select
import stat
import sys
from _thread import start_new_thread  # threading costs memory, and its threads are waited for at the end

from freehold.core.clock import monotonic_s

BLOCK_BYTES = 4096
"""What one read reads: the logical block of every disk divides it, and ioping's and fio's customary size."""
PIECE_BYTES = 64 << 10
"""Written at once while the file is made: below what malloc would keep afterwards. Our own choice."""
ENTRIES_MOST = 1000
"""Entries of a volume that are looked at for a file to read where none of ours can be made; our own bound."""
SPACE_EVERY_S = 10.0
"""How often free space is asked for; our own choice: a disk that fills in less is full anyway."""
NAME = "freehold-disk"
"""What ps shows (15 characters at most: TASK_COMM_LEN of Linux), so that a stuck reader is known as ours."""
CANNOT = 3
"""Exit code where the volume cannot be used at all; our own choice, 1 and 2 are Python's."""


class ParentPipe:
    """Writes lines to the parent; never waits for it, and ends the process when it is gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def write(self, *words: object) -> None:
        """Write one line; drop it where the pipe is full."""
        try:
            os.write(self._fd, (" ".join(map(str, words)) + "\n").encode(errors="surrogateescape"))
        except BlockingIOError:
            return
        except BrokenPipeError:
            sys.exit(0)


def name_of(exc: OSError) -> str:
    """Return the errno's name, such as `EIO`."""
    return errno.errorcode.get(exc.errno or 0, "EUNKNOWN")


def open_probe(path: str, size_bytes: int, out: ParentPipe) -> int:
    """Return a descriptor of the file, opened with O_DIRECT; write it first where it is missing or of another size.

    Raises OSError: EINVAL where the file system has no O_DIRECT, ENOSPC, EACCES and so on.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
        whole = stat.S_ISREG(found.st_mode) and found.st_size == size_bytes
    except FileNotFoundError:
        whole = False
    if not whole:
        out.write("make")
        _make(path, size_bytes)
    return os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_other(folder: str, size_bytes: int, why: OSError) -> tuple[int | None, int]:
    """Return a descriptor and the size of the largest file there is, where we may not write one of our own; None: there is none.

    A model's volume is often mounted for reading alone; its weights are as good to read as a file of ours.
    """
    if why.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
        return None, 0
    found = max(_files(folder, ENTRIES_MOST), default=(0, ""))
    if found[0] < size_bytes:
        return None, 0
    try:
        return os.open(found[1], os.O_RDONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC), found[0]
    except OSError:
        return None, 0


def _files(folder: str, most: int) -> list[tuple[int, str]]:
    """Return size and path of the regular files below a folder, of the first so many entries."""
    found: list[tuple[int, str]] = []
    todo, seen = [folder], 0
    while todo:
        try:
            entries = list(os.scandir(todo.pop(0)))
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > most:
                return found
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                found.append((_size_of(entry), entry.path))
    return found


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0  # it has gone since the folder was read


def _make(path: str, size_bytes: int) -> None:
    # Random and really written: a hole, or an extent that was only reserved, is read without the disk.
    fresh = f"{path}.{os.getpid()}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _fill(fd, size_bytes)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    finally:
        os.close(fd)


def _fill(fd: int, size_bytes: int) -> None:
    room = os.fstatvfs(fd)
    if room.f_bavail * room.f_frsize < 4 * size_bytes:
        raise OSError(errno.ENOSPC, "less than four times the probe file's size is free")
    left = size_bytes
    while left:
        left -= os.write(fd, os.urandom(min(left, PIECE_BYTES)))
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def report_place(folder: str, out: ParentPipe) -> None:
    """Report where the volume is; on a dead network mount this is what hangs."""
    real = os.path.realpath(folder)
    device = os.stat(real).st_dev
    out.write("at", os.major(device), os.minor(device), real)


def report_space(folder: str, out: ParentPipe) -> None:
    """Report how much is free to a user without privileges."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return
    size = room.f_frsize
    out.write("space", room.f_blocks * size, room.f_bavail * size, room.f_files, room.f_favail)


def read_once(fd: int, page: mmap.mmap, *, size_bytes: int, out: ParentPipe) -> None:
    """Read one block at a random place and report how long it took."""
    place = int.from_bytes(os.urandom(4), "little") % (size_bytes // BLOCK_BYTES) * BLOCK_BYTES
    began_s = monotonic_s()
    out.write("s", f"{began_s:.6f}")
    began_s = monotonic_s()
    try:
        os.preadv(fd, [page], place)
    except OSError as exc:
        out.write("e", name_of(exc), f"{monotonic_s() - began_s:.6f}")
    else:
        out.write("r", f"{monotonic_s() - began_s:.6f}")


def write_once(path: str, out: ParentPipe) -> None:
    """Write one new block next to `path`, report how long it took to be on the disk, and put it in place of the one before."""
    fresh = f"{path}.new"
    began_s = monotonic_s()
    out.write("S", f"{began_s:.6f}")
    try:
        _write_anew(fresh)
        took_s = monotonic_s() - began_s
        os.replace(fresh, path)
    except OSError as exc:
        out.write("x", name_of(exc), f"{monotonic_s() - began_s:.6f}")
    else:
        out.write("w", f"{took_s:.6f}")


def _write_anew(fresh: str) -> None:
    if os.path.lexists(fresh):
        os.unlink(fresh)  # of one that was killed in the middle; a read-only file system says so here
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.urandom(BLOCK_BYTES))
        os.fsync(fd)
    except OSError:
        _try_to_remove(fresh)
        raise
    finally:
        os.close(fd)


def _try_to_remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


def write_on(path: str, interval_s: float, out: ParentPipe) -> None:
    """Write again and again for as long as the process lives."""
    due_s = monotonic_s()
    while True:
        write_once(path, out)
        due_s = max(due_s + interval_s, monotonic_s())
        select.select([], [], [], max(0.0, due_s - monotonic_s()))


def wait(until_s: float) -> bool:
    """Return False when the parent is gone, True at the time `until_s` (monotonic)."""
    ready, _, _ = select.select([0], [], [], max(0.0, until_s - monotonic_s()))
    return not (ready and not os.read(0, 1))


def run(folder: str, probe: str, *, size_bytes: int, interval_s: float, out: ParentPipe) -> None:
    """Read until the parent goes; without O_DIRECT, or for a size of 0, report only the free space."""
    report_place(folder, out)
    report_space(folder, out)
    fd: int | None = None
    try:
        fd = open_probe(probe, size_bytes, out) if size_bytes else None
    except OSError as exc:
        fd, size_bytes = open_other(folder, size_bytes, exc)
        if fd is None:
            out.write("no", name_of(exc), exc.strerror or exc)
    page = mmap.mmap(-1, BLOCK_BYTES)
    due_s, space_s = monotonic_s(), monotonic_s() + SPACE_EVERY_S
    while wait(due_s):
        if fd is not None:
            read_once(fd, page, size_bytes=size_bytes, out=out)
        now_s = monotonic_s()
        due_s = max(due_s + interval_s, now_s)
        if now_s >= space_s:
            report_space(folder, out)
            space_s = now_s + SPACE_EVERY_S


def name_process() -> None:
    """Give the process its name in ps; without /proc it keeps Python's."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(NAME)
    except OSError:
        pass


def main() -> None:
    """Take `FOLDER PROBE SIZE INTERVAL WRITE INTERVAL` from the command line and run; an interval of 0: never write."""
    folder, probe, size, interval, write, every = sys.argv[1:7]
    out = ParentPipe(1)
    name_process()
    try:
        if float(every):
            start_new_thread(write_on, (write, float(every), out))
        run(folder, probe, size_bytes=int(size), interval_s=float(interval), out=out)
    except OSError as exc:
        out.write("no", name_of(exc), exc.strerror or exc)
        sys.exit(CANNOT)
