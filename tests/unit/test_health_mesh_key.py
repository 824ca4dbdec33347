"""A mesh whose secret is too short is not started: docs/health.md asks for 16 bytes, since peers are told from strangers by it."""

from pathlib import Path

import pytest

from freehold.core.clock import SYSTEM_CLOCK
from freehold.core.errors import Permanent
from freehold.health.readers.network import MeshOptions, _Running


def test_a_short_secret_starts_no_mesh(tmp_path: Path):
    key = tmp_path / "mesh.key"
    key.write_bytes(b"fifteen bytes..\n")
    options = MeshOptions(peers=(), key_path=str(key), host="127.0.0.1", port=0)
    with pytest.raises(Permanent, match="shorter than 16 bytes"):
        _Running("one", options, SYSTEM_CLOCK)
