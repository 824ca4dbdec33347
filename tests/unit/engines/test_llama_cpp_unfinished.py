"""Tokens of requests that are under way, as llama.cpp's /slots tells them."""

import json

import pytest

from freehold.engines import all_engines


def slot(decoded: int, *, processing: bool = True) -> dict[str, object]:
    return {"id": 0, "is_processing": processing, "next_token": [{"n_decoded": decoded, "n_remain": 5}]}


@pytest.mark.parametrize(
    ("slots", "tokens"),
    [
        ([], 0),
        ([{"id": 0, "is_processing": False}], 0),
        ([slot(61)], 61),
        ([slot(61), slot(9), slot(400, processing=False)], 70),
    ],
)
def test_slots_that_work_are_added_up(slots: list[dict[str, object]], tokens: int) -> None:
    unfinished = all_engines()["llama-cpp"].unfinished
    assert unfinished is not None
    assert unfinished.tokens(json.dumps(slots).encode()) == tokens


def test_what_cannot_be_read_is_unknown() -> None:
    unfinished = all_engines()["llama-cpp"].unfinished
    assert unfinished is not None
    assert unfinished.tokens(b"<html>") is None
