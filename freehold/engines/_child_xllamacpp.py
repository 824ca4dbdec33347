"""The llama.cpp server in a process of its own: the only file that imports xllamacpp.

`python -m freehold.engines._child_xllamacpp` takes the flags of llama-server that `llama_cpp` sets, so that either
program can stand in for the other. It imports little, since its start is part of every replica's start. It does
not supervise: its parent reads its output, and ends it with SIGTERM.

Exit codes: 0 after SIGTERM or SIGINT once it listens (before that the signal's own death: loading holds Python's
lock, so no handler could run, and nothing is lost), 2 for a wrong flag, 3 when the server did not come up (its own
words stand above), 127 when xllamacpp cannot be imported.
"""

import argparse
import os
import signal
import sys
import time
from typing import Any

EXIT_NOT_UP = 3
"""Source: our own choice; 1 and 2 are Python's own, for a traceback and for argparse."""
EXIT_NO_PACKAGE = 127
"""What a shell answers for a program that is not there; `engines.base.explain_code` reads it so."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags; a wrong one ends the process with exit code 2 and an `error:` line that names it."""
    parser = argparse.ArgumentParser(prog="llama.cpp", allow_abbrev=False)
    for flag in ("--host", "--model", "--alias"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--ctx-size", "--parallel", "--threads"):
        parser.add_argument(flag, type=int, required=True)
    for flag in (
        "--threads-batch",
        "--threads-http",
        "--batch-size",
        "--ubatch-size",
        "--gpu-layers",
        "--seed",
        "--verbosity",
    ):
        parser.add_argument(flag, type=int)
    parser.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    for flag in ("--metrics", "--slots", "--no-webui", "--embeddings"):
        parser.add_argument(flag, action="store_true")
    flags = parser.parse_args(argv)
    if flags.batch_size is not None and flags.batch_size < flags.parallel:
        parser.error(f"argument --batch-size: {flags.batch_size} is less than --parallel {flags.parallel}")
    return flags


def to_params(flags: argparse.Namespace) -> Any:
    """Return xllamacpp's `CommonParams` with every flag in its place; raises ImportError without xllamacpp."""
    import xllamacpp  # noqa: PLC0415 -- so that a wrong flag is told without it, and its absence in our words

    params = xllamacpp.CommonParams()
    params.model.path = flags.model
    params.model_alias = {flags.alias}
    params.hostnames, params.port = [flags.host], flags.port
    params.n_ctx, params.n_parallel = flags.ctx_size, flags.parallel
    params.cpuparams.n_threads = flags.threads
    params.cpuparams_batch.n_threads = flags.threads_batch or flags.threads
    params.endpoint_metrics, params.endpoint_slots = flags.metrics, flags.slots
    params.ui = not flags.no_webui
    params.embedding = flags.embeddings
    # Its default, `*`, lets any web page that a user of this machine opens read answers.
    params.cors_origins, params.cors_credentials = f"http://{flags.host}:{flags.port}", False
    _set_given(
        params,
        n_threads_http=flags.threads_http,
        n_batch=flags.batch_size,
        n_ubatch=flags.ubatch_size,
        n_gpu_layers=flags.gpu_layers,
        verbosity=flags.verbosity,
    )
    _set_given(params.sampling, seed=flags.seed)
    _set_enums(params, flags, xllamacpp)
    return params


def _set_given(target: Any, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None:
            setattr(target, name, value)


def _set_enums(params: Any, flags: argparse.Namespace, xllamacpp: Any) -> None:
    words = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}
    name = f"LLAMA_FLASH_ATTN_TYPE_{words[flags.flash_attn]}"
    params.flash_attn_type = xllamacpp.llama_flash_attn_type[name]
    if flags.pooling is not None:
        name = f"LLAMA_POOLING_TYPE_{flags.pooling.upper()}"
        params.pooling_type = xllamacpp.llama_pooling_type[name]


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code when it cannot."""
    # Until it listens, the signals must kill: see the module's docstring.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    flags = parse(argv)
    try:
        params = to_params(flags)
        from xllamacpp import Server  # noqa: PLC0415 -- as above
    except ImportError as exc:
        return _fail(f"xllamacpp cannot be imported: {exc}", EXIT_NO_PACKAGE)
    return _serve(Server, params)


def _serve(server_type: Any, params: Any) -> int:
    started_s = time.monotonic()
    try:
        server = server_type(params)
    except RuntimeError as exc:  # all it says is to look above
        return _fail(f"llama.cpp did not come up: {exc}", EXIT_NOT_UP)
    took_s = time.monotonic() - started_s
    print(f"llama.cpp listens on {server.listening_address} after {took_s:.2f} s", flush=True)  # noqa: T201
    _wait_for_signal()
    # The server's destructor waits for running requests; whoever sent the signal has waited already.
    os._exit(0)


def _wait_for_signal() -> None:
    """Return when SIGTERM or SIGINT has come, to whichever thread: hence a pipe, not `signal.pause`."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    os.read(reader, 1)


def _fail(message: str, exit_code: int) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
