"""The words that sizing and its command-line flags share: engines, quantisations, what a team wants.

Only words, and nothing is imported here: `freehold plan --help` shows them and should not wait for the rest.
"""

from typing import Literal

Engine = Literal["llama-cpp", "vllm", "tensorrt-llm", "sglang"]
Quant = Literal["bf16", "fp8", "int8", "int4", "fp4", "mxfp4", "gguf"]
Prefer = Literal["", "throughput", "latency", "simplicity"]
Churn = Literal["", "low", "high"]
