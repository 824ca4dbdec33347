"""What keys and fallback providers have spent of their budgets, saved to disk by a background thread, so that a restart forgets nothing.

Saved about once a second where something changed: a kill -9 forgets at most what was spent since. It is a counter and not a
ledger: it does not show single requests.
"""

from pathlib import Path

import msgspec

from freehold.core.whole_file import replace_file
from freehold.gateway.callers.spend import Spending
from freehold.gateway.storage.background_loop import BackgroundLoop
from freehold.telemetry.logs import Logger, get_logger

SAVE_EVERY_S = 1.0
"""Source: own choice: often enough that a crash forgets little, seldom enough for any disk."""
_LAST_SAVE_S = (
    1.0  # At the end a disk gets this long; a process that cannot end is worse than a second's spending.
)


def part_path(path: Path, worker: int) -> Path:
    """Return the file of one worker, where each needs one of its own: `path` itself for the first, `NAME-1.json` and so on."""
    return path.with_stem(f"{path.stem}-{worker}") if worker else path


def gather(path: Path) -> bool:
    """Put the parts of all workers of an earlier run together into the first; while no worker runs.

    Returns False where a part could not be read or moved: it is left for the next time.
    """
    left = False
    for part in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")):
        try:
            whole = Spending(path.read_bytes() if path.exists() else b"")
            whole.add(Spending(part.read_bytes()))
            replace_file(path, whole.saved())
            part.unlink()
        except (OSError, msgspec.DecodeError) as exc:
            _failed(part, exc)
            left = True
    return not left


def spread(path: Path, workers: int) -> None:
    """Put the parts of an earlier run together, then give each worker an equal one; while no worker runs.

    For budgets that are held in equal parts. Where it fails half-way, too much counts as spent rather than too little.
    """
    if not gather(path) or workers == 1 or not path.exists():
        return
    try:
        parts = Spending(path.read_bytes()).parts(workers)
        for worker in reversed(range(workers)):
            replace_file(part_path(path, worker), parts[worker].saved())
    except (OSError, msgspec.DecodeError) as exc:
        _failed(path, exc)


def _failed(part: Path, exc: Exception) -> None:
    get_logger("gateway.budgets").error("budgets_not_gathered", part=part.name, reason=str(exc))


class BudgetFile:
    """Loads spending at once, and from `start` on saves it."""

    def __init__(self, path: Path, log: Logger, *, kind: type[Spending] = Spending) -> None:
        self._kind = kind
        self._path = path
        self._log = log
        self.trouble = ""
        """Why it cannot be saved, or nothing."""
        self.spending = self._load()
        self._saved = self.spending.saved()
        self._beside: BackgroundLoop | None = None

    def __repr__(self) -> str:
        return f"<BudgetFile {self._path}{', ' * bool(self.trouble)}{self.trouble}>"

    def start(self) -> None:
        """Save from now on."""
        self._beside = BackgroundLoop("budgets", self._save, period_s=SAVE_EVERY_S)

    def stop(self) -> None:
        """Save once more; waits a second for that and no longer."""
        if self._beside is not None:
            self._beside.stop(last_s=_LAST_SAVE_S)

    def _load(self) -> Spending:
        try:
            return self._kind(self._path.read_bytes())
        except FileNotFoundError:
            return self._kind()
        except (OSError, msgspec.DecodeError) as exc:
            # Serving with budgets that begin at 0 is better than not serving; the log reports it.
            self._log.error("budgets_lost", file=self._path.name, reason=str(exc))
            return self._kind()

    def _save(self) -> None:
        data = self.spending.saved()
        if data == self._saved:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, data)
        except OSError as exc:
            trouble = exc.strerror or str(exc)
            if trouble != self.trouble:
                self._log.error("budgets_not_saved", reason=trouble)
            self.trouble = trouble
        else:
            self._saved, self.trouble = data, ""
