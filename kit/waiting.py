"""Waiting with a deadline, saying what for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kit.errors import DeadlineError, FailedError

T = TypeVar("T")


def wait_for(
    probe: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    poll: float = 0.5,
    in_a_row: int = 1,
    give_up: Callable[[], str | None] | None = None,
) -> T:
    """Call ``probe`` until it answers something other than None (``in_a_row`` times running), and return that.

    A :class:`FailedError` from the probe counts as "not yet", its sentence is remembered. ``timeout`` and ``poll`` in seconds.
    ``give_up`` may say in a sentence why waiting is pointless (a dead process): then it ends at once.

    Raises:
        DeadlineError: it did not happen; says what was waited for and what was seen last.

    """
    end = time.monotonic() + timeout
    last, good = "nothing", 0
    while True:
        try:
            answer = probe()
        except FailedError as error:
            answer, last = None, error.sentence
        good = good + 1 if answer is not None else 0
        if answer is not None and good >= in_a_row:
            return answer
        reason = give_up() if give_up is not None else None
        if reason is not None:
            raise DeadlineError(f"Stopped waiting for {what}: {reason}", waited_for=what, last_seen=last)
        if time.monotonic() + poll > end:
            raise DeadlineError(f"Waited {timeout:.0f} s for {what}; seen last: {last}", waited_for=what, last_seen=last)
        time.sleep(poll)
