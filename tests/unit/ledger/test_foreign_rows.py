"""Text as records: shapes are told apart, places are right, and what is broken costs itself only."""

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.ledger.files.rows import Rows, delimiter, shape_of
from freehold.ledger.files.text import LINE_CHARS_MAX, Lines
from freehold.ledger.foreign.use import Record, Unusable

Reader = Callable[[str], tuple[str, list[tuple[int, Any]]]]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def read_text(text: str) -> tuple[str, list[tuple[int, Record | str]]]:
        path = tmp_path / "file"
        path.write_text(text, newline="")
        with contextlib.closing(Lines(path)) as lines:
            rows = Rows(lines, shape_of(text))
            return rows.shape, [(at, str(row) if isinstance(row, Unusable) else row) for at, row in rows]

    return read_text


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a,b\n1,2\n", "csv"),
        ('{"a":1}\n{"a":2}\n', "jsonl"),
        ('{"a":1}', "jsonl"),
        ('{"a":\n{"a":2}\n{"a":3}\n', "jsonl"),
        (' \n[{"a":1}]', "json"),
        ('{\n  "data": [\n    {"a":1}\n  ]\n}', "json"),
        ('{"object":"page",\n"data":[\n{"a":1},\n{"a":2}\n]}', "json"),
    ],
)
def test_shapes_are_told_apart(text: str, shape: str):
    assert shape_of(text) == shape


def test_csv_lines_and_their_numbers(read: Reader):
    _, rows = read('a,b\n1,"two\nlines"\n\n3,4\n5\n')
    assert rows == [
        (3, {"a": "1", "b": "two\nlines"}),
        (5, {"a": "3", "b": "4"}),
        (6, "1 cells where the header has 2"),
    ]


def test_a_quote_that_is_never_closed_costs_its_own_row(read: Reader):
    _, rows = read('a,b\n1,2\n"3,4\n5,6\n7,8\n')
    assert rows == [
        (2, {"a": "1", "b": "2"}),
        (3, "its quotes do not match"),
        (4, {"a": "5", "b": "6"}),
        (5, {"a": "7", "b": "8"}),
    ]


def test_a_quote_that_opens_the_last_cell_swallows_the_rest_of_the_file(read: Reader):
    _, rows = read('a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert rows == [
        (2, {"a": "1", "b": "2"}),
        (3, "its quotes do not match"),
        (4, {"a": "5", "b": "6"}),
        (5, {"a": "7", "b": "8"}),
    ]


def test_a_quote_that_swallows_columns_gives_them_back(read: Reader):
    _, rows = read('a,b,c\n1,2,3\n4,"5,6\n7,8,9\n10,11,12\n')
    assert rows == [
        (2, {"a": "1", "b": "2", "c": "3"}),
        (3, "its quotes do not match"),
        (4, {"a": "7", "b": "8", "c": "9"}),
        (5, {"a": "10", "b": "11", "c": "12"}),
    ]


def test_empty_cells_too_many_are_no_fault_and_a_cut_line_is_told(read: Reader):
    _, rows = read("a;b\n1;2;;\n3")
    assert rows == [
        (2, {"a": "1", "b": "2"}),
        (3, "1 cells where the header has 2: the last line is cut off"),
    ]
    assert [delimiter(text) for text in ("a,b", "a;b,c;d", "a\tb", "a")] == [",", ";", "\t", ","]


def test_long_cells_are_read_and_the_csv_limit_is_put_back(read: Reader):
    before = csv.field_size_limit()
    _, rows = read(f'a,b\n1,"{"x" * 500_000}"\n2,3\n')
    assert [len(row["b"]) for _, row in rows] == [500_000, 1]
    assert csv.field_size_limit() == before


def test_a_line_without_end_is_cut_and_the_next_one_is_whole(tmp_path: Path):
    path = tmp_path / "long"
    path.write_text("x" * (LINE_CHARS_MAX + 10) + "\nnext\n")
    with contextlib.closing(Lines(path)) as lines:
        assert [(len(line), lines.number) for line in lines] == [(LINE_CHARS_MAX, 1), (5, 2)]


def test_json_lines_and_pages_in_them(read: Reader):
    _, rows = read('{"a":1}\nnot json\n\n[1]\n{"object":"page","data":[{"a":2},3],"has_more":false}\n{"a":')
    assert rows == [
        (1, {"a": 1}),
        (2, "no JSON"),
        (4, "no JSON object"),
        (5, {"a": 2}),
        (5, "no JSON object"),
        (6, "no JSON: the last line is cut off"),
    ]


def test_a_document_is_read_value_by_value(read: Reader):
    pages = {
        "object": "page",
        "data": [{"a": 1, "b": [{"c": "}"}]}, {"a": 2}],
        "has_more": False,
        "next_page": None,
    }
    for text in (json.dumps([pages, pages], indent=2), json.dumps(pages, indent=1) * 2):
        shape, rows = read(text)
        assert shape == "json"
        assert [row["a"] for _, row in rows] == [1, 2, 1, 2]
        assert [at for at, _ in rows] == [0, 1, 2, 3]


def test_a_broken_value_in_a_document_costs_itself(read: Reader):
    _, rows = read('[{"a":1},\n{"a":nope},\n{"a":3}, garbage, {"a":4}]')
    assert rows == [
        (0, {"a": 1}),
        (1, "no JSON"),
        (2, {"a": 3}),
        (3, "text that is not JSON"),
        (3, {"a": 4}),
    ]


def test_a_document_larger_than_what_is_held_at_once(read: Reader):
    values = [{"n": number, "text": "ä" * 700} for number in range(2000)]
    _, rows = read(json.dumps({"object": "page", "data": values}, indent=1))
    assert [row for _, row in rows] == values


def test_a_cut_document_gives_what_it_holds(read: Reader):
    values = [{"n": number} for number in range(50)]
    _, rows = read(json.dumps(values)[:-7])
    assert [row for _, row in rows[:-1]] == values[:-1]
    assert rows[-1] == (49, "no JSON from here to the end of the file")


def test_pages_whose_head_lies_across_what_is_read_at_once(read: Reader):
    pages = [{"n": "x" * (number % 7), "data": [{"a": number}]} for number in range(20_000)]
    _, rows = read(json.dumps(pages))
    assert [row for _, row in rows] == [{"a": number} for number in range(20_000)]
