"""A model's shape from the header of a GGUF file: names, numbers and tensor sizes; the weights themselves are not read.

The header is read from the front, a buffer at a time, and reading stops where the weights begin, so a file of 100 GB takes
as long as one of 100 MB. Long lists (a vocabulary) are stepped over. It checks no hash (the store does) and runs nothing.
Source of the layout: GGUF specification, version 3 (version 2 differs in nothing that is read here).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import mul
from pathlib import Path
from typing import BinaryIO

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from freehold.core.problems import Problem
from freehold.sizing.model.shape import ModelShape

# Source of the numbers: GGUF specification, gguf_metadata_value_type.
_SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _LIST = 8, 9
_NEEDED = ("block_count", "embedding_length", "attention.head_count")
_LIST_MAX = 1024
"""Lists up to here are kept (a number per layer); longer ones are vocabularies. Why: no model has 1024 layers."""
_STRING_BYTES_MAX = 1 << 26
"""Longer than any template; a length beyond it means that the file is damaged."""
_ITEMS_MAX = 1 << 26
"""More than any vocabulary, merges list or tensor count; beyond it the file is damaged."""
_DIMENSIONS_MAX = 4
"""Source: GGML_MAX_DIMS."""


class _DamagedError(Exception):
    """The file is truncated or not GGUF."""


def shape_from_gguf(path: Path) -> ModelShape | tuple[Problem, ...]:
    """Return the shape of a GGUF file with the exact bytes of its tensors, or every problem with it.

    A file that is one part of several, or shorter than its header says, is a Problem: its tensors are not all there.
    """
    header = _whole(path)
    return (header,) if isinstance(header, Problem) else _read(header, path)


def gguf_values(path: Path) -> Mapping[str, object] | Problem:
    """Return the single values and short lists in a complete GGUF file's header by their keys, or its problem."""
    header = _whole(path)
    return header if isinstance(header, Problem) else header.values


def _whole(path: Path) -> "_Header | Problem":
    try:
        with path.open("rb") as file:
            header = _Header.read(file)
            size = file.seek(0, 2)
    except OSError as exc:
        return Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")
    except _DamagedError as exc:
        return _damaged(path, str(exc))
    if size < header.ends_at:
        return _damaged(path, f"it has {size} bytes, and {header.ends_at} by its header")
    return header


def _damaged(path: Path, reason: str) -> Problem:
    hint = "it may be cut short: compare its size and sha256 with the source's"
    return Problem(where=str(path), message=f"is truncated or not a GGUF file: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Header:
    """The header: single values by key, lengths of lists by key, and per tensor its parameters and bytes."""

    values: Mapping[str, object]
    lengths: Mapping[str, int]
    tensors: Mapping[str, tuple[int, int]]
    ends_at: int
    """Bytes from the file's start to the end of its last tensor."""

    @classmethod
    def read(cls, file: BinaryIO) -> "_Header":
        """Return the header at the file's front; raise _DamagedError if there is none."""
        if file.read(4) != b"GGUF" or _scalar(file, "I") not in {2, 3}:
            raise _DamagedError("it does not begin with GGUF and version 2 or 3")
        tensor_count, pair_count = _count(file), _count(file)
        values: dict[str, object] = {}
        lengths: dict[str, int] = {}
        for _ in range(pair_count):
            key = _string(file)
            values[key], lengths[key] = _value(file, int(_scalar(file, "I")))
        tensors, last = {}, 0
        for _ in range(tensor_count):
            name, parameters, size, offset = _tensor(file)
            tensors[name] = (parameters, size)
            last = max(last, offset + size)
        step = values.get("general.alignment", 32)
        aligned = -(-file.tell() // step) * step if isinstance(step, int) and step > 0 else file.tell()
        return cls(values, lengths, tensors, aligned + last)

    def number(self, key: str) -> int:
        """Return the value of `ARCHITECTURE.key` as a whole number, the largest of a list; 0: it is not there."""
        found = self.values.get(f"{self.values.get('general.architecture', '')}.{key}", 0)
        if isinstance(found, list):
            return max((int(item) for item in found if isinstance(item, int | float)), default=0)
        return int(found) if isinstance(found, int | float) else 0


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _DamagedError("it ends within its header")
    return data


def _scalar(file: BinaryIO, code: str) -> float | int | bool:
    found: float | int | bool = struct.unpack("<" + code, _exactly(file, struct.calcsize("<" + code)))[0]
    return found


def _count(file: BinaryIO, limit: int = _ITEMS_MAX) -> int:
    count = int(_scalar(file, "Q"))
    if count > limit:
        raise _DamagedError(f"a count in its header is {count}")
    return count


def _string(file: BinaryIO) -> str:
    return _exactly(file, _count(file, _STRING_BYTES_MAX)).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> tuple[object, int]:
    """Return a value and how many items it has; a long list's items are stepped over and the value is None."""
    if kind == _STRING:
        return _string(file), 1
    if kind != _LIST:
        return _scalar(file, _code(kind)), 1
    item, count = int(_scalar(file, "I")), _count(file)
    if item == _STRING:
        strings = [_string(file) for _ in range(count)]
        return (strings if count <= _LIST_MAX else None), count
    code = f"<{count}{_code(item)}"
    data = _exactly(file, struct.calcsize(code))
    return (list(struct.unpack(code, data)) if count <= _LIST_MAX else None), count


def _code(kind: int) -> str:
    if kind not in _SCALARS:
        raise _DamagedError(f"a value in its header is of the unknown kind {kind}")
    return _SCALARS[kind]


def _tensor(file: BinaryIO) -> tuple[str, int, int, int]:
    """Return a tensor's name, parameters, bytes and offset in the data."""
    name, dimensions = _string(file), int(_scalar(file, "I"))
    if dimensions > _DIMENSIONS_MAX:
        raise _DamagedError(f"the tensor {name!r} has {dimensions} dimensions")
    parameters = reduce(mul, (int(_scalar(file, "Q")) for _ in range(dimensions)), 1)
    kind, offset = int(_scalar(file, "I")), int(_scalar(file, "Q"))
    if kind not in {int(known) for known in GGML_QUANT_SIZES}:
        raise _DamagedError(f"the tensor {name!r} is of the unknown format {kind}")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return name, parameters, parameters // block * block_bytes, offset


def _read(header: _Header, path: Path) -> ModelShape | tuple[Problem, ...]:
    problems = [
        Problem(where=str(path), message=f"its header does not say {key}", hint="is it a language model?")
        for key in _NEEDED
        if not header.number(key)
    ]
    parts = header.values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        hint = "merge them with llama-gguf-split --merge"
        problems.append(Problem(where=str(path), message=f"is one of {parts} parts", hint=hint))
    return tuple(problems) or _shape(header, path)


def _shape(header: _Header, path: Path) -> ModelShape:
    hidden, heads = header.number("embedding_length"), header.number("attention.head_count")
    vocab = header.lengths.get("tokenizer.ggml.tokens", 0) or header.number("vocab_size")
    params = float(sum(count for count, _ in header.tensors.values()))
    size = sum(size for _, size in header.tensors.values())
    routed = float(sum(count for name, (count, _) in header.tensors.items() if "_exps." in name))
    experts, used = header.number("expert_count"), header.number("expert_used_count")
    kv_heads = header.number("attention.head_count_kv") or heads
    window, windowed = _window(header)
    latent = header.number("attention.kv_lora_rank")
    return ModelShape(
        name=str(header.values.get("general.name") or path.stem),
        layers=header.number("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=header.number("attention.key_length") or hidden // heads,
        vocab=vocab,
        context=header.number("context_length") or 2048,
        params_total=params,
        params_active=params - routed * (1 - used / experts if experts else 0),
        params_embedding=_embedding(header),
        attention="mla" if latent else "gqa+swa" if windowed else "mha" if kv_heads == heads else "gqa",
        kv_lora_rank=latent,
        rope_head_dim=header.number("rope.dimension_count") if latent else 0,
        sliding_window=window,
        windowed_layers=windowed,
        experts=experts,
        experts_per_token=used,
        params_routed_experts=routed,
        weights_bytes=size,
        bits_per_weight=size * 8 / params if params else None,
        family="moe" if experts else "dense",
        quant="gguf",
        source=str(path),
    )


def _embedding(header: _Header) -> float:
    names = ("token_embd.weight", "output.weight")
    return float(sum(header.tensors[name][0] for name in names if name in header.tensors))


def _window(header: _Header) -> tuple[int, int]:
    """Return the window and how many layers have it; without a pattern every second layer, as gpt-oss and Gemma 2 have."""
    window, layers = header.number("attention.sliding_window"), header.number("block_count")
    pattern = header.values.get(
        f"{header.values.get('general.architecture', '')}.attention.sliding_window_pattern"
    )
    if not window:
        return 0, 0
    if isinstance(pattern, list):
        return window, sum(1 for windowed in pattern if windowed)
    every = pattern if isinstance(pattern, int) and pattern > 1 else 2
    return window, layers - layers // every
