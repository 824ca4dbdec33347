"""A break-even says of which GPUs it is, and a confidence why it is that."""

from dataclasses import replace

from freehold.cost.report import outline
from plan_samples import plan


def test_a_break_even_names_the_gpus_that_it_is_of():
    each = replace(plan().break_even[0], gpus=1)
    assert "of the capacity of the 1 GPU that would then serve it" in outline.break_even_text(each, {})
    assert outline.break_even_cell(each).endswith(" of 1 GPU")
    assert outline.break_even_cell(replace(each, utilisation=None)) == "n/a"


def test_the_confidence_says_why():
    verdict = replace(plan().verdict, confidence_reason="cheapest in 93% of the draws, and from 90% is high")
    assert outline.confidence_text(verdict) == "high: cheapest in 93% of the draws, and from 90% is high"
