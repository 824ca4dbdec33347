"""How a replica's GPUs share a model: tensor parallel inside a node, pipeline parallel across, and which engine runs what.

It says nothing of memory or speed.
"""

from collections.abc import Mapping

from freehold.sizing.replica.answer import SizeAsk

LLAMA_CPP_QUANTS = frozenset({"bf16", "int8", "int4", "gguf"})
# What GGUF files hold: F16 or BF16, Q8_0, and 4-bit kinds. Source: llama.cpp's quantize tool.
_RUNS: Mapping[str, frozenset[str]] = {"llama-cpp": LLAMA_CPP_QUANTS}


def split(ask: SizeAsk) -> tuple[int, int]:
    """Return (tensor parallel, pipeline parallel), whose product is the asked number of GPUs.

    Tensor parallel is the largest number of GPUs in a node that divides both the GPUs and the attention heads, as engines
    demand; llama.cpp puts layers on GPUs one after the other instead.
    """
    if ask.engine == "llama-cpp":
        return 1, ask.gpus
    fits = [
        ranks
        for ranks in range(1, min(ask.gpus, ask.gpus_per_node) + 1)
        if ask.gpus % ranks == 0 and ask.shape.heads % ranks == 0
    ]
    tensor = max(fits)
    return tensor, ask.gpus // tensor


def why_not_at_all(ask: SizeAsk) -> str:
    """Return why this engine cannot run this model on this GPU whatever its memory; empty if it can."""
    if ask.engine == "tensorrt-llm" and ask.gpu.vendor != "nvidia":
        return f"TensorRT-LLM runs on NVIDIA GPUs only, {ask.gpu.id} is {ask.gpu.vendor}"
    runs = _RUNS.get(ask.engine)
    if runs and ask.quant not in runs:
        return f"{ask.engine} does not run {ask.quant}; it runs {', '.join(sorted(runs))}"
    if ask.quant == "gguf" and ask.engine != "llama-cpp":
        return f"{ask.engine} is not the engine for GGUF files; llama-cpp is"
    tensor, stages = split(ask)
    if stages > ask.shape.layers:
        least = f"each of its {stages:,} pipeline stages needs a layer of its own, and {ask.shape.name} has {ask.shape.layers}"
        return f"{ask.gpus:,} GPUs are too many for one replica: {least}; at most {tensor * ask.shape.layers:,} GPUs"
    asked = ask.input_tokens + ask.output_tokens
    if asked > ask.shape.context:
        return f"{asked:,.0f} tokens do not fit the model's context of {ask.shape.context:,}"
    return ""


def notes_on(ask: SizeAsk, tensor: int, pipeline: int) -> tuple[str, ...]:
    """Return what a reader should know about this way of running it."""
    notes = []
    native = {
        "fp8": ask.gpu.fp8_dense_tflops,
        "fp4": ask.gpu.fp4_dense_tflops,
        "mxfp4": ask.gpu.fp4_dense_tflops,
    }
    if ask.quant in native and not native[ask.quant]:
        notes.append(
            f"{ask.gpu.id} does not multiply {ask.quant}: weights are unpacked, which saves memory but no work"
        )
    if tensor > ask.shape.kv_heads and ask.shape.attention != "mla":
        notes.append(f"more ranks than KV heads ({ask.shape.kv_heads}): the KV cache is kept more than once")
    if pipeline > 1 and ask.engine != "llama-cpp":
        notes.append(f"{pipeline} pipeline stages: a step passes them in turn")
    return tuple(notes)
