"""Migrations whose data move by failover, on local processes: with kills, with faults, and the way back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from killer import EVER, acknowledged
from rig import is_at, role_of, sessions_of, set_key, spoiled, wait_end, wait_until
from theatre import Theatre, find_net, open_theatre

from images.local_appliance import LocalAppliance
from kit.progress import Silent
from kit.waiting import wait_for
from migrate.demo.play import Scenario
from migrate.engine.model import NodeState, UndoState
from migrate.facts import FailoverRole

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Built:
    """A scene whose new box is built, and refused as a backup: the old box has another key than the plan."""

    theatre: Theatre
    key: str

    def at_the_join(self) -> Theatre:
        """The moment of that refusal, with the old box's key mended."""
        self.theatre.at("built")
        set_key(self.theatre.rig.stage.old_box, self.key)
        return self.theatre


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[Built]:
    net = find_net(iter(range(81, 91)))
    with open_theatre(tmp_path_factory.mktemp("failover"), net, vendor, scenario=Scenario.MIGRATE_BY_FAILOVER) as theatre:
        theatre.at("fresh")
        found = Built(theatre, set_key(theatre.rig.stage.old_box, "another"))
        answer = theatre.on_plan("run", "--yes", "--json")
        assert answer.code == 4, answer.all
        theatre.keep("built")
        yield found


def roles(theatre: Theatre) -> tuple[str, ...]:
    """What each box has written down of itself, the old one first."""
    return tuple(role_of(box) for box in (theatre.rig.stage.old_box, theatre.rig.stage.new_box))


def wait_for_record(theatre: Theatre, address: str) -> None:
    """A visitor's record is taken at this address from now on."""
    begin = time.time()

    def look() -> bool | None:
        found = [one for one in theatre.entries() if one["at"] >= begin and one["kind"] == "session" and one["ok"]]
        return any(one["address"] == address for one in found) or None

    wait_for(look, what=f"a record at {address}", timeout=60.0, poll=0.1)


def pull_plug(box: LocalAppliance) -> None:
    """SIGKILL for every process of the box at once."""
    assert box.pid is not None
    for process in (box.pid, *_descendants(box.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    box.stop()


def _descendants(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


def test_a_pair_in_trouble_gets_out_of_it_and_a_rollback_after_the_break_leads_back_with_every_record(built: Built) -> None:
    """One run, from trouble to trouble, each of them mended and gone on from."""
    scene = built.theatre
    scene.at("built")
    verify_another_key_is_refused(built)
    verify_a_sync_that_is_cut_off_goes_on(scene)
    verify_both_primary_is_recognised_and_resolved(scene)
    verify_the_way_back_after_the_break(scene)


def verify_another_key_is_refused(built: Built) -> None:
    """Nothing is changed on the old box, its key least of all."""
    error = built.theatre.rig.status().node("join-pair").error
    assert error is not None
    assert "pre-shared key" in str(error["hint"])
    assert roles(built.theatre)[0] == "none"
    assert set_key(built.theatre.rig.stage.old_box, built.key) == "another", "it was overwritten"
    assert built.key not in "".join(built.theatre.heard) + built.theatre.rig.said()


def verify_a_sync_that_is_cut_off_goes_on(scene: Theatre) -> None:
    """The new box dies; when it is back, the same step does it."""
    rig, new = scene.rig, scene.rig.stage.new_box
    new.fault("sync-seconds", "600")
    with scene.start("retry", str(scene.plan)) as child:
        running = lambda: rig.status().node("first-sync").state is NodeState.RUNNING and roles(scene) == ("primary", "backup")  # noqa: E731
        assert wait_until(running, child), rig.said()[-3000:]
        pull_plug(new)
        assert wait_end(child, 200.0) == 4, rig.said()[-3000:]
    new.start()
    new.fault("sync-seconds", "off")
    answer = scene.on_plan("retry", "--json")
    assert (answer.code, rig.status().waiting) == (6, ("approve-cutover",)), answer.all


def verify_both_primary_is_recognised_and_resolved(scene: Theatre) -> None:
    """Nothing is switched in a conflict; the boxes resolve it, and the run goes on to its next gate."""
    rig, stage, begin = scene.rig, scene.rig.stage, time.time()
    stage.old_box.fault("peer-silent")
    with scene.open_new(restored=True) as new:
        new.set_failover_role(FailoverRole.PRIMARY, data_sync_first=False, progress=Silent())
    stage.old_box.fault("peer-silent", "off")
    assert roles(scene) == ("primary", "primary")
    wait_for_record(scene, stage.old.visible)

    answer = scene.on_plan("approve", "--json")
    assert answer.code == 3, answer.all
    assert "conflict: both primary" in str((rig.status().node("blockers-live").error or {})["sentence"])
    assert scene.say("failover", "resolve", str(scene.plan), "--yes").code == 0
    if roles(scene) == ("backup", "primary"):  # the boxes decide
        assert scene.say("failover", "swap", str(scene.plan), "--yes").code == 0
    assert roles(scene) == ("primary", "backup")
    assert scene.on_plan("retry", "--json").code == 6
    assert "switch" in scene.finished()
    assert acknowledged(scene, (begin, EVER)) <= sessions_of(stage.new_box)


def verify_the_way_back_after_the_break(scene: Theatre) -> None:
    """The gate wants the break to last; what the new box took after it comes back with the rollback."""
    rig, stage, begin = scene.rig, scene.rig.stage, time.time()
    assert roles(scene) == ("backup", "primary")
    with spoiled(scene.run_folder / "backup.nsb"):
        answer = scene.on_plan("approve", "--json")
        assert answer.code == 3, answer.all
    status = rig.status()
    assert (status.node("end-pair").state, status.node("retire-gate").state) == (NodeState.DONE, NodeState.FAILED)
    assert roles(scene) == ("none", "none")
    wait_for_record(scene, stage.new.visible)  # it is on the new box only

    again = scene.say("failover", "establish", str(scene.plan), "--primary", "b", "--yes")
    assert again.code == 0, again.all
    outcome = scene.execute("retire-gate")
    assert outcome.error is not None
    assert "not known to be parted: b primary, a backup" in str(outcome.error["sentence"])
    assert scene.say("failover", "break", str(scene.plan), "--yes").code == 0
    keep_visitors_long(scene)

    answer = scene.on_plan("rollback", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    undone = {node.name for node in rig.status().nodes if node.undo is UndoState.UNDONE}
    assert undone == {"end-pair", "switch", "become-primary", "join-pair", "lower-ttl", "provision"}
    scene.verify_old_in_service()
    assert roles(scene) == ("none", "none")
    assert acknowledged(scene, (begin, EVER)) <= sessions_of(stage.old_box)


def keep_visitors_long(scene: Theatre) -> None:
    """All visitors hold the new box's address for longer than a rollback takes."""
    address, ttl = scene.record()
    scene.set_record(address, 15)
    time.sleep(ttl + 0.5)  # whoever had it for the shorter time has asked again
    wait_for_record(scene, scene.rig.stage.new.visible)


def test_a_new_box_that_dies_while_the_roles_change_is_left_behind_by_a_rollback(built: Built) -> None:
    scene = built.at_the_join()
    rig, begin, stage = scene.rig, time.time(), scene.rig.stage
    answer = scene.on_plan("retry", "--json")
    assert (answer.code, rig.status().waiting) == (6, ("approve-cutover",)), answer.all
    stage.new_box.fault("sync-seconds", "600")
    with scene.start("approve", str(scene.plan)) as child:
        assert wait_until(lambda: is_at(stage.new_box, "role"), child), rig.said()[-3000:]
        pull_plug(stage.new_box)
        assert wait_end(child, 300.0) == 4, rig.said()[-3000:]
    answer = scene.on_plan("rollback", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    scene.verify_old_in_service()
    assert roles(scene)[0] == "none"
    assert acknowledged(scene, (begin, EVER)) <= sessions_of(stage.old_box)
