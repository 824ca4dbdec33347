"""Numbers that all workers of one gateway see, in shared memory, without a lock.

Each worker has a column and writes nowhere else; it reads all of them. A column is a table of places found by the hash
of a name (`endpoint a-0 …`), the same for all workers, so no process has to assign places and the control plane is not
asked. A place holds a few numbers; a sum over the columns may be older than its reader by what the others did while it
was reading, which is the one inexactness of all that is built on it: each worker can be wrong by one step at a time.
The parent clears what a dead worker held; until then the other workers skip it.

In addition, each worker publishes one text (`publish`), which the others read whole or not at all.
It deliberately knows no requests, no limits and no sockets. Cells are aligned 64-bit words: a reader sees one as it
was before or after a write, never half (true of every processor that CPython's 64-bit builds run on).
"""

import mmap
import os
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from freehold.core.errors import Permanent

PLACES = 32768
"""Places in a column. Source: our own bound: three times the most API keys there may be, so that searches are short; at
64 bytes each 2 MiB per worker, of which only what is used takes memory."""
VALUES = 7
"""Numbers in a place. Source: our own choice: with its tag a place is one cache line of 64 bytes."""
PUBLISHED_BYTES_MAX = 1024 * 1024
"""Longest published text. Source: our own bound; metrics of 64 models in all their series take some 300 kB."""

_CELL_BYTES = 8  # One int64.
_MOST = 2**63 - 1  # What a cell holds.
_PLACE = 1 + VALUES
_HEAD = 8  # The cells before a column's table; the next five are among them.
_PID, _CONNECTIONS, _TURN, _LENGTHS = 0, 1, 2, 3
_COLUMN = _HEAD + PLACES * _PLACE
_FREED = -1  # The tag of a place that was given up: a search continues past it.
_CRC_BYTES = 4


def _tag(name: str) -> int:
    """Return a positive 63-bit number for a name; two of ten thousand names share one once in 10^11 boards."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 1 or 1


class SharedCounters:
    """One process's view of the memory: of a worker with its own column, or of the parent, which has none."""

    def __init__(self, fd: int, *, workers: int, index: int = -1) -> None:
        """Map the memory behind `fd`; `index` is the column of this process, -1: none."""
        self.fd = fd
        self.workers = workers
        self.index = index
        self._bytes = mmap.mmap(fd, _size_bytes(workers))
        self.cells = memoryview(self._bytes).cast("q")
        self.columns = tuple(column * _COLUMN for column in range(workers) if column != index)
        """Where the others' columns begin."""
        self.dead: dict[int, int] = {}
        """Columns whose worker has died and that are not cleared yet, with its pid."""
        self._start = index * _COLUMN
        self._rows: dict[str, CounterRow] = {}
        self._leaving: dict[str, CounterRow] = {}
        """Rows without users; they are dropped when their numbers are 0."""
        self.overflows = 0
        """Rows that found no place: what they count is seen by this worker only."""

    def __repr__(self) -> str:
        return f"<SharedCounters {self.index} of {self.workers}, {len(self._rows)} rows>"

    @classmethod
    def create(cls, workers: int) -> "SharedCounters":
        """Return the parent's view of new memory without a name, gone with the last process that has it.

        Raises Permanent where there is none to be had.
        """
        if not hasattr(os, "memfd_create"):
            raise Permanent("several gateway workers need Linux", hint="gateway: {workers: 1}")
        try:
            fd = os.memfd_create("freehold-board")
            os.truncate(fd, _size_bytes(workers))
        except OSError as exc:
            raise Permanent(f"no memory for several gateway workers: {exc.strerror}") from exc
        return cls(fd, workers=workers)

    # Workers

    def join(self) -> None:
        """Take this process's column."""
        self.cells[self._start + _PID] = os.getpid()

    def clear(self, index: int) -> None:
        """Forget what a dead worker counted; what it published stays. For the parent, once the process has ended."""
        start = index * _COLUMN
        blank = bytes(_COLUMN * _CELL_BYTES)
        kept = (_TURN, _LENGTHS, _LENGTHS + 1)
        values = [self.cells[start + cell] for cell in kept]
        self._bytes[start * _CELL_BYTES : (start + _COLUMN) * _CELL_BYTES] = blank
        for cell, value in zip(kept, values, strict=True):
            self.cells[start + cell] = value

    def look(self) -> None:
        """Look for workers that died, and free unused places; called now and then."""
        dead = {}
        for column in self.columns:
            pid = self.cells[column + _PID]
            if pid and not _lives(pid):
                dead[column] = pid
        self.dead = dead
        for name, row in list(self._leaving.items()):
            if row.users or row.idle:
                del self._leaving[name]
            if row.idle:
                del self._rows[name]
                self._give_up(row)

    def here(self, column: int) -> bool:
        """Return whether a column belongs to a living worker."""
        return column not in self.dead or self.cells[column + _PID] != self.dead[column]

    def pids(self) -> dict[int, int]:
        """Return the process ids of the workers that live, by index."""
        columns = range(0, self.workers * _COLUMN, _COLUMN)
        pids = {column // _COLUMN: self.cells[column + _PID] for column in columns if self.here(column)}
        return {index: pid for index, pid in pids.items() if pid}

    @property
    def living(self) -> int:
        """Return how many workers live, this one included."""
        return len(self.pids())

    @property
    def connections_least(self) -> int:
        """Return the fewest client connections that another living worker has; -1: there is none."""
        counts = [
            self.cells[column + _CONNECTIONS]
            for column in self.columns
            if self.cells[column + _PID] and self.here(column)
        ]
        return min(counts, default=-1)

    def publish_connections(self, count: int) -> None:
        """Publish how many client connections this worker has."""
        self.cells[self._start + _CONNECTIONS] = count

    # Counts

    def row(self, name: str) -> "CounterRow":
        """Return the row of a name, one per process however often it is asked for; release it as often."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._new_row(name)
        row.users += 1
        return row

    def leave(self, row: "CounterRow") -> None:
        """Give a row up once its numbers are 0."""
        self._leaving[row.name] = row

    def _new_row(self, name: str) -> "CounterRow":
        tag = _tag(name)
        for step in range(PLACES):
            place = (tag + step) % PLACES * _PLACE + _HEAD
            cell = self._start + place
            if self.cells[cell] in (0, _FREED, tag):
                self.cells[cell + 1 : cell + _PLACE] = memoryview(bytes(VALUES * _CELL_BYTES)).cast("q")
                self.cells[cell] = tag
                return CounterRow(self, name, own=self.cells, at=cell)
        self.overflows += 1
        return CounterRow(self, name, own=memoryview(bytearray(_PLACE * _CELL_BYTES)).cast("q"), at=0)

    def _give_up(self, row: "CounterRow") -> None:
        if row.own is not self.cells:
            return
        place = (row.at - self._start - _HEAD) // _PLACE
        self.cells[row.at] = _FREED
        # The end of a chain needs no marks: without this, searches would become longer for ever.
        while not self._tag_at(place + 1) and self._tag_at(place) == _FREED:
            self.cells[self._start + _HEAD + place % PLACES * _PLACE] = 0
            place -= 1

    def _tag_at(self, place: int) -> int:
        return self.cells[self._start + _HEAD + place % PLACES * _PLACE]

    # Texts

    def publish(self, data: bytes) -> bool:
        """Replace what this worker publishes; returns False where it is too long, and leaves the older text."""
        if len(data) > PUBLISHED_BYTES_MAX:
            return False
        turn = self.cells[self._start + _TURN] + 1
        start = self._text_start(self.index, turn)
        # Written next to the text in use, then made current: a reader of the old one is not disturbed.
        self._bytes[start : start + _CRC_BYTES + len(data)] = crc32(data).to_bytes(_CRC_BYTES) + data
        self.cells[self._start + _LENGTHS + turn % 2] = len(data)
        self.cells[self._start + _TURN] = turn
        return True

    def published(self, index: int) -> bytes:
        """Return what a worker published last; empty: nothing, or it is too busy publishing to be read."""
        for _ in range(3):
            turn = self.cells[index * _COLUMN + _TURN]
            start = self._text_start(index, turn)
            length = self.cells[index * _COLUMN + _LENGTHS + turn % 2]
            crc = self._bytes[start : start + _CRC_BYTES]
            data = self._bytes[start + _CRC_BYTES : start + _CRC_BYTES + length]
            if crc == crc32(data).to_bytes(_CRC_BYTES):
                return data
        return b""

    def _text_start(self, index: int, turn: int) -> int:
        texts = self.workers * _COLUMN * _CELL_BYTES
        return texts + (2 * index + turn % 2) * (_CRC_BYTES + PUBLISHED_BYTES_MAX)


class CounterRow:
    """The numbers of one name: this worker's own, to be changed, and the others', to be read."""

    __slots__ = ("_cells", "_counters", "_home", "_homes", "_tag", "at", "name", "own", "users")

    def __init__(self, counters: SharedCounters, name: str, *, own: memoryview, at: int) -> None:
        self._counters = counters
        self._cells = counters.cells
        self._tag = tag = _tag(name)
        self.name = name
        self._home = home = _HEAD + tag % PLACES * _PLACE
        self._homes = tuple(column + home for column in counters.columns)
        self.own = own
        self.at = at
        self.users = 0

    def __repr__(self) -> str:
        return f"<CounterRow {[self.get(what) for what in range(VALUES)]}, {self.users} users>"

    @property
    def idle(self) -> bool:
        """Return whether it has no users and all its numbers are 0."""
        return not self.users and not any(self.own[self.at + 1 : self.at + _PLACE])

    def release(self) -> None:
        """Use it no more; it goes when its numbers are 0."""
        self.users -= 1
        if not self.users:
            self._counters.leave(self)

    def get(self, what: int) -> int:
        """Return this worker's number."""
        return int(self.own[self.at + 1 + what])

    def put(self, what: int, value: int) -> None:
        """Set this worker's number; one that is too large for a cell stands there as the largest."""
        try:
            self.own[self.at + 1 + what] = value
        except ValueError:
            self.own[self.at + 1 + what] = _MOST if value > 0 else -_MOST

    def add(self, what: int, by: int) -> None:
        """Change this worker's number, at most to the largest that a cell holds."""
        self.put(what, self.own[self.at + 1 + what] + by)

    def others(self, what: int) -> int:
        """Return the sum of the other workers' numbers."""
        if self._counters.dead:
            return sum(numbers[what] for _, numbers in self.each())
        cells, tag, total = self._cells, self._tag, 0
        for home in self._homes:
            if cells[home] == tag:
                total += cells[home + 1 + what]
            elif at := self._find(home - self._home):
                total += cells[at + 1 + what]
        return total

    def total(self, what: int) -> int:
        """Return the sum of all workers' numbers."""
        return int(self.own[self.at + 1 + what]) + self.others(what)

    def each(self) -> list[tuple[int, list[int]]]:
        """Return every other living worker that has this row: its index and all its numbers."""
        found = []
        for column in self._counters.columns:
            at = self._find(column)
            if at and self._counters.here(column):
                found.append((column // _COLUMN, self._cells[at + 1 : at + _PLACE].tolist()))
        return found

    def _find(self, column: int) -> int:
        """Return the cell where a column has this row; 0: nowhere."""
        cells, first = self._cells, column + _HEAD
        for step in range(PLACES):
            at = first + (self._tag + step) % PLACES * _PLACE
            tag = cells[at]
            if tag == self._tag:
                return at
            if not tag:
                break
        return 0


def _size_bytes(workers: int) -> int:
    return workers * (_COLUMN * _CELL_BYTES + 2 * (_CRC_BYTES + PUBLISHED_BYTES_MAX))


def _lives(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not collected yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] not in {b"Z", b"X"}
