"""Compile the C programs of the benchmark: mock engine, load client, relay, and the client with TLS.

They are plain C without dependencies (but OpenSSL for the last), so that they cost a small part of what any proxy costs. Rebuilt only when a
source is newer than its program. Deliberately no build system: a few commands are enough.
"""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = HERE / "bin"
PROGRAMS = ("mock", "client", "relay")
FLAGS = ("-O2", "-Wall", "-Wextra")


class CannotMeasureError(Exception):
    """The harness itself cannot run here; the message says what is missing."""


def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not found:
        raise CannotMeasureError("no C compiler found: install gcc (Debian: apt-get install gcc libc6-dev)")
    return found


def is_fresh(program: Path, source: Path) -> bool:
    newest = max(source.stat().st_mtime, (HERE / "wire.h").stat().st_mtime)
    return program.exists() and program.stat().st_mtime >= newest


def compile_one(name: str, program_name: str = "", *more: str) -> None:
    source, program = HERE / f"{name}.c", BIN / (program_name or name)
    if is_fresh(program, source):
        return
    unfinished = BIN / f"{program.name}.new"
    command = [compiler(), *FLAGS, "-o", str(unfinished), str(source), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasureError(f"{source.name} does not compile:\n{done.stderr}")
    unfinished.replace(program)


def build_tls_client() -> None:
    """Compile the load client with TLS; raises CannotMeasureError where OpenSSL's headers are missing."""
    compile_one("client", "client_tls", "-DTLS", "-lssl", "-lcrypto")


def build() -> Path:
    """Compile what is out of date; returns the folder with the programs."""
    BIN.mkdir(exist_ok=True)
    for name in PROGRAMS:
        compile_one(name)
    return BIN
