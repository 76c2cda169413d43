"""A whole migration on two virtual machines, its program killed on the way."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Finished, Rig, kill, open_machine_rig, wait_until

from images.home import find_home
from images.machine import open_machines
from migrate.demo.play import find_lost
from migrate.demo.stage import SiteSize
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 3


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with (
        tempfile.TemporaryDirectory(prefix="boxshift-test-") as folder,
        open_machine_rig(Path(folder), 77, size=SiteSize(12, 300, 6, 55, 6)) as made,
    ):
        yield made


def test_killed_three_times_a_migration_between_machines_ends_as_if_nothing_had_happened(rig: Rig) -> None:
    rng = random.Random(2611)
    seen: dict[str, Finished] = {}
    for number in range(KILLS):
        with rig.start() as child:
            deadline = time.monotonic() + rng.uniform(15.0, 45.0)
            assert wait_until(lambda: time.monotonic() > deadline, child, 120.0), f"ended before kill {number}: {rig.said()[-3000:]}"  # noqa: B023
            kill(child)
        seen |= {name: record for name, record in rig.finished().items() if name not in seen}
    assert rig.run(timeout=1200.0) == 0, rig.said()[-4000:]
    status = rig.status()
    assert status.state is RunState.DONE
    now = rig.finished()
    assert {name: now[name] for name in seen} == seen, "a node that had finished ran again"
    summary = rig.scene.end_visits()
    assert summary.records_written
    assert len(summary.chains) == 1
    assert find_lost(rig.plan, status, summary) == ()


def test_afterwards_the_old_machine_is_off_and_out_of_the_list_and_the_new_one_serves(rig: Rig) -> None:
    status = rig.status()
    assert status.node("factory-reset").state is NodeState.DONE
    assert status.node("power-off").value["value"].startswith("libvirt says")
    with open_machines(find_home()) as machines:
        old, new = machines.find_machine("boxshift-demo-old-77"), machines.find_machine("boxshift-demo-new-77")
        assert old is not None
        assert old.power.is_off
        assert machines.hypervisor.find_domain("boxshift-demo-old-77") is None
        assert old.disk.exists(), "the old disk is kept"
        assert new is not None
        assert not new.power.is_off
