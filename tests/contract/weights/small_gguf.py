"""A GGUF file of a few hundred bytes whose header is that of a language model, for whoever reads headers only."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter


def write_small_gguf(path: Path) -> Path:
    """Write it and return its path."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
