"""What is spent, on disk: parts of several workers become one, or equal ones, and nothing is lost or found by it."""

from pathlib import Path

import pytest

from freehold.gateway.callers.spend import Daily, Spending
from freehold.gateway.storage.budget_file import gather, part_path, spread

NOW_S = 1793491199  # 2026-10-31 23:59:59 UTC


def write(path: Path, *, kind: type[Spending] = Spending, **spent: int) -> None:
    spending = kind()
    spending.enter(NOW_S)
    spending.month |= spent
    path.write_bytes(spending.saved())


def read(path: Path, *, kind: type[Spending] = Spending) -> dict[str, int]:
    spending = kind(path.read_bytes())
    spending.enter(NOW_S)
    return spending.month


def test_parts_become_one(tmp_path: Path):
    path = tmp_path / "budgets.json"
    for worker in range(3):
        write(part_path(path, worker), k=10, **{f"only-{worker}": worker})
    gather(path)
    assert read(path) == {"k": 30, "only-0": 0, "only-1": 1, "only-2": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [1, 2, 5])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_equal_parts_are_the_whole_however_many_there_were(tmp_path: Path, before: int, after: int):
    path = tmp_path / "fallback.json"
    for worker in range(before):
        write(part_path(path, worker), kind=Daily, cloud=101 * worker + 7, other=3)
    spread(path, after)
    parts = [read(part_path(path, worker), kind=Daily) for worker in range(after)]
    for name, whole in (("cloud", sum(101 * worker + 7 for worker in range(before))), ("other", 3 * before)):
        amounts = [part[name] for part in parts]
        assert sum(amounts) == whole
        assert max(amounts) - min(amounts) < after
    assert len(list(tmp_path.iterdir())) == after


def test_nothing_spent_makes_no_file(tmp_path: Path):
    spread(tmp_path / "fallback.json", 3)
    gather(tmp_path / "budgets.json")
    assert not list(tmp_path.iterdir())


def test_a_part_that_cannot_be_read_is_left_and_the_others_are_kept(tmp_path: Path):
    path = tmp_path / "fallback.json"
    write(path, kind=Daily, cloud=10)
    part_path(path, 1).write_bytes(b"{")
    write(part_path(path, 2), kind=Daily, cloud=5)
    spread(path, 3)
    assert part_path(path, 1).read_bytes() == b"{"
    assert read(path, kind=Daily)["cloud"] == 15
