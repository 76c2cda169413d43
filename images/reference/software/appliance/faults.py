"""Faults that tests switch on from the box's own command line, and the clock and the disk that they bend."""

from __future__ import annotations

import time

from .store import Database

#: name -> what its value means. "on" and "off" for plain switches; "off" removes any.
FAULTS = {
    "clock": "seconds added to the clock (may be negative)",
    "disk-full": "on: databases and folders of this box cannot grow any more",
    "session-seconds": "seconds after which an idle login ends (600 without the fault)",
    "end-sessions": "on: every login ends at its next request, once",
    "restore-seconds": "seconds a restore takes longer",
    "install-seconds": "seconds an installation takes longer",
    "backup-truncated": "on: downloads of backups end at half their length",
    "backup-altered": "on: one byte of a downloaded backup is changed",
    "unhealthy": "on: the health check reports a fault",
    "refuse-certificates": "on: no certificate can be imported",
    "install-fails": "on: installations fail while they are unpacked",
    "restore-fails": "on: a restore fails half way (and must leave the site as it was)",
    "sync-seconds": "seconds a data sync of a failover pair takes longer",
    "sync-fails": "on: a data sync fails before anything is put in place",
    "first-sync-seconds": "seconds until the first data sync of a new pair (60 without the fault)",
    "step-down-seconds": "seconds a primary takes longer to step down",
    "step-down-silent": "on: a primary steps down, but its answer does not reach the peer",
    "peer-silent": "on: nothing goes between this box and its peer",
    "update-pace": "bytes a second at which a client's update is handed out",
    "api-limit": "requests a second that an API account may make (20 without the fault)",
}


class Faults:
    """What is switched on. Read from the database at every question, so a switch works at once and in every process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def value(self, name: str) -> str | None:
        found = self._database.value("select value from fault where name = ?", name)
        return None if found is None else str(found)

    def is_on(self, name: str) -> bool:
        return self.value(name) == "on"

    def seconds(self, name: str, default: float = 0.0) -> float:
        found = self.value(name)
        return default if found is None else float(found)

    def switch(self, name: str, value: str) -> None:
        """Switch a fault; ``off`` removes it.

        Raises:
            ValueError: there is no such fault, or the value is not a number where one is needed.

        """
        if name not in FAULTS:
            raise ValueError(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
        if value != "off" and not FAULTS[name].startswith("on:"):
            float(value)
        if value == "off":
            self._database.run("delete from fault where name = ?", name)
        else:
            self._database.run("insert or replace into fault values (?, ?)", name, value)

    def now(self) -> float:
        """The box's clock: seconds since 1970."""
        return time.time() + self.seconds("clock")
