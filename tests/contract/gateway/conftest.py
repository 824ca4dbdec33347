"""Engines made of bytes for the gateway's contract tests (see tests/gateway_rig)."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from freehold.ledger.spool import make_folder
from gateway_rig.client import Client
from gateway_rig.engines import Engine, Engines
from gateway_rig.keys import Keys
from gateway_rig.killing import answer as with_usage
from gateway_rig.malformed import MAX_BODY_BYTES
from gateway_rig.process import Gateway, model, running
from gateway_rig.spoiling import ROUNDS, SEED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.line(f"fuzz: FUZZ_SEED={SEED} FUZZ_ROUNDS={ROUNDS}")


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    """Give a maker of engines; all of a module share one event loop in a thread."""
    engines = Engines()
    yield engines
    engines.stop()


@pytest.fixture(scope="module")
def the_engine(engines: Engines) -> Engine:
    """Give the engine that a module's gateway stands in front of; tests take `engine`."""
    return engines.new()


@pytest.fixture
def engine(the_engine: Engine) -> Engine:
    """Give the same engine as if it were new: no connections, nothing seen, healthy."""
    the_engine.do(the_engine.hang_up)
    the_engine.reset()
    return the_engine


@pytest.fixture(scope="module")
def the_cloud(engines: Engines) -> Engine:
    """Give the engine that stands behind a module's fallbacks; tests take `cloud`."""
    return engines.new()


@pytest.fixture
def cloud(the_cloud: Engine) -> Engine:
    """Give the same engine as if it were new; its answers tell their usage."""
    the_cloud.do(the_cloud.hang_up)
    the_cloud.reset()
    the_cloud.answer = with_usage
    return the_cloud


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Give the gateway of a module that defines none of its own: one engine, small bodies."""
    folder = tmp_path_factory.mktemp("framing")
    with running(folder, [model("m", the_engine)], max_body_bytes=MAX_BODY_BYTES) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """Give one connection to the module's gateway."""
    with gateway.client() as client:
        yield client


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """Give OpenAI's own client of the module's gateway; it retries nothing."""
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="sk-of-the-caller", max_retries=0, timeout=10
    ) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Give an empty keys file."""
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an empty spool of the ledger."""
    folder = tmp_path_factory.mktemp("spool")
    make_folder(folder)
    return folder
