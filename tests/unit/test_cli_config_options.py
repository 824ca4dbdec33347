"""Mistakes in engine options are told together with all others."""

from pathlib import Path

import pytest

from freehold.cli.config import load_config
from freehold.cli.say import UserMistakes


def test_a_wrong_option_is_told_beside_a_wrong_hash(tmp_path: Path) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_text(
        "version: 1\n"
        "models:\n"
        "  - {name: m, source: 'https://h/x.gguf', sha256: '12', engine: llama-cpp, engine_options: {n_ctxx: 1}}\n"
    )
    with pytest.raises(UserMistakes) as caught:
        load_config(path, overrides={}, as_json=False)
    said = [problem.message for problem in caught.value.problems]
    assert any("sha256" in message for message in said)
    assert any("n_ctxx" in message for message in said)
