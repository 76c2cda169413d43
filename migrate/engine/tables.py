"""The engine's own tables: what ``status`` reads while a run works, what operators decided, and the undo ledger.

They live beside the library's tables in the same database, so that one transaction covers "it starts" and "this is how to undo it".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from kit.errors import RefusedError
from migrate.engine.database import translated
from migrate.engine.model import UnknownRunError

SCHEMA = 1
METADATA = sa.MetaData()

schema = sa.Table("boxshift_schema", METADATA, sa.Column("version", sa.Integer, primary_key=True))

runs = sa.Table(
    "boxshift_run",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("submitted", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("state", sa.Text, nullable=False),  # a Life
    sa.Column("note", sa.Text, nullable=False, default=""),
    sa.Column("worker", sa.Text, nullable=False, default=""),
    sa.Column("wanted", sa.Integer, nullable=False, default=0),  # 1: a worker should take it up
    sa.Column("stops", sa.Integer, nullable=False, default=0),  # times an operator asked for abort or rollback
    sa.Column("served", sa.Integer, nullable=False, default=0),  # how many of them have been acted on
    sa.Column("seq", sa.Integer, nullable=False, default=0),  # grows with every change: cheap to watch
)

nodes = sa.Table(
    "boxshift_node",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("started", sa.Float),
    sa.Column("ended", sa.Float),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("value", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("progress", sa.Text, nullable=False, default=""),
    sa.Column("until", sa.Float),
    sa.Column("undo", sa.Text, nullable=False),
    sa.Column("undo_order", sa.Integer),  # the ledger: set in the transaction that lets the node start
    sa.Column("undo_note", sa.Text, nullable=False, default=""),
)

rounds = sa.Table(
    "boxshift_round",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("summary", sa.Text, nullable=False),
)

decisions = sa.Table(
    "boxshift_decision",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("until", sa.Float),
)

workers = sa.Table(
    "boxshift_worker",
    METADATA,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),  # by the database's clock
)


class Life:
    """The stored state of a run: what only the engine can know. What an operator sees is derived from it and the nodes."""

    ACTIVE = "active"
    UNDOING = "undoing"
    DONE = "done"
    UNDONE = "undone"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@translated()
def ensure_tables(engine: sa.Engine) -> None:
    """Make the tables where they are missing.

    Raises:
        RefusedError: the database was written by a newer version.

    """
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7014620211122)"))
        METADATA.create_all(connection)
        found = connection.execute(sa.select(sa.func.max(schema.c.version))).scalar()
        if found is None:
            connection.execute(schema.insert().values(version=SCHEMA))
        elif found > SCHEMA:
            raise RefusedError("The run database was written by a newer version of boxshift.", hint="Use that version, or another file.")


def has_tables(engine: sa.Engine) -> bool:
    """Whether a worker has ever used this database."""
    return sa.inspect(engine).has_table("boxshift_run")


@contextmanager
def locked(engine: sa.Engine, run: str) -> Iterator[tuple[sa.Connection, Any]]:
    """A transaction that nobody else can interleave with on this run; with its row. The change counter grows at the end.

    Raises:
        UnknownRunError: there is no such run.
        RunDatabaseError: the database cannot be read or written.

    """
    with translated(), engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        row = connection.execute(sa.select(runs).where(runs.c.run == run).with_for_update()).first()
        if row is None:
            raise UnknownRunError(f"There is no run named {run}.", hint="The list of runs shows the names.", run=run)
        yield connection, row
        connection.execute(runs.update().where(runs.c.run == run).values(seq=runs.c.seq + 1))


def database_clock(connection: sa.Connection) -> float:
    """Unix seconds by the clock that all workers share."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def of_node(run: str, node: str) -> sa.ColumnElement[bool]:
    """The row of one node."""
    return sa.and_(nodes.c.run == run, nodes.c.node == node)
