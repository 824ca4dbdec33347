"""A usage file as lines of text: unpacked, decoded, numbered, and with a bound on every line.

gzip is unpacked on the way. UTF-8 and UTF-16 (with its mark) are read, with or without a byte order mark, and with any
line ends; bytes that are no text become U+FFFD, so that only the row they are in suffers. Other archives are not opened.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LINE_CHARS_MAX = 8 * 1024 * 1024
"""Longest line that is kept whole. Source: our own bound: a row with a whole million-token prompt in it fits."""
_GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",  # APPNOTE.TXT 6.3.10, section 4.3.7
    b"\x28\xb5\x2f\xfd": "packed by zstd",  # RFC 8878, section 3.1.1
    b"\xfd7zXZ\x00": "packed by xz",  # the .xz file format 1.2.1, section 2.1.1.1
    b"BZh": "packed by bzip2",
    b"PAR1": "a Parquet file",  # parquet-format, README, "File format"
}


class Lines:
    """The lines of an open file, read once."""

    def __init__(self, path: Path) -> None:
        """Open it; raises OSError."""
        self.number = 0
        """Of the line that was read last, from 1."""
        self.ends_with_newline = True
        self._raw = path.open("rb")
        self._unpacked = _unpacked(self._raw)
        self.text = _decoded(self._unpacked or self._raw)

    def __repr__(self) -> str:
        return f"<Lines {self._raw.name} at {self.number}>"

    @property
    def cut_off(self) -> str:
        """Return why reading ended before the file did; empty: it did not."""
        return self._unpacked.fault if self._unpacked else ""

    def __iter__(self) -> Iterator[str]:
        while line := self.read(LINE_CHARS_MAX, line=True):
            self.number += 1
            self.ends_with_newline = line[-1] == "\n"
            if not self.ends_with_newline and len(line) == LINE_CHARS_MAX:
                self._skip_rest()
            yield line

    def _skip_rest(self) -> None:
        while rest := self.read(LINE_CHARS_MAX, line=True):
            if rest[-1] == "\n":
                break

    def read(self, chars: int, *, line: bool = False) -> str:
        """Return up to so many characters, at most up to the line's end if asked; empty: there is no more."""
        return self.text.readline(chars) if line else self.text.read(chars)

    def close(self) -> None:
        """Let go of the file."""
        self.text.close()
        self._raw.close()


def archive(head: bytes) -> str:
    """Return in words what kind of archive begins with these bytes; empty: none that is known."""
    return next((words for magic, words in _ARCHIVES.items() if head.startswith(magic)), "")


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, up to where it is damaged: what came before is not lost with the rest."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self.fault = ""
        self._packed = gzip.GzipFile(fileobj=raw)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer and return how much of it; 0 at the end, damaged or not."""
        view = memoryview(buffer)
        try:
            found = b"" if self.fault else self._packed.read1(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            self.fault, found = f"the gzip data is damaged or cut off: {exc}", b""
        view[: len(found)] = found
        return len(found)


def _unpacked(raw: BinaryIO) -> _Unpacked | None:
    head = raw.read(len(_GZIP))
    raw.seek(0)
    return _Unpacked(raw) if head == _GZIP else None


def _decoded(raw: BinaryIO | _Unpacked) -> io.TextIOWrapper:
    binary = io.BufferedReader(cast("io.RawIOBase", raw))
    head = binary.peek(4)[:4]
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(binary, encoding="utf-16" if wide else "utf-8-sig", errors="replace")
