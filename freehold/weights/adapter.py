"""Recognise a stored LoRA adapter by its content: a GGUF file of llama.cpp, or a folder of PEFT.

Headers and the configuration are read, matrices are not. It does not check whether it was made for these weights: only the engine does, when it
loads both.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.formats import Format
from freehold.core.problems import Problem
from freehold.weights.gguf_header import gguf_values
from freehold.weights.recognise import tensor_names
from freehold.weights.tree import is_pickle, walk

CONFIG, MATRICES = "adapter_config.json", "adapter_model.safetensors"
"""Names of an adapter's two files. Source: PEFT, `PeftModel.save_pretrained`."""
_CONFIG_BYTES_MAX = 1 << 20  # it is some hundred bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedAdapter:
    """What an adapter is."""

    format: Format | None
    """None: the format is not known."""
    rank: int = 0
    """Width of its matrices; 0 is unknown."""
    problems: tuple[Problem, ...] = ()
    """Why no engine can load it; empty: no problem is visible."""


def recognise_adapter(path: Path) -> RecognisedAdapter:
    """Return what a verified file or folder is; raises OSError, and `Permanent` for a folder with links."""
    if path.is_dir():
        return _folder(path)
    found = gguf_values(path)
    if isinstance(found, Problem):
        hint = "an adapter is a GGUF file, or a folder with adapter_config.json"
        return _none(Problem(where=str(path), message=found.message, hint=hint))
    if found.get("general.type") != "adapter" or found.get("adapter.type") != "lora":
        return _none(
            Problem(where=str(path), message="is a GGUF file, but not a LoRA adapter", hint=_TO_GGUF)
        )
    return RecognisedAdapter(format=Format.GGUF)


_TO_GGUF = (
    "llama.cpp's convert_lora_to_gguf.py makes one of a folder of PEFT; a whole model is a model's `source`"
)


def _none(problem: Problem) -> RecognisedAdapter:
    return RecognisedAdapter(format=None, problems=(problem,))


def _folder(folder: Path) -> RecognisedAdapter:
    config = _config(folder / CONFIG)
    if isinstance(config, Problem):
        return _none(config)
    rank = config.get("r")
    problems = tuple(_problems(folder, config))
    return RecognisedAdapter(
        format=Format.SAFETENSORS, rank=rank if type(rank) is int else 0, problems=problems
    )


def _problems(folder: Path, config: dict[str, Any]) -> Iterator[Problem]:
    where = f"{folder}/{CONFIG}"
    if config.get("peft_type") != "LORA":
        yield Problem(where=where, message=f"says peft_type {config.get('peft_type')!r}; engines load LORA")
    rank = config.get("r")
    if type(rank) is not int or rank < 1:
        yield Problem(where=where, message="does not say the rank `r`")
    if config.get("use_dora"):
        yield Problem(where=where, message="says use_dora, which engines do not load")
    if not (folder / MATRICES).is_file():
        pickles = [file for file in walk(folder, ("*",)) if is_pickle(file)]
        hint = "save it again with safe_serialization=True; pickles can run code" if pickles else ""
        yield Problem(where=f"{folder}/{MATRICES}", message="is missing", hint=hint)
        return
    tensors = tensor_names(folder / MATRICES)
    if isinstance(tensors, Problem):
        yield tensors
    elif not any(".lora_A." in name for name in tensors):
        yield Problem(where=f"{folder}/{MATRICES}", message="holds no matrices of a LoRA adapter")


def _config(path: Path) -> dict[str, Any] | Problem:
    hint = "a folder of PEFT's, as save_pretrained writes it"
    try:
        if path.stat().st_size > _CONFIG_BYTES_MAX:
            return Problem(where=str(path), message="adapter config is too large", hint=hint)
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Problem(where=str(path), message="is missing, so this is not an adapter", hint=hint)
    except (ValueError, RecursionError) as error:
        return Problem(where=str(path), message=f"is not JSON: {error}", hint="fetch it again")
    return found if isinstance(found, dict) else Problem(where=str(path), message="is not a JSON object")
