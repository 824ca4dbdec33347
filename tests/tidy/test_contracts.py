"""The import contracts on a copy of the package with planted violations: a contract that cannot fail is worth nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tidy.source import ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
PLANTED = {
    "core/planted_core.py": "import freehold.spec",
    "fleet/planted_fleet.py": "import freehold.gateway",
    "weights/planted_weights.py": "import freehold.cli",
    "telemetry/planted_time.py": "import time",
    "telemetry/planted_uvloop.py": "import uvloop",
    "telemetry/planted_llama.py": "import xllamacpp",
    "telemetry/planted_torch.py": "import torch",
    "telemetry/planted_baseline.py": "import transformers",
    "weights/planted_hub.py": "import huggingface_hub",
    "telemetry/planted_prices.py": "import genai_prices",
    "telemetry/planted_gguf.py": "import gguf",
    "telemetry/planted_plots.py": "import matplotlib",
    "telemetry/planted_html.py": "import jinja2",
    "telemetry/planted_nvml.py": "import pynvml",
    "telemetry/planted_certificates.py": "import cryptography",
    "telemetry/planted_opinion.py": "import aiconfigurator_core",
    "cost/model/planted_cost.py": "import asyncio",
    "cost/model/planted_upward.py": "import freehold.cost.pricing",
    "cost/report/planted_books.py": "import freehold.ledger.journal",
    "cost/pricing/planted_circle.py": "import freehold.cost.pricing.planted_other",
    "cost/pricing/planted_other.py": "import freehold.cost.pricing.planted_circle",
    "sizing/model/planted_upward.py": "import freehold.sizing.fleet",
    "ledger/records/planted_upward.py": "import freehold.ledger.journal",
    "ledger/foreign/planted_file.py": "import socket",
    "bench/analysis/planted_upward.py": "import freehold.bench.measure",
    "bench/report/planted_page.py": "import asyncio",
    "sizing/planted_sizing.py": "import random",
    "ledger/planted_sqlite.py": "import sqlite3",
    "engines/planted_engine.py": "import freehold.engines.external\nimport socket",
    "engines/programs/planted_program.py": "import freehold.core.errors",
    "fleet/decisions/planted_order.py": "import freehold.fleet.probe",
    "fleet/gpus/planted_gpus.py": "import socket",
    "core/planted_first.py": "import freehold.core.planted_second",
    "core/planted_second.py": "import freehold.core.planted_first",
    "gateway/wire/planted_socket.py": "import socket",
    "gateway/queue/planted_timer.py": "import asyncio",
    "gateway/endpoints/planted_upward.py": "import freehold.gateway.exchange.exchange",
    "gateway/server/planted_one.py": "import freehold.gateway.server.planted_other",
    "gateway/server/planted_other.py": "import freehold.gateway.server.planted_one",
    "stack/decide/planted_arithmetic.py": "import subprocess",
    "stack/decide/planted_upward.py": "import freehold.stack.config",
    "cli/terminal/planted_upward.py": "import freehold.cli.serve",
    "cli/planted_first.py": "import freehold.cli.planted_second",
    "cli/planted_second.py": "import freehold.cli.planted_first",
    "health/__init__.py": "",
    "health/decide.py": "import asyncio",
    "health/evidence/diagnose.py": "import random",
    "fleet/decisions/decide.py": "import freehold.core.clock",
    "health/state.py": "import freehold.health.planted_indirect",
    "health/planted_indirect.py": "import subprocess",
    "health/checks/planted_check.py": "import socket",
    "health/gpu_readings/planted_readings.py": "import subprocess",
    "health/kernel_log/planted_layer.py": "import freehold.health.judge.xid",
    "health/judge/planted_judge.py": "import freehold.core.clock",
    "health/kernel_log/planted_kernel_log.py": "import subprocess",
    "health/mesh/planted_mesh.py": "import socket",
    "health/model/planted_model.py": "import asyncio",
    "health/model/planted_upward.py": "import freehold.health.evidence",
    "health/evidence/planted_upward.py": "import freehold.health.incident_file",
    "health/incidents/planted_file.py": "import freehold.core.clock",
    "health/incident_file/planted_reader.py": "import socket",
    "health/collectors/planted_upward.py": "import freehold.health.agent",
    "health/agent/planted_circle.py": "import freehold.health.agent.planted_other",
    "health/agent/planted_other.py": "import freehold.health.agent.planted_circle",
}
UNDECLARED = {"utils/__init__.py": ""}
CAUGHT = (
    "freehold.core.planted_core -> freehold.spec",
    "freehold.fleet.planted_fleet -> freehold.gateway",
    "freehold.weights.planted_weights -> freehold.cli",
    "freehold.telemetry.planted_time -> time",
    "freehold.telemetry.planted_uvloop -> uvloop",
    "freehold.telemetry.planted_llama -> xllamacpp",
    "freehold.telemetry.planted_torch -> torch",
    "freehold.telemetry.planted_baseline -> transformers",
    "freehold.weights.planted_hub -> huggingface_hub",
    "freehold.telemetry.planted_prices -> genai_prices",
    "freehold.telemetry.planted_gguf -> gguf",
    "freehold.telemetry.planted_plots -> matplotlib",
    "freehold.telemetry.planted_html -> jinja2",
    "freehold.telemetry.planted_nvml -> pynvml",
    "freehold.telemetry.planted_certificates -> cryptography",
    "freehold.telemetry.planted_opinion -> aiconfigurator_core",
    "freehold.cost.model.planted_cost -> asyncio",
    "freehold.cost.model.planted_upward -> freehold.cost.pricing",
    "freehold.cost.report.planted_books -> freehold.ledger.journal",
    "allowed in freehold.cost.pricing. It could be made acyclic by removing 1 dependency: - .planted_other -> .planted_circle",
    "freehold.sizing.model.planted_upward -> freehold.sizing.fleet",
    "freehold.ledger.records.planted_upward -> freehold.ledger.journal",
    "freehold.ledger.foreign.planted_file -> socket",
    "freehold.bench.analysis.planted_upward -> freehold.bench.measure",
    "freehold.bench.report.planted_page -> asyncio",
    "freehold.sizing.planted_sizing -> random",
    "freehold.ledger.planted_sqlite -> sqlite3",
    "freehold.engines.planted_engine -> freehold.engines.external",
    "freehold.engines.planted_engine -> socket",
    "freehold.engines.programs.planted_program -> freehold.core.errors",
    "freehold.fleet.decisions.planted_order -> freehold.fleet.probe",
    "freehold.fleet.gpus.planted_gpus -> socket",
    "No cycles are allowed in freehold.core",
    "freehold.gateway.wire.planted_socket -> socket",
    "freehold.gateway.queue.planted_timer -> asyncio",
    "freehold.gateway.endpoints.planted_upward -> freehold.gateway.exchange",
    "No cycles are allowed in freehold.gateway.server",
    "freehold.stack.decide.planted_arithmetic -> subprocess",
    "freehold.stack.decide.planted_upward -> freehold.stack.config",
    "freehold.cli.terminal.planted_upward -> freehold.cli.serve",
    "No cycles are allowed in freehold.cli",
    "freehold.health.decide -> asyncio",
    "freehold.health.evidence.diagnose -> random",
    "freehold.fleet.decisions.decide -> freehold.core.clock",
    "freehold.health.state -> freehold.health.planted_indirect",
    "freehold.health.checks.planted_check -> socket",
    "freehold.health.judge.planted_judge -> freehold.core.clock",
    "freehold.health.gpu_readings.planted_readings -> subprocess",
    "freehold.health.kernel_log.planted_layer -> freehold.health.judge.xid",
    "freehold.health.kernel_log.planted_kernel_log -> subprocess",
    "freehold.health.mesh.planted_mesh -> socket",
    "freehold.health.model.planted_model -> asyncio",
    "freehold.health.model.planted_upward -> freehold.health.evidence",
    "freehold.health.evidence.planted_upward -> freehold.health.incident_file",
    "freehold.health.incidents.planted_file -> freehold.core.clock",
    "freehold.health.incident_file.planted_reader -> socket",
    "freehold.health.collectors.planted_upward -> freehold.health.agent",
    "No cycles are allowed in freehold.health.agent",
)


def lint(copy: Path, planted: dict[str, str]) -> tuple[int, str]:
    shutil.copytree(ROOT / "freehold", copy / "freehold", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, text in planted.items():
        path = copy / "freehold" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    code, text = lint(tmp_path_factory.mktemp("planted"), PLANTED)
    assert code == 1, text
    return text


@pytest.mark.parametrize("chain", CAUGHT)
def test_a_planted_import_is_caught(chain: str, report: str) -> None:
    assert chain in report, report


def test_every_contract_can_fail(report: str) -> None:
    assert " 0 kept, " in report, report


def test_an_undeclared_room_is_caught(tmp_path: Path) -> None:
    code, text = lint(tmp_path, UNDECLARED)
    assert code == 1
    assert "freehold.utils" in text, text
