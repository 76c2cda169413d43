"""`boxshift run` killed with kill -9: each run goes on and ends as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from rig import Finished, Rig, kill, wait_until

from migrate.demo.play import find_lost
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]
RANDOM_KILLS = 10


def verify_ended_well(rig: Rig, seen: dict[str, Finished]) -> None:
    """The run is done, nothing that had finished ran again, and no acknowledged record is missing."""
    status = rig.status()
    assert status.state is RunState.DONE, rig.said()[-4000:]
    assert all(node.state is NodeState.DONE for node in status.nodes)
    now = rig.finished()
    assert {name: now[name] for name in seen} == seen, "a node that had finished ran again"
    summary = rig.scene.end_visits()
    assert summary.records_written, "the visitors wrote nothing: the test proves nothing"
    assert find_lost(rig.plan, status, summary) == ()
    verify_reset_came_last(rig)
    verify_nothing_is_done_again(rig, now)


def verify_nothing_is_done_again(rig: Rig, before: dict[str, Finished]) -> None:
    """Who was killed in the last second types the same command again; the old box is gone by then."""
    assert rig.run() == 0, rig.said()[-4000:]
    assert "has ended already" in rig.said()
    assert rig.finished() == before
    assert rig.status().state is RunState.DONE


def verify_reset_came_last(rig: Rig) -> None:
    status = rig.status()
    reset, gate = status.node("factory-reset"), status.node("retire-gate")
    assert gate.ended is not None
    assert reset.started is not None
    assert reset.started >= gate.ended
    assert not rig.stage.old_box.is_running, "the old box should be off"


def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rng = random.Random(20261122)
    seen: dict[str, Finished] = {}
    for number in range(RANDOM_KILLS):
        with rig.start() as child:
            # The first second is the start of the program; what is done then is read from the database, so a kill there counts too.
            deadline = time.monotonic() + rng.uniform(0.3, 4.0)
            if wait_until(lambda: time.monotonic() > deadline, child):  # noqa: B023 - called at once
                kill(child)
            elif number < RANDOM_KILLS // 2:
                pytest.fail(f"the run ended after {number} kills: {rig.said()[-2000:]}")
            else:
                break
        if (rig.plan.parent / ".boxshift" / "runs.sqlite").exists():
            verify_gate_holds(rig)
            seen |= {name: record for name, record in rig.finished().items() if name not in seen}
    assert rig.run() == 0, rig.said()[-4000:]
    verify_ended_well(rig, seen)


def verify_gate_holds(rig: Rig) -> None:
    """Before the retire gate is done, the old box has its GUID and its site."""
    if rig.finished_so_far() and rig.status().node("retire-gate").state is not NodeState.DONE:
        assert rig.stage.old_box.answers(), "the old box does not answer although its gate is not open"
