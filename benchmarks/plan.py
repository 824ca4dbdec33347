"""Measure how long a plan of 64 options takes, with 100,000 draws each: bar 2 s, the median of five runs.

    python benchmarks/plan.py               the shipped catalog's fleets and prices for Llama-3.1-8B, cut to 64 options
    python benchmarks/plan.py --all         all options of that plan, some 300, without a bar

What is measured is `freehold.cost.plan.plan`: pricing, break-evens, tornado, curves, rules and verdict. Reading the
catalog and sizing the fleets come before and are told beside. Exit code: 0 the bar holds, 3 it does not.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from datetime import date

from stack import Bar

from freehold.catalog.load import load_catalog
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.model_shape import find_shape
from freehold.cost.intake.plan_flags import PlanAsk
from freehold.cost.intake.plan_inputs import plan_inputs
from freehold.cost.intake.plan_traffic import find_traffic
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.offers import offers_of
from freehold.cost.plan import plan
from freehold.sizing.model.shape import ModelShape

OPTIONS = 64
DRAWS = 100_000
RUNS = 5
LIMIT_S = 2.0
TODAY = date(2026, 11, 27)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all options, no bar")
    arguments = parser.parse_args()
    began = time.perf_counter()
    inputs = found_inputs()
    print(f"catalog and sizing: {time.perf_counter() - began:.2f} s")
    if not arguments.all:
        inputs = cut(inputs)
    times = [timed(inputs) for _ in range(RUNS)]
    print(
        f"{len(offers_of(inputs))} options x {inputs.draws:,} draws: {', '.join(f'{each:.2f}' for each in times)} s"
    )
    bar = Bar(name="median of a whole plan", value=statistics.median(times), limit=LIMIT_S, unit=" s")
    print(bar if not arguments.all else f"median {bar.value:.2f} s")
    return 0 if bar.holds or arguments.all else 3


def found_inputs() -> PlanInputs:
    reader = FlagReader()
    ask = PlanAsk(tokens_per_month=900e6, model="llama-3.1-8b", api="anthropic/claude-sonnet-5-5")
    catalog = load_catalog(today=TODAY).catalog
    assert catalog is not None
    traffic, shape = find_traffic(ask, reader), find_shape(ask.model, None, catalog)
    assert traffic is not None
    assert isinstance(shape, ModelShape)
    inputs = plan_inputs(ask, traffic, shape=shape, catalog=catalog, reader=reader)
    assert inputs is not None, reader.problems
    return replace(inputs, draws=DRAWS)


def cut(inputs: PlanInputs) -> PlanInputs:
    """Return the inputs with as few of the fleets, and of the rental prices for them, as make 64 options or just above."""
    fleets = list(inputs.fleets)
    while len(fleets) > 1 and len(offers_of(replace(inputs, fleets=tuple(fleets[:-1])))) >= OPTIONS:
        fleets.pop()
    gpus = {fleet.sized.ask.gpu.id for fleet in fleets}
    rentals = tuple(price for price in inputs.rentals if price.gpu in gpus)
    kept = replace(inputs, fleets=tuple(fleets), rentals=rentals)
    for _ in range(len(rentals)):
        fewer = replace(kept, rentals=kept.rentals[:-1])
        if len(offers_of(fewer)) < OPTIONS:
            break
        kept = fewer
    return kept


def timed(inputs: PlanInputs) -> float:
    began = time.perf_counter()
    plan(inputs)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
