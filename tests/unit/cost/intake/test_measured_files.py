"""Watts are integrated over the time that samples cover, incidents are united; what is wrong is said with its place."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.core.problems import Problem
from freehold.cost.intake.measured_files import NodeOutage, Watts, down_node_hours, read_incidents, read_watts

START_S = 1_790_812_800.0  # 2026-10-01T00:00Z
END_S = START_S + 7200

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_text(text: str) -> Path:
        path = tmp_path / "file"
        path.write_text(text)
        return path

    return write_text


def watts(path: Path) -> Watts:
    found = read_watts(path, START_S, END_S)
    assert isinstance(found, Watts), found
    return found


def fault(path: Path) -> str:
    found = read_watts(path, START_S, END_S)
    assert isinstance(found, Problem)
    assert found.where == str(path)
    return found.message


def matrix(*series: tuple[dict[str, str], list[tuple[float, str]]]) -> str:
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def test_a_sample_stands_until_the_next_one_and_five_minutes_at_most(write: Write):
    # 100 W for a minute, 400 W for five minutes, then nothing for an hour, then 700 W for two
    rows = [(0, 100), (60, 400), (3960, 700), (4080, 0)]
    found = watts(write("time,watts\n" + "".join(f"{START_S + at},{power}\n" for at, power in rows)))
    covered_s = 60 + 300 + 120 + 300
    assert found.covered_h == pytest.approx(covered_s / 3600)
    assert found.mean_w == pytest.approx((100 * 60 + 400 * 300 + 700 * 120) / covered_s)
    assert found.energy_kwh == pytest.approx((100 * 60 + 400 * 300 + 700 * 120) / 3.6e6)


def test_only_the_time_that_is_reviewed_counts(write: Write):
    rows = "".join(f"{START_S + at},{1000 if 0 <= at < 7200 else 9}\n" for at in range(-3600, 10_800, 60))
    found = watts(write("time,watts\n" + rows))
    assert (found.covered_h, found.mean_w) == (2.0, 1000.0)


def test_series_are_added_and_other_columns_are_not_series(write: Write):
    rows = "".join(
        f"2026-10-01T00:{minute:02d}:00Z,{gpu},{300 + 100 * gpu},{minute + 20}\n"
        for minute in range(60)
        for gpu in (0, 1)
    )
    found = watts(write("timestamp,gpu,power_w,temperature\n" + rows))
    assert found.series == 2
    assert found.mean_w == pytest.approx(700)
    assert found.notes == ()


def test_prometheus_and_a_series_that_is_short(write: Write):
    whole = [(START_S + at, "300") for at in range(0, 7200, 60)]
    half = [(START_S + at, "100") for at in range(0, 3600, 60)]
    found = watts(write(matrix(({"gpu": "0"}, [*whole, (START_S, "NaN")]), ({"gpu": "1"}, half))))
    assert found.mean_w == pytest.approx(300 + 100 * 3840 / 7200, rel=0.01)
    assert found.bad_samples == 1
    note, bad = found.notes
    assert note == "1 of 2 series have no samples for a part of the time and count as off there."
    assert bad.startswith("1 sample of watts could not be read: ")
    assert bad.endswith("[0][120] (watts is not a number).")


def test_bad_samples_are_told_with_their_lines(write: Write):
    path = write("time,watts\n1790812800,100\nx,1\n1790812860,-5\n1790812920,many\n1790812980\n")
    (note,) = watts(path).notes
    assert note == (
        f"4 samples of watts could not be read: {path}:3 (time is not a readable time), "
        f"{path}:4 (watts are implausible), {path}:5 (watts is not a number), and 1 more."
    )
    none = read_watts(write("time,watts\n1790812800,x\n"), START_S, END_S)
    assert isinstance(none, Problem)
    assert none.hint == f"1 sample of watts could not be read: {path}:2 (watts is not a number)."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no watts of the time"),
        ("time,colour\n1,red\n", "no column called watts"),
        ("time,watts\nx,1\n1790812800,-5\n1790812800,99999999\n", "(3 bad samples)"),
        ("time,watts\n1700000000,100\n", "(0 bad samples)"),
        ("{", "is not JSON"),
        ('{"data":{"resultType":"vector","result":[]}}', "not an answer of Prometheus with a series"),
        ('{"data":{"resultType":"matrix","result":[{"values":[[1]]},3]}}', "(2 bad samples)"),
    ],
)
def test_files_without_watts_are_problems(write: Write, text: str, words: str):
    assert words in fault(write(text))


def test_a_missing_file_is_a_problem(tmp_path: Path):
    assert "cannot be read" in fault(tmp_path / "none")
    assert "cannot be read" in read_incidents(tmp_path / "none", END_S)[1][0].message


def test_incidents_are_read_and_their_time_is_united(write: Write):
    listed = [
        {"start": "2026-10-01T01:00Z", "end": "2026-10-01T01:30Z", "what": "disk"},
        {"start": "2026-10-01T00:30Z", "end": "2026-10-01T01:15:00+00:00", "what": "card lost"},
        {"start": START_S + 7000, "end": None, "what": "still on"},
    ]
    found, problems = read_incidents(write(json.dumps(listed)), END_S)
    assert problems == []
    assert [each.what for each in found] == ["card lost", "disk", "still on"]
    assert found[2] == NodeOutage(start_s=START_S + 7000, end_s=END_S, what="still on")
    assert down_node_hours(found, START_S, END_S) == pytest.approx((3600 + 200) / 3600)


def test_nodes_that_are_out_at_once_are_added():
    both = [NodeOutage(start_s=START_S + at, end_s=START_S + at + 3600, what="x", node=node)
            for at, node in ((0, "a"), (0, "a"), (1800, "a"), (0, "b"), (7200, "b"))]  # fmt: skip
    assert down_node_hours(both, START_S, END_S) == pytest.approx(1.5 + 1)


def test_all_that_is_wrong_with_incidents_is_said_at_once(write: Write):
    listed = [
        3,
        {"start": "x"},
        {"start": 1.79e9, "end": 1.78e9, "what": "x"},
        {"start": 1.79e9, "end": 1.791e9, "what": " "},
        {"start": 1.79e9, "end": 1.791e9, "what": "x", "node": 3},
    ]
    path = write(json.dumps(listed))
    _, problems = read_incidents(path, END_S)
    assert [problem.where for problem in problems] == [f"{path}[{index}]" for index in range(5)]
    assert [problem.message.split()[0] for problem in problems] == ["is", "start", "ends", "does", "has"]
    assert "not a list of incidents" in read_incidents(write("{}"), END_S)[1][0].message
    assert "not JSON" in read_incidents(write("[1,"), END_S)[1][0].message


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=120)
    | st.sampled_from([b"1" * 5000, b'{"data":' * 3000, b'[{"start":1e999}]', b"\xff\xfe{"])
)
def test_any_bytes_are_read_or_refused_in_words(tmp_path: Path, data: bytes):
    path = tmp_path / "any"
    path.write_bytes(data)
    assert isinstance(read_watts(path, START_S, END_S), Problem)
    read_incidents(path, END_S)
