"""What a bench says: the table with its spreads, the gateway's price, two benches side by side, the page, the file."""

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_samples import MADE, bench, result, some
from freehold.bench.analysis.choose import choose
from freehold.bench.analysis.compare import Runs
from freehold.bench.report.page import nice_above, to_html
from freehold.bench.report.table import (
    choice_lines,
    compared_lines,
    lines_of,
    overhead_lines,
    spread_text,
    yardstick_lines,
)
from freehold.bench.results_file import read, write
from freehold.core.problems import Problem


def test_the_table_has_medians_with_their_ends_and_no_nought_for_unknown():
    head, first, second = lines_of(MADE)
    assert head.split()[:2] == ["engine", "load"]
    assert "105.0 (100.0-110.0)" in first
    assert "205.0 (200.0-210.0)" in second
    assert "2 timeout" in first
    assert first.rstrip().endswith("unknown")  # joules: nothing could be read
    assert "  400  " in first


def test_a_load_that_was_sent_late_is_marked():
    late = msgspec.structs.replace(MADE.results[0].figures, late_s=some(0.5))
    made = bench(msgspec.structs.replace(MADE.results[0], figures=late))
    assert "4 callers (late)" in lines_of(made)[1]


def test_what_the_gateway_costs_and_whether_the_spread_is_larger():
    made = bench(
        result("llama-cpp", 0, 100),
        result("llama-cpp", 1, 110),
        result("llama-cpp", 0, 99, "gateway", 0.2),
        result("llama-cpp", 1, 109, "gateway", 0.2),
    )
    assert overhead_lines(made) == [
        "gateway before llama-cpp at 4 callers: TTFT p50 +100.0 ms of 100.0, tokens/s -1.0 of 105.0 (no difference)"
    ]
    assert overhead_lines(MADE) == []


def test_what_an_engine_brings_beyond_the_yardstick():
    made = bench(
        result("llama-cpp", 0, 100),
        result("llama-cpp", 1, 110),
        result("transformers", 0, 20),
        result("transformers", 1, 22),
        names=("llama-cpp", "transformers"),
    )
    assert yardstick_lines(made) == ["llama-cpp at 4 callers: 5.00 times the yardstick's tokens/s"]
    assert yardstick_lines(MADE) == []


def test_two_benches_side_by_side():
    old = bench(result("llama-cpp", 0, 50), result("llama-cpp", 1, 60))
    lines = compared_lines(old, MADE)
    assert len(lines) == 2
    assert "55.0 (50.0-60.0)  105.0 (100.0-110.0)  more" in lines[1]
    assert lines[1].endswith("no difference")
    assert compared_lines(bench(), MADE) == ["the two benches have no candidate and load in common"]


def test_the_choice_in_words():
    lines = choice_lines(choose(MADE))
    assert lines[0] == "winner: <b>vllm</b>"
    assert "gave 1.95 times as much" in lines[2]


def test_a_spread_in_words():
    assert spread_text(None) == "unknown"
    assert spread_text(Runs(values=(1234.5,))) == "1,234.5"
    assert spread_text(Runs(values=(1.0, 3.0, 2.0)), 0) == "2 (1-3)"


def test_the_page_is_whole_and_escapes_what_comes_from_outside():
    page = to_html(MADE, choose(MADE))
    assert "<b>vllm" not in page
    assert "&lt;b&gt;vllm" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # it asks for nothing
    start = page.index("<svg")
    svg = ET.fromstring(page[start : page.index("</svg>") + 6])
    assert len(svg.findall("{*}polyline")) == 2
    assert len(svg.findall("{*}circle")) == 2


def test_the_unit_of_an_axis_stands_above_its_scale():
    page = to_html(MADE, choose(MADE))
    start = page.index("<svg")
    texts = ET.fromstring(page[start : page.index("</svg>") + 6]).findall("{*}text")
    unit = next(float(each.get("y", 0)) for each in texts if each.text == "tokens/s")
    highest = min(float(each.get("y", 0)) for each in texts if each.get("text-anchor") == "end")
    assert highest - unit >= 12, "lines of 12 pixels overlap when they are nearer"


@pytest.mark.parametrize("columns", [40, 80])
def test_in_a_narrow_terminal_no_word_and_no_figure_is_broken(columns: int):
    lines = lines_of(MADE, columns)
    assert max(map(len, lines)) <= columns
    assert lines[0] == "engine, load, asked:"
    assert lines[1] == "llama-cpp, 4 callers, direct"
    assert any("goodput/s 105.0 (100.0-110.0)" in line for line in lines)
    assert lines_of(MADE, 400) == lines_of(MADE)
    assert max(map(len, compared_lines(MADE, MADE, columns))) <= columns


@given(st.floats(1e-9, 1e12))
def test_an_axis_reaches_above_what_it_shows(value: float) -> None:
    assert value * (1 - 1e-6) <= nice_above(value) <= value * 2.5 * (1 + 1e-6)


def test_a_file_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "r.json"
    write(MADE, path)
    assert read(path) == MADE


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "kept" / "r.json", tmp_path / "r.json"
    path.parent.mkdir()
    link.symlink_to(path)
    write(MADE, link)
    assert link.is_symlink()
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(bench(), link)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["r.json"]
    write(MADE, Path("/dev/null"))
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a results file"),
        ("[]", "is not a results file"),
        ('{"version": 1}', "missing required field"),
    ],
)
def test_what_is_no_results_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    found = read(path)
    assert isinstance(found, Problem)
    assert words in found.message


def test_another_version_and_no_file(tmp_path: Path):
    path = tmp_path / "r.json"
    write(msgspec.structs.replace(MADE, version=99), path)
    found = read(path)
    assert isinstance(found, Problem)
    assert "version 99" in found.message
    assert isinstance(read(tmp_path / "none"), Problem)
