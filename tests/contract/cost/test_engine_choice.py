"""`freehold plan` for the models with latent attention: which engine is named changes no verdict by itself."""

import json
from typing import Any

import pytest

from freehold.cli.main import main

ENGINES = ((), *(("--engine", name) for name in ("vllm", "sglang", "tensorrt-llm")))


def verdict(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert main(["plan", "--draws", "20000", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)["verdict"]


@pytest.mark.parametrize("model", ["deepseek-v3", "kimi-k2", "glm-5"])
@pytest.mark.parametrize(("tokens", "cached"), [("50B", "60%"), ("500B", "0%")])
def test_the_engine_alone_does_not_change_the_verdict(
    capsys: pytest.CaptureFixture[str], model: str, tokens: str, cached: str
):
    line = ("--model", model, "--tokens-per-month", tokens, "--cached-share", cached)
    found = [verdict(capsys, *line, *engine) for engine in ENGINES]
    assert len({each["word"] for each in found}) == 1, [each["headline"] for each in found]
    for each in found:
        if "with sglang" in each["headline"]:
            assert each["next_command"].startswith("freehold bench --engines vllm,sglang,tensorrt-llm ")
