"""What a box knows of its failover pair: its own part, what it saw of its peer, what was done.

Its own part is in the site's settings, so that backups carry it. Nothing here talks to anybody.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from .errors import Refused
from .faults import Faults
from .store import Store
from .widgets import Say

OWN_SETTINGS = ("failover_role", "failover_pair", "preshared_key")  # no data sync moves them
EVENTS_KEPT = 100
SILENCE = 30.0  # seconds without a word after which a data sync to the peer counts as broken off


class Role(Enum):
    """The part of this site in a pair."""

    NONE = "none"
    PRIMARY = "primary"
    BACKUP = "backup"

    @property
    def other(self) -> Role:
        return {Role.PRIMARY: Role.BACKUP, Role.BACKUP: Role.PRIMARY}.get(self, Role.NONE)


ROLE_NAMES = {Role.NONE: Say("None"), Role.PRIMARY: Say("Primary"), Role.BACKUP: Say("Backup")}


@dataclass(frozen=True)
class Door:
    """Where a box answers its peer."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_door(host: str, port: str) -> Door:
    """A host and a port as somebody typed them.

    Raises:
        Refused: they are not that.

    """
    host, port = host.strip(), port.strip()
    if not host or any(one.isspace() or one in "/@[]" for one in host):
        raise Refused("{host} is not a host name.", host=host)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused("{port} is not a port.", port=port)
    return Door(host, int(port))


@dataclass(frozen=True)
class Pair:
    """One box's part.

    ``peer``: where the other box answers this one; ``reverse``: where this one answers the other. ``term`` grows with every change of
    the primary, so that of two the later one can be told. ``interval``: minutes between data syncs, 0 for none. ``shared``: addresses
    that the primary holds.
    """

    role: Role = Role.NONE
    peer: Door | None = None
    reverse: Door | None = None
    peer_guid: str = ""
    term: int = 0
    interval: int = 5
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """The last look at the peer. ``problem``: why its role is not known, as a sentence with its facts; None where it is."""

    at: float = 0.0
    role: Role | None = None
    problem: Say | None = None


class Pairs:
    """Reads and writes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._faults = Faults(store.box)

    def read(self) -> Pair:
        """What this box's settings say."""
        site = self._store.site
        facts = json.loads(site.setting("failover_pair", "{}") or "{}")
        if not facts:
            return Pair()
        return Pair(
            role=Role(site.setting("failover_role", "none")),
            peer=Door(*facts["peer"]) if facts["peer"] else None,
            reverse=Door(*facts["reverse"]) if facts["reverse"] else None,
            peer_guid=facts["peer_guid"],
            term=facts["term"],
            interval=facts["interval"],
            shared=tuple(facts["shared"]),
        )

    def save(self, pair: Pair) -> None:
        """Write it, in one step."""
        facts: dict[str, Any] = asdict(pair)
        del facts["role"]
        for name in ("peer", "reverse"):
            door = getattr(pair, name)
            facts[name] = [door.host, door.port] if door is not None else None
        self._store.site.set(failover_role=pair.role.value, failover_pair=json.dumps(facts))

    def need(self) -> tuple[Pair, Door]:
        """The pair and its peer.

        Raises:
            Refused: this box is in none.

        """
        pair = self.read()
        if pair.role is Role.NONE or pair.peer is None:
            raise Refused("This appliance is not in a failover pair.")
        return pair, pair.peer

    def forget(self) -> None:
        """Only the relationship goes: shared addresses and the interval stay written down."""
        pair = self.read()
        self.save(replace(pair, role=Role.NONE, peer=None, reverse=None, peer_guid=""))
        self._store.box.run("delete from setting where name in ('failover_seen', 'sync_position', 'sync_due')")

    # the peer

    def read_seen(self) -> Seen:
        """What the last look told."""
        facts = json.loads(self._store.box.setting("failover_seen", "{}"))
        if not facts:
            return Seen()
        problem = Say(facts["problem"][0], facts["problem"][1]) if facts["problem"] else None
        return Seen(facts["at"], Role(facts["role"]) if facts["role"] else None, problem)

    def save_seen(self, role: Role | None, problem: Refused | None) -> None:
        """Note a look at the peer; what changed since the last one goes into the history."""
        before = self.read_seen()
        facts = {
            "at": self._faults.now(),
            "role": role.value if role is not None else None,
            "problem": [problem.sentence, {key: str(value) for key, value in problem.facts.items()}] if problem is not None else None,
        }
        self._store.box.set(failover_seen=json.dumps(facts))
        after = self.read_seen()
        if after.problem is not None and (before.problem is None or before.problem.text != after.problem.text):
            self.note(after.problem.text, **after.problem.facts)
        if after.problem is None and before.problem is not None:
            self.note("The peer site answers again.")

    def is_conflict(self) -> bool:
        """Whether both were last seen in the same role."""
        pair, seen = self.read(), self.read_seen()
        return pair.role is not Role.NONE and seen.role is pair.role

    # history

    def note(self, step: str, **facts: object) -> None:
        """Write a sentence (English, with facts for its braces) into the status history."""
        with self._store.box.transaction() as connection:
            values = (self._faults.now(), step, json.dumps(facts, default=str))
            connection.execute("insert into failover_event (at, step, facts) values (?, ?, ?)", values)
            connection.execute("delete from failover_event where id <= (select max(id) from failover_event) - ?", (EVENTS_KEPT,))

    def events(self) -> list[tuple[float, Say]]:
        """The history, the newest first."""
        rows = self._store.box.rows("select * from failover_event order by id desc limit 20")
        return [(row["at"], Say(row["step"], json.loads(row["facts"]))) for row in rows]


class Kind(Enum):
    """PULL: a data sync into this site. SERVE: one out of it, as the peer tells. ROLE: a change of roles that this site leads.

    AWAIT: one that this site asked for and the peer leads.
    """

    PULL = "pull"
    SERVE = "serve"
    ROLE = "role"
    AWAIT = "await"


@dataclass(frozen=True)
class Work:
    """One piece of work; ``state`` is running, finished or failed, ``done`` and ``total`` are bytes."""

    id: int
    kind: Kind
    state: str
    step: Say
    started: float
    ended: float | None
    done: int
    total: int

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 0


class Works:
    """Data syncs and role changes as they are written down."""

    def __init__(self, store: Store) -> None:
        self._box = store.box
        self._faults = Faults(store.box)

    def start(self, kind: Kind, step: str, **facts: object) -> int:
        """Write down that it begins; answers its number."""
        now = self._faults.now()
        with self._box.transaction() as connection:
            sql = "insert into failover_work (kind, state, step, facts, started, heard) values (?, 'running', ?, ?, ?, ?)"
            number = connection.execute(sql, (kind.value, step, json.dumps(facts, default=str), now, now)).lastrowid
            connection.execute("delete from failover_work where id <= ?", (int(number or 0) - EVENTS_KEPT,))
        return int(number or 0)

    def count(self, number: int, done: int, total: int) -> None:
        """How far it is, in bytes."""
        self._box.run("update failover_work set done = ?, total = ?, heard = ? where id = ?", done, total, self._faults.now(), number)

    def hear(self) -> None:
        """The peer is at it still."""
        self._box.run("update failover_work set heard = ? where state = 'running' and kind = 'await'", self._faults.now())

    def end_awaited(self, state: str, step: str, **facts: object) -> None:
        """A change of roles that the peer led has ended."""
        for row in self._box.rows("select id from failover_work where state = 'running' and kind = 'await'"):
            self.end(row["id"], state, step, **facts)

    def end(self, number: int, state: str, step: str, **facts: object) -> None:
        """Write down how it ended: ``finished`` or ``failed``, with a sentence."""
        sql = "update failover_work set state = ?, step = ?, facts = ?, ended = ? where id = ?"
        self._box.run(sql, state, step, json.dumps(facts, default=str), self._faults.now(), number)

    def find_last(self, *kinds: Kind) -> Work | None:
        """The one of these kinds that began last."""
        marks = ", ".join("?" * len(kinds))
        sql = f"select * from failover_work where kind in ({marks}) order by id desc limit 1"  # noqa: S608 - marks only
        row = self._box.find_row(sql, *(kind.value for kind in kinds))
        return self._work(row) if row is not None else None

    def _work(self, row: sqlite3.Row) -> Work:
        state, step = row["state"], Say(row["step"], json.loads(row["facts"]))
        is_led_there = row["kind"] in (Kind.SERVE.value, Kind.AWAIT.value)
        if is_led_there and state == "running" and self._faults.now() - row["heard"] > SILENCE:
            state, step = "failed", Say("The peer site broke it off.")
        return Work(row["id"], Kind(row["kind"]), state, step, row["started"], row["ended"], row["done"], row["total"])

    def find_running(self, *kinds: Kind) -> Work | None:
        """One of these kinds that goes on."""
        wanted = {kind.value for kind in kinds}
        rows = self._box.rows("select * from failover_work where state = 'running'")
        return next((work for row in rows if row["kind"] in wanted and (work := self._work(row)).state == "running"), None)

    def settle(self) -> None:
        """After a start: what was running was cut off; transactions saw to it that nothing is half done."""
        sql = "update failover_work set state = 'failed', step = ?, facts = '{}', ended = ? where state = 'running'"
        self._box.run(sql, Say("It was interrupted; try again.").text, self._faults.now())
