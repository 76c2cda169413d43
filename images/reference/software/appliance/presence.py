"""Which Jump Clients are there: seen when, connected, lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .core import Appliance

CONNECTED_FOR = 300.0  # seconds after its last check-in that a client counts as connected
DAY = 86400.0


@dataclass(frozen=True)
class Presence:
    """One client. ``left``: when it was here last, None while it is connected or where it never was."""

    connected: bool
    lost: bool
    left: float | None


def note_seen(box: Appliance, client: str, now: float) -> None:
    """It has checked in, on this box."""
    with box.store.box.transaction(durable=False) as connection:
        connection.execute(
            "insert into presence (client, seen) values (?, ?) on conflict (client) do update set seen = excluded.seen", (client, now)
        )


def read_presence(box: Appliance, rows: Sequence[Any]) -> list[Presence]:
    """Of some rows of ``jump_client``, with one question for all of them."""
    marks = ", ".join("?" * len(rows))
    names = [row["client"] for row in rows]
    known = box.store.box.rows(f"select client, seen from presence where client in ({marks})", *names)  # noqa: S608 - only marks
    seen: dict[str, float] = {row["client"]: row["seen"] for row in known}
    now, days = box.faults.now(), int(box.store.site.setting("lost_days", "0"))
    found = []
    for row in rows:
        here = row["client"] in seen and now - seen[row["client"]] < CONNECTED_FOR
        moments = [moment for moment in (seen.get(row["client"]), row["last_connect"], row["last_disconnect"]) if moment is not None]
        last = max(moments, default=None)
        lost = not here and days > 0 and (last is None or now - last > days * DAY)
        found.append(Presence(here, lost, None if here else last))
    return found
