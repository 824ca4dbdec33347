"""Waiting in tests: on a state, with a deadline; never for a fixed time."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

POLL_S = 0.01
"""Short against every deadline that a test uses, long against the cost of one look."""

T = TypeVar("T")


def remove_at_once(folder: Path) -> None:
    """Remove a folder that others write to: `rmtree` alone stops at a file that is replaced after it was listed."""
    gone = folder.rename(folder.with_name(f"{folder.name}.gone"))
    shutil.rmtree(gone)


def wait_until(condition: Callable[[], T], *, timeout_s: float = 10.0, what: str = "") -> T:
    """Return the first true value of `condition()`; fail when there is none within `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        _check(deadline_s, what=what or repr(condition), timeout_s=timeout_s)
        time.sleep(POLL_S)
    return value


async def until(condition: Callable[[], T | Awaitable[T]], *, timeout_s: float = 10.0, what: str = "") -> T:
    """Do the same in a running event loop; `condition` may be a coroutine function."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := await _value_of(condition())):
        _check(deadline_s, what=what or repr(condition), timeout_s=timeout_s)
        await asyncio.sleep(POLL_S)
    return value


async def _value_of(outcome: T | Awaitable[T]) -> T:
    return await outcome if isinstance(outcome, Awaitable) else outcome


def _check(deadline_s: float, *, what: str, timeout_s: float) -> None:
    if time.monotonic() > deadline_s:
        msg = f"waited {timeout_s:g} s in vain for {what}"
        raise AssertionError(msg)
