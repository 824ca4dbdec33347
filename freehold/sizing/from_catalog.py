"""A model's shape from its row of the catalog. It counts nothing: the row's totals were counted when it was made."""

from freehold.catalog.facts import ModelFacts
from freehold.sizing.shape import ModelShape


def shape_of(facts: ModelFacts) -> ModelShape:
    """Return the shape of a catalog row.

    Routed experts' parameters follow from total and active ones: active = total - routed x (1 - k / E).
    """
    extra = {key: float(value) for key, value in facts.extra.items() if isinstance(value, int | float)}
    experts, used = int(extra.get("experts", 0)), int(extra.get("experts_per_token", 0))
    total, active = facts.params_total_b * 1e9, facts.params_active_b * 1e9
    tied = bool(extra.get("tie_embeddings", 0))
    window = int(extra.get("sliding_window", 0))
    return ModelShape(
        name=facts.id,
        layers=facts.layers,
        hidden=facts.hidden,
        heads=facts.heads,
        kv_heads=facts.kv_heads,
        head_dim=facts.head_dim,
        vocab=facts.vocab,
        context=facts.context,
        params_total=total,
        params_active=active,
        params_embedding=float(facts.vocab * facts.hidden * (1 if tied else 2)),
        attention=facts.attention,
        kv_lora_rank=int(extra.get("kv_lora_rank", 0)),
        rope_head_dim=int(extra.get("qk_rope_head_dim", 0)),
        sliding_window=window,
        windowed_layers=round(facts.layers * extra.get("swa_layers_fraction", 0.0)) if window else 0,
        experts=experts,
        experts_per_token=used,
        params_routed_experts=_routed(total, active, experts=experts, used=used),
        family="moe" if experts else "dense",
        quant="mxfp4" if "weights_gb_native" in extra else "",
        source=f"catalog: {facts.id} ({facts.source})",
    )


def _routed(total: float, active: float, *, experts: int, used: int) -> float:
    return (total - active) / (1 - used / experts) if experts > used > 0 else 0.0
