"""Doubles of SGLang and TensorRT-LLM as replicas of a whole stack: started on a folder of weights, asked through the gateway."""

import json
import re
import struct
import sys
from pathlib import Path

import pytest

from e2e.box import Box, http

ENGINES = ("sglang", "tensorrt-llm")


def small_folder(path: Path) -> Path:
    """Write the least that passes for a Hugging Face folder; a double reads none of it."""
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_text("{}")
    head = json.dumps({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    return path


def program(home: Path, engine: str) -> Path:
    path = home / f"serve-{engine}"
    words = f"{sys.executable} -P -m freehold.testing.engine_doubles {engine} --tokens-per-s 100 --"
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.timeout(120)
def test_both_serve_behind_the_gateway(tmp_path: Path) -> None:
    box = Box(home=tmp_path, env={"FREEHOLD_CACHE_DIR": str(tmp_path / "cache")})
    folder = small_folder(tmp_path / "weights")
    (sha256,) = set(re.findall(r"[0-9a-f]{64}", box.run("model", "hash", str(folder)).out))
    rows = [
        f"  - {{name: m-{engine}, engine: {engine}, source: 'file://weights/', sha256: '{sha256}', "
        f"engine_options: {{program: {program(tmp_path, engine)}}}}}"
        for engine in ENGINES
    ]
    (tmp_path / "freehold.yaml").write_text("version: 1\nmodels:\n" + "\n".join(rows) + "\n")
    try:
        with box.foreground() as stack, http() as client:
            for engine in ENGINES:
                body = {
                    "model": f"m-{engine}",
                    "messages": [{"role": "user", "content": "hi"}],
                    "max_tokens": 4,
                }
                answer = client.post(f"{stack.url}/v1/chat/completions", json=body).json()
                assert answer["choices"][0]["message"]["content"] == " w0 w1 w2 w3"
                assert answer["model"] == f"m-{engine}"
            (sglang,) = [each for each in stack.replicas() if each["engine"] == "sglang"]
            assert client.get(f"{sglang['url']}/v1/models").status_code == 401, "a local user has no key"
            (file,) = (tmp_path / "state" / "logs").glob("m-tensorrt-llm-0.files/llm_args.yaml")
            assert json.loads(file.read_text())["return_perf_metrics"] is True
    finally:
        box.kill_all()
