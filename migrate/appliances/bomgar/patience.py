"""Waiting for a box, and changing it so that a second call does nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kit.errors import BoxshiftError, DeadlineError, UnreachableError
from kit.waiting import wait_for
from migrate.appliances.errors import BusyError, SessionLostError

T = TypeVar("T")


def wait_until(look: Callable[[], T | None], *, what: str, timeout: float, poll: float = 0.3, in_a_row: int = 1) -> T:
    """Look until there is an answer. A box that does not answer or is busy counts as "not yet"; any other error ends the waiting.

    Raises:
        DeadlineError: it did not happen in ``timeout`` seconds.
        BoxshiftError: what looking raised.

    """
    fatal: list[BoxshiftError] = []

    def probe() -> T | None:
        try:
            return look()
        except (UnreachableError, SessionLostError):
            raise
        except BoxshiftError as error:
            fatal.append(error)
            return None

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


def ensure(look: Callable[[], T | None], act: Callable[[], object], *, what: str, timeout: float, poll: float = 0.3) -> T:
    """Make it so: look; if it is not so, act once and look until it is.

    Where the session ended while acting, the state is read again, and only if nothing happened the act is repeated, once. Where the
    connection broke off while acting (an address or a certificate is being changed), looking tells whether it was done.
    """
    found = look()
    if found is not None:
        return found
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
            return wait_until(look, what=what, timeout=timeout, poll=poll)
        except DeadlineError:
            raise broken from None
    return wait_until(look, what=what, timeout=timeout, poll=poll)
