"""Mistakes in engine options are told together with all others."""

from pathlib import Path

import pytest

from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.output import UserMistakes


def test_a_wrong_option_is_reported_beside_a_wrong_hash(tmp_path: Path) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_text(
        "version: 1\n"
        "models:\n"
        "  - {name: m, source: 'https://h/x.gguf', sha256: '12', engine: llama-cpp, engine_options: {n_ctxx: 1}}\n"
    )
    with pytest.raises(UserMistakes) as caught:
        load_config(path, overrides={})
    said = [problem.message for problem in caught.value.problems]
    assert any("sha256" in message for message in said)
    assert any("n_ctxx" in message for message in said)


def test_a_missing_file_is_reported_at_its_place(tmp_path: Path) -> None:
    here = tmp_path / "here.gguf"
    here.write_bytes(b"")
    path = tmp_path / "freehold.yaml"
    path.write_text(
        "version: 1\n"
        "models:\n"
        f"  - name: m\n    source: 'https://h/x.gguf'\n    sha256: '{'ab' * 32}'\n    engine: llama-cpp\n"
        "    engine_options:\n"
        f"      lora: {here},{tmp_path}/gone.gguf\n"
        f"      lora_scaled: '{here}:0.5'\n"
        "      mmproj: /nowhere.gguf\n"
        "      cache_type_v: q8_0\n"
        "      flash_attn: 'off'\n"
    )
    with pytest.raises(UserMistakes) as caught:
        load_config(path, overrides={})
    told = {
        problem.where.rpartition("freehold.yaml:")[2]: problem.message for problem in caught.value.problems
    }
    assert told == {
        "8:7": f"lora: there is no file or folder '{tmp_path}/gone.gguf'",
        "10:7": "mmproj: there is no file or folder '/nowhere.gguf'",
        "11:7": "a quantised cache_type_v needs flash attention",
    }
