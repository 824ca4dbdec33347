"""`freehold plan --usage`: the API in use is read from the files where they leave no doubt, and what they lack is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.main import main

QUICK = ("plan", "--gpu", "h100-sxm", "--model", "llama-3.1-8b", "--draws", "1000")
HEAD = "startTime,prompt_tokens,completion_tokens,request_id,model"


def usage(folder: Path, models: list[str], bad: int = 0) -> str:
    """Write a row an hour and return the file; the last `bad` ones cannot be used."""
    rows = [
        f"2026-11-{1 + i // 24:02d}T{i % 24:02d}:00:00,1000,200,r{i},{model}"
        for i, model in enumerate(models)
    ]
    rows[len(rows) - bad :] = [row.replace(",1000,", ",many,") for row in rows[len(rows) - bad :]]
    path = folder / "logs.csv"
    path.write_text("\n".join([HEAD, *rows]))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main([*QUICK, *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_model_of_nearly_all_tokens_is_the_api_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = usage(tmp_path, ["gpt-6.1-terra"] * 48 + ["smol"] * 2)
    found = said(capsys, "--usage", path)
    assert found["summary"]["paid_today"] == "openai/gpt-6.1-terra"
    assert (
        "96% of the tokens are gpt-6.1-terra's: openai/gpt-6.1-terra is taken as the API in use (--api names another)"
        in found["notes"]
    )
    told = said(capsys, "--usage", path, "--api", "openai/gpt-6-luna")
    assert told["summary"]["paid_today"] == "openai/gpt-6-luna"
    assert not any("taken as the API" in note for note in told["notes"])


def test_a_model_of_half_the_tokens_is_asked_about(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    found = said(capsys, "--usage", usage(tmp_path, ["gpt-6.1-terra"] * 30 + ["gpt-6-luna"] * 20))
    assert found["summary"]["paid_today"] == ""
    assert (
        "the usage names gpt-6.1-terra for 60% of its tokens: if it is paid today, add --api openai/gpt-6.1-terra"
        in found["notes"]
    )


def test_an_unknown_model_is_nobodys_api(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert said(capsys, "--usage", usage(tmp_path, ["smol"] * 48))["summary"]["paid_today"] == ""


@pytest.mark.parametrize(
    ("bad", "warned", "doubted"), [(0, False, False), (2, False, False), (5, True, False), (150, True, True)]
)
def test_lost_rows_are_counted_warned_of_and_doubted(
    *, bad: int, warned: bool, doubted: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    found = said(capsys, "--usage", usage(tmp_path, ["gpt-6.1-terra"] * 200, bad))
    assert (found["summary"]["rows_total"], found["summary"]["bad_rows_total"]) == (200, bad)
    assert any(f"{bad} of 200 rows could not be used" in note for note in found["notes"]) is (bad > 0)
    assert any(note.startswith("WARNING") for note in found["notes"]) is warned
    assert ("150 of 200 rows of the usage could not be used" in found["verdict"]["doubts"]) is doubted


@pytest.mark.timeout(30)  # plots, and the font cache of a first run
def test_lost_rows_are_in_the_reports(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = usage(tmp_path, ["gpt-6.1-terra"] * 48, bad=45)
    html, markdown = tmp_path / "x.html", tmp_path / "x.md"
    assert (
        main([*QUICK, "--usage", path, "--no-input", "--html", str(html), "--markdown", str(markdown)]) == 0
    )
    for text in (capsys.readouterr().out, html.read_text(), markdown.read_text()):
        words = " ".join(text.replace("\\", "").split())
        assert "48 rows, of which 45 could not be used" in words
        assert f"{path}:5 (prompt_tokens is not a number)" in words
