"""What a user may set of llama.cpp, and with which of llama-server's flags: data for the engine file `llama_cpp`.

Left out on purpose: what Freehold sets (address, model, name, metrics, slots page), what takes the network (`--hf-repo`,
`--mmproj-url`: weights are pinned by hash), what a gateway in front does (`--api-key`, TLS, timeouts, the web page),
`--sleep-idle-seconds` (the completion that shows a replica alive would wake it), `--no-prefill-assistant` (it is how a cut
answer is continued), `--defrag-thold` and `--lora-init-without-apply` (they do nothing: the first says so, of the second a
request applies all adapters anyway, measured on 2026.10.11549; a scale of 0 does it). `--device` and `--override-kv` have no place in the
xllamacpp wheel.
"""

import re
from collections.abc import Iterator, Mapping

from freehold.engines.base import Option, Value

N_CTX = 8192
"""Default of n_ctx, tokens. Source: our own choice: 4 slots of 2,048 tokens."""
N_PARALLEL = 4
"""Default of n_parallel. Source: llama-server's own number of slots when none is given (README, `--parallel`)."""
_N_THREADS_HTTP = 128
"""Default of n_threads_http. Source: our own choice, above the connections that a gateway keeps to one replica."""
CELL_TOKENS = 256
"""The server rounds n_ctx and each slot's share up to this many tokens. Source: measured: 1000/3 gives 512 a slot,
8192/3 gives 2816, 1/4 gives 256."""
_SLOTS_MAX = 256
"""Most slots of one server. Source: measured: 256 slots start, 257 fail with `failed to create context`."""
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Source: llama.cpp common/arg.cpp, kv_cache_types."""
_PLAIN_CACHE = ("f32", "f16", "bf16")
_SPEC_TYPES = (
    "none", "draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark", "ngram-simple", "ngram-map-k",
    "ngram-map-k4v", "ngram-mod", "ngram-cache",
)  # fmt: skip
"""Source: llama.cpp common/speculative.h, as the server's own parser takes them (a test asks it)."""


def _int(name: str, flag: str, help_: str, *, least: int = 0, most: int = 1 << 20) -> Option:
    return Option(name=name, type="int", flag=flag, minimum=least, maximum=most, help=help_)


def _float(name: str, help_: str, *, least: float | None = None, most: float | None = None) -> Option:
    return Option(name=name, type="float", flag=_flag(name), minimum=least, maximum=most, help=help_)


def _text(name: str, help_: str, *, file: bool = False, choices: tuple[str, ...] = ()) -> Option:
    return Option(name=name, type="str", flag=_flag(name), file=file, choices=choices, help=help_)


def _switch(name: str, help_: str, *, default: bool | None) -> Option:
    return Option(name=name, type="bool", flag=_flag(name), default=default, help=help_)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


_SIZES = (
    Option(name="n_ctx", type="int", flag="--ctx-size", default=N_CTX, minimum=CELL_TOKENS, maximum=1 << 27,
           help="context of all slots together, tokens; each slot gets n_ctx / n_parallel"),
    Option(name="n_parallel", type="int", flag="--parallel", default=N_PARALLEL, minimum=1, maximum=_SLOTS_MAX,
           help="slots: requests worked on at once"),
    _int("n_threads", "--threads", "compute threads; default: this replica's share of the machine", least=1, most=512),
    _int("n_threads_batch", "--threads-batch", "compute threads for prompts; default: n_threads", least=1, most=512),
    Option(name="n_threads_http", type="int", flag="--threads-http", default=_N_THREADS_HTTP, minimum=8, maximum=4096,
           help="connections served at once; waiting requests and /metrics need one each"),
    Option(name="n_batch", type="int", flag="--batch-size", default=2048, minimum=1, maximum=1 << 20,
           help="most prompt tokens taken in per step; at least n_parallel"),
    Option(name="n_ubatch", type="int", flag="--ubatch-size", default=512, minimum=1, maximum=1 << 20,
           help="most tokens computed at once; with embeddings the longest input, tokens"),
    _int("n_predict", "--n-predict", "most tokens of an answer whose request says nothing; default: no end", least=1,
         most=1 << 27),
)  # fmt: skip
_GPU = (
    _int("n_gpu_layers", "--gpu-layers", "layers kept on the GPU; default: as many as fit", most=10_000),
    _text("split_mode", "how several GPUs share the model: whole layers, rows of each, or each tensor",
          choices=("none", "layer", "row", "tensor")),
    _text("tensor_split", "share of each GPU, such as 3,1; default: by their free memory"),
    _int("main_gpu", "--main-gpu", "the GPU that is used with split_mode: none, and for small tensors with row", most=63),
    Option(name="flash_attn", type="str", flag="--flash-attn", default="auto", choices=("auto", "on", "off"),
           help="flash attention"),
    _text("fit", "make what is not set smaller until it fits the GPU's memory", choices=("on", "off")),
    _int("fit_ctx", "--fit-ctx", "least context that fit may leave, tokens", least=CELL_TOKENS, most=1 << 27),
    _text("fit_target", "memory that fit leaves free on each GPU, MiB, such as 1024 or 512,1024"),
    _switch("kv_offload", "keep the KV cache on the GPU", default=True),
    _switch("op_offload", "let the GPU help with prompts of layers that are not on it", default=True),
    # In this order: of several rules for a tensor the first counts, and the user's own goes first.
    _text("override_tensor", "where tensors go, as PATTERN=BUFFER,…, such as blk\\.1.*=CPU"),
    _switch("cpu_moe", "the experts of all layers stay in main memory", default=False),
    _int("n_cpu_moe", "--n-cpu-moe", "of so many first layers the experts stay in main memory", most=10_000),
    _int("n_cpu_ffn", "--n-cpu-ffn", "of so many first layers the dense feed-forward weights stay in main memory",
         most=10_000),
)  # fmt: skip
_CACHE = (
    _text("cache_type_k", "kind of numbers of the keys in the KV cache; default: f16", choices=_CACHE_TYPES),
    _text("cache_type_v", "kind of numbers of the values in the KV cache; default: f16; a quantised one needs flash_attn",
          choices=_CACHE_TYPES),
    _switch("kv_unified", "one KV cache for all slots, so that one may take more than its share; default: the server's own, "
            "with embeddings on: else texts that are computed together get wrong ones", default=None),
    _switch("swa_full", "keep the whole cache of sliding-window layers, so that more of it can be used again", default=False),
    _switch("cache_prompt", "keep a prompt's cache for requests that begin as it does; off with an adapter of scale 0",
            default=True),
    _int("cache_reuse", "--cache-reuse", "least length of a piece that is used again by shifting, tokens; 0: none"),
    Option(name="cache_ram", type="int", flag="--cache-ram", minimum=-1, maximum=1 << 24,
           help="main memory for caches of earlier prompts, MiB; 0: none, -1: no bound; default: 8192"),
    _int("ctx_checkpoints", "--ctx-checkpoints", "states kept per slot, for models whose cache cannot be cut; default: 32",
         most=4096),
    _switch("context_shift", "when a slot is full, drop its oldest tokens instead of ending the answer", default=False),
    _text("slot_save_path", "folder in which slots can be saved and restored (POST /slots/ID)", file=True),
    _float("slot_prompt_similarity", "how alike a prompt must be to be given the slot of an earlier one, 0 to 1", least=0,
           most=1),
)  # fmt: skip
_MODEL = (
    # Scaled ones first: the server numbers adapters as they come, and those of `adapters` are the first of these.
    _text("lora_scaled", "adapters with a scale each, as FILE:SCALE,…; 0: until a request or POST /lora-adapters says more", file=True),
    _text("lora", "adapters, GGUF files with a comma between them; all are applied", file=True),
    _text("mmproj", "projector of a model that takes pictures or sound, a GGUF file", file=True),
    _switch("mmproj_offload", "keep the projector on the GPU", default=True),
    _int("image_min_tokens", "--image-min-tokens", "least tokens of a picture, for models with a choice", least=1),
    _int("image_max_tokens", "--image-max-tokens", "most tokens of a picture, for models with a choice", least=1),
    _text("spec_draft_model", "small model that drafts answers ahead, a GGUF file of the same vocabulary", file=True),
    _text("spec_type", "how answers are drafted ahead; draft-simple: by spec_draft_model, ngram-…: from the text so far",
          choices=_SPEC_TYPES),
    _int("spec_draft_n_max", "--spec-draft-n-max", "most tokens drafted ahead; default: 3", most=1024),
    _int("spec_draft_n_min", "--spec-draft-n-min", "least tokens that a draft is worth; default: 0", most=1024),
    _float("spec_draft_p_min", "least probability of a drafted token", least=0, most=1),
    _int("spec_draft_ngl", "--spec-draft-ngl", "layers of the drafting model on the GPU; default: as many as fit",
         most=10_000),
    _text("rope_scaling", "how positions are stretched beyond the model's own context", choices=("none", "linear", "yarn")),
    _float("rope_scale", "how many times longer the context is", least=0.001),
    _float("rope_freq_base", "base of the position frequencies; default: what the weights say", least=0.001),
    _float("rope_freq_scale", "factor of the position frequencies: 1 / rope_scale", least=0.000_001),
    _int("yarn_orig_ctx", "--yarn-orig-ctx", "YaRN: the model's own context, tokens", most=1 << 27),
    _float("yarn_ext_factor", "YaRN: mix of extrapolation, 0: none", least=0),
    _float("yarn_attn_factor", "YaRN: scale of attention", least=0),
    _float("yarn_beta_slow", "YaRN: high correction dimension", least=0),
    _float("yarn_beta_fast", "YaRN: low correction dimension", least=0),
)  # fmt: skip
_CHAT = (
    _text("chat_template", "chat template, by llama.cpp's name for it or as text; default: the one in the weights"),
    _text("chat_template_file", "file with the chat template", file=True),
    Option(name="chat_template_kwargs", type="str", flag="--chat-template-kwargs", json="object",
           help='what the template is given, such as \'{"enable_thinking": false}\''),
    _switch("jinja", "use the template's own language; tools need it", default=True),
    _text("reasoning_format", "where reasoning goes: none: it stays in the text, deepseek: reasoning_content, "
          "deepseek-legacy: both; default: auto", choices=("none", "auto", "deepseek", "deepseek-legacy")),
    Option(name="reasoning_budget", type="int", flag="--reasoning-budget", minimum=-1, maximum=1 << 27,
           help="most tokens of reasoning; -1: no bound, 0: none"),
    _float("temp", "temperature of requests that bring none; default: 0.8", least=0),
    _int("top_k", "--top-k", "top_k of requests that bring none; default: 40"),
    _float("top_p", "top_p of requests that bring none; default: 0.95", least=0, most=1),
    _float("min_p", "min_p of requests that bring none; default: 0.05", least=0, most=1),
    _float("repeat_penalty", "repeat_penalty of requests that bring none; default: 1", least=0.01),
    Option(name="seed", type="int", flag="--seed", minimum=0, maximum=(1 << 32) - 2,
           help="seed of requests that bring none; default: a new one each time"),
    Option(name="embeddings", type="bool", flag="--embeddings", default=False,
           help="serve /v1/embeddings (and /v1/rerank with pooling: rank) besides completions"),
    _text("pooling", "how token vectors become one embedding; default: what the weights file says",
          choices=("none", "mean", "cls", "last", "rank")),
    Option(name="embd_normalize", type="int", flag="--embd-normalize", minimum=-1, maximum=1 << 20,
           help="norm of embeddings: -1: none, 0: largest value, 1: taxicab, 2: euclidean, more: p-norm; default: 2"),
)  # fmt: skip
_PROCESS = (
    _text("load_mode", "how weights come into memory: mapped, read, locked there; default: auto",
          choices=("auto", "none", "mmap", "mlock", "dio")),
    _switch("check_tensors", "look for impossible values while loading", default=False),
    _switch("repack", "rearrange weights for this processor while loading", default=True),
    _switch("warmup", "run once before the first request", default=True),
    _text("numa", "how threads are laid over the nodes of a large machine", choices=("distribute", "isolate", "numactl")),
    Option(name="prio", type="int", flag="--prio", minimum=-1, maximum=3,
           help="priority of compute threads: -1 low to 3 realtime; above 0 needs a privilege"),
    _int("poll", "--poll", "how eagerly threads wait for work, 0 (asleep) to 100; default: 50", most=100),
    Option(name="verbosity", type="int", flag="--verbosity", default=2, minimum=0, maximum=5,
           help="0 output, 1 errors, 2 warnings, 3 every request, 4 trace, 5 debug (answers are in that log)"),
    Option(name="server_binary", type="str", program=True,
           help="path of a llama-server program to run instead of the xllamacpp wheel"),
)  # fmt: skip
OPTIONS = (*_SIZES, *_GPU, *_CACHE, *_MODEL, *_CHAT, *_PROCESS)


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


def complete(options: Mapping[str, Value], threads: int, *, sleeping: bool = False) -> dict[str, Value]:
    """Return the options with every default that is ours, and the threads of this replica.

    `sleeping`: it has adapters that wait for requests that ask for them.
    """
    defaults = {option.name: option.default for option in OPTIONS if option.default is not None}
    full = {"n_threads": threads, **defaults, **options}
    if "spec_draft_model" in full:  # alone it is loaded and drafts nothing (measured)
        full = {"spec_type": "draft-simple", **full}
    if full.get("embeddings"):  # see _POOLED_WHOLE
        full = {"kv_unified": _POOLED_WHOLE, **full}
    if sleeping or _SLEEPING.search(str(options.get("lora_scaled", ""))):
        full = {**full, "cache_prompt": options.get("cache_prompt", False)}
    return {"n_threads_batch": full["n_threads"], **full}


_POOLED_WHOLE = True
"""With a cache of its own for each slot, llama.cpp computes texts of unlike length together in pieces of like length, and pools the last
piece of each alone: of two texts in one request the longer one got another embedding than by itself (cosine 0.9456, measured on
2026.10.11549; with one cache for all slots 1.0000)."""
_SLEEPING = re.compile(r":[+-]?0+(\.0+)?(,|$)")
"""An adapter with the scale 0 is there for requests that ask for it. Their cache must not be used again: it does not know by
which adapter it was made, and the next request would be answered out of it (measured on 2026.10.11549; in its source,
server-context.cpp, a request without `lora` changes the slot's adapters and keeps its cache)."""


def to_words(options: Mapping[str, Value]) -> list[str]:
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


def conflicts(options: Mapping[str, Value]) -> Iterator[tuple[str, str, str]]:
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
