"""Bytes of a file: a whole one, or a member of an archive that is read where it lies."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from images.import_errors import SourceError
from kit.files import explain_refusal

CHUNK = 1 << 20


@dataclass(frozen=True)
class Span:
    """``length`` bytes of ``path`` from ``offset`` on."""

    path: Path
    offset: int
    length: int

    def read(self, at: int, count: int) -> bytes:
        """Up to ``count`` bytes from position ``at`` of the span; fewer where the span ends."""
        count = max(0, min(count, self.length - at))
        if at < 0 or not count:
            return b""
        try:
            with self.path.open("rb", buffering=0) as source:
                return os.pread(source.fileno(), count, self.offset + at)
        except OSError as error:
            raise explain_refusal(error) from error

    def stream(self, size: int = CHUNK) -> Iterator[bytes]:
        """Its bytes in order, in pieces of at most ``size``."""
        try:
            with self.path.open("rb", buffering=0) as source:
                source.seek(self.offset)
                left = self.length
                while left and (piece := source.read(min(size, left))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise explain_refusal(error) from error

    def open(self) -> io.BufferedReader:
        """As a file to read from."""
        return io.BufferedReader(_SpanFile(self), CHUNK)


class _SpanFile(io.RawIOBase):
    def __init__(self, span: Span) -> None:
        super().__init__()
        self._pieces = span.stream()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def read_file(path: Path) -> Span:
    """The whole of a regular file.

    Raises:
        SourceError: it is not there, cannot be read, or is no regular file (a device, a pipe).

    """
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            with path.open("rb"):
                return Span(path.resolve(), 0, found.st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
        raise SourceError(f"{str(path)!r} cannot be read: {reason}.", hint="Look at the name and at who may read it.") from error
    raise SourceError(f"{path} is no regular file.", hint="Give an image file, an OVF folder or an https address.")


def hash_span(span: Span, *algorithms: str, seen: Callable[[int], None] = lambda _: None) -> tuple[str, ...]:
    """Its digests in hex, all from one reading. ``seen`` is told how many bytes were read since it was told last."""
    hashes = [hashlib.new(name) for name in algorithms]
    for piece in span.stream():
        for one in hashes:
            one.update(piece)
        seen(len(piece))
    return tuple(one.hexdigest() for one in hashes)
