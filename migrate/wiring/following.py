"""How far the Jump Clients have followed an update: read from the box now, reckoned from what the plan's runs installed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from kit.errors import FailedError, UsageError
from kit.progress import Silent
from migrate.appliances.contract import Appliance
from migrate.engine.model import NodeState
from migrate.facts import JumpClient
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan, read_any_plan
from migrate.runbook import Json
from migrate.steps.clients import BY_HAND, Followed, count_followed
from migrate.steps.pair import Swung
from migrate.steps.upgrade import Installed
from migrate.upgrade_plan import UpgradePlan
from migrate.wiring.boxes import find_site_key, find_value, open_planned_box
from migrate.wiring.desk import open_desk
from migrate.wiring.pairs import make_pair


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
    """Ask the box; of a pair the one that serves.

    Raises:
        UsageError: the plan is not one of an upgrade.
        FailedError: the box does not tell its clients.

    """
    loaded = read_any_plan(plan_file)
    results = read_results(plan_file, engine)
    who, opened = _open_serving(loaded, results)
    with closing(opened) as box:
        clients, limit = box.read_jump_clients(), box.read_upgrade_limit()
        (_, site), clock = box.read_versions(), box.read_clock()
        now = time.time() + clock.offset
    if clients is None:
        raise FailedError("The box does not tell its Jump Clients.", hint="accounts.api of the box names the account that may read them.")
    return reckon(clients, site.version, find_last_site_package(results, who), now, limit)


def reckon(clients: tuple[JumpClient, ...], version: str, last: Installed | None, now: float, limit: int | None) -> Following:
    """``now`` by the box's clock."""
    since = last.box_began if last is not None else None
    followed = count_followed(clients, since or 0.0)
    minutes = (now - since) / 60 if since is not None else 0.0
    rate = followed.updated / minutes if minutes > 0 else None
    return Following(version, since, followed, rate, limit, len(followed.missing) / rate if rate else None)


def _open_serving(loaded: LoadedPlan[CommonPlan], results: Mapping[str, Json]) -> tuple[str, Appliance]:
    """The box that serves, and its name in a pair (empty where there is one box)."""
    match loaded.plan:
        case UpgradePlan():
            return "", open_planned_box(LoadedPlan(loaded.plan, loaded.path, loaded.digest))
        case PairUpgradePlan():
            pair = make_pair(loaded, Silent(), find_site_key(results))
            who = pair.find_serving()
            return who, pair.open_box(who)
        case _:
            raise UsageError(f"The plan {loaded.path} is not one of an upgrade.", hint="boxshift status tells how far a migration is.")


def read_results(plan_file: Path, engine: str) -> dict[str, Json]:
    """What the finished nodes of the plan's newest run left, in their order; nothing where there was no run."""
    try:
        desk = open_desk(plan_file, "", engine)
    except UsageError:
        return {}
    with desk:
        return {node.name: node.value for node in desk.status().nodes if node.state is NodeState.DONE}


def find_last_site_package(results: Mapping[str, Json], who: str) -> Installed | None:
    """What a run installed last of the site's software on the box; None where there was none.

    Of a pair's box that visitors came to later, the times are those of their coming: before that no client reached it.
    """
    begin = f"{who}-install-site-" if who else "install-site-"
    values = [find_value(results, name) for name in results if name.startswith(begin)]
    if not values:
        return None
    last = TypeAdapter(Installed).validate_python(values[-1])
    swung = find_value(results, "swing-shared") if who == "b" else None
    late = max(0.0, TypeAdapter(Swung).validate_python(swung).at - last.began) if swung else 0.0
    return replace(last, began=last.began + late, box_began=last.box_began + late)
