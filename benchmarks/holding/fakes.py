"""`freehold up` with two fake engines of its own: real processes that can be killed, frozen, and that load slowly."""

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from stack import Stack, stack

PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: fake-engine-for-benchmarks\nVersion: 0\n",
    "entry_points.txt": "[freehold.engines]\nfake = freehold.testing.fake_engine_adapter:FAKE_ENGINE\n",
}
"""What makes the fake engine an installed engine of another package: a folder on PYTHONPATH with these files."""
WEIGHTS = b"no weights are needed"
CONFIG = """\
version: 1
models:
  - name: m
    engine: fake
    source: file://weights.bin
    sha256: {sha256}
    replicas: 2
    engine_options: {{tokens_per_s: 0, answer_tokens: 4, slots: 64{options}}}
{more}gateway: {{listen: "127.0.0.1:0"{gateway}}}
"""


@contextmanager
def two_fakes(*, options: str = "", more: str = "", gateway: str = "") -> Iterator[Stack]:
    """Run the stack; the words are put into its configuration."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        (home / "weights.bin").write_bytes(WEIGHTS)
        info = home / "site" / "fake_engine_for_benchmarks-0.dist-info"
        info.mkdir(parents=True)
        for name, text in PLUGIN.items():
            (info / name).write_text(text)
        path = os.pathsep.join(filter(None, [str(home / "site"), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "FREEHOLD_CACHE_DIR": str(home / "cache")}
        config = CONFIG.format(
            sha256=sha256(WEIGHTS).hexdigest(), options=options, more=more, gateway=gateway
        )
        with stack(home, config, env=env) as running:
            yield running


def _control(url: str, body: bytes | None) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/_fake", body, timeout=2) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def counts(url: str) -> dict[str, Any]:
    """What a fake engine counted; raises OSError where it does not answer."""
    found: dict[str, Any] = _control(url, None)["counts"]
    return found


def change(url: str, **settings: object) -> bool:
    """Change a fake engine's settings while it runs, and say whether it took them."""
    try:
        _control(url, json.dumps(settings).encode())
    except OSError:
        return False
    return True


def answers_health(url: str) -> bool:
    """Whether it says that it is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
