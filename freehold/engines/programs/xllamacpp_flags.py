"""llama-server's flags as `llama_cpp` sets them, and where xllamacpp keeps each: the tables of its child.

A test holds them to the parser of llama.cpp itself, which is compiled into the wheel: both must make the same settings of
the same words. It imports no xllamacpp, so that a wrong flag is told without it.
"""

import argparse
from typing import Any

# Flags with one value: where in xllamacpp's CommonParams it is put, and what is made of the text.
INTS = {
    "--ctx-size": "n_ctx",
    "--parallel": "n_parallel",
    "--threads": "cpuparams.n_threads",
    "--threads-batch": "cpuparams_batch.n_threads",
    "--threads-http": "n_threads_http",
    "--batch-size": "n_batch",
    "--ubatch-size": "n_ubatch",
    "--n-predict": "n_predict",
    "--gpu-layers": "n_gpu_layers",
    "--main-gpu": "main_gpu",
    "--fit-ctx": "fit_params_min_ctx",
    "--cache-reuse": "n_cache_reuse",
    "--cache-ram": "cache_ram_mib",
    "--ctx-checkpoints": "n_ctx_checkpoints",
    "--image-min-tokens": "image_min_tokens",
    "--image-max-tokens": "image_max_tokens",
    "--spec-draft-n-max": "speculative.draft.n_max",
    "--spec-draft-n-min": "speculative.draft.n_min",
    "--spec-draft-ngl": "speculative.draft.n_gpu_layers",
    "--yarn-orig-ctx": "yarn_orig_ctx",
    "--reasoning-budget": "sampling.reasoning_budget_tokens",
    "--top-k": "sampling.top_k",
    "--seed": "sampling.seed",
    "--embd-normalize": "embd_normalize",
    "--poll": "cpuparams.poll",
    "--verbosity": "verbosity",
}
FLOATS = {
    "--slot-prompt-similarity": "slot_prompt_similarity",
    "--spec-draft-p-min": "speculative.draft.p_min",
    "--rope-freq-base": "rope_freq_base",
    "--rope-freq-scale": "rope_freq_scale",
    "--yarn-ext-factor": "yarn_ext_factor",
    "--yarn-attn-factor": "yarn_attn_factor",
    "--yarn-beta-slow": "yarn_beta_slow",
    "--yarn-beta-fast": "yarn_beta_fast",
    "--temp": "sampling.temp",
    "--top-p": "sampling.top_p",
    "--min-p": "sampling.min_p",
    "--repeat-penalty": "sampling.penalty_repeat",
}
TEXTS = {
    "--model": "model.path",
    "--mmproj": "mmproj.path",
    "--spec-draft-model": "speculative.draft.mparams.path",
    "--chat-template": "chat_template",
}
# Flags without a value: where, and what it is then.
SWITCHES = {
    "--metrics": ("endpoint_metrics", True),
    "--slots": ("endpoint_slots", True),
    "--no-webui": ("ui", False),
    "--embeddings": ("embedding", True),
    "--no-kv-offload": ("no_kv_offload", True),
    "--no-op-offload": ("no_op_offload", True),
    "--kv-unified": ("kv_unified", True),
    "--no-kv-unified": ("kv_unified", False),
    "--swa-full": ("swa_full", True),
    "--no-cache-prompt": ("cache_prompt", False),
    "--context-shift": ("ctx_shift", True),
    "--no-mmproj-offload": ("mmproj_use_gpu", False),
    "--no-jinja": ("use_jinja", False),
    "--check-tensors": ("check_tensors", True),
    "--no-repack": ("no_extra_bufts", True),
    "--no-warmup": ("warmup", False),
}
# Flags with a word of an enumeration: where, which one, and what stands before the word in its names.
ENUMS = {
    "--split-mode": ("split_mode", "llama_split_mode", "LLAMA_SPLIT_MODE_", ("none", "layer", "row", "tensor")),
    "--flash-attn": ("flash_attn_type", "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", ("auto", "on", "off")),
    "--pooling": ("pooling_type", "llama_pooling_type", "LLAMA_POOLING_TYPE_", ("none", "mean", "cls", "last", "rank")),
    "--cache-type-k": ("cache_type_k", "ggml_type", "GGML_TYPE_", ()),
    "--cache-type-v": ("cache_type_v", "ggml_type", "GGML_TYPE_", ()),
    "--rope-scaling": ("rope_scaling_type", "llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", ()),
    "--reasoning-format": ("reasoning_format", "common_reasoning_format", "COMMON_REASONING_FORMAT_", ()),
    "--load-mode": ("load_mode", "llama_load_mode", "LLAMA_LOAD_MODE_", ()),
    "--numa": ("numa", "ggml_numa_strategy", "GGML_NUMA_STRATEGY_", ()),
}  # fmt: skip
ENUM_WORDS = {
    "--flash-attn": {"on": "ENABLED", "off": "DISABLED"},
    "--load-mode": {"dio": "DIRECT_IO", "mmap+mlock": "MMAP_MLOCK"},
}
SAMPLING = {
    "--top-k": "COMMON_PARAMS_SAMPLING_CONFIG_TOP_K",
    "--top-p": "COMMON_PARAMS_SAMPLING_CONFIG_TOP_P",
    "--min-p": "COMMON_PARAMS_SAMPLING_CONFIG_MIN_P",
    "--temp": "COMMON_PARAMS_SAMPLING_CONFIG_TEMP",
    "--repeat-penalty": "COMMON_PARAMS_SAMPLING_CONFIG_PENALTY_REPEAT",
}
# What needs more than to be put in its place.
_OTHERS = (
    "--host", "--alias", "--port", "--tensor-split", "--fit", "--fit-target", "--n-cpu-moe", "--n-cpu-ffn",
    "--override-tensor", "--lora", "--lora-scaled", "--slot-save-path", "--chat-template-file", "--chat-template-kwargs",
    "--spec-type", "--rope-scale", "--prio",
)  # fmt: skip
_REQUIRED = ("--host", "--model", "--alias", "--port", "--ctx-size", "--parallel", "--threads")
_NUMBERS = ("--port", "--n-cpu-moe", "--n-cpu-ffn", "--prio")
EXPERTS = "ffn_(up|down|gate|gate_up)_(ch|)exps"
DENSE = "ffn_(up|down|gate)\\."
"""Names of tensors. Source: llama.cpp common/common.h, LLM_FFN_EXPS_REGEX and LLM_FFN_DENSE_REGEX."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags; a wrong one ends the process with exit code 2 and an `error:` line that names it."""
    parser = argparse.ArgumentParser(prog="llama.cpp", allow_abbrev=False)
    kinds: dict[str, Any] = {**dict.fromkeys(INTS, int), **dict.fromkeys(FLOATS, float)}
    for flag in (*INTS, *FLOATS, *TEXTS, *ENUMS, *_OTHERS):
        choices = ENUMS[flag][3] if flag in ENUMS else ()
        kind = kinds.get(flag, int if flag in _NUMBERS else str)
        parser.add_argument(flag, type=kind, choices=choices or None, required=flag in _REQUIRED)
    for flag in (*SWITCHES, "--cpu-moe"):
        parser.add_argument(flag, action="store_true")
    flags = parser.parse_args(argv)
    if flags.batch_size is not None and flags.batch_size < flags.parallel:
        parser.error(f"argument --batch-size: {flags.batch_size} is less than --parallel {flags.parallel}")
    return flags
