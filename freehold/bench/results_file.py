"""Reading and writing the results file of a bench, whole. It judges nothing, and what is in it says `results`."""

from pathlib import Path

import msgspec

from freehold.bench.analysis.results import VERSION, BenchFile
from freehold.core.problems import Problem
from freehold.core.whole_file import replace_file

FILE_BYTES_MAX = 64 * 1024 * 1024
"""Largest results file that is read. Source: our own bound: some 20,000 points."""


def write(bench: BenchFile, path: Path) -> None:
    """Put the file there whole, readable by its owner; raises OSError, and then what was there stands.

    A link is followed; what is no file (`/dev/stdout`) is written to.
    """
    data = msgspec.json.format(msgspec.json.encode(bench), indent=1) + b"\n"
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        replace_file(path, data)


def read(path: Path) -> BenchFile | Problem:
    """Return a results file, or what is wrong with it."""
    hint = "a file that freehold bench --out wrote"
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return Problem(where=str(path), message="is too large for the results of a bench", hint=hint)
        data = path.read_bytes()
    except OSError as exc:
        return Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}", hint=hint)
    try:
        found = msgspec.json.decode(data, type=BenchFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        return Problem(where=str(path), message=f"is not a results file of a bench: {exc}", hint=hint)
    if found.version != VERSION:
        message = f"is of version {found.version}, this Freehold knows version {VERSION}"
        return Problem(where=str(path), message=message, hint="use the Freehold that wrote it")
    return found
