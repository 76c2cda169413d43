"""Who is alive. On SQLite the lock says so; on PostgreSQL every worker renews a row, by the database's own clock."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from migrate.engine import tables as t
from migrate.engine.lock import find_holder

LOG = logging.getLogger("boxshift.engine")
EXIT = 75  # the exit status of a worker that ended itself


def read_alive(engine: sa.Engine, file: Path | None) -> dict[str, str]:
    """Live workers, each with how to show it to people."""
    if file is not None:
        holder = find_holder(file)
        return {holder.worker: holder.shown} if holder else {}
    with engine.connect() as connection:
        now = t.database_clock(connection)
        rows = connection.execute(sa.select(t.workers).where(t.workers.c.lease_until > now))
        return {row.worker: f"process {row.pid} on {row.host}" for row in rows}


class Lease:
    """One worker's row, ``seconds`` long after each renewal, renewed by a thread of its own until :meth:`give_up`.

    A worker that cannot renew ends its process before the row lapses: two workers must never act for one run.
    """

    def __init__(self, engine: sa.Engine, worker: str, seconds: float) -> None:
        self._engine, self._worker, self._seconds = engine, worker, seconds
        self._over = threading.Event()
        with engine.begin() as connection:
            until = t.database_clock(connection) + seconds
            row = {"worker": worker, "pid": os.getpid(), "host": socket.gethostname(), "lease_until": until}
            connection.execute(t.workers.insert().values(row))
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="engine-lease", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        guard = threading.Thread(target=self._guard, name="engine-lease-guard", daemon=True)
        guard.start()
        while not self._over.wait(self._seconds / 4):
            begin = time.monotonic()
            try:
                if not self._renew():
                    self._die("others took this worker for dead")
                self._renewed = begin
            except sa.exc.SQLAlchemyError as error:
                LOG.warning("the lease was not renewed (%s)", type(error).__name__)

    def _guard(self) -> None:
        """Beside the renewing thread, since a database that hangs would hold that one up."""
        while not self._over.wait(self._seconds / 10):
            if time.monotonic() - self._renewed > self._seconds * 0.75:
                self._die("the lease could not be renewed")

    def _renew(self) -> bool:
        with self._engine.begin() as connection:
            until = t.database_clock(connection) + self._seconds
            done = connection.execute(t.workers.update().where(t.workers.c.worker == self._worker).values(lease_until=until))
            return bool(done.rowcount)

    def give_up(self) -> None:
        """Remove it."""
        self._over.set()
        self._thread.join(5.0)
        with self._engine.begin() as connection:
            connection.execute(t.workers.delete().where(t.workers.c.worker == self._worker))

    def _die(self, why: str) -> None:
        if self._over.is_set():
            return
        LOG.critical("this worker ends itself: %s", why)
        os._exit(EXIT)


def release_lapsed(engine: sa.Engine) -> list[str]:
    """Hand the runs of dead workers to whoever wants them; the workers that were found dead.

    ``SKIP LOCKED``: of several workers that look at once, one does it.
    """
    with engine.begin() as connection:
        now = t.database_clock(connection)
        query = sa.select(t.workers.c.worker).where(t.workers.c.lease_until < now).with_for_update(skip_locked=True)
        dead = list(connection.execute(query).scalars())
        for worker in dead:
            mine = t.runs.update().where(t.runs.c.worker == worker)
            connection.execute(mine.values(worker="", wanted=1, note="Its worker went away.", seq=t.runs.c.seq + 1))
            connection.execute(t.workers.delete().where(t.workers.c.worker == worker))
        return dead
