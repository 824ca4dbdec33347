"""Pages on which servers report what they can take: `/v1/models` with a context length, vLLM's `cache_config_info`.

Every reader is total: a page of another kind yields an unknown capacity, never an error.
"""

import re

from freehold.engines.base import Capacity
from freehold.engines.shared.json_object import json_object

NUMBER_MAX = 10**9
"""A larger number is not a capacity. Source: the bound of `kv_tokens` of engine external in freehold.yaml."""
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'\b(block_size|num_gpu_blocks)="(\d{1,12})"')


def rows(value: object) -> list[dict[str, object]]:
    """Return the objects of a JSON array; [] for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def count_of(value: object) -> int:
    """Return a whole number from 1 to NUMBER_MAX; 0 for anything else."""
    return value if type(value) is int and 0 < value <= NUMBER_MAX else 0


def model_card(body: bytes, model: str) -> Capacity:
    """Read `max_model_len` of one model in `GET /v1/models`. Source: vLLM and SGLang, ModelCard."""
    cards = [row for row in rows(json_object(body).get("data")) if row.get("id") == model]
    lengths = [count_of(card.get("max_model_len")) for card in cards]
    return Capacity(max_context_tokens=max(lengths, default=0))


def vllm_kv_cache(body: bytes, _model: str) -> Capacity:
    """Read vLLM's KV cache from `/metrics`; several engines behind one address are added up.

    Source: vLLM, CacheConfig.metrics_info, whose fields are the labels of the gauge `cache_config_info`. No page reports how
    many requests it runs at once.
    """
    tokens = 0
    for labels in _CACHE_CONFIG.findall(body.decode("utf-8", "replace")):
        found = {name: int(value) for name, value in _LABEL.findall(labels)}
        tokens += found.get("block_size", 0) * found.get("num_gpu_blocks", 0)
    return Capacity(kv_tokens=count_of(tokens))
