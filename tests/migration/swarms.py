"""A swarm as tests see it: the program, its journal, and the appliance's own table of who updated when."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.files import write_private
from kit.process import Child
from kit.secret import Secret
from migrate.demo.journal import Entry, Kind, read_entries


@dataclass(frozen=True)
class Span:
    """When one client was updating; ``end`` None: it still is."""

    client: str
    begin: float
    end: float | None


@dataclass
class SwarmRun:
    """The program ``migrate.demo.swarm`` in ``folder``."""

    folder: Path
    child: Child | None = None

    @property
    def journal(self) -> Path:
        return self.folder / "swarm.jsonl"

    def start(self, clients: Iterable[str], secret: Secret, **settings: object) -> Child:
        """Write its configuration and start it."""
        common = {"journal": str(self.journal), "clients": list(clients), "secret": secret.reveal()}
        write_private(self.folder / "swarm.json", json.dumps(common | settings).encode())
        self.child = Child([sys.executable, "-m", "migrate.demo.swarm", self.folder / "swarm.json"], log=self.folder / "swarm.log")
        return self.child

    def told(self) -> dict[str, Any]:
        """What it said at its end."""
        found: dict[str, Any] = json.loads((self.folder / "swarm.log").read_text().splitlines()[-1])
        return found

    def entries(self, kind: Kind) -> list[Entry]:
        return [entry for entry in read_entries(self.journal) if entry.kind is kind]

    def spans(self, version: str) -> list[Span]:
        """From the answer that gave a client its slot to when it began to say that it is done: by the clients' own clock."""
        found: list[Span] = []
        begun: dict[str, float] = {}
        for entry in sorted(self.entries(Kind.CHECKIN), key=lambda entry: entry.at):
            if entry.ok and entry.update == version:
                begun.setdefault(entry.client, entry.answered_at)
            elif entry.version == version and entry.client in begun:
                found.append(Span(entry.client, begun.pop(entry.client), entry.at))
        return [*found, *(Span(client, begin, None) for client, begin in begun.items())]


def read_slots(box: Path) -> list[Span]:
    """Every slot that an appliance gave, from its own table."""
    connection = sqlite3.connect(box / "data" / "box.db")
    try:
        return [Span(*row) for row in connection.execute("select client, granted, ended from client_upgrade")]
    finally:
        connection.close()


def count_most(spans: Sequence[Span]) -> int:
    """The most that were open at one moment; at one and the same moment who ends makes room for who begins."""
    changes = [(span.begin, 1) for span in spans] + [(span.end, -1) for span in spans if span.end is not None]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
