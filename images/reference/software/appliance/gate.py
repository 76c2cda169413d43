"""Keeps writers out of the site while its role in a failover pair is changed: nothing is taken that the other site will not have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Busy

CHANGING = "The role of this site is being changed. Try again in a moment."


class Gate:
    """Open by default. Who holds it has a token, and a time after which it opens by itself: a peer that died holds nobody for ever.

    It lives in memory: a site that started again since is not held any more, and says so to the holder.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._writers = 0
        self._token = ""
        self._until = 0.0

    def hold(self, token: str, seconds: float) -> None:
        """Let no new writer in (again: for longer), and return when those who are writing have finished.

        Raises:
            Busy: another one holds it, or a writer does not come to its end.

        """
        with self._turn:
            if self._is_held() and self._token != token:
                raise Busy(CHANGING)
            self._token, self._until = token, time.monotonic() + seconds
            if not self._turn.wait_for(lambda: self._writers == 0, seconds):
                self._token = ""
                raise Busy(CHANGING)

    def _is_held(self) -> bool:
        return bool(self._token) and time.monotonic() < self._until

    def keep(self, token: str) -> bool:
        """For the last step: whether this token holds it still; if so it stays held until :meth:`release`."""
        with self._turn:
            if not self._is_held() or self._token != token:
                return False
            self._until = float("inf")
            return True

    def release(self, token: str) -> None:
        """Open it, if this token holds it."""
        with self._turn:
            if self._token == token:
                self._token = ""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around everything that writes into the site.

        Raises:
            Busy: not now.

        """
        with self._turn:
            if self._is_held():
                raise Busy(CHANGING)
            self._writers += 1
        try:
            yield
        finally:
            with self._turn:
                self._writers -= 1
                self._turn.notify_all()
