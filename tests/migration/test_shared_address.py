"""Migrations in which the new box takes over the old one's address, on local processes: the way back, and what hinders."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from rig import Rig

from images.local_appliance import LocalAppliance
from migrate.demo.play import Scenario
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]


def has_address(box: LocalAppliance, address: str) -> bool:
    """By the box's own notes."""
    with closing(sqlite3.connect(f"file:{box.root}/data/box.db?mode=ro", uri=True, timeout=30)) as database:
        return database.execute("select enabled from address where address = ?", (address,)).fetchone() == (1,)


def holders(rig: Rig) -> tuple[bool, bool]:
    """Whether the old and the new box have the shared address on."""
    shared = rig.stage.old.inside
    return has_address(rig.stage.old_box, shared), has_address(rig.stage.new_box, shared)


@pytest.fixture
def switched(make_rig: Callable[..., Rig]) -> Rig:
    """The new box serves, and the run waits for leave to wipe the old one."""
    rig = make_rig(scenario=Scenario.SHARED_IP)
    assert rig.run("run", str(rig.plan)) == 6, rig.said()[-3000:]
    assert holders(rig) == (True, False)
    assert rig.run("approve", str(rig.plan)) == 6, rig.said()[-3000:]
    assert rig.status().waiting == ("approve-retire",)
    assert holders(rig) == (False, True)
    return rig


def test_the_way_back_takes_it_off_the_new_box_first(switched: Rig) -> None:
    assert switched.run("rollback", str(switched.plan)) == 0, switched.said()[-3000:]
    assert switched.status().state is RunState.ROLLED_BACK
    assert holders(switched) == (True, False)


def test_a_dead_new_box_does_not_hinder_the_way_back(switched: Rig) -> None:
    switched.stage.new_box.stop()
    assert switched.run("rollback", str(switched.plan)) == 0, switched.said()[-3000:]
    assert has_address(switched.stage.old_box, switched.stage.old.inside)


def test_a_second_holder_is_a_blocker(make_rig: Callable[..., Rig]) -> None:
    """Somebody switched the address on at the new box too, between the build and the switch."""
    rig = make_rig(scenario=Scenario.SHARED_IP)
    assert rig.run("run", str(rig.plan)) == 6, rig.said()[-3000:]
    with closing(sqlite3.connect(rig.stage.new_box.root / "data" / "box.db", timeout=30)) as database, database:
        database.execute("update address set enabled = 1 where address = ?", (rig.stage.old.inside,))
    assert rig.run("approve", str(rig.plan)) != 0
    failed = next(node for node in rig.status().nodes if node.state is NodeState.FAILED)
    assert failed.name == "blockers-live"
    assert (failed.error or {})["code"] == "shared-address"
    assert has_address(rig.stage.old_box, rig.stage.old.inside)
