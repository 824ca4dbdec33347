"""An event loop on virtual time: it never waits, hours pass in a moment."""

import asyncio
import selectors
from typing import Any


class VirtualSelector(selectors.SelectSelector):
    """Instead of waiting it moves the time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that never comes"
        self.now_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop and a clock in one."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now_s

    def monotonic_s(self) -> float:
        return self.virtual.now_s

    def wall_s(self) -> float:
        return 1e9 + self.virtual.now_s
