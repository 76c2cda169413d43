"""What boxshift made, in a file of its own. Nothing is deleted unless this and the mark in the domain's metadata agree."""

from __future__ import annotations

import enum
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from images.domain import Forward, Mark
from images.errors import SpecError
from images.ready_page import ReadyPage, Speech
from images.segment import SegmentCard
from images.uplink import Uplink, UplinkKind
from kit.errors import FailedError

BUSY_SECONDS = 30.0
REMEMBERED_SECONDS = 86400.0

_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS machine (
  request TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL UNIQUE, mark TEXT NOT NULL, mac TEXT NOT NULL,
  state TEXT NOT NULL, image TEXT NOT NULL, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL, forwards TEXT NOT NULL,
  ready TEXT NOT NULL DEFAULT '', segments TEXT NOT NULL DEFAULT '[]', uplink TEXT NOT NULL DEFAULT '', generation TEXT NOT NULL DEFAULT '0'
);
CREATE TABLE IF NOT EXISTS lab (
  request TEXT PRIMARY KEY, maker TEXT NOT NULL, path TEXT NOT NULL, reason TEXT NOT NULL, expires REAL, ready_seconds REAL
);
CREATE TABLE IF NOT EXISTS removed (uuid TEXT PRIMARY KEY, mark TEXT NOT NULL, request TEXT NOT NULL, at REAL NOT NULL);
"""


class EntryState(enum.Enum):
    """What is meant for a machine."""

    PLANNED = "planned"  # written before anything else: whatever exists of it was made by us
    BOOTED = "booted"  # its disk holds something from now on
    RETIRED = "retired"  # out of the hypervisor, its disk kept
    REMOVING = "removing"


@dataclass(frozen=True)
class Entry:
    """One machine of ours. ``image`` is a digest; memory in MiB; ``generation``: which of its disks it writes to, where it has several."""

    request: str
    name: str
    uuid: str
    mark: str
    mac: str
    state: EntryState
    image: str
    memory_mib: int
    cpus: int
    forwards: tuple[Forward, ...]
    ready: ReadyPage | None = None
    segments: tuple[SegmentCard, ...] = ()
    uplink: Uplink | None = None
    generation: int = 0


@dataclass(frozen=True)
class LabEntry:
    """What is known of a disposable appliance beyond its machine; written before the machine, gone with it.

    ``maker``: the process that makes it (:func:`images.locking.read_self`); ``path``: ``warm`` or ``cold``, and why. ``expires`` in seconds
    since 1970, None: never. ``ready_seconds``: from being asked for until it was ready; None: it never was.
    """

    request: str
    maker: str
    path: str = ""
    reason: str = ""
    expires: float | None = None
    ready_seconds: float | None = None


class Ledger:
    """The ledger of one home: SQLite, mode 0600. Every change is on the disk before the method returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = ""

    def read_owner(self) -> str:
        """The ledger's own id, which is part of every mark."""
        if not self._owner:
            with self._open() as base:
                base.execute("INSERT OR IGNORE INTO about VALUES ('owner', ?)", (str(uuid.uuid4()),))
                self._owner = str(base.execute("SELECT value FROM about WHERE key = 'owner'").fetchone()[0])
        return self._owner

    def mark_of(self, entry: Entry) -> Mark:
        """The mark that the domain of this entry carries."""
        return Mark(self.read_owner(), entry.mark, entry.request)

    def add(self, entry: Entry) -> None:
        """Write a new entry.

        Raises:
            SpecError: a machine of that name or request is in the ledger already.

        """
        row = {**asdict(entry), "state": entry.state.value, "forwards": json.dumps([asdict(one) for one in entry.forwards])}
        row["ready"] = "" if entry.ready is None else json.dumps(asdict(entry.ready))
        row["segments"] = json.dumps([asdict(one) for one in entry.segments])
        row["uplink"] = "" if entry.uplink is None else json.dumps(asdict(entry.uplink))
        try:
            with self._open() as base:
                base.execute(f"INSERT INTO machine ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))  # noqa: S608 - column names of our own dataclass
        except sqlite3.IntegrityError as error:
            raise SpecError(
                f"A machine named {entry.name} is in the ledger already.", hint="Choose another name, or remove that one."
            ) from error

    def change_state(self, entry: Entry, state: EntryState) -> Entry:
        """Write what is meant for it from now on."""
        with self._open() as base:
            base.execute("UPDATE machine SET state = ? WHERE request = ?", (state.value, entry.request))
        return replace(entry, state=state)

    def change_generation(self, entry: Entry, generation: int) -> Entry:
        """Write to which of its disks it writes from now on."""
        with self._open() as base:
            base.execute("UPDATE machine SET generation = ? WHERE request = ?", (str(generation), entry.request))
        return replace(entry, generation=generation)

    def delete(self, entry: Entry) -> None:
        """Forget it: the last thing that is done when a machine is removed. Its mark is remembered for a day (:meth:`list_removed`)."""
        now = time.time()
        with self._open() as base:
            base.execute("DELETE FROM removed WHERE at < ?", (now - REMEMBERED_SECONDS,))
            base.execute("INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)", (entry.uuid, entry.mark, entry.request, now))
            base.execute("DELETE FROM machine WHERE request = ? AND uuid = ?", (entry.request, entry.uuid))
            base.execute("DELETE FROM lab WHERE request = ?", (entry.request,))

    def list_removed(self) -> dict[str, Mark]:
        """The marks of machines that were removed, by UUID.

        A process that is killed may have asked the daemon for a domain that the daemon makes only after the machine was removed.
        """
        with self._open() as base:
            rows = base.execute("SELECT uuid, mark, request FROM removed").fetchall()
        return {machine: Mark(self.read_owner(), mark, request) for machine, mark, request in rows}

    def note_lab(self, entry: LabEntry) -> LabEntry:
        """Write what is known of a disposable appliance, in place of what was."""
        row = asdict(entry)
        with self._open() as base:
            base.execute(f"INSERT OR REPLACE INTO lab ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))  # noqa: S608 - column names of our own dataclass
        return entry

    def forget_lab(self, request: str) -> None:
        """Drop what is known of one whose machine does not exist."""
        with self._open() as base:
            base.execute("DELETE FROM lab WHERE request = ?", (request,))

    def list_lab(self) -> dict[str, LabEntry]:
        """What is known of the disposable appliances, by request."""
        with self._open() as base:
            rows = base.execute("SELECT request, maker, path, reason, expires, ready_seconds FROM lab").fetchall()
        return {row[0]: LabEntry(*row) for row in rows}

    def find_request(self, request: str) -> Entry | None:
        """The machine that was made for this request."""
        return next((entry for entry in self.list_entries() if entry.request == request), None)

    def find_name(self, name: str) -> Entry | None:
        """The machine of that name."""
        return next((entry for entry in self.list_entries() if entry.name == name), None)

    def list_entries(self) -> tuple[Entry, ...]:
        """All machines, by name."""
        with self._open() as base:
            rows = base.execute(
                "SELECT request, name, uuid, mark, mac, state, image, memory_mib, cpus, forwards, ready, segments, uplink, "
                "generation FROM machine ORDER BY name"
            ).fetchall()
        return tuple(
            _entry(row) for row in rows
        )  # fmt: skip

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction, the file made with its tables where it is not there."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level="IMMEDIATE")) as base:
                base.execute("PRAGMA synchronous = FULL")
                base.executescript(_TABLES)
                _add_columns(base)
                with base:
                    yield base
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise FailedError(
                f"The ledger {self._path} could not be used: {error}.", hint="Is the disk full, or the file owned by someone else?"
            ) from error


def _add_columns(base: sqlite3.Connection) -> None:
    """What a ledger lacks that was begun before there were machines of foreign images, private segments, networks and generations."""
    present = {row[1] for row in base.execute("PRAGMA table_info(machine)")}
    for name, default in (("ready", ""), ("segments", "[]"), ("uplink", ""), ("generation", "0")):
        if name not in present:
            with suppress(sqlite3.OperationalError):  # another process was faster
                base.execute(f"ALTER TABLE machine ADD COLUMN {name} TEXT NOT NULL DEFAULT '{default}'")


def _entry(row: tuple[Any, ...]) -> Entry:
    request, name, machine, mark, mac, state, image, memory, cpus, forwards, ready, segments, uplink, generation = row
    return Entry(
        request,
        name,
        machine,
        mark,
        mac,
        EntryState(state),
        image,
        int(memory),
        int(cpus),
        tuple(Forward(**one) for one in json.loads(forwards)),
        _ready(json.loads(ready)) if ready else None,
        tuple(SegmentCard(**one) for one in json.loads(segments)),
        _uplink(json.loads(uplink)) if uplink else None,
        int(generation),
    )


def _uplink(told: dict[str, str]) -> Uplink:
    return Uplink(UplinkKind(told["kind"]), told["name"])


def _ready(told: dict[str, Any]) -> ReadyPage:
    return ReadyPage(**{**told, "speech": Speech(told["speech"])})
