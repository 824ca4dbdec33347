"""What a user may set of llama.cpp, and with which of llama-server's flags: data for the engine file `llama_cpp`.

Left out on purpose: what Freehold sets (address, model, name, metrics, slots page), what takes the network (`--hf-repo`,
`--mmproj-url`: weights are pinned by hash), what a gateway in front does (`--api-key`, TLS, timeouts, the web page),
`--sleep-idle-seconds` (the completion that shows a replica alive would wake it), `--no-prefill-assistant` (it is how a cut
answer is continued), `--defrag-thold` and `--lora-init-without-apply` (they do nothing: the first says so, of the second a
request applies all adapters anyway, measured on 2026.10.11549; a scale of 0 does it). `--device` and `--override-kv` have no place in the
xllamacpp wheel.
"""

import re
from collections.abc import Iterator

from freehold.engines.base import Options, Value
from freehold.engines.shared.engine_data import load_engine_data

OPTIONS = load_engine_data("llama_cpp").options
DEFAULTS: dict[str, Value] = {option.name: option.default for option in OPTIONS if option.default is not None}
"""Defaults that are given to the server; an option without one has the server's own."""
CELL_TOKENS = 256
"""The server rounds n_ctx and each slot's share up to this many tokens. Source: measured: 1000/3 gives 512 a slot,
8192/3 gives 2816, 1/4 gives 256."""
_PLAIN_CACHE = ("f32", "f16", "bf16")


_SHAPES = {
    "tensor_split": (
        re.compile(r"\d+(\.\d+)?([,/]\d+(\.\d+)?)*"),
        "shares with commas between them, such as 3,1",
    ),
    "fit_target": (re.compile(r"\d+([,/]\d+)*"), "MiB with commas between them, such as 512,1024"),
    "override_tensor": (
        re.compile(r"[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*"),
        "PATTERN=BUFFER, with commas between them",
    ),
    "lora_scaled": (
        re.compile(r"[^,:]+:[+-]?\d+(\.\d+)?(,[^,:]+:[+-]?\d+(\.\d+)?)*"),
        "FILE:SCALE, with commas between them",
    ),
}


def complete(options: Options, threads: int, *, sleeping: bool = False) -> dict[str, Value]:
    """Return the options with every default that is ours, and the threads of this replica.

    `sleeping`: it has adapters that wait for requests that ask for them.
    """
    full: dict[str, Value] = {"n_threads": threads, **DEFAULTS, **options}
    if "spec_draft_model" in full:  # alone it is loaded and drafts nothing (measured)
        full = {"spec_type": "draft-simple", **full}
    if full.get("embeddings"):  # see _POOLED_WHOLE
        full = {"kv_unified": _POOLED_WHOLE, **full}
    if sleeping or sleeps(options):
        full = {**full, "cache_prompt": options.get("cache_prompt", False)}
    return {"n_threads_batch": full["n_threads"], **full}


def sleeps(options: Options) -> bool:
    """Return whether an adapter of the user's own waits for requests that ask for it."""
    return _SLEEPING.search(str(options.get("lora_scaled", ""))) is not None


_POOLED_WHOLE = True
"""With a cache of its own for each slot, llama.cpp computes texts of unlike length together in pieces of like length, and pools the last
piece of each alone: of two texts in one request the longer one got another embedding than by itself (cosine 0.9456, measured on
2026.10.11549; with one cache for all slots 1.0000)."""
_SLEEPING = re.compile(r":[+-]?0+(\.0+)?(,|$)")
"""An adapter with the scale 0 is there for requests that ask for it. Their cache must not be used again: it does not know by
which adapter it was made, and the next request would be answered out of it (measured on 2026.10.11549; in its source,
server-context.cpp, a request without `lora` changes the slot's adapters and keeps its cache)."""


def to_words(options: Options) -> list[str]:
    """Return the flags for complete options; a switch that is at its default needs none."""
    words: list[str] = []
    for option in OPTIONS:
        value = options.get(option.name)
        if value is None or not option.flag:
            continue
        if option.type != "bool":
            words += [option.flag, str(value)]
        elif value is not option.default:
            words.append(option.flag if value else option.flag.replace("--", "--no-", 1))
    return words


def conflicts(options: Options) -> Iterator[tuple[str, str, str]]:
    """Give what cannot be together: the option to blame, what is wrong, and what to do."""
    for name, (shape, words) in _SHAPES.items():
        if name in options and not shape.fullmatch(str(options[name])):
            yield name, f"{name} has another shape than {options[name]!r}", words
    full = complete(options, 1)
    if options.get("cache_type_v", "f16") not in _PLAIN_CACHE and full["flash_attn"] == "off":
        yield (
            "cache_type_v",
            "a quantised cache_type_v needs flash attention",
            "leave flash_attn at auto, or set it on",
        )
    if int(full["n_batch"]) < int(full["n_parallel"]):
        said = f"n_batch {full['n_batch']} is less than n_parallel {full['n_parallel']}"
        yield "n_batch" if "n_batch" in options else "n_parallel", said, "a step has a token of each slot"
    for one, other in (("chat_template", "chat_template_file"), ("rope_scale", "rope_freq_scale")):
        if one in options and other in options:
            yield other, f"{one} and {other} say the same thing", "remove one"
    if options.get("pooling") == "rank" and not options.get("embeddings"):
        yield "pooling", "pooling: rank serves nothing without embeddings", "set embeddings: true"
    drafts = [name for name in options if name.startswith("spec_draft_") and name != "spec_draft_model"]
    if (
        drafts
        and "spec_draft_model" not in options
        and not str(options.get("spec_type", "")).startswith("draft-")
    ):
        yield drafts[0], "there is no drafting model", "name one with spec_draft_model"
