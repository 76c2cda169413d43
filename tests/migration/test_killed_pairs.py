"""Upgrades of a pair killed with kill -9 at random moments, and while they are taken back: no session is lost on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from rig import Finished, Rig, kill, wait_until
from test_pair_upgrade import SHORT, kill_after_the_break, verify_ended_well
from test_upgrade import ask, change

from migrate.demo.play import Scenario
from migrate.engine.model import RunState, UndoState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
KILLS = 6


def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.PAIR_ASYNC)
    change(rig, SHORT)
    rng = random.Random(20261129)
    seen: dict[str, Finished] = {}
    kills = 0
    for _ in range(KILLS):
        with rig.start() as child:
            # The first second is the start of the program; what is done then is read from the database, so a kill there counts too.
            deadline = time.monotonic() + rng.uniform(0.8, 3.0)
            if not wait_until(lambda: time.monotonic() > deadline, child):  # noqa: B023 - called at once
                break
            kill(child)
            kills += 1
        seen |= {name: record for name, record in rig.finished_so_far().items() if name not in seen}
    assert rig.run() == 0, rig.said()[-4000:]
    assert kills >= KILLS // 2, f"the run ended after {kills} kills"
    now = rig.finished()
    assert {name: now[name] for name in seen} == seen, "a node that had finished ran again"
    verify_ended_well(rig, "b")


def test_a_rollback_that_is_killed_while_the_pair_is_made_again_goes_on(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.PAIR_ASYNC)
    change(rig, SHORT)
    kill_after_the_break(rig)
    rig.stage.new_box.fault("sync-seconds", "600")
    with rig.start("rollback", str(rig.plan)) as child:
        is_synced = lambda: ask("failover", "status", str(rig.plan))[1].get("b", {}).get("failover", {}).get("sync") == "running"  # noqa: E731
        assert wait_until(is_synced, child), rig.said()[-3000:]
        kill(child)
    assert rig.status().state is RunState.INTERRUPTED
    rig.stage.new_box.stop()  # the box that is to be the backup restarts in the middle of its data sync
    rig.stage.new_box.start()
    rig.stage.new_box.fault("sync-seconds", "off")
    assert rig.run() == 0, rig.said()[-3000:]
    status = rig.status()
    assert (status.state, status.node("break-pair").undo) == (RunState.ROLLED_BACK, UndoState.UNDONE)
    code, said, _ = ask("failover", "status", str(rig.plan))
    assert (code, said["state"], said["b"]["failover"]["sync"]) == (0, "a primary, b backup", "finished")
