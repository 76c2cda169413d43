"""Taking back: order, failures, points of no return, doing it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import book, node, read_journal, said

from migrate.engine import Engine, NodeState, NoReturnError, NothingToDecideError, RunState, UndoState
from migrate.engine.undoing import find_blocker
from migrate.runbook import NodeKind, Undo

pytestmark = pytest.mark.process
STEP = Undo.STEP


def test_abort_at_a_failure_undoes_in_reverse_order(engine: Engine, tmp_path: Path) -> None:
    plan = book(
        (node("a", undo=STEP), node("b", "a"), node("c", "b", undo=STEP)), (node("d", undo=STEP, fails=9), node("e", "d", undo=STEP))
    )
    engine.submit(plan, "r")
    assert engine.wait("r", timeout=20).state is RunState.DECISION
    before = engine.control.rollback_plan("r")
    assert (before.nodes, before.seconds, before.refusal) == (("d", "c", "a"), 6.0, "")
    engine.control.abort("r", "op", "no hope")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.ROLLED_BACK
    assert said(tmp_path, "undo end") == ["d", "c", "a"]
    assert [line["own"] for line in read_journal(tmp_path) if line["what"] == "undo begin"] == [False, True, True]
    undone = {one.name: one.undo for one in status.nodes}
    nothing = UndoState.NOTHING
    assert undone == {"a": UndoState.UNDONE, "b": nothing, "c": UndoState.UNDONE, "d": UndoState.UNDONE, "e": nothing}
    with pytest.raises(NothingToDecideError, match="rolled back already"):
        engine.control.rollback("r", "op")


def test_rollback_stops_a_working_run(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP, seconds=0.8), node("b", "a", undo=STEP))), "r")
    engine.wait("r", until=lambda status: status.node("a").state is NodeState.RUNNING, timeout=20)
    engine.control.rollback("r", "op")
    assert engine.status("r").state is RunState.ROLLING_BACK
    with pytest.raises(NothingToDecideError, match="already being rolled back"):
        engine.control.rollback("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "begin") == ["a"]
    assert said(tmp_path, "undo end") == ["a"]


@pytest.mark.parametrize("kind", [NodeKind.GATE, NodeKind.SOAK, NodeKind.WINDOW])
def test_rollback_ends_a_wait(engine: Engine, tmp_path: Path, kind: NodeKind) -> None:
    engine.submit(book((node("a", undo=STEP),), (node("w", kind=kind, soak=3600.0, until=9e9), node("b", "w"))), "r")
    engine.wait("r", until=lambda status: status.node("w").state is NodeState.WAITING, timeout=20)
    engine.control.rollback("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "undo end") == ["a"]


def test_a_done_run_can_be_rolled_back(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP),), (node("b", undo=STEP),)), "r")
    assert engine.wait("r", timeout=20).state is RunState.DONE
    engine.control.rollback("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "undo end") == ["b", "a"]


def test_no_way_back_after_a_point_of_no_return(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP),), (node("wipe", undo=Undo.IMPOSSIBLE), node("x", "wipe", fails=9))), "r")
    assert engine.wait("r", timeout=20).state is RunState.DECISION
    assert "no way back" in engine.control.rollback_plan("r").refusal
    with pytest.raises(NoReturnError, match="Wipe has been started"):
        engine.control.rollback("r", "op")
    plan = engine.control.abort("r", "op")
    assert plan.refusal
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.FAILED
    assert "wipe" in status.note
    assert said(tmp_path, "undo begin") == []


def test_up_to_a_point_of_no_return_there_is_a_way_back(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP),), (node("g", kind=NodeKind.GATE), node("wipe", "g", undo=Undo.IMPOSSIBLE))), "r")
    assert engine.wait("r", timeout=20).state is RunState.APPROVAL
    engine.control.abort("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "begin") == ["a"]


def test_a_failed_undo_spares_only_what_it_does_not_stand_on(engine: Engine, tmp_path: Path) -> None:
    plan = book((node("base", undo=STEP),), (node("a", undo=STEP), node("b", "a", undo=STEP, undo_fails=1), node("other", undo=STEP)))
    engine.submit(plan, "r")
    engine.wait("r", timeout=20)
    engine.control.rollback("r", "op")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.ROLLBACK_INCOMPLETE
    undone = {one.name: one.undo for one in status.nodes}
    assert undone == {"base": UndoState.BLOCKED, "a": UndoState.BLOCKED, "b": UndoState.FAILED, "other": UndoState.UNDONE}
    assert status.node("b").undo_note == "b would not go."
    assert "b stands on it" in status.node("a").undo_note
    engine.control.rollback("r", "op", "repaired")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "undo end").count("other") == 1
    assert said(tmp_path, "undo end")[-3:] == ["b", "a", "base"]


def test_an_undo_can_be_given_up(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP),), (node("b", undo=STEP, undo_fails=9),)), "r")
    engine.wait("r", timeout=20)
    engine.control.rollback("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLBACK_INCOMPLETE
    engine.control.rollback("r", "op", "removed by hand", give_up=["b"])
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.ROLLED_BACK
    assert (status.node("a").undo, status.node("b").undo) == (UndoState.UNDONE, UndoState.GIVEN_UP)


def test_only_a_failed_undo_can_be_given_up(engine: Engine) -> None:
    engine.submit(book((node("a", undo=STEP), node("g", "a", kind=NodeKind.GATE))), "r")
    engine.wait("r", timeout=20)
    with pytest.raises(NothingToDecideError, match="has not failed"):
        engine.control.rollback("r", "op", give_up=["a"])
    assert engine.status("r").state is RunState.APPROVAL


def test_a_skipped_node_that_had_begun_is_undone_too(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", undo=STEP, fails=9, may_skip=True), node("g", "a", kind=NodeKind.GATE))), "r")
    engine.wait("r", timeout=20)
    engine.control.skip("r", "a", "op")
    engine.wait("r", timeout=20)
    engine.control.abort("r", "op")
    assert engine.wait("r", timeout=20).state is RunState.ROLLED_BACK
    assert said(tmp_path, "undo end") == ["a"]


def test_what_stands_on_what() -> None:
    plan = book((node("a"), node("b", "a"), node("c", "b"), node("d")), (node("e"),))
    assert find_blocker(plan, "a", ["c"]) == "c"
    assert find_blocker(plan, "a", ["d"]) == ""
    assert find_blocker(plan, "c", ["a"]) == ""
    assert find_blocker(plan, "d", ["c", "e"]) == "e"
    assert find_blocker(plan, "e", ["a", "d"]) == ""
