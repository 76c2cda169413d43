"""A run in one process: order, parallel nodes, failures, decisions, waiting, status."""

from __future__ import annotations

import stat
import time
import traceback
from pathlib import Path

import pytest
from toy import Toy, book, node, read_journal, said

from kit.errors import RefusedError, UnreachableError, UsageError
from kit.secret import Secret
from migrate.engine import Control, Engine, Event, EventKind, NodeState, NothingToDecideError, RunState, UnknownRunError, WorkerBusyError
from migrate.runbook import Node, NodeKind

HOSTILE = "a!b@c$ 'd\"e\\;ñ"

# Loading the workflow library starts a program (its cron parser asks what machine this is).
pytestmark = pytest.mark.process


def test_phases_go_in_order_and_nodes_after_what_they_name(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("c", "a", "b"), node("a"), node("b", "a")), (node("d"),)), "r")
    assert engine.wait("r", timeout=20).state is RunState.DONE
    assert said(tmp_path, "begin") == ["a", "b", "c", "d"]
    assert read_journal(tmp_path)[-1]["node"] == "d"
    assert next(line for line in read_journal(tmp_path) if line["node"] == "d")["results"] == ["a", "b", "c"]


def test_independent_nodes_overlap(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", seconds=0.5), node("b", seconds=0.5), node("c", seconds=0.5))), "r")
    engine.wait("r", timeout=20)
    order = [line["what"] for line in read_journal(tmp_path)]
    assert order[:3] == ["begin"] * 3


def test_no_more_steps_at_once_than_allowed(tmp_path: Path, toy: Toy) -> None:
    with Engine(tmp_path / "runs.sqlite", toy, parallel=1) as engine:
        engine.submit(book((node("a", seconds=0.1), node("b", seconds=0.1))), "r")
        engine.wait("r", timeout=20)
    assert [line["what"] for line in read_journal(tmp_path)] == ["begin", "end"] * 2


def test_status_tells_values_errors_times_and_progress(engine: Engine) -> None:
    engine.submit(book((node("a", value={"n": [1, "ñ\x00", None, 2.5]}), node("b", fails=1))), "r")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DECISION
    assert status.waiting == ("b",)
    a, b = status.node("a"), status.node("b")
    assert (a.state, a.attempt, a.value) == (NodeState.DONE, 1, {"n": [1, "ñ\x00", None, 2.5]})
    assert a.started is not None
    assert a.ended is not None
    assert a.started <= a.ended
    assert a.progress == "working on a 0 / 1"
    assert b.state is NodeState.FAILED
    assert b.error is not None
    assert b.error["sentence"] == "b had no luck."
    assert b.error["hint"] == "Try again."
    assert f"process {__import__('os').getpid()} on " in status.worker


def test_a_failure_lets_siblings_finish_and_starts_nothing_new(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("bad", fails=1), node("slow", seconds=0.6), node("later", "slow")), (node("last"),)), "r")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DECISION
    assert status.node("slow").state is NodeState.DONE
    assert status.node("later").state is NodeState.PENDING
    assert engine.control.retry("r", "op") == ("bad",)
    assert engine.wait("r", timeout=20).state is RunState.DONE
    assert said(tmp_path, "begin").count("slow") == 1
    assert said(tmp_path, "begin").count("bad") == 2


def test_every_failed_node_needs_a_word(engine: Engine) -> None:
    engine.submit(book((node("a", fails=1), node("b", fails=9, may_skip=True))), "r")
    assert engine.wait("r", timeout=20).waiting == ("a", "b")
    engine.control.retry("r", "op", node="a")
    assert engine.wait("r", timeout=20).waiting == ("b",)
    engine.control.skip("r", "b", "op", "not needed")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DONE
    assert status.node("b").state is NodeState.SKIPPED
    assert [(one.kind.value, one.node, one.who) for one in status.decisions] == [("retry", "a", "op"), ("skip", "b", "op")]


def test_only_what_may_be_skipped_is(engine: Engine) -> None:
    engine.submit(book((node("a", fails=1),)), "r")
    engine.wait("r", timeout=20)
    with pytest.raises(NothingToDecideError, match="cannot be skipped"):
        engine.control.skip("r", "a", "op")


def test_a_decision_is_taken_once(engine: Engine) -> None:
    engine.submit(book((node("g", kind=NodeKind.GATE),)), "r")
    assert engine.wait("r", timeout=20).state is RunState.APPROVAL
    with pytest.raises(UsageError):
        engine.control.approve("r", "g", " ")
    engine.control.approve("r", "g", "ann", "looks fine")
    with pytest.raises(NothingToDecideError, match=r"ann has already decided|is done"):
        engine.control.approve("r", "g", "bob")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DONE
    assert status.node("g").value["approved_by"] == "ann"
    with pytest.raises(NothingToDecideError):
        engine.control.retry("r", "bob")


def test_nothing_to_decide_is_said(engine: Engine) -> None:
    engine.submit(book((node("a", seconds=1.0), node("g", "a", kind=NodeKind.GATE))), "r")
    control = engine.control
    with pytest.raises(NothingToDecideError, match="does not wait for approval; it is pending"):
        control.approve("r", "g", "op")
    with pytest.raises(NothingToDecideError, match="is not a gate"):
        control.approve("r", "a", "op")
    with pytest.raises(NothingToDecideError):
        control.retry("r", "op")
    with pytest.raises(NothingToDecideError):
        control.shorten("r", "a", "op")
    with pytest.raises(NothingToDecideError):
        control.abort("r", "op")
    with pytest.raises(NothingToDecideError, match="not interrupted"):
        control.resume("r")
    with pytest.raises(UsageError, match="no node named"):
        control.approve("r", "x", "op")
    with pytest.raises(UnknownRunError):
        control.approve("q", "g", "op")


def test_a_gate_may_be_approved_while_other_nodes_work(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("g", kind=NodeKind.GATE), node("slow", seconds=1.5), node("x", "g"))), "r")
    engine.wait("r", until=lambda status: status.node("g").state is NodeState.WAITING, timeout=20)
    engine.control.approve("r", "g", "op")
    engine.wait("r", timeout=20)
    assert said(tmp_path, "end") == ["x", "slow"]


def test_a_soak_lasts_and_can_be_shortened(engine: Engine) -> None:
    engine.submit(book((node("s", kind=NodeKind.SOAK, soak=0.7),), (node("t", kind=NodeKind.SOAK, soak=3600.0),)), "r")
    status = engine.wait("r", until=lambda status: status.node("t").state is NodeState.WAITING, timeout=20)
    assert status.state is RunState.SOAKING
    first = status.node("s")
    assert first.ended is not None
    assert first.started is not None
    assert first.ended - first.started >= 0.7
    engine.control.shorten("r", "t", "op", "seen enough")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DONE
    assert status.node("t").value["shortened_by"] == "op"


def test_a_window_opens_at_its_time(engine: Engine) -> None:
    opens = time.time() + 1.5
    engine.submit(book((node("w", kind=NodeKind.WINDOW, until=opens), node("past", kind=NodeKind.WINDOW, until=5.0))), "r")
    engine.wait("r", until=lambda status: status.node("past").state is NodeState.DONE, timeout=20)
    status = engine.wait("r", until=lambda status: status.state is not RunState.RUNNING, timeout=20)
    assert status.state in (RunState.WINDOW, RunState.DONE)
    status = engine.wait("r", timeout=20)
    assert (status.node("w").ended or 0) >= opens


def test_a_soak_runs_beside_steps_and_through_a_failure(engine: Engine) -> None:
    engine.submit(book((node("s", kind=NodeKind.SOAK, soak=0.5), node("a", fails=1))), "r")
    engine.wait("r", timeout=20)
    time.sleep(0.6)
    engine.control.retry("r", "op")
    status = engine.wait("r", timeout=20)
    assert status.state is RunState.DONE
    assert (status.node("s").started or 0) <= (status.node("a").started or 0)


def test_events_reach_a_live_view_and_a_broken_view_hurts_nobody(engine: Engine) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError(event.kind)

    engine.watch(broken)
    stop = engine.watch(seen.append)
    engine.submit(book((node("a"),)), "r")
    engine.wait("r", timeout=20)
    kinds = [event.kind for event in seen if event.node == "a"]
    assert kinds == [EventKind.STARTED, EventKind.PROGRESS, EventKind.ENDED]
    stop()
    count = len(seen)
    engine.submit(book((node("a"),)), "r2")
    engine.wait("r2", timeout=20)
    assert len(seen) == count


def test_control_watches_changes(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", seconds=0.3), node("g", "a", kind=NodeKind.GATE))), "r")
    control = Control(tmp_path / "runs.sqlite")
    for status in control.watch("r", every=0.05):
        if status.state is RunState.APPROVAL:
            break
    control.close()


def test_two_runs_go_side_by_side_and_are_listed(engine: Engine) -> None:
    for name in ("one", "two"):
        engine.submit(book((node("g", kind=NodeKind.GATE),)), name)
    for name in ("one", "two"):
        assert engine.wait(name, timeout=20).state is RunState.APPROVAL
    assert {line.run: line.state for line in engine.control.runs()} == {"one": RunState.APPROVAL, "two": RunState.APPROVAL}
    with pytest.raises(RefusedError, match="already a run named one"):
        engine.submit(book((node("a"),)), "one")


def test_an_executor_that_raises_fails_its_node_and_its_text_is_dropped(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a", raises=True),)), "r")
    engine._executor.write = lambda *_a, **_k: (_ for _ in ()).throw(ValueError(HOSTILE))
    status = engine.wait("r", timeout=20)
    error = status.node("a").error
    assert error is not None
    assert error["code"] == "step-broke"
    assert "ValueError" in str(error["sentence"])
    engine.stop()
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert HOSTILE.encode() not in everything
    assert HOSTILE.encode("unicode_escape") not in everything
    assert b"toy.py" in (tmp_path / "engine.log").read_bytes()


@pytest.mark.parametrize("value", [Secret(HOSTILE), {"x": [Secret(HOSTILE)]}, {1: 2}, float("nan"), object(), b"x"])
def test_a_value_that_must_not_be_stored_fails_the_node(engine: Engine, tmp_path: Path, value: object) -> None:
    from migrate.engine import Outcome

    engine._executor.execute = lambda *_: Outcome(ok=True, value=value)
    engine.submit(book((node("a"),)), "r")
    status = engine.wait("r", timeout=20)
    error = status.node("a").error
    assert error is not None
    assert error["code"] == "unfit-value"
    engine.stop()
    for path in tmp_path.iterdir():
        assert HOSTILE.encode() not in path.read_bytes()


def test_a_runbook_that_makes_no_sense_is_refused(engine: Engine) -> None:
    with pytest.raises(UsageError, match="more than once"):
        engine.submit(book((node("a"),), (node("a"),)), "r")
    with pytest.raises(UsageError, match="not there or wait for it"):
        engine.submit(book((node("a", "b"), node("b", "a"))), "r")
    with pytest.raises(UsageError, match="not there or wait for it"):
        engine.submit(book((node("a"),), (node("b", "a"),)), "r")
    with pytest.raises(UsageError, match="no name for a run"):
        engine.submit(book((node("a"),)), "r.undo.1")
    with pytest.raises(UsageError, match=r"secret stands at a\.params\.p"):
        engine.submit(book((Node("a", "A", params={"p": Secret("x")}),)), "r")  # type: ignore[dict-item]
    assert engine.control.runs() == ()


def test_an_empty_runbook_is_done_at_once(engine: Engine) -> None:
    engine.submit(book(()), "r")
    assert engine.wait("r", timeout=20).state is RunState.DONE


def test_a_second_worker_is_refused_and_told_whose_the_file_is(engine: Engine, tmp_path: Path, toy: Toy) -> None:
    import os

    with pytest.raises(WorkerBusyError) as caught:
        Engine(tmp_path / "runs.sqlite", toy).start()
    assert caught.value.facts["pid"] == os.getpid()


def test_files_are_private(engine: Engine, tmp_path: Path) -> None:
    engine.submit(book((node("a"),)), "r")
    engine.wait("r", timeout=20)
    for path in tmp_path.iterdir():
        if path.name.startswith(("runs", "engine")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_database_is_as_durable_as_was_asked(engine: Engine) -> None:
    with engine._engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_no_runs_where_there_never_was_a_worker(tmp_path: Path) -> None:
    with pytest.raises(UnknownRunError):
        Control(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_a_link_is_not_followed(tmp_path: Path, toy: Toy) -> None:
    (tmp_path / "runs.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="could not be made"):
        Engine(tmp_path / "runs.sqlite", toy).start()


@pytest.mark.parametrize("address", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "://"])
def test_an_address_that_cannot_be_used_is_refused(address: str, toy: Toy) -> None:
    with pytest.raises(UsageError):
        Engine(address, toy)


@pytest.mark.network
def test_the_password_of_a_server_is_never_shown(toy: Toy) -> None:
    from migrate.engine.database import parse_address

    password = "s3cret-" + str(1234)
    url = f"postgresql://user:{password}@127.0.0.1:1/db"
    assert password not in parse_address(url).shown + repr(parse_address(url))
    with pytest.raises(UnreachableError) as caught:
        Engine(url, toy).start()
    assert password not in "".join(traceback.format_exception(caught.value))


def test_ended_runs_are_forgotten_and_others_kept(engine: Engine) -> None:
    engine.submit(book((node("a"),)), "old")
    engine.submit(book((node("g", kind=NodeKind.GATE),)), "open")
    engine.wait("old", timeout=20)
    engine.wait("open", timeout=20)
    engine.control.rollback("old", "op")
    assert engine.wait("old", timeout=20).state is RunState.ROLLED_BACK
    assert engine.control.forget(3600) == ()
    time.sleep(0.3)
    assert engine.control.forget(0) == ("old",)
    assert [line.run for line in engine.control.runs()] == ["open"]
    with engine._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT workflow_uuid FROM workflow_status").scalars().all() == ["open"]
        assert connection.exec_driver_sql("SELECT count(*) FROM operation_outputs WHERE workflow_uuid LIKE 'old%'").scalar() == 0


def test_values_and_operators_do_not_load_the_workflow_library(tmp_path: Path) -> None:
    import sys

    from kit.process import run

    source = (
        "import sys, migrate.engine as e; assert 'sqlalchemy' not in sys.modules; e.Control; e.Engine;"
        " assert 'sqlalchemy' in sys.modules; assert 'dbos' not in sys.modules; print('ok')"
    )
    root = Path(__file__).parent.parent.parent
    assert run([sys.executable, "-c", source], timeout=60, env={"PYTHONPATH": str(root)}, cwd=tmp_path).text == "ok\n"


def test_a_database_without_runs_is_let_go_of_at_once(tmp_path: Path) -> None:
    """One that is kept open closes at some later time, and takes away the log of whatever database lies there by then."""
    empty = tmp_path / "runs.sqlite"
    empty.touch()
    with pytest.raises(UnknownRunError) as refused:
        Control(empty)
    held = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert not [name for name in held if name.startswith(str(tmp_path))]
    del refused
