"""A fallback for a gateway under test: its settings, and what its answers cost."""

from typing import Any

from gateway_rig.client import Answer
from gateway_rig.engines import Engine
from gateway_rig.process import Gateway

HEADER = "x-freehold-fallback"
PRICE = {"input_picousd": 150_000, "cached_picousd": 75_000, "output_picousd": 600_000}
COST = "0.000001650000"  # 3 tokens of prompt and 2 of answer, see gateway_rig.killing.USAGE
PLENTY = 10**12


def fallback(engine: Engine, name: str = "cloud", **more: Any) -> dict[str, Any]:
    settings = {"name": name, "url": f"{engine.url}/v1", "price": PRICE, "budget_picousd_per_day": PLENTY}
    return settings | {"upstream_model": "big", "api_key": "sk-there"} | more


def no_replica(name: str = "m") -> dict[str, Any]:
    return {"name": name, "endpoints": []}


def asked(gateway: Gateway, data: bytes) -> Answer:
    with gateway.client() as client:
        return client.ask(data)
