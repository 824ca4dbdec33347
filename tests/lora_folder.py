"""A LoRA adapter for SmolLM2-135M as a folder of PEFT's, by hand: nothing, or noise, on the queries of every layer."""

import json
import struct
from pathlib import Path

import numpy as np

LAYERS, WIDTH = 30, 576
"""Of SmolLM2-135M."""


def write_adapter_folder(folder: Path, *, strength: float, rank: int = 4) -> Path:
    """Write an adapter; with the strength 0 it changes no answer, with a large one every answer."""
    random = np.random.default_rng(7)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = random.standard_normal((rank, WIDTH)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = strength * random.standard_normal((WIDTH, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(tensors))
    return folder


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.astype(np.float32).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
