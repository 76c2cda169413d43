"""What the worker writes down, each in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kit.errors import RefusedError
from migrate.engine import tables as t
from migrate.engine.model import DecisionKind, NodeState, Outcome, UndoState
from migrate.engine.serial import from_text, to_text
from migrate.engine.tables import Life, locked, of_node
from migrate.runbook import Json, Node, NodeKind, Runbook, Undo


class LostRunError(BaseException):
    """The run is no longer this worker's: whatever it was about to do, it must not. Not an Exception, so that nothing records it."""


@dataclass(frozen=True)
class Begun:
    """Whether a node may act. ``ended`` is its recorded end when this attempt finished before; ``stop``: an operator said stop."""

    stop: bool = False
    again: bool = False
    ended: NodeState | None = None


class Store:
    """The worker's side of the engine's tables. ``worker`` is this engine's id, written on the runs it has."""

    def __init__(self, engine: sa.Engine, worker: str) -> None:
        self.engine = engine
        self.worker = worker

    def runbook(self, run: str) -> Runbook:
        """The frozen order of work."""
        with self.engine.connect() as connection:
            return Runbook.from_json(from_text(connection.execute(sa.select(t.runs.c.runbook).where(t.runs.c.run == run)).scalar_one()))

    def claim(self, run: str, alive: Iterable[str], *, wanted: bool = False) -> Any:
        """Take the run for this worker; its row as it was. None where it has ended, or (with ``wanted``) where another took it first.

        Raises:
            RefusedError: another live worker has it.

        """
        with locked(self.engine, run) as (connection, row):
            if row.state not in (Life.ACTIVE, Life.UNDOING) or (wanted and not row.wanted):
                return None
            if row.worker and row.worker != self.worker and row.worker in set(alive):
                raise RefusedError(f"Another worker is working on {run}.", hint="Watch it with status.", run=run)
            connection.execute(t.runs.update().where(t.runs.c.run == run).values(worker=self.worker, wanted=0, note=""))
            return row

    def wanted(self, most: int) -> list[str]:
        """Runs that an operator or a dead worker left for any worker, the oldest first."""
        query = sa.select(t.runs.c.run).where(t.runs.c.wanted > 0).order_by(t.runs.c.submitted).limit(most)
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def mine(self) -> list[str]:
        """Runs that are at work here by their rows."""
        query = sa.select(t.runs.c.run).where(t.runs.c.worker == self.worker, t.runs.c.state.in_([Life.ACTIVE, Life.UNDOING]))
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def release(self, run: str, note: str, *, wanted: bool = False) -> None:
        """Let go of the run; ``note`` is a sentence that says why. ``wanted``: another worker should go on with it."""
        with self.engine.begin() as connection:
            connection.execute(
                t.runs.update()
                .where(t.runs.c.run == run, t.runs.c.worker == self.worker)
                .values(worker="", note=note, wanted=int(wanted), seq=t.runs.c.seq + 1)
            )

    def begin_node(self, run: str, node: Node, attempt: int) -> Begun:
        """Mark the node as started and register its undo, before it acts.

        Raises:
            LostRunError: another worker has the run.

        """
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            old = connection.execute(sa.select(t.nodes).where(of_node(run, node.name))).one()
            state = NodeState(old.state)
            if old.attempt == attempt and state in (NodeState.DONE, NodeState.FAILED):
                return Begun(ended=state)
            if row.stops > row.served:
                return Begun(stop=True)
            again = old.attempt == attempt and state is NodeState.RUNNING
            values: dict[str, Any] = {
                "state": NodeState.RUNNING.value, "attempt": attempt, "started": old.started if again else time.time(),
                "ended": None, "value": None, "error": None, "progress": "", "seconds": 0.0,
            }  # fmt: skip
            if node.undo is Undo.STEP:
                last = connection.execute(sa.select(sa.func.max(t.nodes.c.undo_order)).where(t.nodes.c.run == run)).scalar()
                values |= {"undo_order": (last or 0) + 1, "undo": UndoState.REGISTERED.value}
            connection.execute(t.nodes.update().where(of_node(run, node.name)).values(values))
            return Begun(again=again)

    def open_wait(self, run: str, node: Node) -> None:
        """A gate, window or soak starts to wait; its clock starts once only."""
        now = time.time()
        until = {"window": node.until, "soak": now + node.seconds}.get(node.kind.value)
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            connection.execute(
                t.nodes.update()
                .where(of_node(run, node.name), t.nodes.c.state == NodeState.PENDING.value)
                .values(state=NodeState.WAITING.value, attempt=1, started=now, until=until)
            )

    def finish_node(self, run: str, node: str, attempt: int, outcome: Outcome) -> None:
        """Write down how an attempt ended, in the same words that later status and later nodes read."""
        ended = NodeState.DONE if outcome.ok else NodeState.FAILED
        values = {
            "state": ended.value, "ended": time.time(), "seconds": outcome.seconds,
            "value": to_text(outcome.value), "error": to_text(dict(outcome.error)) if outcome.error else None,
        }  # fmt: skip
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            connection.execute(t.nodes.update().where(of_node(run, node), t.nodes.c.attempt == attempt).values(values))

    def skip_node(self, run: str, node: str) -> None:
        """An operator goes on without it."""
        with locked(self.engine, run) as (connection, _):
            connection.execute(t.nodes.update().where(of_node(run, node)).values(state=NodeState.SKIPPED.value))

    def note_progress(self, run: str, node: str, line: str) -> None:
        """The node's last progress line."""
        with self.engine.begin() as connection:
            connection.execute(t.nodes.update().where(of_node(run, node)).values(progress=line[:300]))
            connection.execute(t.runs.update().where(t.runs.c.run == run).values(seq=t.runs.c.seq + 1))

    def results(self, run: str) -> Mapping[str, Json]:
        """Values of finished nodes by name."""
        finished = [NodeState.DONE.value, NodeState.SKIPPED.value]
        query = sa.select(t.nodes.c.node, t.nodes.c.state, t.nodes.c.value).where(t.nodes.c.run == run, t.nodes.c.state.in_(finished))
        with self.engine.connect() as connection:
            return {row.node: from_text(row.value) if row.state == NodeState.DONE.value else None for row in connection.execute(query)}

    def stop_wanted(self, run: str) -> bool:
        """Whether an operator asked for abort or rollback and nobody has acted on it yet."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(t.runs.c.stops, t.runs.c.served).where(t.runs.c.run == run)).one()
            return bool(row.stops > row.served)

    def wait_row(self, run: str, node: str) -> Any:
        """The row of one node, as it stands."""
        with self.engine.connect() as connection:
            return connection.execute(sa.select(t.nodes).where(of_node(run, node))).one()

    def decided(self, run: str, kinds: Iterable[DecisionKind]) -> list[Any]:
        """Rows of the decisions of these kinds, in order."""
        query = sa.select(t.decisions).where(t.decisions.c.run == run, t.decisions.c.kind.in_([kind.value for kind in kinds]))
        with self.engine.connect() as connection:
            return list(connection.execute(query.order_by(t.decisions.c.number)))

    def find_round(self, run: str, number: int) -> Any:
        """The summary of a round that was closed; None where it was not."""
        query = sa.select(t.rounds.c.summary).where(t.rounds.c.run == run, t.rounds.c.number == number)
        with self.engine.connect() as connection:
            return from_text(connection.execute(query).scalar())

    def close_round(self, run: str, number: int, summary: Json) -> Any:
        """Write down how a round ended, once; what was written first counts."""
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            there = t.rounds.c.run == run, t.rounds.c.number == number
            found = connection.execute(sa.select(t.rounds.c.summary).where(*there)).scalar()
            if found is None:
                connection.execute(t.rounds.insert().values(run=run, number=number, summary=to_text(summary)))
                return summary
            return from_text(found)

    def settle(self, run: str, *, finished: bool) -> dict[str, Json]:
        """What the run does next, now that no node of it runs: undo (``{"undo": n}``) or end (``{"end": state}``).

        Repeats its own answer after a crash.
        """
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            if row.state == Life.UNDOING:
                return {"undo": row.served}
            if row.state != Life.ACTIVE:
                return {"end": row.state}
            if row.stops > row.served and not _passed(connection, run, row):
                connection.execute(t.runs.update().where(t.runs.c.run == run).values(state=Life.UNDOING, served=row.stops))
                return {"undo": row.stops}
            if not finished or row.stops > row.served:
                note = f"Stopped by an operator after a point of no return ({_passed(connection, run, row)}); nothing was undone."
                self._end(connection, run, Life.FAILED, note, served=row.stops)
                return {"end": Life.FAILED}
            self._end(connection, run, Life.DONE, "")
            return {"end": Life.DONE}

    def begin_undo(self, run: str, node: str) -> bool | None:
        """Mark that a node is being undone; whether an earlier undo of it was cut off. None where it is undone already."""
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            old = connection.execute(sa.select(t.nodes.c.undo).where(of_node(run, node))).scalar_one()
            if old == UndoState.UNDONE.value:  # written down right before a crash
                return None
            connection.execute(t.nodes.update().where(of_node(run, node)).values(undo=UndoState.RUNNING.value, undo_note="", progress=""))
            return bool(old == UndoState.RUNNING.value)

    def finish_undo(self, run: str, node: str, state: UndoState, note: str) -> None:
        """Write down how the undo of a node ended."""
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            connection.execute(t.nodes.update().where(of_node(run, node)).values(undo=state.value, undo_note=note))

    def ledger(self, run: str) -> list[Any]:
        """Rows of the nodes whose undo is registered and not yet done or given up, the last that acted first."""
        settled = [UndoState.UNDONE.value, UndoState.GIVEN_UP.value]
        query = sa.select(t.nodes).where(t.nodes.c.run == run, t.nodes.c.undo_order.is_not(None), t.nodes.c.undo.not_in(settled))
        with self.engine.connect() as connection:
            return list(connection.execute(query.order_by(t.nodes.c.undo_order.desc())))

    def end_rollback(self, run: str) -> str:
        """Close the rollback: everything undone, or not."""
        left = self.ledger(run)
        with locked(self.engine, run) as (connection, row):
            self._verify_mine(connection, row)
            note = f"Not undone: {', '.join(line.node for line in left)}." if left else ""
            self._end(connection, run, Life.INCOMPLETE if left else Life.UNDONE, note)
        return Life.INCOMPLETE if left else Life.UNDONE

    def _end(self, connection: sa.Connection, run: str, state: str, note: str, **more: int) -> None:
        values = {"state": state, "note": note, "ended": time.time(), "worker": "", **more}
        connection.execute(t.runs.update().where(t.runs.c.run == run).values(values))

    def _verify_mine(self, connection: sa.Connection, row: Any) -> None:
        """The fence: the run is ours, and on a server our lease has not lapsed."""
        if row.worker != self.worker:
            raise LostRunError(row.run)
        if connection.dialect.name != "sqlite":
            query = sa.select(t.workers.c.lease_until).where(t.workers.c.worker == self.worker)
            lease = connection.execute(query).scalar()
            if lease is None or lease < t.database_clock(connection):
                raise LostRunError(row.run)


def _passed(connection: sa.Connection, run: str, row: Any) -> str:
    """Name of a point of no return that was started; empty where none was."""
    return passed_no_return(connection, run, Runbook.from_json(from_text(row.runbook)))


def passed_no_return(connection: sa.Connection, run: str, runbook: Runbook) -> str:
    """Name of a point of no return of the run that was started; empty where none was."""
    last = {node.name for node in runbook.nodes() if node.undo is Undo.IMPOSSIBLE and node.kind is NodeKind.STEP}
    query = sa.select(t.nodes.c.node).where(t.nodes.c.run == run, t.nodes.c.attempt > 0, t.nodes.c.node.in_(last))
    return connection.execute(query.limit(1)).scalar() or ""
