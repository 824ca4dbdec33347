"""Recordings as tests make and read them: written whole, read back as views, and given out view by view."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from freehold.core.problems import Problem
from freehold.health.agent.recording import RecordingHead, ViewRecorder, load_recording
from freehold.health.model.view import View


def record(path: Path, views: Iterable[View], head: RecordingHead | None = None) -> int:
    """Write a whole recording and return how many views it has."""
    count = 0
    with path.open("wb") as file:
        recorder = ViewRecorder(file, head)
        for count, view in enumerate(views, 1):  # noqa: B007 (the last number is what is asked for)
            recorder.add(view)
    return count


def replay(path: Path, on_problem: Callable[[Problem], None] = bool) -> list[View]:  # type: ignore[assignment]
    """Return the views that could be read; pass each problem to `on_problem`."""
    found = load_recording(path)
    for problem in found.problems:
        on_problem(problem)
    return list(found.views)


@dataclass(slots=True, kw_only=True)
class ScriptedReader:
    """Gives views that were made beforehand, one per read, then the last for ever."""

    views: Sequence[View]
    reads: int = field(default=0, init=False)

    async def read(self) -> View:
        """Return the next view."""
        view = self.views[min(self.reads, len(self.views) - 1)]
        self.reads += 1
        return view
