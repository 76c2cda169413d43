"""`boxshift` at a terminal: what it draws, what it asks, what is answered."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rig import BOXSHIFT


class Terminal:
    """One command in a terminal of its own."""

    def __init__(self, words: tuple[str, ...], env: dict[str, str]) -> None:
        self._said = b""
        self.status: int | None = None
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            os.execve(BOXSHIFT, [str(BOXSHIFT), *words], {**os.environ, "TERM": "xterm", "COLUMNS": "120", **env})

    @property
    def said(self) -> str:
        """Everything so far, as the terminal got it."""
        return self._said.decode(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 120.0) -> None:
        """Until it has said this."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.said):
            assert self._read(0.5), f"it ended without saying {pattern!r}:\n{self.said}"
            assert time.monotonic() < end, f"it does not say {pattern!r}:\n{self.said}"

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def wait_end(self, timeout: float = 180.0) -> int:
        """Read to the end; the exit status."""
        end = time.monotonic() + timeout
        while self._read(0.5):
            assert time.monotonic() < end, self.said
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def _read(self, seconds: float) -> bool:
        if not select.select([self._handle], [], [], seconds)[0]:
            return True
        with suppress(OSError):  # the other side of a terminal that is gone
            chunk = os.read(self._handle, 65536)
            self._said += chunk
            return bool(chunk)
        return False

    def close(self) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._handle)


@contextmanager
def open_terminal(*words: str | Path, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    terminal = Terminal(tuple(map(str, words)), env or {})
    try:
        yield terminal
    finally:
        terminal.close()
