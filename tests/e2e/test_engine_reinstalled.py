"""An engine's environment that is made anew while a stack runs: what runs goes on, and a reload goes over to it.

The program in it is a stand-in for vLLM (the fake engine, started with vLLM's words), so that a replica starts in a second.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.box import Box, http
from e2e.test_engine_doubles import small_folder
from freehold.engines import all_engines
from freehold.fleet.environments.lookup import MANIFEST, requirements_sha256

(RECIPE,) = [recipe for recipe in all_engines()["vllm"].recipes if recipe.name == "vllm-cpu"]
PROGRAM = f'#!/bin/sh\nexec {sys.executable} -P -m freehold.testing.fake_engine --model "$4" --host "$6" --tokens-per-s 100\n'


def environment(folder: Path, *, sha256: str, made_at: str) -> Path:
    """Make what the fleet takes for an environment of vLLM."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "vllm").write_text(PROGRAM)
    (folder / "bin" / "vllm").chmod(0o755)
    if not (folder / "bin" / "python").exists():
        (folder / "bin" / "python").symlink_to(sys.executable)
    manifest = {
        "recipe": RECIPE.name,
        "version": RECIPE.version,
        "python": "3",
        "requirements_sha256": sha256,
        "made_at": made_at,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def replicas(box: Box) -> dict[str, Any]:
    return {replica["id"]: replica for replica in box.status()["replicas"]}


@pytest.mark.timeout(120)
def test_a_reload_goes_over_to_what_was_installed_anew(tmp_path: Path) -> None:
    box = Box(home=tmp_path, env={"FREEHOLD_CACHE_DIR": str(tmp_path / "cache")})
    box.env["FREEHOLD_DATA_DIR"] = str(tmp_path / "data")
    engines = tmp_path / "data" / "engines"
    old = environment(engines / f"{RECIPE.name}-{RECIPE.version}", sha256="0", made_at="2026-01-01")
    folder = small_folder(tmp_path / "weights")
    (sha256,) = set(re.findall(r"[0-9a-f]{64}", box.run("model", "hash", str(folder)).out))
    box.write(
        f"version: 1\nmodels:\n  - {{name: m, engine: vllm, source: 'file://weights/', sha256: '{sha256}', replicas: 2}}\n"
    )
    try:
        with box.foreground() as stack:
            first = replicas(box)
            assert box.run("reload", "--json").said["changes"] == []
            assert {r["pid"] for r in replicas(box).values()} == {r["pid"] for r in first.values()}

            # Made anew in the same place: the next reload replaces each replica, and says why.
            environment(old, sha256="0", made_at="2026-01-02")
            ran = box.run("reload", "--json")
            assert ran.code == 0, ran
            (change,) = ran.said["changes"]
            assert (change["how"], change["what"]) == ("roll", "models.m.environment")
            assert "2026-01-01" in change["old"]
            assert "2026-01-02" in change["new"]
            second = replicas(box)
            assert {r["state"] for r in second.values()} == {"ready"}
            assert not {r["pid"] for r in first.values()} & {r["pid"] for r in second.values()}

            # Of another list: it lies beside the old one, which stays.
            sha = requirements_sha256(RECIPE)
            new = environment(engines / f"{old.name}-{sha[:8]}", sha256=sha, made_at="2026-01-03")
            dry = box.run("reload", "--dry-run", "--json")
            assert new.name in dry.said["changes"][0]["new"]
            assert {r["pid"] for r in replicas(box).values()} == {r["pid"] for r in second.values()}
            assert box.run("reload", "--json").code == 0
            third = replicas(box)
            assert not {r["pid"] for r in second.values()} & {r["pid"] for r in third.values()}
            assert box.run("reload", "--json").said["changes"] == []
            with http() as client:
                body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
                assert client.post(f"{stack.url}/v1/chat/completions", json=body).status_code == 200
    finally:
        box.kill_all()
