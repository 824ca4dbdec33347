"""What model weights can be, in one word each: engines say which they load, the weight store says which it has.

Names only: nothing here looks at a file.
"""

from enum import StrEnum


class Format(StrEnum):
    """What weights must be for an engine to load them."""

    GGUF = "gguf"  # one file, or several parts beside each other
    SAFETENSORS = "safetensors"  # a folder as on Hugging Face: config.json, tokenizer, *.safetensors
    TENSORRT = "tensorrt"  # a folder of prebuilt TensorRT engines with their config.json
