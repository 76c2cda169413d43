"""Clients that update themselves: never more at a time than the site's setting allows.

Each holds a slot from when it is told to until it reports the new version. A slot is a lease: it lapses when its client has not been
heard of for :data:`SLOT_SECONDS`, and a client that has not finished by then asks again before it goes on. Every lease stays in the table
``client_upgrade`` (the last :data:`KEPT` of them), so that how many there were at any moment can be told afterwards.
"""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import dataclass
from functools import lru_cache

from .box import write_whole
from .core import Appliance

SLOT_SECONDS = 60.0
UPDATE_BYTES = 64 * 1024
KEPT = 100_000
SHORTEST, LONGEST = 0.5, 20.0  # seconds that a client is told to wait
FIRST_GUESS = 1.0  # seconds that an update is taken to need before one was seen


@dataclass(frozen=True)
class Asked:
    """What a client is told. ``retry``: 0 where it has a slot, else the seconds until it should ask again."""

    retry: float = 0.0


class Upgrades:
    """The slots of one box. Who must wait is given a turn, so that clients come back one after the other and not all at once."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._lock = threading.Lock()
        self._next_turn = 0.0
        self._takes = FIRST_GUESS

    def ask(self, client: str, version: str) -> Asked:
        """Give this client a slot (or its own for longer), unless all are taken."""
        slots = int(self._box.store.site.setting("upgrade_slots", "8"))
        with self._box.store.box.transaction() as connection:
            now = self._box.faults.now()  # read in here, so that times are in the order of what was decided
            connection.execute("update client_upgrade set ended = until where ended is null and until <= ?", (now,))
            held = connection.execute("select id, version from client_upgrade where ended is null and client = ?", (client,)).fetchone()
            if held is not None and held["version"] == version:
                connection.execute("update client_upgrade set until = ? where id = ?", (now + SLOT_SECONDS, held["id"]))
                return Asked()
            if held is not None:  # a newer package was installed in the middle
                connection.execute("update client_upgrade set ended = ? where id = ?", (now, held["id"]))
            if connection.execute("select count(*) from client_upgrade where ended is null").fetchone()[0] >= slots:
                return Asked(self._turn(now, slots))
            row = (client, version, now, now + SLOT_SECONDS)
            made = connection.execute("insert into client_upgrade (client, version, granted, until) values (?, ?, ?, ?)", row)
            connection.execute("delete from client_upgrade where id <= ?", (int(made.lastrowid or 0) - KEPT,))
        return Asked()

    def end(self, client: str) -> None:
        """It runs what it should."""
        box = self._box.store.box
        held = box.find_row("select id, granted, until from client_upgrade where ended is null and client = ?", client)
        if held is None:
            return
        with box.transaction(durable=False) as connection:
            now = self._box.faults.now()
            connection.execute("update client_upgrade set ended = ? where id = ?", (min(now, held["until"]), held["id"]))
        with self._lock:
            self._takes += 0.2 * (now - held["granted"] - self._takes)

    def _turn(self, now: float, slots: int) -> float:
        """Turns are as far apart as slots become free. Nobody is told to wait for very long: updates may become quicker."""
        with self._lock:
            self._next_turn = max(self._next_turn, now) + max(self._takes, 0.0) / slots
            if self._next_turn - now > LONGEST:
                self._next_turn = now + LONGEST
                return round(random.uniform(LONGEST / 2, LONGEST), 2)  # noqa: S311 - spreads load, guards nothing
            return round(max(SHORTEST, self._next_turn - now), 2)


def _make_update(version: str) -> bytes:
    """The software of a client of this version: always the same bytes."""
    return hashlib.shake_128(f"client {version}".encode()).digest(UPDATE_BYTES)


@lru_cache
def digest_update(version: str) -> str:
    """Its SHA-256, which clients compare."""
    return hashlib.sha256(_make_update(version)).hexdigest()


def write_update(box: Appliance, version: str) -> str:
    """The file that the web server hands out, made if it is not there; its name."""
    name = f"client-{version}.bin"
    folder = box.box.run / "updates"
    folder.mkdir(mode=0o755, exist_ok=True)
    if not (folder / name).exists():
        write_whole(folder / name, _make_update(version), 0o644)
    return name
