"""The llama.cpp server in a process of its own: the only file that imports xllamacpp.

`python -m freehold.engines.programs.xllamacpp_server` takes the flags of llama-server that `llama_cpp` sets, so that either
program can stand in for the other. It imports little, since its start is part of every replica's start. It does
not supervise: its parent reads its output, and ends it with SIGTERM.

Exit codes: 0 after SIGTERM or SIGINT once it listens (before that the signal's own death: loading holds Python's
lock, so no handler could run, and nothing is lost), 2 for a wrong flag, 3 when the server did not come up (its own
words stand above), 127 when xllamacpp cannot be imported.
"""

import argparse
import json
import os
import signal
import struct
import sys
import time
from typing import Any

from freehold.engines.programs.xllamacpp_flags import (
    DENSE,
    ENUM_WORDS,
    ENUMS,
    EXPERTS,
    FLOATS,
    INTS,
    SAMPLING,
    SWITCHES,
    TEXTS,
    parse,
)

_MIB = 1024 * 1024
"""Bytes of a mebibyte, the unit of --fit-target. Source: llama.cpp common/arg.cpp."""
EXIT_NOT_UP = 3
"""Source: our own choice; 1 and 2 are Python's own, for a traceback and for argparse."""
EXIT_BAD_FLAG = 2
"""The same as argparse's."""
EXIT_NO_PACKAGE = 127
"""What a shell answers for a program that is not there; `engines.base.explain_code` reads it so."""


def to_params(flags: argparse.Namespace) -> Any:
    """Return xllamacpp's `CommonParams` with every flag in its place.

    Raises ImportError without xllamacpp, and ValueError or OSError for a value that is none.
    """
    import xllamacpp  # noqa: PLC0415 -- so that a wrong flag is told without it, and its absence in our words

    params = xllamacpp.CommonParams()
    params.model_alias = {flags.alias}
    params.hostnames, params.port = [flags.host], flags.port
    params.cpuparams_batch.n_threads = flags.threads
    # As llama-server does it: the drafting model has the same threads, and templates keep earlier reasoning.
    draft = params.speculative.draft
    draft.cpuparams.n_threads, draft.cpuparams_batch.n_threads = (
        flags.threads,
        flags.threads_batch or flags.threads,
    )
    params.default_template_kwargs = {"preserve_reasoning": "true"}
    # Its default, `*`, lets any web page that a user of this machine opens read answers.
    params.cors_origins, params.cors_credentials = f"http://{flags.host}:{flags.port}", False
    for flag, way in {**INTS, **FLOATS, **TEXTS}.items():
        if (value := _given(flags, flag)) is not None:
            _put(params, way, value)
    for flag, (way, value) in SWITCHES.items():
        if _given(flags, flag):
            _put(params, way, value)
    for flag, row in ENUMS.items():
        if (word := _given(flags, flag)) is not None:
            _put(params, row[0], _member(xllamacpp, flag, word))
    _put_memory(params, flags)
    _put_files(params, flags, xllamacpp)
    _put_others(params, flags, xllamacpp)
    return params


def _given(flags: argparse.Namespace, flag: str) -> Any:
    return getattr(flags, flag[2:].replace("-", "_"))


def _put(params: Any, way: str, value: Any) -> None:
    *holders, name = way.split(".")
    for holder in holders:
        params = getattr(params, holder)
    setattr(params, name, value)


def _member(xllamacpp: Any, flag: str, word: str) -> Any:
    """Return the member of an enumeration that a word means; raises ValueError for a word that is none."""
    _, enum, before, _ = ENUMS[flag]
    name = ENUM_WORDS.get(flag, {}).get(word, word.upper().replace("-", "_"))
    try:
        return getattr(xllamacpp, enum)[before + name]
    except KeyError:
        raise ValueError(f"argument {flag}: invalid choice: {word!r}") from None


def _put_memory(params: Any, flags: argparse.Namespace) -> None:
    """Put what says where tensors go, and how much of each GPU is taken."""
    rules = [flags.override_tensor] if flags.override_tensor else []
    rules += [f"\\.{EXPERTS}=CPU"] if flags.cpu_moe else []
    rules += [f"blk\\.{layer}\\.{EXPERTS}=CPU" for layer in range(flags.n_cpu_moe or 0)]
    rules += [f"blk\\.{layer}\\.{DENSE}=CPU" for layer in range(flags.n_cpu_ffn or 0)]
    if rules:
        params.tensor_buft_overrides = ",".join(rules)
    if flags.fit is not None:
        params.fit_params = flags.fit == "on"
    for name, text, unit in (
        ("tensor_split", flags.tensor_split, 1.0),
        ("fit_params_target", flags.fit_target, _MIB),
    ):
        if text:
            usual = list(getattr(params, name))
            said = [type(usual[0])(float(part) * unit) for part in text.replace("/", ",").split(",")]
            # A single target is meant for every GPU; shares that are not given are none.
            rest = (
                said * len(usual)
                if name == "fit_params_target" and len(said) == 1
                else said + usual[len(said) :]
            )
            setattr(params, name, rest[: len(usual)])


def _put_files(params: Any, flags: argparse.Namespace, xllamacpp: Any) -> None:
    adapters: list[tuple[str, float]] = []
    for pair in (flags.lora_scaled or "").split(","):  # first, as the engine file gives them to llama-server
        path, _, scale = pair.rpartition(":")
        adapters += [(path, float(scale))] if pair else []
    adapters += [(path, 1.0) for path in (flags.lora or "").split(",") if path]
    if adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, scale) for path, scale in adapters]
    if flags.slot_save_path:
        params.slot_save_path = flags.slot_save_path.rstrip("/") + "/"
    if flags.chat_template_file:
        with open(flags.chat_template_file, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs start-up
            params.chat_template = file.read()


def _put_others(params: Any, flags: argparse.Namespace, xllamacpp: Any) -> None:
    if flags.rope_scale is not None:
        (scale,) = struct.unpack("f", struct.pack("f", float(flags.rope_scale)))  # its arithmetic has 32 bits
        params.rope_freq_scale = 1.0 / scale
    draft = params.speculative.draft
    if flags.prio is not None:
        levels = {level.value: level for level in xllamacpp.ggml_sched_priority}
        params.cpuparams.priority = draft.cpuparams.priority = levels[flags.prio]
    if flags.poll is not None:
        draft.cpuparams.poll = flags.poll
    if flags.spec_draft_model:
        draft.mparams.hf_file = flags.spec_draft_model
    for flag, name in SAMPLING.items():  # what is set here goes before what the weights say
        if _given(flags, flag) is not None:
            params.sampling.user_sampling_config |= xllamacpp.common_params_sampling_config[name].value
    if flags.spec_type:
        kinds = xllamacpp.common_speculative_type
        kind = kinds["COMMON_SPECULATIVE_TYPE_" + flags.spec_type.upper().replace("-", "_")]
        params.speculative.types = [*params.speculative.types, kind]
    if flags.chat_template_kwargs:
        said = json.loads(flags.chat_template_kwargs)
        params.default_template_kwargs = {
            **params.default_template_kwargs, **{name: json.dumps(value) for name, value in said.items()}
        }  # fmt: skip


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
    except (ValueError, KeyError, OSError) as exc:
        return _fail(f"llama.cpp: error: {exc}", EXIT_BAD_FLAG)
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
