"""`freehold prices check` as a user meets it."""

import json
from pathlib import Path

import pytest

from freehold.cli.main import main


def test_it_names_gaps_and_old_prices_and_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "check"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["gpu", "on-demand", "marketplace", "reserved", "spot"]
    (spark,) = [line for line in lines if line.startswith("dgx-spark")]
    assert spark.endswith("no price known          0 of 3 on-demand prices, no reserved price")
    assert any(line.startswith("    look: ") for line in lines)
    assert "prices are older than 90 days" in lines[-1]


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "check", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["old"] == sum(each["old"] for each in found["stale"])
    (l4,) = [each for each in found["gpus"] if each["gpu"] == "l4"]
    assert (l4["lacks"], l4["purchase"]) == ("no reserved price", "no price known")


def test_a_wrong_file_of_prices_is_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "p.yaml"
    wrong.write_text("rentals:\n  - {provider: a, gpu: h1000}\n")
    assert main(["prices", "check", "--prices", str(wrong)]) == 2
