"""`bench show` and `bench apply` on results of every kind: whole, half, without a winner, of the built-in example."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from bench_samples import MADE, bench
from freehold.bench.analysis.results import BenchFile
from freehold.bench.apply import file_sha256
from freehold.bench.results_file import write
from freehold.cli.main import main

TEXT = "version: 1\nmodels:\n  - name: m\n    engine: llama-cpp  # mine\n"


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Give `freehold bench …`, which returns its exit code and what it said."""

    def ran(*args: str | Path) -> Ran:
        code = main(["bench", *map(str, args)])
        said = capsys.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    return ran


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "freehold.yaml"
    path.write_text(TEXT)
    return path


def file_of(made: BenchFile, of: Path, **changes: object) -> Path:
    path = of.with_name("r.json")
    changes = {"config": str(of), "config_sha256": file_sha256(of), **changes}
    write(msgspec.structs.replace(made, **changes), path)
    return path


def test_adapters_that_were_not_there_while_it_was_measured_are_among_the_doubts(
    config: Path, run: Run
) -> None:
    config.write_text(f"{TEXT}    adapters: [{{name: tone}}]\n")
    path = file_of(MADE, config)
    assert "mind: m was measured without its adapters (tone)" in run("apply", path, "--dry-run").err
    doubts = json.loads(run("apply", path, "--json").out)["applied"]["doubts"]
    assert any("without its adapters (tone)" in each for each in doubts)


def test_the_winner_is_written_once_and_what_is_doubtful_told(config: Path, run: Run) -> None:
    winner = msgspec.structs.replace(MADE.candidates[1], engine="vllm")
    path = file_of(MADE, config, candidates=(MADE.candidates[0], winner))
    dry = run("apply", path, "--dry-run", "--json")
    assert (dry.code, json.loads(dry.out)["applied"]["changed"]) == (0, True)
    assert config.read_text() == TEXT
    wrote = run("apply", path)
    assert wrote.code == 0
    assert "+    engine: vllm  # mine" in wrote.out
    assert "mind: a run of the winner measured 10 requests" in wrote.err
    assert config.read_text() == TEXT.replace("llama-cpp", "vllm")
    again = run("apply", path)
    assert (again.code, "changed since" in again.err) == (2, True)


def test_the_winner_may_be_what_is_there(config: Path, run: Run) -> None:
    own = bench(*(each for each in MADE.results if each.candidate == "llama-cpp"))
    found = run("apply", file_of(own, config))
    assert (found.code, "has the winner already" in found.out) == (0, True)
    assert not config.with_name("freehold.yaml.before-bench").exists()


def test_half_a_bench_is_shown_with_its_doubt_and_not_applied(config: Path, run: Run) -> None:
    path = file_of(MADE, config, interrupted=True)
    shown = run("show", path)
    assert shown.code == 0
    assert "winner: <b>vllm</b>" in shown.out
    assert "doubt: it was ended before all was measured" in shown.out
    refused = run("apply", path)
    assert refused.code == 2
    assert "ended before all was measured" in refused.err
    assert config.read_text() == TEXT


def test_where_nobody_kept_the_slo_there_is_nothing_to_apply(config: Path, run: Run) -> None:
    none = tuple(
        msgspec.structs.replace(each, figures=msgspec.structs.replace(each.figures, goodput_tokens_per_s=0.0))
        for each in MADE.results
    )
    path = file_of(MADE, config, results=none)
    assert "winner: none" in run("show", path).out
    found = run("apply", path, "--json")
    assert found.code == 3
    error = json.loads(found.out)["error"]
    assert error["message"] == "there is no winner to apply"
    assert "no engine kept the SLO" in error["hint"]


def test_a_bench_in_which_nothing_was_measured_is_shown(config: Path, run: Run) -> None:
    failed = tuple(msgspec.structs.replace(each, failed="run 2: it ended") for each in MADE.candidates)
    path = file_of(MADE, config, results=(), candidates=failed)
    assert "no engine started" in run("show", path).out
    assert run("apply", path).code == 3
    page = config.with_name("r.html")
    run("show", path, "--html", page)
    assert "no engine started" in page.read_text()


@pytest.mark.parametrize(
    "args",
    [
        ("{folder}/none",),
        ("{file}", "--compare", "{folder}/none"),
        ("{file}", "--html", "{folder}/a/b"),
        ("{file}", "--html", "{folder}"),
    ],
)
def test_a_path_that_is_wrong_is_the_users(config: Path, run: Run, args: tuple[str, ...]) -> None:
    path = file_of(MADE, config)
    assert run("show", *(each.format(folder=config.parent, file=path) for each in args)).code == 2


def test_the_built_in_example_has_no_file_to_write(config: Path, run: Run) -> None:
    found = run("apply", file_of(MADE, config, config="", config_sha256=""))
    assert (found.code, "built-in example" in found.err) == (2, True)
