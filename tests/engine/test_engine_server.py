"""PostgreSQL: a private server of Debian's, several workers, leases, take-over."""

from __future__ import annotations

import json
import os
import signal

import pytest
import sqlalchemy as sa
from toy import Toy, book, node, read_journal, said
from workbench import Bench

from kit.errors import RefusedError
from migrate.engine import Control, Engine, RunState
from migrate.runbook import NodeKind, Undo

pytestmark = [pytest.mark.process, pytest.mark.slow]
STEP = Undo.STEP


def test_a_whole_run_with_decisions_and_rollback(server_bench: Bench, toy: Toy) -> None:
    plan = book((node("a", undo=STEP), node("b", undo=STEP, fails=1)), (node("g", kind=NodeKind.GATE), node("c", "g", undo=STEP)))
    with Engine(server_bench.database, toy, log=server_bench.folder / "engine.log") as engine:
        engine.submit(plan, "r")
        assert engine.wait("r", timeout=30).waiting == ("b",)
        control = Control(server_bench.database)
        control.retry("r", "op")
        assert engine.wait("r", timeout=30).state is RunState.APPROVAL
        control.approve("r", "g", "op")
        assert engine.wait("r", timeout=30).state is RunState.DONE
        assert control.rollback("r", "op").nodes == ("c", "b", "a")
        assert engine.wait("r", timeout=30).state is RunState.ROLLED_BACK
        assert said(server_bench.folder, "undo end") == ["c", "b", "a"]
        assert control.forget(0) == ("r",)
        assert control.runs() == ()
        control.close()


@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_killed_in_every_node(server_bench: Bench, where: str) -> None:
    plan = book((node("a", die=where), node("b", "a", die=where)), (node("c", die=where),))
    os.environ["TOY_LEASE"] = "1"
    try:
        assert server_bench.run_to_end("r", plan, most=40).state is RunState.DONE
    finally:
        del os.environ["TOY_LEASE"]
    stored: set[str] = set()
    for line in read_journal(server_bench.folder):
        assert not (line["what"] == "begin" and line["node"] in stored)
        if line["what"] == "stored":
            stored.add(line["node"])


def test_another_worker_takes_over_what_a_dead_one_left(server_bench: Bench) -> None:
    first = server_bench.start("r", "submit", book((node("a"), node("b", "a", seconds=8.0), node("c", "b"))))
    server_bench.until(lambda: "b" in said(server_bench.folder, "begin"))
    server_bench.start("none", "serve")
    server_bench.until(lambda: list(server_bench.folder.glob("serving-*")))
    control = Control(server_bench.database)
    assert str(first.pid) in control.status("r").worker
    server_bench.kill(first)
    server_bench.until_state("r", RunState.DONE, timeout=40)
    begun = [(line["node"], line["again"]) for line in read_journal(server_bench.folder) if line["what"] == "begin"]
    assert begun == [("a", False), ("b", False), ("b", True), ("c", False)]
    control.close()


def test_a_worker_that_stops_hands_its_runs_on(server_bench: Bench) -> None:
    first = server_bench.start("r", "submit", book((node("a", seconds=6.0), node("b", "a"))))
    server_bench.until(lambda: "a" in said(server_bench.folder, "begin"))
    second = server_bench.start("none", "serve")
    server_bench.until(lambda: list(server_bench.folder.glob("serving-*")))
    os.kill(first.pid, signal.SIGTERM)
    assert server_bench.finish(first) == 130
    server_bench.until_state("r", RunState.DONE, timeout=40)
    assert {line["node"]: line["pid"] for line in read_journal(server_bench.folder) if line["what"] == "end"} == {
        "a": first.pid,
        "b": second.pid,
    }


def test_many_runs_on_two_workers_each_node_once_though_one_dies(server_bench: Bench, toy: Toy) -> None:
    with Engine(server_bench.database, toy) as engine:
        server_bench.start("none", "serve")
        server_bench.until(lambda: list(server_bench.folder.glob("serving-*")))
        for number in range(6):
            nodes = tuple(node(f"r{number}n{count}", *([f"r{number}n{count - 1}"] if count else []), seconds=0.2) for count in range(4))
            engine.control.submit(book(nodes), f"r{number}")
        victim = server_bench.children[0]
        server_bench.until(lambda: any(line["pid"] == victim.pid for line in read_journal(server_bench.folder)), timeout=40)
        server_bench.kill(victim)
        for number in range(6):
            assert engine.wait(f"r{number}", until=lambda status: status.state.ended, timeout=60).state is RunState.DONE
    begun = said(server_bench.folder, "begin")
    twice = {name for name in begun if begun.count(name) > 1}
    cut = {line["node"] for line in read_journal(server_bench.folder) if line["what"] == "begin" and line["pid"] == victim.pid}
    assert len(set(begun)) == 24
    assert twice <= cut
    stored = [line["node"] for line in read_journal(server_bench.folder) if line["what"] == "end"]
    assert set(stored) == set(begun)


def test_a_run_of_a_live_worker_is_not_taken(server_bench: Bench, toy: Toy) -> None:
    server_bench.start("r", "submit", book((node("a", seconds=20.0),)))
    server_bench.until(lambda: "a" in said(server_bench.folder, "begin"))
    with Engine(server_bench.database, toy) as engine, pytest.raises(RefusedError, match="Another worker"):
        engine.resume("r")


def test_a_worker_whose_lease_is_gone_ends_itself_and_stores_nothing(server_bench: Bench) -> None:
    child = server_bench.start("r", "submit", book((node("a", seconds=6.0),)))
    server_bench.until(lambda: "a" in said(server_bench.folder, "begin"))
    engine = sa.create_engine(server_bench.database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM boxshift_worker"))
    assert server_bench.finish(child) == 75
    control = Control(server_bench.database)
    assert control.status("r").state is RunState.INTERRUPTED
    assert "end" not in [line["what"] for line in read_journal(server_bench.folder)]
    control.close()
    engine.dispose()


def test_rows_hold_json_only(server_bench: Bench, toy: Toy) -> None:
    with Engine(server_bench.database, toy) as engine:
        engine.submit(book((node("a", value={"x": "\x00 ñ"}),)), "r")
        assert engine.wait("r", timeout=30).node("a").value == {"x": "\x00 ñ"}
        with engine._engine.connect() as connection:
            for (text,) in connection.execute(sa.text("SELECT output FROM dbos.operation_outputs WHERE output IS NOT NULL")):
                json.loads(text)
