"""A LoRA adapter for SmolLM2-135M as a GGUF file: nothing, or noise, on the queries of every layer."""

from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, RANK = 30, 576, 4
"""Of SmolLM2-135M; of the adapter."""


def write_adapter(path: Path, *, strength: float) -> Path:
    """Write an adapter; with the strength 0 it changes no answer, with a large one every answer."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for layer in range(LAYERS):
        down = random.standard_normal((RANK, WIDTH)).astype(np.float32)
        up = (strength * random.standard_normal((WIDTH, RANK))).astype(np.float32)
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_a", down)
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
