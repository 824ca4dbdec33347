"""Progress of fetched weights: bars on a terminal, one plain line per stage elsewhere.

It writes to stderr only, so stdout holds nothing but the result of the command.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import rich.console
import rich.progress

from freehold.stack.fetch import ShowProgress, without_progress
from freehold.weights.transfer import FetchStage, OnProgress, Progress


@contextmanager
def showing(*, quiet: bool) -> Iterator[ShowProgress]:
    """Give a function that returns the progress callback for a name, until the block ends."""
    if quiet:
        yield without_progress
    elif not sys.stderr.isatty():
        yield _lines
    else:
        with rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
        ) as bars:
            yield lambda name: _bar(bars, name)


def _lines(name: str) -> OnProgress:
    """Print each stage once, and each reason for a retry once."""
    printed: set[tuple[FetchStage, str]] = set()

    def show(progress: Progress) -> None:
        reason = progress.detail.partition("; in ")[0]  # without the remaining seconds
        if (progress.stage, reason) not in printed:
            printed.add((progress.stage, reason))
            click.echo(f"{name}: {progress.stage}" + (f" ({reason})" if reason else ""), err=True)

    return show


def _bar(bars: rich.progress.Progress, name: str) -> OnProgress:
    """Show one bar for the present stage; a new stage starts a new bar."""
    shown: list[tuple[FetchStage, rich.progress.TaskID]] = []

    def show(progress: Progress) -> None:
        words = f"{name}  {progress.stage}" + (f" ({progress.detail})" if progress.detail else "")
        if not shown or shown[0][0] is not progress.stage:
            for _, task in shown:
                bars.remove_task(task)
            shown[:] = [(progress.stage, bars.add_task(words, total=progress.total_bytes))]
        bars.update(shown[0][1], description=words, completed=progress.done_bytes, total=progress.total_bytes)

    return show
