"""Files as bytes: bounded, and a pipe that nobody writes to does not hang."""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path

from certs.errors import CertsError
from certs.limits import MAX_BYTES

PIPE_WAIT = 5.0  # seconds for a pipe's other end to begin


def read_file(path: Path) -> bytes:
    """At most one byte more than is ever looked at. A pipe that nobody writes to does not hang.

    Raises:
        CertsError: it cannot be read.

    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_pipe(handle) if stat.S_ISFIFO(os.fstat(handle).st_mode) else _read_all(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise unreadable(path, error) from error


def _read_all(handle: int) -> bytes:
    pieces: list[bytes] = []
    left = MAX_BYTES + 1
    while left > 0 and (piece := os.read(handle, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _read_pipe(handle: int) -> bytes:
    """All that comes out of it; without a writer it gives nothing at once, so that is not believed for some seconds."""
    end, found = time.monotonic() + PIPE_WAIT, b""
    os.set_blocking(handle, False)
    while len(found) <= MAX_BYTES:
        try:
            piece = os.read(handle, 1 << 16)
        except BlockingIOError:  # somebody has it open, and has not written yet
            select.select([handle], [], [])
            continue
        if not piece and (found or time.monotonic() > end):
            break
        if not piece:
            time.sleep(0.05)
        found += piece
    return found


def unreadable(path: Path, error: OSError) -> CertsError:
    """What is said of a file or folder that the system does not let us read."""
    hint = {
        FileNotFoundError: "Look at its name.",
        PermissionError: "Look at its permissions.",
        IsADirectoryError: "Name a file.",
    }.get(type(error), "Look at it with ls -l.")
    return CertsError(f"{path} cannot be read: {error.strerror}.", hint=hint)
