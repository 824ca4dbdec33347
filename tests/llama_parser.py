"""The parser of llama.cpp's own server, asked without a model: `python llama_parser.py < COMMANDS > ANSWERS`, JSON lines.

It is compiled into the xllamacpp wheel, which does not offer it, so its C++ symbol is called on the settings inside a
`CommonParams`. That takes knowing where these lie in the object; it is looked at first, and where it is otherwise the
answer says so and nothing is called. In a process of its own, since a mistake here would be a crash.
"""

import ctypes
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

SYMBOL = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
HEAD_BYTES = object.__basicsize__
"""Before the settings: the head of any Python object."""
SETS_ITSELF = {"cors_origins", "cors_credentials", "hostnames", "port", "cors_origins_explicit"}
"""What the child sets and llama-server gets otherwise: by LLAMA_ARG_CORS_ORIGINS and its own flags."""


def main() -> None:
    import xllamacpp  # noqa: PLC0415

    parse = real_parser(xllamacpp)
    if isinstance(parse, str):
        print(json.dumps({"unknown": parse}))
        return
    from freehold.engines.programs import xllamacpp_server as child  # noqa: PLC0415

    for line in sys.stdin:
        words = json.loads(line)
        ok, theirs = parse(words)
        try:
            ours = settings(child.to_params(child.parse(words)))
        except (SystemExit, ValueError, KeyError, OSError) as exc:
            ours = {}
            print(json.dumps({"theirs": ok, "ours": False, "why": repr(exc)}), flush=True)
        else:
            told = differences(settings(theirs), ours) if ok else []
            print(json.dumps({"theirs": ok, "ours": True, "differences": told}), flush=True)


def real_parser(xllamacpp: Any) -> Any:
    """Return a function from words to (accepted, settings), or why there is none."""
    (library,) = Path(xllamacpp.__file__).parent.glob("*.so")
    function = getattr(ctypes.CDLL(str(library)), SYMBOL, None)
    if function is None:
        return "the wheel does not show its parser"
    if not _lies_where_expected(xllamacpp):
        return "the settings lie elsewhere in the object"
    function.restype = ctypes.c_bool

    def parse(words: list[str], example: int) -> tuple[bool, Any]:
        params = xllamacpp.CommonParams()
        argv = (ctypes.c_char_p * (len(words) + 2))(b"llama-server", *(word.encode() for word in words), None)
        place = ctypes.c_void_p(id(params) + HEAD_BYTES)
        return function(ctypes.c_int(len(words) + 1), argv, place, ctypes.c_int(example), None), params

    server = next((number for number in range(64) if parse(["--metrics", "--slots"], number)[0]), None)
    if server is None:
        return "no program of llama.cpp takes a server's flags"
    return lambda words: parse(words, server)


def _lies_where_expected(xllamacpp: Any) -> bool:
    params = xllamacpp.CommonParams()
    params.n_ctx, params.n_batch = 0x1234567, 0x7654321
    head = ctypes.string_at(id(params) + HEAD_BYTES, 12)
    return struct.unpack("<iii", head) == (-1, 0x1234567, 0x7654321)


def settings(params: Any, name: str = "") -> dict[str, object]:
    """Return all settings by their dotted names, as values that can be compared."""
    found: dict[str, object] = {}
    for key in dir(params):
        if key.startswith("_") or key in SETS_ITSELF:
            continue
        value, way = getattr(params, key), f"{name}{key}"
        if type(value).__module__.startswith("xllamacpp") and not hasattr(value, "name"):
            found |= settings(value, f"{way}.")
        elif not callable(value):
            found[way] = str(value)
    return found


def differences(theirs: dict[str, object], ours: dict[str, object]) -> list[str]:
    return [f"{key}: {theirs[key]} / {ours[key]}" for key in sorted(theirs) if theirs[key] != ours[key]]


if __name__ == "__main__":
    os.environ.clear()
    main()
