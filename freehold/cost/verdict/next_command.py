"""What to run after a plan: a line to paste that looks further, never the line that was just run.

It keeps what was said. No price of the catalog is written as if it were a quote, and nothing that was not given is made up.
"""

import shlex
from collections.abc import Iterable

from freehold.cost.model.case import Offer
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.offers import NODE_QUOTE, RENTAL_QUOTE, asked_model
from freehold.cost.model.result import Word
from freehold.cost.pricing.ranking import Ranking
from freehold.cost.verdict.questions import flag_of, meant
from freehold.sizing.fleet.choose import bench_command
from freehold.sizing.replica.answer import SizedFleet, Slo

SIZE_KEEPS = ("--model-config", "--prices", "--slo-ttft-p95", "--slo-itl", "--spares")
"""Flags of `freehold plan` that `freehold size` has as well."""
COMPARED = 3
"""APIs that are named to be compared where none takes part. Our own choice: a line that fits a terminal."""


def next_command(word: Word, offer: Offer | None, ranking: Ranking) -> str:
    """Return the line: size what is to be rented or bought, else the plan again with the question that is left."""
    said = said_words(ranking.inputs)
    if not ranking.best("api"):
        listed = [each.offer for each in ranking.options if each.offer.kind == "api" and each.offer.complete]
        names = [f"{each.provider}/{each.model}" for each in listed[:COMPARED]]
        if names and "--compare" not in said:
            return _line("plan", {**said, "--compare": [",".join(names)]})
    if offer and offer.fleet:
        return _size(offer.fleet, said, ranking)
    if word == "change-api" and offer:
        return _line("plan", _changed_to(offer, said, ranking.inputs))
    machines = ranking.machines
    fleet = machines.offer.fleet if machines else meant(ranking)
    gpu = fleet.sized.ask.gpu.id if fleet else ""
    if gpu and said.get("--gpu") != [gpu]:
        return _line("plan", {**said, "--gpu": [gpu]})
    return _size(fleet, said, ranking) if fleet else _line("plan", {**said, "--html": ["plan.html"]})


def bench_of(engines: Iterable[str], inputs: PlanInputs) -> str:
    """Return the load test that settles which of these engines serves best: on the cheapest fleet that all are compared on."""
    slo = Slo(ttft_s=inputs.slo_ttft_s or 0.0, itl_s=inputs.slo_itl_s or 0.0)
    sized = next((each.sized for each in inputs.fleets if each.replicas), None)
    return bench_command(sized, engines, slo)


def said_words(inputs: PlanInputs) -> dict[str, list[str]]:
    """Return the flags that were given with their values; where none was passed on, those that the inputs hold."""
    if not inputs.said:
        return _told(inputs)
    found: dict[str, list[str]] = {}
    for flag, value in zip(inputs.said[::2], inputs.said[1::2], strict=True):
        found.setdefault(flag, []).append(value)
    return found


def _told(inputs: PlanInputs) -> dict[str, list[str]]:
    found = {"--tokens-per-month": f"{inputs.traffic.tokens_per_month:.0f}", "--model": asked_model(inputs)}
    found["--api"] = inputs.paid_today
    for name, quote in inputs.quotes.items():
        key, _, gpu = name.partition(":")
        found[flag_of(key) if key == RENTAL_QUOTE else f"--{NODE_QUOTE.replace('_', '-')}"] = f"{quote.mid:g}"
        found |= {"--gpu": gpu} if gpu else {}
    if inputs.own.staff_fte.asked:
        found[flag_of("staff_fte")] = f"{inputs.own.staff_fte.value.mid:g}"
    return {flag: [value] for flag, value in found.items() if value}


def _changed_to(offer: Offer, said: dict[str, list[str]], inputs: PlanInputs) -> dict[str, list[str]]:
    """Return the plan's flags with the API that is advised as the one that is paid, and the one of today beside it."""
    before = [*said.get("--compare", []), inputs.paid_today]
    chosen = f"{offer.provider}/{offer.model}"
    others = [name for words in before for name in words.split(",") if name and name != chosen]
    return {**said, "--api": [chosen], "--compare": [",".join(dict.fromkeys(others))]}


def _line(command: str, flags: dict[str, list[str]]) -> str:
    words = [word for flag, values in flags.items() for value in values if value for word in (flag, value)]
    return shlex.join(["freehold", command, *words])


def _size(fleet: SizedFleet, said: dict[str, list[str]], ranking: Ranking) -> str:
    ask = fleet.sized.ask
    kept = {flag: said[flag] for flag in SIZE_KEEPS if flag in said}
    words: dict[str, list[str]] = {
        "--model": [] if "--model-config" in kept else said.get("--model", [ask.shape.name]),
        "--gpu": [ask.gpu.id],
        "--count": [f"{ask.gpus}"],
        "--engine": [ask.engine],
        "--quant": [ask.quant],
        "--input-tokens": [f"{ask.input_tokens:.0f}"],
        "--output-tokens": [f"{ask.output_tokens:.0f}"],
        "--cached-share": [f"{ask.cached_share:g}"] if ask.cached_share else [],
        "--tokens-per-month": [f"{ranking.setting.traffic.tokens_per_month:.0f}"],
        "--peak": [f"{ranking.setting.traffic.peak_over_mean:g}"],
        **kept,
    }
    return _line("size", words)
