"""Inputs of the cost model for tests: round numbers, one H100 node, an API or two."""

from dataclasses import replace
from datetime import date
from typing import Any

from freehold.catalog.facts import (
    ApiPrice,
    Catalog,
    Colocation,
    Fact,
    GpuFacts,
    Link,
    RentalKind,
    RentalPrice,
    Verified,
)
from freehold.core.spread import Spread
from freehold.cost.model.case import ApiOffer, CostCase, CostSetting, Offer
from freehold.cost.model.draw import Middle, Sampler
from freehold.cost.model.inputs import Assumption, OwnAssumptions, PlanInputs, RentAssumptions
from freehold.sizing.fleet.traffic import Traffic
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import SizeAsk, Sized, SizedFleet

TODAY = date(2026, 11, 27)
FRESH = date(2026, 11, 1)
FACT = Fact(source="a test", as_of=FRESH, verified=Verified.READ)
COLO = Colocation(
    source="CBRE",
    as_of=FRESH,
    verified=Verified.READ,
    id="wholesale",
    usd_per_kw_month=Spread.exactly(184),
    power_included=False,
)

OWN = {
    "chassis_usd_per_gpu": (8000, 10000, 12000),
    "host_ram_usd_per_gb": (20, 27, 37),
    "storage_usd_per_tb": (100, 200, 400),
    "network_usd_per_node": (2000, 4000, 8000),
    "power_usd_per_kwh": (0.07, 0.12, 0.20),
    "pue_ratio": (1.15, 1.3, 1.58),
    "host_kw": (1.5, 2.0, 4.6),
    "gpu_power_fraction": (0.43, 0.6, 0.86),
    "colo_usd_per_kw_month": (130, 184, 300),
    "residual_fraction": (0.05, 0.2, 0.35),
    "capital_rate_per_year": (0.06, 0.10, 0.15),
    "life_months": (36, 36, 36),
    "maintenance_fraction_per_year": (0.02, 0.05, 0.08),
    "insurance_fraction_per_year": (0.005, 0.01, 0.015),
    "staff_fte": (0.05, 0.15, 0.3),
    "staff_usd_per_year": (160_000, 220_000, 300_000),
    "gpu_failures_per_gpu_year": (0.025, 0.04, 0.06),
    "repair_days": (3, 4, 5),
    "egress_usd_per_gb": (0.0, 0.02, 0.09),
}
RENT = {
    "rent_staff_fte": (0.02, 0.1, 0.2),
    "staff_usd_per_year": (160_000, 220_000, 300_000),
    "storage_usd_per_tb_month": (50, 80, 100),
    "rent_egress_usd_per_gb": (0.0, 0.02, 0.09),
}


def assumed(name: str, value: tuple[float, float, float] | float, fact: Fact = FACT) -> Assumption:
    spread = Spread(*value) if isinstance(value, tuple) else Spread.exactly(value)
    return Assumption(name=name, value=spread, fact=fact)


def own(**changes: Any) -> OwnAssumptions:
    values = {**OWN, **changes}
    facts: dict[str, Fact] = {"colo_usd_per_kw_month": COLO}
    return OwnAssumptions(
        **{name: assumed(name, value, facts.get(name, FACT)) for name, value in values.items()}
    )


def rent(**changes: Any) -> RentAssumptions:
    values = {**RENT, **changes}
    return RentAssumptions(
        **{name.removeprefix("rent_"): assumed(name, value) for name, value in values.items()}
    )


def exact_own(**changes: Any) -> OwnAssumptions:
    """Owning with every input known: nothing but what is said costs anything."""
    nothing = dict.fromkeys(OWN, 0.0) | {"pue_ratio": 1.0, "life_months": 36.0, "gpu_power_fraction": 1.0}
    return own(**{**nothing, **changes})


def exact_rent(**changes: Any) -> RentAssumptions:
    return rent(**{**dict.fromkeys(RENT, 0.0), **changes})


def gpu(**changes: Any) -> GpuFacts:
    row: dict[str, Any] = {
        "id": "h100-sxm",
        "vendor": "nvidia",
        "memory_gb": 80.0,
        "mem_bw_gb_s": 3350.0,
        "bf16_dense_tflops": 989.0,
        "fp8_dense_tflops": 1979.0,
        "fp4_dense_tflops": None,
        "tdp_w": 700.0,
        "scale_up_gb_s_per_dir": 450.0,
        "idle_w": 80.0,
        "price_new_usd": Spread(25_000, 28_000, 40_000),
        "price": FACT,
        "source": "a test",
        "as_of": FRESH,
        "verified": Verified.READ,
    }
    return GpuFacts(**{**row, **changes})


SHAPE = ModelShape(
    name="llama-3.1-8b",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128_256,
    context=131_072,
    params_total=8.03e9,
    params_active=8.03e9,
    params_embedding=1.05e9,
)


def fleet(card: GpuFacts | None = None, *, gpus: int = 8, replicas: int = 8, **changes: Any) -> SizedFleet:
    capacity = changes.pop("capacity", Spread(5000.0 * replicas, 6000.0 * replicas, 7000.0 * replicas))
    ask = SizeAsk(
        shape=SHAPE,
        gpu=card or gpu(),
        gpus=max(1, gpus // (replicas + changes.get("spare_replicas", 0))),
        engine="vllm",
        quant="fp8",
        input_tokens=1000,
        output_tokens=300,
        concurrency=32,
    )
    sized = Sized(
        ask=ask,
        fits=changes.pop("fits", True),
        why_not=changes.pop("why_not", ""),
        tensor_parallel=ask.gpus,
        pipeline_parallel=1,
        weights_bytes=8_030_000_000,
        weights_bytes_per_gpu=8_030_000_000,
        kv_bytes_per_token=131_072,
        kv_cache_tokens=400_000,
        concurrency_max=64,
        concurrency=32,
        output_tokens_per_s=Spread(1200, 1500, 1800),
        ttft_ms=Spread(100, 200, 400),
        ttft_p95_ms=Spread(150, 300, 600),
        itl_ms=Spread(15, 20, 25),
        bound_by="memory bandwidth",
        calibration="a test",
    )
    row: dict[str, Any] = {
        "sized": sized,
        "replicas": replicas,
        "spare_replicas": 0,
        "gpus": gpus,
        "nodes": -(-gpus // 8),
        "capacity_tokens_per_s": capacity,
        "peak_tokens_per_s": capacity.low * 0.7,
        "utilisation": 0.3,
        "load_time_s": Spread(10, 20, 40),
        "storage": "nvme-gen4",
        "network": "10gbe",
        "host_ram_gb": 512.0,
    }
    return SizedFleet(**{**row, **changes})


def traffic(tokens: float = 10e9, **changes: Any) -> Traffic:
    row: dict[str, Any] = {
        "input_tokens_per_month": tokens * 0.75,
        "output_tokens_per_month": tokens * 0.25,
        "cached_share": 0.0,
        "input_tokens_per_request": 1000.0,
        "output_tokens_per_request": 333.0,
        "peak_over_mean": 2.5,
    }
    return Traffic(**{**row, **changes})


def api(model: str = "sonnet", *, prices: tuple[float, float] = (2.0, 10.0), **changes: Any) -> ApiPrice:
    row: dict[str, Any] = {
        "provider": "anthropic",
        "model": model,
        "input_usd_per_m": prices[0],
        "output_usd_per_m": prices[1],
        "cached_input_usd_per_m": None,
        "open_weights": False,
        "source": "a price list",
        "as_of": FRESH,
        "verified": Verified.READ,
    }
    return ApiPrice(**{**row, **changes})


def rental(usd: float = 2.69, provider: str = "runpod", **changes: Any) -> RentalPrice:
    row: dict[str, Any] = {
        "provider": provider,
        "gpu": "h100-sxm",
        "usd_per_gpu_hour": usd,
        "kind": RentalKind.ON_DEMAND,
        "source": "a price list",
        "as_of": FRESH,
        "verified": Verified.READ,
    }
    return RentalPrice(**{**row, **changes})


LINKS = {
    name: Link(
        id=name,
        kind="network",
        raw_gbit_s=gb_s * 8,
        effective_gb_s_per_dir=gb_s,
        latency_us=latency_us,
        source="payload of TCP",
        as_of=FRESH,
        verified=Verified.RAN,
    )
    for name, gb_s, latency_us in (("1gbe", 0.117, 50.0), ("10gbe", 1.17, 40.0))
}


def catalog(**changes: Any) -> Catalog:
    row: dict[str, Any] = {
        "today": TODAY,
        "gpus": {},
        "models": {},
        "links": LINKS,
        "storage": {},
        "rentals": (),
        "apis": (),
        "electricity": (),
        "pue": {},
        "colocation": {},
        "failures": (),
        "nodes": {},
        "published_tco": (),
        "calibrations": {},
        "engine_ratios": {},
    }
    return Catalog(**{**row, **changes})


def inputs(**changes: Any) -> PlanInputs:
    row: dict[str, Any] = {
        "traffic": traffic(),
        "fleets": (fleet(),),
        "apis": (
            api(),
            api("llama-8b-instant", prices=(0.05, 0.08), provider="groq", same_as="llama-3.1-8b"),
        ),
        "rentals": (rental(), rental(3.49, "lambda"), rental(1.6, "crusoe", kind=RentalKind.SPOT)),
        "own": own(),
        "rent": rent(),
        "catalog": catalog(),
        "today": TODAY,
        "paid_today": "anthropic/sonnet",
        "draws": 2000,
    }
    return PlanInputs(**{**row, **changes})


def offered(each: ApiPrice | None = None, ratio: Spread | None = None) -> ApiOffer:
    return ApiOffer(fact=each or api(), price_ratio=ratio or Spread.exactly(1.0))


def setting(**changes: Any) -> CostSetting:
    row: dict[str, Any] = {"traffic": traffic(), "own": own(), "rent": rent(), "fallback": offered()}
    return CostSetting(**{**row, **changes})


def bought(machines: SizedFleet | None = None, usd: Spread | None = None) -> Offer:
    return Offer(
        id="buy",
        kind="buy",
        provider="colocation",
        fleet=machines or fleet(),
        gpu_usd=usd or Spread(25e3, 28e3, 40e3),
    )


def rented(machines: SizedFleet | None = None, usd: Spread | None = None) -> Offer:
    return Offer(
        id="rent",
        kind="rent",
        provider="runpod",
        fleet=machines or fleet(),
        rental_usd_per_gpu_hour=usd or Spread.exactly(2.69),
    )


def called(price: ApiOffer | None = None) -> Offer:
    return Offer(id="api", kind="api", provider="anthropic", api=price or offered())


def case(offer: Offer, draws: Sampler | None = None, **changes: Any) -> CostCase:
    given = changes.pop("setting", None) or setting(**changes)
    return CostCase(setting=given, offer=offer, draws=draws or Middle())


def without(fleet_: SizedFleet, **changes: Any) -> SizedFleet:
    return replace(fleet_, **changes)
