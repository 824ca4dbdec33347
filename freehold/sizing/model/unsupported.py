"""Which configs cannot be counted as a decoder of alike layers: hybrids, state spaces, encoders, and absurd dimensions.

The tables stand in unsupported.toml. It says which key shows it. What it does not know by key or model type is counted as a transformer: see `from_config`.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from freehold.core.problems import Problem

Config = Mapping[str, Any]

_TABLE: Mapping[str, Any] = tomllib.loads((files(__package__) / "unsupported.toml").read_text("utf-8"))
_KEYS, _TYPES = (
    {name: what for what, names in _TABLE[part].items() for name in names} for part in ("keys", "types")
)
_MOST = {name: int(most) for most, names in _TABLE["most"].items() for name in names}
_ATTENTION, _ENCODER_ENDINGS = frozenset(_TABLE["attention"]), tuple(_TABLE["encoder_endings"])


def refused(text: Config, where: str) -> tuple[Problem, ...]:
    """Return a Problem for every key that shows layers which cannot be counted, and for every absurd dimension."""
    shown = [f"cannot be sized from its config: {words}" for words in sorted({*_shown(text)})]
    return (
        *(Problem(where=where, message=message, hint="measure it instead") for message in shown),
        *(
            Problem(where=where, message=f"{name} is {_short(text[name])}; no model has more than {most:,}")
            for name, most in _MOST.items()
            if isinstance(text.get(name), int) and text[name] > most
        ),
    )


def _short(value: int) -> str:
    """Return a number in as few characters as a message has room for; Python refuses to print the longest."""
    return f"{value:,}" if value < 10**12 else f"a number of {value.bit_length()} bits"


def _shown(text: Config) -> Iterator[str]:
    yield from (f"{key} shows {what}" for key, what in _KEYS.items() if text.get(key))
    for key, plain in (("layer_types", _ATTENTION), ("layers_block_type", frozenset({"attention"}))):
        yield from (
            f"{key} has layers of the kind {kind}" for kind in sorted({*_words(text.get(key))} - plain)
        )
    if "0" in _words(text.get("attn_type_list")):  # MiniMax: 0 is lightning attention, M2 has 1 throughout
        yield "attn_type_list shows linear-attention layers"
    model_type = str(text.get("model_type", "")).lower()
    yield from (
        f"model_type {model_type} has {what}" for begin, what in _TYPES.items() if _begins(model_type, begin)
    )
    yield from (
        f"architectures has {name}, an encoder"
        for name in _words(text.get("architectures"))
        if name.endswith(_ENCODER_ENDINGS)
    )


def _begins(word: str, begin: str) -> bool:
    """Return whether a model type is of this kind: rwkv5 and zamba2 are, bertsomething is not bert."""
    rest = word.removeprefix(begin)
    return word.startswith(begin) and (not rest or not rest[0].isalpha())


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
