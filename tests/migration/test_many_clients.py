"""2,000 Jump Clients through the upgrade of one appliance: none stranded, the limit respected, the wait ends with the last one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig import BOXSHIFT, Rig, wait_end
from swarms import SwarmRun, count_most, read_slots

from kit.process import run
from kit.waiting import wait_for
from migrate.demo.journal import Kind
from migrate.demo.play import Scenario, find_lost
from migrate.demo.stage import SITE, SiteSize

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1500)]
CLIENTS, SLOTS, VERSION = 2000, 100, "21.2.1"
LONG = 1200.0


def test_all_follow_never_too_many_at_once_and_the_wait_ends_with_the_last(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    # The visitors play one client more, since they have sessions to hand in.
    size = SiteSize(users=6, sessions=60, recordings=3, file_items=12, jump_clients=CLIENTS + 1)
    rig = make_rig(scenario=Scenario.UPGRADE, size=size, visiting=1)
    plan = rig.plan.read_text().replace("longest: 60s", f'longest: 60s, target: {{base: "5.2.0", site: "{VERSION}"}}')
    rig.plan.write_text(plan)
    rig.stage.old_box.seed({"upgrade_slots": SLOTS})
    swarm = SwarmRun(tmp_path)
    child = swarm.start(
        rig.scene.clients[1:],
        rig.scene.secrets.jump_clients,
        site=SITE,
        port=rig.stage.port,
        ca_file=str(rig.plan.parent / "root.pem"),
        address=rig.stage.old.visible,
        version="21.1.1",
        until=VERSION,
        seconds=LONG,
        passive_every=8,
        checkin_every=600,
        passive_checkin_every=15,
        update_takes=0.2,
        connects_per_second=400,
    )
    with child:
        wait_for(lambda: count_there(swarm) == CLIENTS or None, what="the first check-in of every client", timeout=300.0, poll=1.0)
        assert rig.run("upgrade", str(rig.plan), "--yes", timeout=LONG) == 0, rig.said()[-4000:]
        assert wait_end(child, 120) == 0, child.said()
    verify_nobody_stranded(rig, swarm)
    verify_limit(rig, swarm)
    verify_wait(rig, swarm)
    assert find_lost(rig.plan, rig.status(), rig.scene.end_visits()) == ()


def count_there(swarm: SwarmRun) -> int:
    return len({entry.client for entry in swarm.entries(Kind.CHECKIN) if entry.ok}) if swarm.journal.exists() else 0


def verify_nobody_stranded(rig: Rig, swarm: SwarmRun) -> None:
    """By the clients, by the appliance's table, by boxshift."""
    told = swarm.told()
    assert (told["clients"], told["missing"], told["updates"]) == (CLIENTS, 0, CLIENTS)
    assert told["bytes"] >= CLIENTS * 64 * 1024, "each has fetched its update"
    done = run([BOXSHIFT, "clients", rig.plan, "--json"], timeout=120, env={"NO_COLOR": "1"}, accept=range(256))
    said: dict[str, Any] = json.loads(done.out)
    assert (done.status, said["followed"]["updated"], said["followed"]["expected"]) == (0, CLIENTS + 1, CLIENTS + 1)
    assert said["limit"] == SLOTS
    assert said["per_minute"] > 0


def verify_limit(rig: Rig, swarm: SwarmRun) -> None:
    """Two observers that know nothing of each other."""
    slots, seen = read_slots(rig.stage.old_box.root), swarm.spans(VERSION)
    assert {slot.client for slot in slots} >= set(rig.scene.clients[1:])
    assert all(slot.end is not None for slot in slots)
    assert {span.client for span in seen} == set(rig.scene.clients[1:])
    assert 1 < count_most(seen) <= SLOTS
    assert 1 < count_most(slots) <= SLOTS


def verify_wait(rig: Rig, swarm: SwarmRun) -> None:
    """The look before the last one began while somebody had not yet reported: no look was in vain."""
    value = rig.status().node(f"clients-site-{VERSION}").value
    assert isinstance(value, dict)
    assert value["sentence"] == f"{CLIENTS + 1} of {CLIENTS + 1} Jump Clients have taken {VERSION}."
    followed = value["value"]
    assert isinstance(followed, dict)
    first: dict[str, float] = {}
    for entry in sorted(swarm.entries(Kind.CHECKIN), key=lambda entry: entry.at):
        if entry.ok and entry.version == VERSION:
            first.setdefault(entry.client, entry.answered_at)
    before, last = followed["looked"]
    assert before < max(first.values())
    assert before < last
