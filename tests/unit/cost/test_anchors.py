"""Published figures that the cost model must reproduce; sources in each test."""

from dataclasses import replace

import pytest

import cost_samples as samples
from freehold.core.spread import Spread
from freehold.cost.model.case import CostSetting
from freehold.cost.model.draw import Middle
from freehold.cost.pricing.break_even import payback
from freehold.cost.pricing.price import middle_usd, price
from freehold.sizing.fleet.traffic import HOURS_PER_MONTH

EXACT = Spread.exactly
SECONDS = HOURS_PER_MONTH * 3600


def usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float:
    """Return what a million tokens cost at a rate that is really served."""
    return usd_per_hour / (tokens_per_s * 3600) * 1e6


def payback_months(capital_usd: float, *, monthly_usd: float, alternative_usd: float) -> float:
    """Return the months until what was paid at the start is saved; inf: never. Undiscounted, no residual value."""
    saved = alternative_usd - monthly_usd
    return capital_usd / saved if saved > 0 else float("inf")


def rented_usd_per_m(tokens_per_s: float, gpus: int) -> float:
    """A rental at 6.98 USD per GPU-hour that serves output tokens only, priced by the lines."""
    tokens = tokens_per_s * SECONDS
    traffic = samples.traffic(tokens, input_tokens_per_month=0.0, output_tokens_per_month=tokens)
    fleet = samples.fleet(gpus=gpus, replicas=1, capacity=EXACT(20_000.0), peak_tokens_per_s=tokens_per_s)
    setting = CostSetting(traffic=traffic, own=samples.exact_own(), rent=samples.exact_rent())
    return middle_usd(samples.rented(fleet, EXACT(6.98)), setting) / tokens * 1e6


def test_patil_2026_saturated_and_nearly_idle():
    # arXiv 2606.11690: Qwen3-30B-A3B-FP8 at 9,271 tokens/s; Mixtral on two H100 at 1 request/s of 256 output tokens
    assert rented_usd_per_m(9271, gpus=1) == pytest.approx(0.209, abs=0.001)
    assert rented_usd_per_m(9271, gpus=1) == pytest.approx(usd_per_million(6.98, 9271), rel=1e-6)
    assert 15.10 <= rented_usd_per_m(256, gpus=2) <= 15.25
    assert rented_usd_per_m(254.3, gpus=2) == pytest.approx(15.25, abs=0.01)


def test_semianalysis_owns_an_h100_for_1_30_an_hour():
    # InferenceX-app constants.ts (2026-04): 1.30 USD per GPU-hour; inputs: 250,000 USD a node, 4 years, 8 %,
    # 110 USD per kW of 10.2 kW, 0.08 USD per kWh, no staff, nothing left at the end; 7 kW mean at a PUE of 1.3
    own = samples.exact_own(
        capital_rate_per_year=0.08,
        life_months=48.0,
        pue_ratio=1.3,
        power_usd_per_kwh=0.08,
        host_kw=4.6,
    )
    own = replace(own, colo_usd_per_kw_month=samples.assumed("colo_usd_per_kw_month", 110.0, samples.COLO))
    setting = samples.setting(own=own, node_usd=EXACT(250_000.0), measured_it_w=EXACT(7000.0))
    fleet = samples.fleet(capacity=EXACT(48_000.0))
    hourly = middle_usd(samples.bought(fleet), setting) / 8 / HOURS_PER_MONTH
    assert hourly == pytest.approx(1.33, abs=0.005)
    assert hourly == pytest.approx(1.30, rel=0.05)


PAN = {
    # model: USD of hardware, watts, months against Claude-4-Opus, GPT-5, Gemini-2.5-Pro
    "EXAONE-32B": (2_000, 575, (0.3, 2.26, 2.06)),
    "Llama-3.3-70B": (15_000, 300, (2.3, 17.8, 16.2)),
    "gpt-oss-120b": (30_000, 600, (3.9, 30.9, 28.2)),
    "GLM-4.5": (120_000, 2400, (6.5, 51.5, 47.0)),
    "Kimi-K2": (240_000, 4800, (8.7, 69.3, 63.1)),
}
PAN_APIS = ((15.0, 75.0), (1.25, 10.0), (1.25, 10.0))
PAN_HOURS = 8 * 20


def pan_tokens(model: str) -> float:
    """Tokens a month that explain the GPT-5 column: the summary that was read has no throughputs."""
    capital, watts, months = PAN[model]
    energy = watts / 1000 * PAN_HOURS * 0.15
    return (capital / months[1] + energy) / (1.25 / 3 + 2 * 10 / 3) * 1e6


@pytest.mark.parametrize("model", PAN)
def test_pan_2025_break_even_months(model: str):
    # arXiv 2509.18101, read through a third party's summary, not the paper: C = GPUs x price + kWh, a third of the tokens
    # are input, 8 h x 20 days at capacity. One throughput per model, from the GPT-5 column, must explain the others;
    # 0.05 is half of the last digit of the Opus column.
    capital, watts, months = PAN[model]
    tokens = pan_tokens(model)
    traffic = samples.traffic(
        tokens, input_tokens_per_month=tokens / 3, output_tokens_per_month=tokens * 2 / 3
    )
    own = samples.exact_own(power_usd_per_kwh=0.15, life_months=120.0)
    fleet = samples.fleet(gpus=1, replicas=1, capacity=EXACT(1e6), peak_tokens_per_s=1.0)
    mean_w = EXACT(watts * PAN_HOURS / HOURS_PER_MONTH)
    for prices, published in zip(PAN_APIS, months, strict=True):
        api = samples.called(samples.offered(samples.api(prices=prices)))
        setting = samples.setting(traffic=traffic, own=own, measured_it_w=mean_w, site="on-premises")
        mine = price(samples.bought(fleet, EXACT(float(capital))), setting, draws=Middle())
        found = float(payback(mine, price(api, setting, draws=Middle()))[0])
        assert found == pytest.approx(published, rel=0.10, abs=0.05)
        usd = (prices[0] / 3 + 2 * prices[1] / 3) * tokens / 1e6
        assert found == pytest.approx(
            payback_months(capital, monthly_usd=watts / 1000 * PAN_HOURS * 0.15, alternative_usd=usd),
            rel=1e-6,
        )
