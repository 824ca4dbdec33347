"""A model's shape from its row of the catalog. It counts nothing: the row's totals were counted when it was made."""

from collections.abc import Mapping

from freehold.catalog.facts import ModelFacts
from freehold.sizing.model.shape import ModelShape


def shape_of(facts: ModelFacts) -> ModelShape:
    """Return the shape of a catalog row.

    Where every layer has only routed experts, their parameters are what embeddings, attention and router leave of the
    total, and the active ones follow (published counts of active parameters differ in whether embeddings are in them); else
    they follow from total and active ones: active = total - routed x (1 - k / E).
    """
    extra = {key: float(value) for key, value in facts.extra.items() if isinstance(value, int | float)}
    experts, used = int(extra.get("experts", 0)), int(extra.get("experts_per_token", 0))
    total = facts.params_total_b * 1e9
    embedding = float(facts.vocab * facts.hidden * (1 if extra.get("tie_embeddings") else 2))
    routed = _routed(facts, extra, embedding)
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
        params_active=total - routed * (1 - used / experts) if experts else total,
        params_embedding=embedding,
        attention=facts.attention,
        kv_lora_rank=int(extra.get("kv_lora_rank", 0)),
        rope_head_dim=int(extra.get("qk_rope_head_dim", 0)),
        sliding_window=window,
        windowed_layers=round(facts.layers * extra.get("swa_layers_fraction", 0.0)) if window else 0,
        experts=experts,
        experts_per_token=used,
        params_routed_experts=routed,
        family="moe" if experts else "dense",
        quant=str(facts.native_quant or ""),
        source=f"catalog: {facts.id} ({facts.source})",
    )


def _routed(facts: ModelFacts, extra: Mapping[str, float], embedding: float) -> float:
    experts, used = extra.get("experts", 0.0), extra.get("experts_per_token", 0.0)
    if experts <= used:
        return 0.0
    if facts.attention == "mla" or extra.get("shared_experts"):
        return (facts.params_total_b - facts.params_active_b) * 1e9 / (1 - used / experts)
    attention = facts.hidden * facts.head_dim * (2 * facts.heads + 2 * facts.kv_heads)
    return facts.params_total_b * 1e9 - embedding - facts.layers * (attention + facts.hidden * experts)
