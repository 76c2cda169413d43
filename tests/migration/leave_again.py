"""A migration by failover that is rolled back once visitors have written on the new box; whatever switches them."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from rig import Rig, sessions_of

from kit.waiting import wait_for
from migrate.demo.journal import Entry, Kind, read_entries
from migrate.engine.model import NodeState, RunState, UndoState


def leave_after_the_switch(rig: Rig) -> set[str]:
    """To the last gate before the break, then back. Every acknowledged record is on the old box. Answers what was undone."""
    plan = str(rig.plan)
    assert rig.run("run", plan) == 6, rig.said()[-4000:]
    assert rig.run("approve", plan) == 6, rig.said()[-4000:]
    status = rig.status()
    assert status.waiting == ("approve-retire",)
    assert status.node("become-primary").state is NodeState.DONE
    new, old = sessions_of(rig.stage.new_box), sessions_of(rig.stage.old_box)
    assert new, "the new box has nothing: the test proves nothing"

    def look() -> bool | None:
        return True if (sessions_of(rig.stage.new_box) - old) else None

    wait_for(look, what="a visitor's record that only the new box has", timeout=60, poll=0.1)
    assert rig.run("rollback", plan) == 0, rig.said()[-4000:]
    status = rig.status()
    assert status.state is RunState.ROLLED_BACK
    assert not _serves(rig), "out of the pair it would take records of visitors whose connections are still open"
    begin = time.time()
    wait_for(lambda: _written(rig, begin) or None, what="a visitor's record after the way back", timeout=60, poll=0.1)
    summary = rig.scene.end_visits()
    assert set(summary.records_written) <= sessions_of(rig.stage.old_box)
    assert len(summary.chains) == 1
    return {node.name for node in status.nodes if node.undo is UndoState.UNDONE}


def _written(rig: Rig, since: float) -> list[Entry]:
    return [one for one in read_entries(rig.scene.journal) if one.kind is Kind.SESSION and one.ok and one.at >= since]


def _serves(rig: Rig) -> bool:
    """Whether the new box has its service address on, by its own notes."""
    with closing(sqlite3.connect(f"file:{rig.stage.new_box.root}/data/box.db?mode=ro", uri=True, timeout=30)) as database:
        (row,) = database.execute("select enabled from address where address = ?", (rig.stage.new.inside,)).fetchall()
    return bool(row[0])
