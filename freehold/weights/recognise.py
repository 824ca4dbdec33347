"""Recognise stored weights by their content, not by their name, and check whether a folder of safetensors is complete.

Headers are read, weights are not: it takes as long for 100 GB as for 100 MB. Every problem is reported at once. It hashes
nothing (the store does), reads no pickle (that would run it) and knows no engine. What a TensorRT engine was
built for is read elsewhere.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.formats import Format
from freehold.core.problems import Problem
from freehold.weights.tree import is_pickle, walk

HEADER_BYTES_MAX = 100_000_000
"""Longest header of a safetensors file. Source: the format's own reader refuses longer ones."""

_SMALL_BYTES_MAX = 1 << 28  # of a config or an index; the largest index of a published model has some 10 MB
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt")
_TIKTOKEN = ".tiktoken"
_INDEX = ".safetensors.index.json"
_TENSORRT_KEYS = ("build_config", "pretrained_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The format of weights, and their problems."""

    format: Format | None
    """None: the format is not known, or several are possible."""
    path: Path
    """The path for an engine: of a folder with one GGUF file, that file."""
    problems: tuple[Problem, ...] = ()
    """Why no engine can load them; empty: no problem is visible."""


def recognise(path: Path, *, pickles_allowed: bool = False) -> Recognised:
    """Return what a verified file or folder is; raises OSError, and `Permanent` for a folder with links."""
    if path.is_dir():
        return _folder(path, pickles_allowed=pickles_allowed)
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"GGUF":
        return Recognised(format=Format.GGUF, path=path)
    if path.suffix == ".safetensors":
        hint = "name the whole folder: hf://OWNER/NAME@REVISION, or file:///FOLDER/"
        problem = Problem(where=str(path), message="is one file of safetensors without its config", hint=hint)
        return Recognised(format=Format.SAFETENSORS, path=path, problems=(problem,))
    return Recognised(format=None, path=path)


def _folder(folder: Path, *, pickles_allowed: bool) -> Recognised:
    files = sorted(walk(folder, ("*",)))
    if any(file.endswith(".safetensors") for file in files):
        problems = tuple(_safetensors_problems(folder, files, pickles_allowed=pickles_allowed))
        return Recognised(format=Format.SAFETENSORS, path=folder, problems=problems)
    ggufs = [file for file in files if file.endswith(".gguf")]
    if ggufs:
        return _ggufs(folder, ggufs)
    config = _object(folder / "config.json")
    if isinstance(config, dict) and all(key in config for key in _TENSORRT_KEYS):
        return Recognised(format=Format.TENSORRT, path=folder)
    return _pickles_only(folder, files, pickles_allowed=pickles_allowed)


def _ggufs(folder: Path, ggufs: Sequence[str]) -> Recognised:
    parted = [file for file in ggufs if "-00001-of-" in file]
    if len(ggufs) == 1 or (len(parted) == 1 and all("-of-" in file for file in ggufs)):
        return Recognised(format=Format.GGUF, path=folder / (parted or ggufs)[0])
    hint = "name one: hf://OWNER/NAME@REVISION/FILE"
    problem = Problem(where=str(folder), message=f"holds {len(ggufs)} GGUF models", hint=hint)
    return Recognised(format=Format.GGUF, path=folder, problems=(problem,))


def _pickles_only(folder: Path, files: Sequence[str], *, pickles_allowed: bool) -> Recognised:
    pickles = [file for file in files if is_pickle(file)]
    if pickles and pickles_allowed:
        return Recognised(
            format=Format.SAFETENSORS, path=folder, problems=tuple(_config_problems(folder, files))
        )
    if pickles:
        return Recognised(format=None, path=folder, problems=(_pickle_problem(folder, pickles),))
    hint = "weights are *.safetensors, one *.gguf, or an engine of TensorRT-LLM with its config.json"
    problem = Problem(where=str(folder), message="holds no weights that any engine loads", hint=hint)
    return Recognised(format=None, path=folder, problems=(problem,))


def _pickle_problem(folder: Path, pickles: Sequence[str]) -> Problem:
    said = ", ".join(pickles[:3]) + (" and others" if len(pickles) > 3 else "")
    hint = (
        "take the safetensors of the same model; or allow them by name in the source: ?include=*.bin,*.json"
    )
    return Problem(where=str(folder), message=f"{said} can run code when an engine loads it", hint=hint)


def _safetensors_problems(folder: Path, files: Sequence[str], *, pickles_allowed: bool) -> Iterator[Problem]:
    """Give everything for which an engine would fail after minutes, or run what it should not."""
    yield from _config_problems(folder, files)
    pickles = [file for file in files if is_pickle(file)]
    if pickles and not pickles_allowed:
        yield _pickle_problem(folder, pickles)
    tensors: dict[str, set[str]] = {}
    for file in files:
        if file.endswith(".safetensors"):
            found = tensor_names(folder / file)
            if isinstance(found, Problem):
                yield found
            else:
                tensors[file] = found
    for file in files:
        if file.endswith(_INDEX):
            yield from _index_problems(folder, file, files=files, tensors=tensors)


def _config_problems(folder: Path, files: Sequence[str]) -> Iterator[Problem]:
    config = _object(folder / "config.json")
    if isinstance(config, Problem):
        yield config
    elif not ("architectures" in config or "model_type" in config):
        hint = "is it the config of a language model?"
        yield Problem(where=f"{folder}/config.json", message="names no architecture", hint=hint)
    if not any(file in _TOKENIZERS or file.endswith(_TIKTOKEN) for file in files):
        hint = f"one of {', '.join(_TOKENIZERS)} is needed beside the weights; fetch the whole repository"
        yield Problem(where=str(folder), message="has no tokenizer", hint=hint)


def _index_problems(
    folder: Path, index: str, *, files: Sequence[str], tensors: Mapping[str, set[str]]
) -> Iterator[Problem]:
    """Give each shard that an index names and that is not there, or has not the tensors that it should have."""
    where = f"{folder}/{index}"
    read = _object(folder / index)
    shards = read.get("weight_map") if isinstance(read, dict) else None
    if isinstance(read, Problem):
        yield read
    elif not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        yield Problem(where=where, message="has no weight_map from tensors to files")
    else:
        below = index.rpartition("/")[0]
        wanted: dict[str, set[str]] = {}
        for tensor, shard in shards.items():
            wanted.setdefault(f"{below}/{shard}" if below else shard, set()).add(tensor)
        for shard, names in sorted(wanted.items()):
            if shard not in files:
                hint = "fetch the folder again; include all of *.safetensors"
                yield Problem(where=where, message=f"the shard {shard} is missing", hint=hint)
            elif shard in tensors and (lacking := sorted(names - tensors[shard])):
                yield Problem(
                    where=f"{folder}/{shard}",
                    message=f"lacks the tensor {lacking[0]} that {index} puts there",
                )


def tensor_names(path: Path) -> set[str] | Problem:
    """Return the names of a safetensors file's tensors, or a problem if it is shorter or longer than its header says.

    Source of the layout: the safetensors format: 8 bytes of header length, the header as JSON, then the tensors' bytes.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = file.read(8)
        header_bytes = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if not 0 < header_bytes <= min(HEADER_BYTES_MAX, size_bytes - 8):
            return _cut(path, f"its header cannot be {header_bytes:,} bytes long in a file of {size_bytes:,}")
        try:
            header = json.loads(file.read(header_bytes))
            ends = {
                name: int(row["data_offsets"][1]) for name, row in header.items() if name != "__metadata__"
            }
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
            return _cut(path, "its header is damaged")
    expected_bytes = 8 + header_bytes + max(ends.values(), default=0)
    if size_bytes != expected_bytes:
        return _cut(path, f"it has {size_bytes:,} bytes, and {expected_bytes:,} by its header")
    return set(ends)


def _cut(path: Path, reason: str) -> Problem:
    hint = "it may be cut short: compare its size with the source's, and fetch it again"
    return Problem(where=str(path), message=f"is truncated or not a safetensors file: {reason}", hint=hint)


def _object(path: Path) -> dict[str, Any] | Problem:
    """Return a JSON object, or what is wrong with the file."""
    try:
        if path.stat().st_size > _SMALL_BYTES_MAX:
            return Problem(where=str(path), message="is too large for a configuration or an index")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Problem(where=str(path), message="is missing", hint="fetch the whole folder")
    except (ValueError, RecursionError) as error:
        return Problem(where=str(path), message=f"is not JSON: {error}", hint="fetch it again")
    return found if isinstance(found, dict) else Problem(where=str(path), message="is not a JSON object")
