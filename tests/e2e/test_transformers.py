"""Transformers with the real model behind the gateway: the suite that every engine passes, and refusals for what it has not."""

import os
from collections.abc import Iterator

import pytest

from e2e.box import Stack, data_here, serving
from e2e.client_asks import MODEL
from e2e.client_suite import ClientSuite
from freehold.fleet.environments.lookup import Environment
from freehold.weights.convert import Converted

CONFIG = """\
version: 1
fleet: {{ready_timeout: 300s}}
models:
  - name: {model}
    engine: transformers
    source: file://{path}/
    sha256: {sha256}
    engine_options: {{max_context_tokens: 2048, threads: 1}}
"""
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not os.environ.get("ENGINES"), reason="a minute of a real server: make engines"),
]


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, vllm_environment: Environment, vllm_weights: Converted
) -> Iterator[Stack]:
    assert vllm_environment.path.exists()
    text = CONFIG.format(model=MODEL, path=vllm_weights.path, sha256=vllm_weights.sha256)
    with serving(tmp_path_factory.mktemp("transformers"), text, **data_here()) as stack:
        yield stack


class TestClients(ClientSuite):
    engine = "transformers"


def test_the_end_leaves_nothing(stack: Stack) -> None:
    assert stack.end() == 0
    stack.box.assert_nothing_left()
