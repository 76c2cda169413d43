"""kill -9 at every place, clean stops, forged rows: a run goes on where it stood."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from toy import Toy, book, node, read_journal, said
from workbench import Bench

from kit.errors import FailedError, RefusedError
from migrate.engine import Control, Engine, NodeState, Outcome, RunState, UndoState, WorkerBusyError
from migrate.runbook import NodeKind, Runbook, Undo

pytestmark = pytest.mark.process
STEP = Undo.STEP


def verify_history(folder: Path, plan: Runbook) -> None:
    """No node begins again once its end was stored, none begins before what it comes after has ended, and phases go in order."""
    place = {item.name: number for number, phase in enumerate(plan.phases) for item in phase.nodes}
    stored: set[str] = set()
    ended: set[str] = set()
    for line in read_journal(folder):
        name = line["node"]
        if line["what"] == "begin":
            assert name not in stored, f"{name} ran again"
            assert set(plan.node(name).after) <= ended, f"{name} ran too early"
            waits = {other for other, where in place.items() if where < place[name] and plan.node(other).kind is NodeKind.STEP}
            assert waits <= ended, f"{name} ran before an earlier phase was over"
        elif line["what"] == "end":
            ended.add(name)
        elif line["what"] == "stored":
            stored.add(name)


PLAN = (
    (node("a", undo=STEP), node("b", seconds=0.1), node("c", "a", "b", undo=STEP)),
    (node("d", undo=STEP), node("e", "d")),
)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_killed_in_every_node(bench: Bench, where: str) -> None:
    phases = [tuple(node(n.name, *n.after, undo=n.undo, die=where, seconds=0.05) for n in phase) for phase in PLAN]
    plan = book(*phases)
    status = bench.run_to_end("r", plan)
    assert status.state is RunState.DONE
    verify_history(bench.folder, plan)
    again = {line["node"] for line in read_journal(bench.folder) if line["what"] == "begin" and line["again"]}
    assert again or where == "end"
    assert all(status.node(name).attempt == 1 for name in "abcde")


@pytest.mark.slow
def test_killed_at_every_boundary_between_nodes(bench: Bench) -> None:
    plan = book(*PLAN)
    for name in "abcde":
        (bench.folder / f"die-stored-{name}").touch()
    assert bench.run_to_end("r", plan).state is RunState.DONE
    verify_history(bench.folder, plan)
    assert len(bench.children) >= 5
    # Killed after its end was stored: none of them has run twice, although the library had no checkpoint of it.
    assert {name: said(bench.folder, "stored").count(name) >= 1 for name in "abcde"} == dict.fromkeys("abcde", True)


def test_killed_once_and_resumed(bench: Bench) -> None:
    plan = book((node("a"), node("b", "a", die="middle"), node("c", "b")))
    child = bench.start("r", "submit", plan)
    assert bench.finish(child) == -signal.SIGKILL
    control = Control(bench.database)
    status = control.status("r")
    assert (status.state, status.node("b").state, status.worker) == (RunState.INTERRUPTED, NodeState.INTERRUPTED, "")
    assert bench.finish(bench.start("r", "resume")) == 0
    assert control.status("r").state is RunState.DONE
    assert said(bench.folder, "begin") == ["a", "b", "b", "c"]
    assert [line["again"] for line in read_journal(bench.folder) if line["what"] == "begin"] == [False, False, True, False]
    control.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_runbooks_with_random_failures_and_kills(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    phases = []
    for number in range(dice.randint(1, 3)):
        names = [f"n{number}{letter}" for letter in "abcd"[: dice.randint(1, 4)]]
        nodes = []
        for count, name in enumerate(names):
            after = [other for other in names[:count] if dice.random() < 0.4]
            undo = STEP if dice.random() < 0.5 else Undo.NONE
            fails = 1 if dice.random() < 0.3 else 0
            skip = dice.random() < 0.5
            nodes.append(node(name, *after, undo=undo, fails=fails, may_skip=skip, seconds=dice.random() * 0.4))
        phases.append(tuple(nodes))
    plan = book(*phases)
    how, ends = "submit", time.monotonic() + 100
    while True:
        assert time.monotonic() < ends
        child = bench.start("r", how, plan if how == "submit" else None)
        life = dice.random() * 2.5 + 0.6
        if dice.random() < 0.6:
            time.sleep(life)
            if child.status is None:
                bench.kill(child)
        else:
            bench.finish(child)
        if "r" not in known_runs(bench):
            continue
        how = "resume"
        control = Control(bench.database)
        status = control.status("r")
        if status.state is RunState.DONE:
            break
        if status.waiting:
            name = dice.choice(status.waiting)
            if plan.node(name).may_skip and dice.random() < 0.5:
                control.skip("r", name, "dice")
            else:
                control.retry("r", "dice", node=name)
        control.close()
    verify_skipping_history(bench.folder, plan, {one.node for one in status.decisions if one.kind.value == "skip"})
    control.rollback("r", "dice")
    bench.finish(bench.start("r", "resume"))
    assert control.status("r").state is RunState.ROLLED_BACK
    begun = set(said(bench.folder, "begin"))
    assert set(said(bench.folder, "undo end")) == {item.name for item in plan.nodes() if item.undo is STEP and item.name in begun}
    control.close()


def known_runs(bench: Bench) -> list[str]:
    try:
        control = Control(bench.database)
    except RefusedError:
        return []
    try:
        return [line.run for line in control.runs()]
    finally:
        control.close()


def verify_skipping_history(folder: Path, plan: Runbook, skipped: set[str]) -> None:
    stored: set[str] = set()
    over = set(skipped)
    for line in read_journal(folder):
        if line["what"] == "begin":
            assert line["node"] not in stored, f"{line['node']} ran again"
            assert set(plan.node(line["node"]).after) <= over
        elif line["what"] in ("end", "stored"):
            over.add(line["node"])
            if line["what"] == "stored":
                stored.add(line["node"])


def test_gates_soaks_and_decisions_outlive_the_worker(bench: Bench) -> None:
    plan = book((node("a", fails=1),), (node("g", kind=NodeKind.GATE), node("s", "g", kind=NodeKind.SOAK, soak=4.0)), (node("z"),))
    assert bench.finish(bench.start("r", "submit", plan)) == 0
    control = Control(bench.database)
    assert control.status("r").waiting == ("a",)
    control.retry("r", "op", "while nobody works on it")
    assert bench.finish(bench.start("r", "resume")) == 0
    assert control.status("r").waiting == ("g",)
    control.approve("r", "g", "op")
    child = bench.start("r", "resume")
    status = bench.until_state("r", RunState.SOAKING)
    until = status.node("s").until
    bench.kill(child)
    assert control.status("r").state is RunState.INTERRUPTED
    assert bench.finish(bench.start("r", "resume")) == 0
    status = control.status("r")
    assert status.state is RunState.DONE
    assert status.node("s").until == until
    assert until is not None
    assert (status.node("z").started or 0) >= until
    assert said(bench.folder, "begin") == ["a", "a", "z"]
    control.close()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_a_rollback_that_is_killed_goes_on(bench: Bench, where: str) -> None:
    plan = book(
        (node("a", undo=STEP, undo_die=where), node("b", "a", undo=STEP, undo_die=where)), (node("c", undo=STEP, fails=9, undo_die=where),)
    )
    assert bench.run_to_end("r", plan).state is RunState.DECISION
    control = Control(bench.database)
    control.abort("r", "op")
    for _ in range(6):
        if bench.finish(bench.start("r", "resume")) == 0:
            break
    status = control.status("r")
    assert status.state is RunState.ROLLED_BACK
    assert {one.undo for one in status.nodes} == {UndoState.UNDONE}
    ends = said(bench.folder, "undo end")
    assert list(dict.fromkeys(ends)) == ["c", "b", "a"]
    control.close()


def test_a_node_cut_off_is_undone_and_not_run_again_when_told_to_roll_back(bench: Bench) -> None:
    plan = book((node("a", undo=STEP), node("b", "a", undo=STEP, die="middle")))
    assert bench.finish(bench.start("r", "submit", plan)) == -signal.SIGKILL
    control = Control(bench.database)
    control.rollback("r", "op")
    assert control.status("r").state is RunState.INTERRUPTED
    assert bench.finish(bench.start("r", "resume")) == 0
    assert control.status("r").state is RunState.ROLLED_BACK
    assert said(bench.folder, "begin") == ["a", "b"]
    assert [(line["node"], line["own"]) for line in read_journal(bench.folder) if line["what"] == "undo begin"] == [
        ("b", False),
        ("a", True),
    ]
    control.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_after_the_running_node(bench: Bench, number: int) -> None:
    child = bench.start("r", "submit", book((node("a", seconds=1.0), node("b", "a"))))
    bench.until(lambda: "a" in said(bench.folder, "begin"))
    os.kill(child.pid, number)
    assert bench.finish(child) == 130
    control = Control(bench.database)
    status = control.status("r")
    assert (status.state, status.node("a").state, status.node("b").state) == (RunState.INTERRUPTED, NodeState.DONE, NodeState.PENDING)
    assert "stopped" in status.note
    assert bench.finish(bench.start("r", "resume")) == 0
    assert control.status("r").state is RunState.DONE
    assert said(bench.folder, "begin") == ["a", "b"]
    control.close()


def test_a_stop_does_not_wait_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(bench.folder)
    engine = Engine(bench.database, toy).start()
    engine.submit(book((node("a", seconds=4.0),)), "r")
    bench.until(lambda: "a" in said(bench.folder, "begin"))
    assert not engine.stop(deadline=0.2)
    # The node still acts, so nobody else may have the database.
    with pytest.raises(WorkerBusyError):
        Engine(bench.database, toy).start()
    bench.until(engine.stop)
    with Engine(bench.database, toy) as other:
        other.resume("r")
        assert other.wait("r", timeout=20).state is RunState.DONE


def test_two_workers_on_one_file_are_refused_across_processes(bench: Bench, toy: Toy) -> None:
    child = bench.start("r", "submit", book((node("a", seconds=30.0),)))
    bench.until(lambda: "a" in said(bench.folder, "begin"))
    with pytest.raises(WorkerBusyError, match=f"process {child.pid} on") as caught:
        Engine(bench.database, toy).start()
    assert caught.value.facts["pid"] == child.pid
    control = Control(bench.database)
    assert control.status("r").state is RunState.RUNNING
    bench.kill(child)
    assert control.status("r").state is RunState.INTERRUPTED
    control.close()


def test_only_the_run_that_was_asked_for_is_resumed(bench: Bench, toy: Toy) -> None:
    bench.finish(bench.start("one", "submit", book((node("a", die="begin"),))))
    with Engine(bench.database, toy) as engine:
        engine.submit(book((node("x"),)), "two")
        assert engine.wait("two", timeout=20).state is RunState.DONE
        time.sleep(2.5)
        assert engine.status("one").state is RunState.INTERRUPTED
        engine.control.resume("one")
        assert engine.wait("one", until=lambda status: status.state.ended, timeout=20).state is RunState.DONE
        with pytest.raises(RefusedError, match="nothing to resume"):
            engine.resume("one")


def test_a_worker_takes_up_the_rollback_of_a_run_that_had_ended(bench: Bench, toy: Toy) -> None:
    bench.finish(bench.start("r", "submit", book((node("a", undo=STEP),))))
    control = Control(bench.database)
    control.rollback("r", "op")
    with Engine(bench.database, toy) as engine:
        assert engine.wait("r", until=lambda status: status.state.ended, timeout=20).state is RunState.ROLLED_BACK
    control.close()


BOOM = "gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjA10b3VjaCAvdG1wL3BsdJSFlFKULg=="


@pytest.mark.parametrize("table", ["operation_outputs", "workflow_status"])
def test_a_forged_pickle_row_is_refused(bench: Bench, toy: Toy, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("a row was unpickled"))
    monkeypatch.setattr("migrate.engine.worker.STUCK", 2.0)
    bench.finish(bench.start("r", "submit", book((node("a", die="end"), node("b", "a"), node("c", seconds=1.0)))))
    with sqlite3.connect(bench.database) as connection:
        if table == "operation_outputs":
            connection.execute(
                "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output, serialization, retention_timestamp)"
                " VALUES ('r', 1, 'node a', ?, 'py_pickle', 0)",
                (BOOM,),
            )
        else:
            connection.execute("UPDATE workflow_status SET inputs = ?, serialization = 'py_pickle' WHERE workflow_uuid = 'r'", (BOOM,))
            connection.execute("UPDATE workflow_input SET inputs = ? WHERE workflow_uuid = 'r'", (BOOM,))
    connection.close()
    with Engine(bench.database, toy) as engine:
        engine.resume("r")
        status = engine.wait("r", timeout=30)
        assert status.state is RunState.INTERRUPTED
        assert "pickled" in status.note or "could not be read" in status.note


def test_our_own_rows_hold_json_and_nothing_else(bench: Bench) -> None:
    bench.finish(bench.start("r", "submit", book((node("a", fails=1), node("g", kind=NodeKind.GATE)))))
    with sqlite3.connect(bench.database) as connection:
        marks = {row[0] for row in connection.execute("SELECT serialization FROM operation_outputs")}
        marks |= {row[0] for row in connection.execute("SELECT serialization FROM workflow_status")}
        for (text,) in connection.execute("SELECT output FROM operation_outputs WHERE output IS NOT NULL"):
            json.loads(text)
    connection.close()
    assert marks <= {"boxshift_json", None}


def test_nothing_is_said_on_the_console(bench: Bench) -> None:
    child = bench.start("r", "submit", book((node("a"),)))
    bench.finish(child)
    assert child.said() == "done"


def test_a_full_disk_leaves_the_run_resumable(bench: Bench, toy: Toy) -> None:
    from sqlalchemy import event

    big = "x" * 2_000_000
    with Engine(bench.database, toy, log=bench.folder / "engine.log") as engine:
        with engine._engine.connect() as connection:
            most = connection.exec_driver_sql("PRAGMA page_count").scalar_one() + 100

        @event.listens_for(engine._engine, "checkout")
        def fill(connection: object, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {most}")  # type: ignore[attr-defined]

        engine.submit(book((node("a"), node("b", "a", value="ok"), node("c", "b"))), "r")
        engine.wait("r", timeout=30)
        with pytest.raises(FailedError, match="database or disk is full") as caught:
            engine.submit(book((node("a", value=big),)), "too-big")
        assert "Free space" in caught.value.hint
        engine._executor.execute = lambda call, _: Outcome(ok=True, value=big)  # type: ignore[method-assign]
        engine.submit(book((node("a"),)), "r2")
        status = engine.wait("r2", timeout=30)
        assert status.state is RunState.INTERRUPTED
        assert "disk is full" in status.note
    assert big[:100].encode() not in (bench.folder / "engine.log").read_bytes()
    with Engine(bench.database, toy) as engine:
        assert [line.run for line in engine.control.runs()] == ["r2", "r"]
        engine.resume("r2")
        assert engine.wait("r2", timeout=30).state is RunState.DONE


def test_a_second_interrupt_ends_the_process_at_once(bench: Bench) -> None:
    child = bench.start("r", "submit", book((node("a", seconds=60.0),)))
    bench.until(lambda: "a" in said(bench.folder, "begin"))
    os.kill(child.pid, signal.SIGINT)
    time.sleep(1.0)
    os.kill(child.pid, signal.SIGINT)
    bench.finish(child, timeout=15)
    control = Control(bench.database)
    assert control.status("r").state is RunState.INTERRUPTED
    assert control.status("r").node("a").state is NodeState.INTERRUPTED
    control.close()
