"""Descriptors: idle clients never take those that engines need."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.server import descriptors as files


@given(st.integers(0, 2**20))
def test_some_are_always_left_for_engines(descriptors: int) -> None:
    clients = files.connections_for(descriptors)
    assert clients <= files.CONNECTIONS_MAX
    assert descriptors - clients >= min(4096, descriptors // 2)


def test_what_is_wanted_is_enough_for_all() -> None:
    assert files.connections_for(files.WANTED) == files.CONNECTIONS_MAX
    assert files.connections_for(1024) == 512


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        (1024, 20_000, 20_000),
        (1024, resource.RLIM_INFINITY, files.WANTED),
        (1024, 10**6, files.WANTED),
        (10**6, 10**6, 10**6),
    ],
)
def test_the_limit_is_raised_as_far_as_wanted_and_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, then: int
) -> None:
    now = {"limits": (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: now["limits"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.update(limits=limits))
    assert files.raise_limit() == then
    assert now["limits"] == (then, hard)
