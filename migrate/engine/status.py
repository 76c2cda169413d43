"""Rows become the status that operators see. Reads only; works from any process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from migrate.engine import tables as t
from migrate.engine.database import translated
from migrate.engine.lease import read_alive
from migrate.engine.model import (
    Decision,
    DecisionKind,
    NodeState,
    NodeStatus,
    RollbackPlan,
    RunLine,
    RunState,
    RunStatus,
    UndoState,
    UnknownRunError,
)  # fmt: skip
from migrate.engine.serial import from_text
from migrate.engine.store import passed_no_return
from migrate.engine.tables import Life
from migrate.runbook import NodeKind, Runbook

ENDS = {
    Life.DONE: RunState.DONE,
    Life.UNDONE: RunState.ROLLED_BACK,
    Life.INCOMPLETE: RunState.ROLLBACK_INCOMPLETE,
    Life.FAILED: RunState.FAILED,
}
WAITS = {NodeKind.GATE: RunState.APPROVAL, NodeKind.WINDOW: RunState.WINDOW, NodeKind.SOAK: RunState.SOAKING}


@lru_cache(maxsize=16)
def parse_runbook(text: str) -> Runbook:
    """The runbook of a stored run. Cached, since status is asked often; it must not be changed."""
    return Runbook.from_json(from_text(text))


@translated()
def read_status(engine: sa.Engine, file: Path | None, run: str) -> RunStatus:
    """One run as it stands.

    Raises:
        UnknownRunError: there is none of that name.

    """
    with engine.connect() as connection:
        row = connection.execute(sa.select(t.runs).where(t.runs.c.run == run)).first()
        if row is None:
            raise UnknownRunError(f"There is no run named {run}.", hint="The list of runs shows the names.", run=run)
        lines = {line.node: line for line in connection.execute(sa.select(t.nodes).where(t.nodes.c.run == run))}
        said = tuple(_decision(line) for line in connection.execute(_decisions_of(run)))
    alive = read_alive(engine, file)
    working = _is_working(row, alive)
    runbook = parse_runbook(row.runbook)
    nodes = tuple(_node_status(runbook, phase.name, lines[node.name], working=working) for phase in runbook.phases for node in phase.nodes)
    waiting = () if row.state in ENDS else _waiting(runbook, nodes, said)
    state = _run_state(row, runbook, nodes, waiting, working=working)
    return RunStatus(
        run,
        state,
        _note(row, state, working=working),
        runbook,
        nodes,
        row.submitted,
        row.ended,
        waiting,
        said,
        alive.get(row.worker, ""),
        row.seq,
    )


@translated()
def read_version(engine: sa.Engine, run: str) -> int | None:
    """The change counter of a run; None where there is no such run. Cheap: for those who watch."""
    with engine.connect() as connection:
        return connection.execute(sa.select(t.runs.c.seq).where(t.runs.c.run == run)).scalar()


@translated()
def read_runs(engine: sa.Engine, file: Path | None) -> tuple[RunLine, ...]:
    """Every run, the newest first."""
    with engine.connect() as connection:
        rows = list(
            connection.execute(
                sa.select(t.runs.c.run, t.runs.c.name, t.runs.c.site, t.runs.c.submitted, t.runs.c.ended).order_by(
                    t.runs.c.submitted.desc()
                )
            )
        )
    return tuple(RunLine(row.run, row.name, row.site, read_status(engine, file, row.run).state, row.submitted, row.ended) for row in rows)


def plan_rollback(connection: sa.Connection, row: Any) -> RollbackPlan:
    """What a rollback of the run would do, whether it can."""
    runbook = parse_runbook(row.runbook)
    query = sa.select(t.nodes).where(t.nodes.c.run == row.run, t.nodes.c.undo_order.is_not(None)).order_by(t.nodes.c.undo_order.desc())
    settled = (UndoState.UNDONE.value, UndoState.GIVEN_UP.value)
    names = tuple(line.node for line in connection.execute(query) if line.undo not in settled)
    seconds = sum(runbook.node(name).undo_estimate or runbook.node(name).estimate for name in names)
    passed = passed_no_return(connection, row.run, runbook)
    begun = not passed and (row.state == Life.UNDOING or row.stops > row.served)
    refusal = ""
    if passed:
        refusal = f"{runbook.node(passed).title} has been started: there is no way back from it."
    elif begun:
        refusal = f"{row.run} is already being rolled back."
    elif row.state == Life.UNDONE:
        refusal = f"{row.run} has been rolled back already."
    elif row.state == Life.FAILED:
        refusal = f"{row.run} has ended."
    return RollbackPlan(names, seconds, refusal, begun)


def _decisions_of(run: str) -> Any:
    return sa.select(t.decisions).where(t.decisions.c.run == run).order_by(t.decisions.c.number)


def _decision(row: Any) -> Decision:
    return Decision(DecisionKind(row.kind), row.node, row.attempt, row.who, row.note, row.at, row.until)


def _is_working(row: Any, alive: Mapping[str, str]) -> bool:
    return row.worker in alive or (row.wanted > 0 and bool(alive))


def _node_status(runbook: Runbook, phase: str, row: Any, *, working: bool) -> NodeStatus:
    state = NodeState(row.state)
    if state is NodeState.RUNNING and not working:
        state = NodeState.INTERRUPTED
    seconds = row.seconds
    if state in (NodeState.RUNNING, NodeState.WAITING) and row.started is not None:
        seconds = max(time.time() - row.started, 0.0)
    return NodeStatus(
        row.node, runbook.node(row.node).title, phase, state, row.attempt, row.started, row.ended, seconds,
        from_text(row.value), from_text(row.error), row.progress, row.until, UndoState(row.undo), row.undo_note,
    )  # fmt: skip


def _waiting(runbook: Runbook, nodes: tuple[NodeStatus, ...], said: tuple[Decision, ...]) -> tuple[str, ...]:
    """Nodes that wait for a person and have not been decided on."""
    decided = {(one.node, one.attempt) for one in said if one.kind in (DecisionKind.APPROVE, DecisionKind.RETRY, DecisionKind.SKIP)}
    open_nodes = [
        node for node in nodes
        if node.state is NodeState.FAILED or (node.state is NodeState.WAITING and runbook.node(node.name).kind is NodeKind.GATE)
    ]  # fmt: skip
    return tuple(node.name for node in open_nodes if (node.name, node.attempt) not in decided)


def _run_state(row: Any, runbook: Runbook, nodes: tuple[NodeStatus, ...], waiting: tuple[str, ...], *, working: bool) -> RunState:
    if row.state in ENDS:
        return ENDS[row.state]
    states = {node.name: node.state for node in nodes}
    stopping = row.state == Life.UNDOING or row.stops > row.served
    # Where a person has to speak first, it does not matter yet that no worker lives.
    if not working and (stopping or not waiting or NodeState.INTERRUPTED in states.values()):
        return RunState.INTERRUPTED
    if stopping:
        return RunState.ROLLING_BACK
    return _at_work(runbook, states, waiting)


def _at_work(runbook: Runbook, states: Mapping[str, NodeState], waiting: tuple[str, ...]) -> RunState:
    if NodeState.RUNNING in states.values():
        return RunState.RUNNING
    if waiting:
        return RunState.DECISION if any(states[name] is NodeState.FAILED for name in waiting) else RunState.APPROVAL
    kinds = [runbook.node(name).kind for name, state in states.items() if state is NodeState.WAITING]
    timed = [kind for kind in kinds if kind is not NodeKind.GATE]
    return WAITS[timed[0]] if timed and NodeState.FAILED not in states.values() else RunState.RUNNING


def _note(row: Any, state: RunState, *, working: bool) -> str:
    if state is RunState.INTERRUPTED:
        return row.note or "No worker is alive that has this run."
    if state.needs_person and not working:
        return "No worker is alive: resume the run after the decision."
    return str(row.note)
