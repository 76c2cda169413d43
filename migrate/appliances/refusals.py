"""What was refused once is not tried again by this process: a second wrong password may lock an account."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kit.errors import RejectedError
from kit.secret import Secret
from migrate.appliances.errors import LoginRefusedError


@dataclass(frozen=True)
class Place:
    """A box as refusals are remembered for it: its address, and the key it serves: another box at the same address is another place."""

    host: str
    port: int
    key: str


_KEY = secrets.token_bytes(32)  # so that the memory holds no password and nothing that could be searched for one
_REFUSED: dict[tuple[Place, str, str, bytes], str] = {}
_LOCKS: dict[tuple[Place, str], threading.Lock] = {}
_GUARD = threading.Lock()


@contextmanager
def one_try(place: Place, console: str, user: str, password: Secret) -> Iterator[None]:
    """Around one login attempt. Attempts at one console wait for each other, so that parallel nodes do not repeat a refused one.

    A :class:`RejectedError` inside is remembered.

    Raises:
        LoginRefusedError: these were refused before; nothing is tried.

    """
    key = (place, console, user, _digest(password))
    with _GUARD:
        lock = _LOCKS.setdefault((place, console), threading.Lock())
    with lock:
        before = _REFUSED.get(key)
        if before is not None:
            raise LoginRefusedError(
                f"{before} It was not tried again.",
                hint="Correct the password in the secrets and retry; a second failure may lock the account.",
            )
        try:
            yield
        except RejectedError as error:
            _REFUSED[key] = error.sentence
            raise


def forget(host: str, port: int, console: str) -> None:
    """Passwords of this console have been changed by us, or came back with a backup: what was refused may open it now."""
    with _GUARD:
        for key in [key for key in _REFUSED if (key[0].host, key[0].port, key[1]) == (host, port, console)]:
            del _REFUSED[key]


def _digest(password: Secret) -> bytes:
    return hmac.digest(_KEY, password.to_bytes(), hashlib.sha256)
