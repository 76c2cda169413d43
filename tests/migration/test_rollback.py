"""The way back, from every phase before the old box is wiped: visitors are served by the old box again, as it was before the run."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from contextlib import closing

import pytest
from rig import sessions_of
from theatre import OLD_TTL, Theatre, wait_end_quietly

from migrate.engine.model import NodeState, RunState, UndoState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
UNDONE_BY_THEN = {
    "prepared": {"provision", "lower-ttl"},
    "built": {"provision", "lower-ttl"},
    "verified": {"provision", "lower-ttl"},
    "quiesced": {"provision", "lower-ttl", "quiesce-old"},
    "restored": {"provision", "lower-ttl", "quiesce-old"},
    "switched": {"provision", "lower-ttl", "quiesce-old", "switch"},
    "watched": {"provision", "lower-ttl", "quiesce-old", "switch"},
}


def read_rows(theatre: Theatre) -> tuple[object, ...]:
    """The old box's addresses, as its own page shows them."""
    with theatre.open_old() as old:
        return tuple(old.read_addresses())


@pytest.fixture(scope="module")
def rows(theatre: Theatre) -> tuple[object, ...]:
    """The old box's addresses before anything was run."""
    theatre.at("fresh")
    return read_rows(theatre)


@pytest.mark.parametrize("moment", UNDONE_BY_THEN)
def test_rollback_leads_back_to_the_old_box(theatre: Theatre, rows: tuple[object, ...], moment: str) -> None:
    theatre.at(moment)
    stated = theatre.on_plan("rollback", "--dry-run", "--json").json
    assert stated["done"] is False
    seconds = re.search(r"in about (\d+) s", stated["sentence"])
    assert seconds, stated
    assert int(seconds[1]) >= (OLD_TTL if moment == "watched" else 2 if moment == "switched" else 1)
    assert theatre.rig.status().state is not RunState.ROLLING_BACK, "a dry run must decide nothing"

    answer = theatre.on_plan("rollback", "--note", "as a test", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    status = theatre.rig.status()
    assert {node.name for node in status.nodes if node.undo is UndoState.UNDONE} == UNDONE_BY_THEN[moment]
    assert [(one.kind.value, one.note) for one in status.decisions][-1] == ("rollback", "as a test")
    theatre.verify_old_in_service()
    assert read_rows(theatre) == rows, "the old box's addresses are not what they were"
    if moment in {"switched", "watched"}:
        verify_late_records_are_kept(theatre)
    again = theatre.on_plan("rollback", "--json")
    assert (again.code, again.error["code"]) == (3, "nothing-to-decide"), again.all


def verify_late_records_are_kept(theatre: Theatre) -> None:
    """Every record that is on the new box only is in the list, and a backup of that box lies beside it."""
    stage = theatre.rig.stage
    kept = theatre.run_folder / "records-only-on-new.txt"
    only_there = sessions_of(stage.new_box) - sessions_of(stage.old_box)
    assert only_there, "the visitors wrote nothing on the new box: the test proves nothing"
    assert set(kept.read_text().split()) == only_there
    assert (theatre.run_folder / "backup-of-new-before-rollback.nsb").stat().st_size > 1000
    assert kept.name in theatre.on_plan("status").out, "nobody is told"
    acknowledged = {entry["lsid"] for entry in theatre.entries() if entry["kind"] == "session" and entry["ok"] and entry["status"] == 201}
    on_any = sessions_of(stage.new_box) | sessions_of(stage.old_box)
    assert only_there <= acknowledged
    assert {lsid for lsid in only_there if lsid not in on_any} == set()


def test_rollback_while_the_run_is_at_work(theatre: Theatre) -> None:
    """Said in one terminal, carried out in the other."""
    theatre.at("verified")
    with theatre.start() as child:
        end = time.monotonic() + 120
        while "quiesce-old" not in theatre.finished():
            assert time.monotonic() < end, theatre.rig.said()
            time.sleep(0.05)
        answer = theatre.on_plan("rollback", "--json")
        assert answer.code == 0, answer.all
        assert wait_end_quietly(child, 120) == 0, theatre.rig.said()
    assert theatre.rig.status().state is RunState.ROLLED_BACK
    theatre.verify_old_in_service()


def test_rollback_does_not_wait_for_clients_that_do_not_come(theatre: Theatre) -> None:
    """Nobody checks in at the new box; the step would wait half an hour for them."""
    theatre.at("switched")
    visitor = theatre.rig.scene.visitors.pid
    os.kill(visitor, signal.SIGSTOP)
    with closing(sqlite3.connect(theatre.rig.stage.new_box.root / "data" / "site.db", timeout=30)) as database, database:
        database.execute("update jump_client set last_connect = 1")  # some have been there already
    try:
        with theatre.start() as child:
            end = time.monotonic() + 120
            while theatre.rig.status().node("clients-back").state is not NodeState.RUNNING:
                assert time.monotonic() < end, theatre.rig.said()
                time.sleep(0.05)
            answer = theatre.on_plan("rollback", "--json")
            assert answer.code == 0, answer.all
            assert wait_end_quietly(child, 60) == 0, theatre.rig.said()
    finally:
        os.kill(visitor, signal.SIGCONT)
    status = theatre.rig.status()
    assert (status.state, status.waiting) == (RunState.ROLLED_BACK, ())
    assert "the run is to stop" in str(status.node("clients-back").error)
    theatre.verify_old_in_service()


def test_rollback_when_the_new_box_is_dead(theatre: Theatre) -> None:
    """What rollbacks are for. What was written there cannot be read, and that is said."""
    theatre.at("switched")
    theatre.rig.stage.new_box.stop()
    answer = theatre.on_plan("rollback", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    assert "could NOT be read" in theatre.rig.status().node("switch").undo_note
    theatre.verify_old_in_service()
    theatre.rig.stage.new_box.start()


def test_rollback_that_was_killed_goes_on(theatre: Theatre) -> None:
    theatre.at("switched")
    with theatre.start("rollback", str(theatre.plan)) as child:
        end = time.monotonic() + 120
        while theatre.rig.status().node("switch").undo is not UndoState.RUNNING:
            assert time.monotonic() < end, theatre.rig.said()
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        wait_end_quietly(child)
    assert theatre.rig.status().state is RunState.INTERRUPTED
    answer = theatre.on_plan("run", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    theatre.verify_old_in_service()


def test_abort_undoes_as_well(theatre: Theatre) -> None:
    theatre.at("verified")
    answer = theatre.on_plan("abort", "--json")
    assert (answer.code, answer.json["state"]) == (0, "rolled back"), answer.all
    theatre.verify_old_in_service()
    # The new box keeps what it was given, and says so to whoever begins again without resetting it.
    again = theatre.on_plan("run", "--yes")
    assert again.code == 4, again.all
    error = theatre.rig.status().node("first-login").error
    assert error is not None
    assert "reset it to factory state" in str(error["hint"])


def test_no_rollback_once_the_factory_reset_has_begun(theatre: Theatre) -> None:
    theatre.at("watched")
    with theatre.start() as child:
        end = time.monotonic() + 180
        while theatre.rig.status().node("factory-reset").state is NodeState.PENDING:
            assert time.monotonic() < end, theatre.rig.said()
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        wait_end_quietly(child)
    for words in (("rollback",), ("rollback", "--dry-run")):
        answer = theatre.on_plan(*words, "--json")
        said = answer.json["sentence"] if "sentence" in answer.json else answer.error["sentence"]
        assert "no way back" in said, answer.all
        assert answer.code == (0 if "--dry-run" in words else 3), answer.all
    answer = theatre.on_plan("run", "--yes")
    assert answer.code == 0, answer.all
    assert theatre.rig.status().state is RunState.DONE
    assert not theatre.rig.stage.old_box.is_running
    assert "no way back" in theatre.on_plan("rollback", "--json").error["sentence"]
