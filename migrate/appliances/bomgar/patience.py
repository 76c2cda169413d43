"""Waiting for a box, and changing it so that a second call does nothing twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from kit.errors import BoxshiftError, DeadlineError, UnreachableError
from kit.waiting import wait_for
from migrate.appliances.errors import BusyError, SessionLostError

T = TypeVar("T")


def wait_until(
    look: Callable[[], T | None], *, what: str, timeout: float, poll: float = 0.3, in_a_row: int = 1, silence: float = math.inf
) -> T:
    """Look until there is an answer. A box that does not answer or is busy counts as "not yet"; any other error ends the waiting.

    ``silence``: seconds without any answer after which waiting for what may take hours has no point: the box is gone.

    Raises:
        DeadlineError: it did not happen in ``timeout`` seconds.
        BoxshiftError: what looking raised.

    """
    fatal: list[BoxshiftError] = []
    heard = time.monotonic()

    def probe() -> T | None:
        nonlocal heard
        try:
            found = look()
        except (UnreachableError, SessionLostError) as error:
            if time.monotonic() - heard > silence:
                fatal.append(error)
            raise
        except BoxshiftError as error:
            fatal.append(error)
            return None
        heard = time.monotonic()
        return found

    try:
        return wait_for(
            probe, what=what, timeout=timeout, poll=poll, in_a_row=in_a_row, give_up=lambda: fatal[0].sentence if fatal else None
        )
    except BoxshiftError:
        if fatal:
            raise fatal[0] from None
        raise


def twice(harmless: Callable[[], T]) -> T:
    """Do what changes nothing when it is done again; once more where the session ended in between."""
    try:
        return harmless()
    except SessionLostError:
        return harmless()


def ensure(
    look: Callable[[], T | None], act: Callable[[], object], *, what: str, timeout: float, poll: float = 0.3, silence: float = math.inf
) -> T:
    """Make it so: look; if it is not so, act once and look until it is.

    Where the session ended while acting, the state is read again, and only if nothing happened the act is repeated, once. Where the
    connection broke off while acting (an address or a certificate is being changed), looking tells whether it was done.
    """
    found = look()
    return found if found is not None else enforce(look, act, what=what, timeout=timeout, poll=poll, silence=silence)


def enforce(
    look: Callable[[], T | None], act: Callable[[], object], *, what: str, timeout: float, poll: float = 0.3, silence: float = math.inf
) -> T:
    """The same for one who has looked already."""
    try:
        act()
    except SessionLostError:
        found = look()
        if found is not None:
            return found
        act()
    except BusyError:
        raise
    except UnreachableError as broken:
        try:
            return wait_until(look, what=what, timeout=timeout, poll=poll, silence=silence)
        except DeadlineError:
            raise broken from None
    return wait_until(look, what=what, timeout=timeout, poll=poll, silence=silence)
