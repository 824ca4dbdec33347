"""Whether a link is good enough: for tensor or pipeline parallel across nodes, for replicas behind a balancer, for weights.

"1 or 10 GbE is insufficient" is a result here, with its numbers, not a rule: it is true for tensor parallel across nodes and
false for replicas and for most pipelines. It measures nothing: measure a link and overlay the catalog's row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from freehold.catalog.facts import Link
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import Reason
from freehold.sizing.replica.roofline import ACTIVATION_WIDTH_BYTES

MBIT_PER_TOKEN_S = 16 / 10_000
"""Of a balancer's link, Mbit/s per token/s out: 200 bytes of streamed JSON each. Source: research 3.10, 16 Mbit/s per 10k."""
SLOWER_PART = 0.25
"""How much longer a step may get by crossing nodes until a link is called insufficient. Why: then the second node's GPUs
still give more than half of what they would."""
PREFILL_TOKENS = 8192
"""The prompt that a link is judged by. Source: research 3.6, vLLM's default batch of prompt tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCrossing:
    """What crossing nodes adds, milliseconds: to a decode step of so many sequences, and to a prompt of 8192 tokens."""

    decode_ms: float
    prefill_ms: float


def tensor_crossing(shape: ModelShape, link: Link, *, ranks: int, sequences: float) -> LinkCrossing:
    """Return what all-reduces over this link add: two per layer, 2 (n - 1) / n of the activations each.

    Source: arXiv 1909.08053 (two all-reduces per layer), a ring's traffic.
    """

    def extra_ms(tokens: float) -> float:
        moved = 2 * (ranks - 1) / ranks * tokens * shape.hidden * ACTIVATION_WIDTH_BYTES
        return 2 * shape.layers * _message_ms(link, moved)

    return LinkCrossing(decode_ms=extra_ms(sequences), prefill_ms=extra_ms(PREFILL_TOKENS))


def pipeline_crossing(shape: ModelShape, link: Link, *, stages: int, sequences: float) -> LinkCrossing:
    """Return what handing activations from stage to stage adds: each token's once per boundary."""

    def extra_ms(tokens: float) -> float:
        return (stages - 1) * _message_ms(link, tokens * shape.hidden * ACTIVATION_WIDTH_BYTES)

    return LinkCrossing(decode_ms=extra_ms(sequences), prefill_ms=extra_ms(PREFILL_TOKENS))


def _message_ms(link: Link, moved_bytes: float) -> float:
    return moved_bytes / (link.effective_gb_s_per_dir * 1e6) + link.latency_us * 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether a link is enough, and the reason with its numbers."""

    enough: bool
    reason: Reason


def judge(link: Link, crossing: LinkCrossing, *, use: str, step_ms: float, prompt_ms: float) -> Judgement:
    """Return whether what crossing adds leaves steps and prompts less than a quarter longer.

    `step_ms` and `prompt_ms` are a decode step and a prompt of 8192 tokens without crossing; `use` names it in the reason.
    """
    enough = crossing.decode_ms <= SLOWER_PART * step_ms and crossing.prefill_ms <= SLOWER_PART * prompt_ms
    text = (
        f"{link.id} is {'enough' if enough else 'insufficient'} for {use}: it adds {crossing.decode_ms:.3g} ms to a step "
        f"of {step_ms:.3g} ms and {crossing.prefill_ms:.3g} ms to a prompt of {prompt_ms:.3g} ms"
    )
    return Judgement(enough=enough, reason=Reason(text=text, source=link.source))


def balancer_mbit_s(output_tokens_per_s: float) -> float:
    """Return the traffic of streamed answers through a balancer, Mbit/s."""
    return output_tokens_per_s * MBIT_PER_TOKEN_S


def networks(links: Mapping[str, Link]) -> list[Link]:
    """Return the catalog's network links, slowest first."""
    return sorted(
        (link for link in links.values() if link.kind == "network"),
        key=lambda link: (link.effective_gb_s_per_dir, -link.latency_us),
    )
