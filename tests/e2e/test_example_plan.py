"""The second example: a team's own usage read, planned and reported, from a shell, as its README says."""

import json
import re
from pathlib import Path

import pytest

from e2e.box import Box

USAGE = Path(__file__).parents[2] / "examples" / "02-stay-rent-or-buy" / "usage.json"
ASKED = ("plan", "--usage", str(USAGE), "--api", "openai/gpt-6.1-terra", "--model", "llama-3.1-8b")


def test_a_plan_from_a_shell(box: Box) -> None:
    ran = box.run(*ASKED, "--html", "plan.html", "--markdown", "plan.md")
    assert ran.code == 0, ran.err
    assert any(line.startswith("  next: freehold ") for line in ran.out.splitlines())
    assert len(ran.out.splitlines()) <= 60
    assert max(len(line) for line in ran.out.splitlines() if not line.startswith("  next: ")) <= 100
    html = (box.home / "plan.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert not re.search(r'(?:src|href)="https?:', html.replace('<a href="http', ""))
    assert "| option" in (box.home / "plan.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_file(box: Box) -> None:
    found = box.run(*ASKED, "--json").said
    buckets = json.loads(USAGE.read_text(encoding="utf-8"))["data"]
    results = [result for bucket in buckets for result in bucket["results"]]
    tokens = sum(result["input_tokens"] + result["output_tokens"] for result in results)
    assert found["summary"]["tokens_per_month"] == pytest.approx(tokens * 730 / len(buckets), rel=1e-4)
    paid = next(option for option in found["options"] if option["paid_today"])
    fresh = sum(result["input_tokens"] - result["input_cached_tokens"] for result in results)
    cached = sum(result["input_cached_tokens"] for result in results)
    out = sum(result["output_tokens"] for result in results)
    usd = (fresh * 1.0 + cached * 0.05 + out * 5.0) / 1e6 * 730 / len(buckets)
    assert paid["usd_per_month"]["p50"] == pytest.approx(usd, rel=1e-3)
    again = box.run(*ASKED, "--json").said
    assert again == found


def test_a_file_that_cannot_be_written_is_said(box: Box) -> None:
    ran = box.run(*ASKED, "--html", ".", "--json")
    assert (ran.code, "cannot write" in ran.said["error"]["message"]) == (1, True)
