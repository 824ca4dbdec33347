"""The traffic that a plan is for: from the team's own usage files, from flags, or from both (a flag wins).

What was not given is assumed, and the plan says so. It reads the named usage files; prices are not looked at.
"""

from dataclasses import replace

from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.plan_flags import USUAL_INPUT_TOKENS, USUAL_PEAK, PlanAsk
from freehold.ledger.files.usage_files import read_usage
from freehold.sizing.fleet.traffic import Traffic


def find_traffic(ask: PlanAsk, reader: FlagReader) -> Traffic | None:
    """Return the traffic, or None where problems are in the reader."""
    if ask.usage:
        return _from_files(ask, reader)
    if ask.tokens_per_month is None:
        if any(problem.where == "--tokens-per-month" for problem in reader.problems):
            return None
        hint = "give --tokens-per-month 900M, or --usage FILE: an export of OpenAI's usage, LiteLLM's logs, or your ledger"
        reader.wrong("--tokens-per-month", "the number of tokens is not given", hint)
        return None
    return _from_flags(ask, ask.tokens_per_month)


def _from_files(ask: PlanAsk, reader: FlagReader) -> Traffic | None:
    read = read_usage(ask.usage, format=ask.usage_format)
    reader.problems += read.problems
    found = read.traffic
    if found is None:
        return None
    if ask.tokens_per_month is not None:
        scale = ask.tokens_per_month / found.tokens_per_month
        note = f"The file's traffic was scaled by {scale:.3g}, as --tokens-per-month asks."
        found = replace(
            found,
            input_tokens_per_month=found.input_tokens_per_month * scale,
            output_tokens_per_month=found.output_tokens_per_month * scale,
            paid_usd_per_month=None,
            assumed=(*found.assumed, note),
        )
    return _with_flags(found, ask)


def _with_flags(found: Traffic, ask: PlanAsk) -> Traffic:
    said = {
        "cached_share": ask.cached_share,
        "batch_share": ask.batch_share,
        "peak_over_mean": ask.peak,
        "input_tokens_per_request": ask.input_tokens,
        "output_tokens_per_request": ask.output_tokens,
    }
    return replace(found, **{name: value for name, value in said.items() if value is not None})  # type: ignore[arg-type] # the fields' own


def _from_flags(ask: PlanAsk, tokens: float) -> Traffic:
    share = ask.input_share
    input_tokens, output_tokens = _sizes(ask)
    return Traffic(
        input_tokens_per_month=tokens * share,
        output_tokens_per_month=tokens * (1 - share),
        cached_share=ask.cached_share or 0.0,
        input_tokens_per_request=input_tokens,
        output_tokens_per_request=output_tokens,
        peak_over_mean=ask.peak or USUAL_PEAK,
        batch_share=ask.batch_share or 0.0,
        assumed=tuple(_assumed(ask, input_tokens, output_tokens)),
    )


def _sizes(ask: PlanAsk) -> tuple[float, float]:
    """Return a mean request's input and output tokens, in the traffic's mix."""
    share = min(max(ask.input_share, 0.001), 0.999)
    if ask.input_tokens is not None and ask.output_tokens is not None:
        return ask.input_tokens, ask.output_tokens
    if ask.output_tokens is not None:
        return max(1.0, ask.output_tokens * share / (1 - share)), ask.output_tokens
    input_tokens = ask.input_tokens or USUAL_INPUT_TOKENS
    return input_tokens, max(1.0, input_tokens * (1 - share) / share)


def _assumed(ask: PlanAsk, input_tokens: float, output_tokens: float) -> list[str]:
    said = []
    if ask.input_tokens is None and ask.output_tokens is None:
        said.append(f"A mean request has {input_tokens:,.0f} input and {output_tokens:,.0f} output tokens.")
    if ask.peak is None:
        said.append(f"The busiest hour has {USUAL_PEAK:g} times the mean (--peak).")
    if ask.cached_share is None:
        said.append("No prefix cache hits (--cached-share).")
    return said
