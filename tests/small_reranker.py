"""A reranker of a few hundred kilobytes as a GGUF file: BERT with a classification head, its weights noise from a fixed seed.

It knows nothing, so its scores mean nothing; but they depend on every letter of query and document, and equal pairs score alike.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase, digits

import gguf
import numpy as np

WIDTH, HEADS, INNER, LAYERS, CONTEXT = 64, 4, 128, 2, 256
"""Of the network; CONTEXT is the longest pair of query and document, tokens."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SEED = 11


def write_reranker(path: Path) -> Path:
    """Write it and return its path; with the same library the same bytes each time."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("small reranker")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    _add_words(writer)
    for name, tensor in _tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _letters() -> list[str]:
    """Return every letter twice: as a word's first, with the mark that llama.cpp puts there, and inside of one."""
    return [mark + letter for mark in ("\u2581", "") for letter in ascii_lowercase + digits + ".,?!'-"]


def _add_words(writer: gguf.GGUFWriter) -> None:
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * len(_letters())
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*SPECIAL, *_letters()])
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    for number, add in enumerate(
        (
            writer.add_pad_token_id,
            writer.add_unk_token_id,
            writer.add_bos_token_id,
            writer.add_sep_token_id,
            writer.add_mask_token_id,
        )
    ):
        add(number)


def _tensors() -> Iterator[tuple[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]]:
    random = np.random.default_rng(_SEED)
    nothing, one = (lambda size: np.zeros(size, np.float32)), (lambda size: np.ones(size, np.float32))

    def noise(*shape: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        return (random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    yield "token_embd.weight", noise(len(SPECIAL) + len(_letters()), WIDTH) * 8
    yield "token_types.weight", noise(2, WIDTH)
    yield "position_embd.weight", noise(CONTEXT, WIDTH) * 2
    norms = ["token_embd_norm"]
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes = {
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH)),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        for name, shape in shapes.items():
            yield f"{at}.{name}.weight", noise(*shape) * 2
            yield f"{at}.{name}.bias", nothing(shape[0])
        norms += [f"{at}.attn_output_norm", f"{at}.layer_output_norm"]
    for name in norms:
        yield f"{name}.weight", one(WIDTH)
        yield f"{name}.bias", nothing(WIDTH)
    yield "cls.weight", noise(WIDTH, WIDTH)
    yield "cls.bias", nothing(WIDTH)
    yield "cls.output.weight", noise(1, WIDTH) * 4
    yield "cls.output.bias", nothing(1)
