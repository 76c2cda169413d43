"""What an operator may say to a run from any process: each decision is checked and recorded in one transaction.

A decision is a row. The worker looks for new rows and acts on them; a decision made while no worker lives counts when one comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kit.errors import UsageError
from kit.secret import Secret
from migrate.engine import tables as t
from migrate.engine.database import Address, open_engine, parse_address, verify_reachable
from migrate.engine.lease import read_alive
from migrate.engine.model import (
    DecisionKind,
    NodeState,
    NoReturnError,
    NothingToDecideError,
    RollbackPlan,
    RunLine,
    RunStatus,
    UndoState,
    UnknownRunError,
)  # fmt: skip
from migrate.engine.retention import forget_ended
from migrate.engine.status import parse_runbook, plan_rollback, read_runs, read_status, read_version
from migrate.engine.submission import add_run
from migrate.engine.tables import Life, locked, of_node
from migrate.runbook import NodeKind, Runbook

_ANSWERS = (DecisionKind.APPROVE.value, DecisionKind.RETRY.value, DecisionKind.SKIP.value)


class Control:
    """Reads and steers the runs of one database. Needs no worker and never loads the workflow library.

    Raises (on making):
        UnknownRunError: no worker has ever used this database.
        UnreachableError: the server does not answer.

    """

    def __init__(self, database: str | Path | Secret) -> None:
        address = parse_address(database)
        if address.file is not None and not address.file.exists():
            raise UnknownRunError(f"There are no runs at {address.shown}.", hint="Start one, or name the folder where it was started.")
        self._engine, self._file = open_engine(address), address.file
        try:
            self._verify_runs(address)
        except BaseException:
            # A connection left open closes whenever the garbage is collected, and SQLite then removes the write-ahead log by its path:
            # that of another database, where the file was replaced in between.
            self.close()
            raise

    def _verify_runs(self, address: Address) -> None:
        verify_reachable(self._engine, address)
        if not t.has_tables(self._engine):
            raise UnknownRunError(f"There are no runs at {address.shown}.", hint="Start one, or name the folder where it was started.")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def status(self, run: str) -> RunStatus:
        """One run as it stands. Raises UnknownRunError."""
        return read_status(self._engine, self._file, run)

    def runs(self) -> tuple[RunLine, ...]:
        """Every run, the newest first."""
        return read_runs(self._engine, self._file)

    def watch(self, run: str, *, every: float = 0.5) -> Iterator[RunStatus]:
        """The status now and after every change, for ever; one small query each ``every`` seconds.

        It is also given anew every 5 seconds, since a worker that dies changes nothing in the database. Raises UnknownRunError.
        """
        for status in self.glance(run, pause=lambda: time.sleep(every)):
            if status is not None:
                yield status

    def glance(self, run: str, *, pause: Callable[[], None]) -> Iterator[RunStatus | None]:
        """As :meth:`watch`, for loops with more to look at: after every ``pause`` an answer, None where nothing has changed."""
        seen, last = -1, 0.0
        while True:
            version = read_version(self._engine, run)
            if version == seen and time.monotonic() - last < 5.0:
                yield None
            else:
                status = self.status(run)
                seen, last = status.version, time.monotonic()
                yield status
            pause()

    def rollback_plan(self, run: str) -> RollbackPlan:
        """What :meth:`rollback` would undo now, in what order and about how long it takes; or why it cannot."""
        with locked(self._engine, run) as (connection, row):
            return plan_rollback(connection, row)

    def submit(self, runbook: Runbook, run: str) -> None:
        """A new run for whichever live worker takes it up first.

        Raises:
            UsageError: the name or the runbook makes no sense, or a parameter is not plain JSON.
            RefusedError: there is a run of that name.

        """
        add_run(self._engine, run, runbook, worker="")

    def approve(self, run: str, node: str, who: str, note: str = "") -> None:
        """Open a gate. Raises NothingToDecideError."""
        with self._open(run) as (connection, row):
            line = _line(connection, run, node)
            if parse_runbook(row.runbook).node(node).kind is not NodeKind.GATE:
                raise NothingToDecideError(f"{node} is not a gate.", hint="Only gates are approved.")
            if line.state != NodeState.WAITING.value:
                raise NothingToDecideError(f"{node} does not wait for approval; it is {line.state}.", hint="Ask status what it waits for.")
            _verify_undecided(connection, run, node, line.attempt)
            _record(connection, run, DecisionKind.APPROVE, node, line.attempt, who, note)

    def retry(self, run: str, who: str, note: str = "", *, node: str | None = None) -> tuple[str, ...]:
        """Try failed nodes again: the one named, or all that nobody has decided on. Answers which. Raises NothingToDecideError."""
        with self._open(run) as (connection, _):
            return _answer_failed(connection, run, DecisionKind.RETRY, node, who, note)

    def skip(self, run: str, node: str, who: str, note: str = "") -> None:
        """Go on without a failed node that allows it. Raises NothingToDecideError."""
        with self._open(run) as (connection, row):
            _line(connection, run, node)
            if not parse_runbook(row.runbook).node(node).may_skip:
                raise NothingToDecideError(f"{node} cannot be skipped; what follows stands on it.", hint="Retry it, or abort.")
            _answer_failed(connection, run, DecisionKind.SKIP, node, who, note)

    def shorten(self, run: str, node: str, who: str, note: str = "", *, until: float | None = None) -> None:
        """End a soak or a window earlier: at ``until`` (Unix seconds), or now. Raises NothingToDecideError."""
        with self._open(run) as (connection, row):
            line = _line(connection, run, node)
            kind = parse_runbook(row.runbook).node(node).kind
            if kind not in (NodeKind.SOAK, NodeKind.WINDOW):
                raise NothingToDecideError(f"{node} is neither a soak nor a window.", hint="Only waiting times are shortened.")
            wanted = time.time() if until is None else until
            if line.state != NodeState.WAITING.value or line.until is None or line.until <= wanted:
                raise NothingToDecideError(f"{node} does not wait longer than that; it is {line.state}.", hint="Ask status when it ends.")
            _record(connection, run, DecisionKind.SHORTEN, node, line.attempt, who, note, wanted)
            connection.execute(t.nodes.update().where(of_node(run, node)).values(until=wanted))

    def abort(self, run: str, who: str, note: str = "") -> RollbackPlan:
        """Stop a run that waits for a person, and undo; past a point of no return it only stops. Answers what will be undone.

        Raises:
            NothingToDecideError: it waits for nobody.

        """
        if not self.status(run).waiting:
            raise NothingToDecideError(f"{run} waits for no decision.", hint="Use rollback to stop a run that is working.")
        with self._open(run) as (connection, row):
            plan = plan_rollback(connection, row)
            if row.stops > row.served:
                raise NothingToDecideError(f"{run} is already being stopped.")
            _record(connection, run, DecisionKind.ABORT, "", 0, who, note)
            connection.execute(t.runs.update().where(t.runs.c.run == run).values(stops=row.stops + 1))
            return plan

    def rollback(self, run: str, who: str, note: str = "", *, give_up: Sequence[str] = ()) -> RollbackPlan:
        """Stop the run wherever it is and undo what it did, the last first. Answers what will be undone.

        Also for a run that is done, or whose rollback was incomplete; ``give_up`` names nodes whose undo failed and shall stand in the
        way no more. With no worker alive it is recorded, and happens when a worker resumes the run.

        Raises:
            NoReturnError: a point of no return has been started.
            NothingToDecideError: it is being rolled back, or has been.

        """
        with locked(self._engine, run) as (connection, row):
            plan = plan_rollback(connection, row)
            if plan.refusal:
                kind = NoReturnError if " no way back " in plan.refusal else NothingToDecideError
                raise kind(plan.refusal, run=run)
            for node in give_up:
                _give_up(connection, run, node)
            _record(connection, run, DecisionKind.ROLLBACK, "", 0, who, note)
            values: dict[str, Any] = {"stops": row.stops + 1}
            if row.state != Life.ACTIVE:
                values |= {"served": row.stops + 1, "state": Life.UNDOING, "ended": None, "wanted": 1}
            connection.execute(t.runs.update().where(t.runs.c.run == run).values(values))
            return plan_rollback(connection, row)  # the row is from before the stop: it does not refuse itself

    def resume(self, run: str) -> None:
        """Ask whatever worker is alive to go on with an interrupted run. Raises NothingToDecideError."""
        with self._open(run, ended_too=False) as (connection, row):
            alive = read_alive(self._engine, self._file)
            if row.worker in alive or row.wanted:
                raise NothingToDecideError(f"{run} is not interrupted.", hint="Ask status where it is.")
            connection.execute(t.runs.update().where(t.runs.c.run == run).values(wanted=1, worker=""))

    def forget(self, older_than: float) -> tuple[str, ...]:
        """Delete runs that ended more than ``older_than`` seconds ago; their names. Loads the workflow library."""
        return forget_ended(self._engine, older_than)

    @contextmanager
    def _open(self, run: str, *, ended_too: bool = True) -> Iterator[tuple[sa.Connection, Any]]:
        with locked(self._engine, run) as (connection, row):
            if row.state not in ((Life.ACTIVE,) if ended_too else (Life.ACTIVE, Life.UNDOING)):
                raise NothingToDecideError(f"{run} is {row.state}; there is nothing left to decide.")
            yield connection, row


def _line(connection: sa.Connection, run: str, node: str) -> Any:
    line = connection.execute(sa.select(t.nodes).where(of_node(run, node))).first()
    if line is None:
        raise UsageError(f"{run} has no node named {node}.", hint="Status shows the names.")
    return line


def _verify_undecided(connection: sa.Connection, run: str, node: str, attempt: int) -> None:
    d = t.decisions.c
    query = sa.select(t.decisions).where(d.run == run, d.node == node, d.attempt == attempt, d.kind.in_(_ANSWERS))
    found = connection.execute(query).first()
    if found is not None:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.at))
        raise NothingToDecideError(f"{found.who} has already decided on {node}: {found.kind}, at {when}.")


def _answer_failed(connection: sa.Connection, run: str, kind: DecisionKind, node: str | None, who: str, note: str) -> tuple[str, ...]:
    query = sa.select(t.nodes).where(t.nodes.c.run == run, t.nodes.c.state == NodeState.FAILED.value)
    failed = [line for line in connection.execute(query) if node in (None, line.node)]
    if not failed:
        raise NothingToDecideError(f"{node or 'No node'} has {'not ' if node else ''}failed.", hint="Ask status what it waits for.")
    done = []
    for line in failed:
        try:
            _verify_undecided(connection, run, line.node, line.attempt)
        except NothingToDecideError:
            if node is not None or len(failed) == 1:
                raise
            continue
        _record(connection, run, kind, line.node, line.attempt, who, note)
        done.append(line.node)
    if not done:
        raise NothingToDecideError("Every failed node has been decided on already.")
    return tuple(done)


def _record(
    connection: sa.Connection, run: str, kind: DecisionKind, node: str, attempt: int, who: str, note: str, until: float | None = None
) -> None:
    if not who.strip():
        raise UsageError("A decision needs the name of who takes it.")
    last = connection.execute(sa.select(sa.func.max(t.decisions.c.number)).where(t.decisions.c.run == run)).scalar()
    values = {"run": run, "number": (last or 0) + 1, "kind": kind.value, "node": node, "attempt": attempt}
    connection.execute(t.decisions.insert().values(values | {"who": who, "note": note, "at": time.time(), "until": until}))


def _give_up(connection: sa.Connection, run: str, node: str) -> None:
    line = _line(connection, run, node)
    if line.undo not in (UndoState.FAILED.value, UndoState.BLOCKED.value):
        raise NothingToDecideError(f"The undo of {node} has not failed; it is: {line.undo}.")
    connection.execute(t.nodes.update().where(of_node(run, node)).values(undo=UndoState.GIVEN_UP.value))
