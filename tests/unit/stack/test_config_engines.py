"""A model whose engine's program is missing is refused with the configuration, whether it has engine_options or not."""

from pathlib import Path

import pytest

from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.output import UserMistakes

MODEL = """
  - name: m-{engine}
    engine: {engine}
    source: file:///w/
    sha256: {sha}
"""


def test_every_missing_engine_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FREEHOLD_DATA_DIR", str(tmp_path / "data"))
    engines = ("sglang", "tensorrt-llm", "vllm")
    path = tmp_path / "freehold.yaml"
    models = "".join(MODEL.format(engine=engine, sha=f'"{"0" * 64}"') for engine in engines)
    path.write_text(f"version: 1\nmodels:{models}")
    with pytest.raises(UserMistakes) as caught:
        load_config(path, overrides={})
    told = [problem.message for problem in caught.value.problems]
    assert [f"{engine} is not installed here" in told for engine in engines] == [True] * 3, told
