"""A projector of pictures for SmolLM2-135M as a GGUF file of some hundred kilobytes: a tower as of LLaVA 1.5, of noise.

A picture of any size becomes one square of 32 x 32 pixels, and each of its 16 patches one token. Other kinds of projector want
tokens of their own in the vocabulary, which SmolLM2 has not.
"""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER, LAYERS, SIDE, PATCH = 32, 2, 64, 2, 32, 8
"""Of the tower, whose last layer is left out; a picture's and a patch's side, pixels."""
EMBEDDING = 576
"""Width of SmolLM2-135M."""
TOKENS = (SIDE // PATCH) ** 2
"""Of one picture."""
_SEED = 5


def write_projector(path: Path, *, embedding: int = EMBEDDING) -> Path:
    """Write it for a model of so wide embeddings and return its path."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for name, value in {
        "image_size": SIDE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "block_count": LAYERS,
        "projection_dim": embedding,
        "attention.head_count": HEADS,
    }.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, tensor in _tensors(embedding):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(embedding: int) -> Iterator[tuple[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]]:
    random = np.random.default_rng(_SEED)

    def noise(*shape: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        return (random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    yield "v.patch_embd.weight", noise(WIDTH, 3, PATCH, PATCH)
    yield "v.patch_embd.bias", noise(WIDTH)
    yield "v.position_embd.weight", noise((SIDE // PATCH) ** 2, WIDTH)
    for layer in range(LAYERS):
        at = f"v.blk.{layer}"
        shapes = {
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (WIDTH, WIDTH)),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        for name, shape in shapes.items():
            yield f"{at}.{name}.weight", noise(*shape)
            yield f"{at}.{name}.bias", noise(shape[0])
        for name in ("ln1", "ln2"):
            yield f"{at}.{name}.weight", np.ones(WIDTH, np.float32)
            yield f"{at}.{name}.bias", np.zeros(WIDTH, np.float32)
    yield "v.post_ln.weight", np.ones(WIDTH, np.float32)
    yield "v.post_ln.bias", np.zeros(WIDTH, np.float32)
    yield "mm.0.weight", noise(embedding, WIDTH)
    yield "mm.0.bias", noise(embedding)
    yield "mm.2.weight", noise(embedding, embedding)
    yield "mm.2.bias", noise(embedding)
