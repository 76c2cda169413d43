"""How far the Jump Clients have followed an update: read from the box now, reckoned from what the plan's runs installed."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from kit.errors import FailedError, UsageError
from migrate.engine.model import NodeState
from migrate.facts import JumpClient
from migrate.plan_file import read_upgrade_plan
from migrate.steps.clients import BY_HAND, Followed, count_followed
from migrate.steps.upgrade import Installed
from migrate.wiring.boxes import open_planned_box
from migrate.wiring.desk import open_desk


@dataclass(frozen=True)
class Following:
    """Jump Clients now. ``since``: when the last site package was installed by a run of this plan (the box's clock), None where none was.

    ``per_minute``: clients that followed, on average since then; ``limit``: how many the box lets update at a time;
    ``minutes_left``: until the last has followed, if all go on so.
    """

    version: str
    since: float | None
    followed: Followed
    per_minute: float | None
    limit: int | None
    minutes_left: float | None = None
    by_hand: tuple[str, ...] = BY_HAND

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        found: dict[str, object] = TypeAdapter(Following).dump_python(self, mode="json")
        return found


def read_following(plan_file: Path, engine: str) -> Following:
    """Ask the box.

    Raises:
        UsageError: the plan is not one of an upgrade.
        FailedError: the box does not tell its clients.

    """
    loaded = read_upgrade_plan(plan_file, "boxshift status tells how far a migration is.")
    last = find_last_site_package(plan_file, engine)
    with closing(open_planned_box(loaded)) as box:
        clients, limit = box.read_jump_clients(), box.read_upgrade_limit()
        (_, site), clock = box.read_versions(), box.read_clock()
        now = time.time() + clock.offset
    if clients is None:
        raise FailedError("The box does not tell its Jump Clients.", hint="box.accounts.api names the account that may read them.")
    return reckon(clients, site.version, last, now, limit)


def reckon(clients: tuple[JumpClient, ...], version: str, last: Installed | None, now: float, limit: int | None) -> Following:
    """``now`` by the box's clock."""
    since = last.box_began if last is not None else None
    followed = count_followed(clients, since or 0.0)
    minutes = (now - since) / 60 if since is not None else 0.0
    rate = followed.updated / minutes if minutes > 0 else None
    return Following(version, since, followed, rate, limit, len(followed.missing) / rate if rate else None)


def find_last_site_package(plan_file: Path, engine: str) -> Installed | None:
    """What the newest run of the plan installed last of the site's software; None where there was none."""
    try:
        desk = open_desk(plan_file, "", engine)
    except UsageError:
        return None
    with desk:
        status = desk.status()
    found = [node for node in status.nodes if node.name.startswith("install-site-") and node.state is NodeState.DONE]
    values = [node.value.get("value") for node in found if isinstance(node.value, dict)]
    return TypeAdapter(Installed).validate_python(values[-1]) if values else None
