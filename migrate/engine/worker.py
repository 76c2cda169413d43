"""The worker: runs runbooks in this process, and survives whatever happens to it."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

from kit.errors import BoxshiftError, DeadlineError, FailedError, RefusedError, UsageError
from kit.secret import Secret
from migrate.engine.control import Control
from migrate.engine.database import ensure_file, open_engine, parse_address, verify_reachable
from migrate.engine.hub import ChangeWatch, Hub
from migrate.engine.lease import Lease, read_alive, release_lapsed
from migrate.engine.lock import WorkerLock
from migrate.engine.model import EventKind, Executor, RunStatus, Watcher, WorkerBusyError
from migrate.engine.store import Store
from migrate.engine.submission import add_run
from migrate.engine.tables import Life, ensure_tables
from migrate.engine.work import THREAD, Shop
from migrate.runbook import Runbook

if TYPE_CHECKING:
    from types import ModuleType

LOG = logging.getLogger("boxshift.engine")
AT_ONCE = 2  # runs taken up in one look, so that several workers share them
STUCK = 15.0  # seconds after which a run that was taken up must be at work
LOOK = 0.25  # seconds between two looks for what other processes decided


class Engine:
    """One worker on one database. ``database`` is a path (SQLite) or ``postgresql://…``.

    ``log`` takes what the workflow library has to say (None: nowhere). ``parallel``: how many step nodes of one run work at once.
    ``lease`` (seconds) counts on PostgreSQL only: after so long without a sign of life others take the runs over.
    """

    def __init__(
        self, database: str | Path | Secret, executor: Executor, *, log: Path | None = None, parallel: int = 4, lease: float = 8.0
    ) -> None:
        self.worker = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._address = parse_address(database)
        self._executor, self._log, self._parallel, self._lease_seconds = executor, log, parallel, lease
        self._hub = Hub()
        self._mine: set[str] = set()
        self._idle: dict[str, float] = {}  # since when a run of ours is not at work, by the monotonic clock
        self._unsaid: dict[str, str] = {}  # why a run stopped, where even that could not be written down
        self._lock: WorkerLock | None = None
        self._lease: Lease | None = None
        self._round: threading.Thread | None = None
        self._over = threading.Event()
        self._flow: ModuleType | None = None
        self._landed = False

    def start(self) -> Self:
        """Take the database and start working. It resumes nothing by itself on SQLite; on PostgreSQL it takes over what dead workers left.

        Raises:
            WorkerBusyError: another worker has the SQLite file (the sentence names its process), or this process runs an engine already.
            FailedError: the database cannot be opened.

        """
        from migrate.engine import flow

        if flow.FLOOR.shop is not None:
            raise WorkerBusyError("This process already runs an engine.", pid=os.getpid())
        if self._address.file is not None:
            ensure_file(self._address.file)
            self._lock = WorkerLock(self._address.file, self.worker)
        try:
            self._open(flow)
        except BaseException:
            self._let_go()
            raise
        return self

    def _open(self, flow: ModuleType) -> None:
        self._engine = open_engine(self._address)
        verify_reachable(self._engine, self._address)
        ensure_tables(self._engine)
        self._store = Store(self._engine, self.worker)
        self._control = Control(self._address.url)
        if self._address.file is None:
            self._lease = Lease(self._engine, self.worker, self._lease_seconds)
        self._shop = Shop(self._store, self._executor, self._hub, self._parallel, threading.Event(), threading.Event())
        flow.FLOOR.shop, flow.FLOOR.accept, flow.FLOOR.broken = self._shop, self._accept, self._broken
        self._flow = flow
        flow.launch(self._engine, self.worker, self._log)
        self._round = threading.Thread(target=self._keep_round, name="engine-round", daemon=True)
        self._round.start()

    @property
    def control(self) -> Control:
        """The operator's side of the same database."""
        return self._control

    def submit(self, runbook: Runbook, run: str) -> None:
        """Start a new run under that name (letters, digits, ``-`` and ``_``).

        Raises:
            UsageError: the name or the runbook makes no sense, or a parameter is not plain JSON (a secret, for one).
            RefusedError: there is a run of that name.

        """
        add_run(self._engine, run, runbook, worker=self.worker)
        self._mine.add(run)
        self._loaded().start_run(run, runbook)
        self._hub.tell(EventKind.RUN, run, "", "submitted")

    def resume(self, run: str) -> None:
        """Go on with a run where it stands: finished nodes are not run again, one that was cut off is. Nothing where it is at work here.

        On PostgreSQL a worker that died looks alive until its lease ends, so a claim is tried for that long.

        Raises:
            UnknownRunError: there is none.
            RefusedError: it has ended, or another live worker has it.

        """
        status = self._control.status(run)
        if status.state.ended:
            raise RefusedError(f"{run} is {status.state}; there is nothing to resume.", run=run)
        end = time.monotonic() + (0.0 if self._lease is None else self._lease_seconds)
        while True:
            try:
                return self._take_up(run)
            except RefusedError:
                if time.monotonic() > end:
                    raise
            time.sleep(LOOK)

    def _take_up(self, run: str, *, wanted: bool = False) -> None:
        row = self._store.claim(run, read_alive(self._engine, self._address.file), wanted=wanted)
        if row is None or row.worker == self.worker:
            return
        self._mine.add(run)
        self._loaded().resume_run(run, self._store.runbook(run), row.served if row.state == Life.UNDOING else 0, self.worker)
        self._hub.tell(EventKind.RUN, run, "", "resumed")

    def status(self, run: str) -> RunStatus:
        """One run as it stands. Raises UnknownRunError."""
        return self._control.status(run)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher`` with everything that happens in this process, in the threads where it happens. The answer ends it."""
        return self._hub.watch(watcher)

    def wait(self, run: str, *, until: Callable[[RunStatus], bool] | None = None, timeout: float | None = None) -> RunStatus:
        """Block until the run has ended or needs a person (or ``until`` says so); soaks and windows are waited through.

        Raises:
            DeadlineError: not within ``timeout`` seconds.
            FailedError: the engine stopped working on it and could not even write that down (a full disk).

        """
        enough = until or (lambda status: status.state.ended or status.state.needs_person)
        end = time.monotonic() + timeout if timeout is not None else None
        for status in self._control.glance(run, pause=self._breathe):
            if status is not None and enough(status):
                return status
            if run in self._unsaid:
                raise FailedError(
                    f"{self._unsaid[run]} The run database could not be written.", hint="Free space, then resume the run.", run=run
                )
            if end is not None and time.monotonic() > end:
                raise DeadlineError(f"{run} is still {self.status(run).state} after {timeout:g} s.", run=run)
        raise AssertionError("a watch never ends")

    def _breathe(self) -> None:
        """Until something happened, but long enough that a busy run is not slowed down by being looked at."""
        time.sleep(LOOK / 3)
        self._hub.pause(LOOK)

    def serve(self) -> None:
        """Work on whatever comes until :meth:`stop` or an exception (a signal) in this thread."""
        while not self._over.is_set():
            self._over.wait(1.0)

    def stop(self, deadline: float = 10.0) -> bool:
        """Start nothing more, let running nodes end for ``deadline`` seconds, let go of the runs: they can be resumed.

        False when nodes are still at work after that: this process keeps the database until it exits, which it should do now.
        """
        if self._flow is None:
            return True
        self._shop.stopping.set()
        self._hub.wake()
        try:
            self._wait_idle(deadline)
        finally:  # also on a second Ctrl-C: nothing may then hold up the end of the process
            if self._busy():
                self._shop.abandon.set()
        self._wait_idle(2.0)
        left = self._busy()
        if not self._landed:
            self._landed = True
            self._flow.land()
        if not left:
            self._let_go()
        return not left

    def _wait_idle(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._busy() and time.monotonic() < end:
            time.sleep(0.02)

    def _busy(self) -> bool:
        """Whether a run, or a node thread that was left behind, is still at work."""
        return bool(self._loaded().FLOOR.active()) or any(thread.name.startswith(THREAD) for thread in threading.enumerate())

    def _let_go(self) -> None:
        self._over.set()
        if self._round is not None:
            self._round.join(5.0)
        if self._flow is not None:
            self._flow.FLOOR.shop = None
            self._flow = None
        if self._lease is not None:
            with suppress(sa.exc.SQLAlchemyError):  # then it lapses by itself
                self._lease.give_up()
        if self._lock is not None:
            self._lock.release()
        if hasattr(self, "_control"):
            self._control.close()
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, SIGTERM ends :meth:`wait` and :meth:`serve` with KeyboardInterrupt, as Ctrl-C does. Main thread only."""

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _loaded(self) -> ModuleType:
        if self._flow is None:
            raise UsageError("The engine is not started.")
        return self._flow

    def _accept(self, run: str) -> bool:
        """Whether a workflow that the library hands to this process may run here."""
        return run in self._mine and not self._shop.stopping.is_set()

    def _broken(self, run: str, note: str) -> None:
        """A run stopped here without being at its end. A node left behind keeps the claim: nobody else may start it meanwhile."""
        if self._shop.abandon.is_set():
            return
        try:
            self._store.release(run, note, wanted=self._address.file is None and self._shop.stopping.is_set())
        except sa.exc.SQLAlchemyError as error:
            LOG.error("run %s: could not be released (%s)", run, type(error).__name__)  # noqa: TRY400 - no text of the database
            self._unsaid[run] = note
            self._hub.wake()

    def _keep_round(self) -> None:
        """What has to be looked at again and again: decisions, wanted runs, dead workers."""
        changes = ChangeWatch(self._hub, self._store)
        looked = 0.0
        while not self._over.wait(LOOK):
            try:
                changes.look(set(self._loaded().FLOOR.active().values()))
                if time.monotonic() - looked > 1.0 and not self._shop.stopping.is_set():
                    looked = time.monotonic()
                    self._look_for_work()
            except (sa.exc.SQLAlchemyError, BoxshiftError) as error:
                LOG.warning("looking round failed (%s)", type(error).__name__)

    def _look_for_work(self) -> None:
        if self._lease is not None:
            release_lapsed(self._engine)
        self._release_stuck()
        for run in self._store.wanted(AT_ONCE):
            self._take_up(run, wanted=True)

    def _release_stuck(self) -> None:
        """A run that is ours by its row but is not at work after a while could not be started: say so rather than "running"."""
        active = set(self._loaded().FLOOR.active().values())
        idle = [run for run in self._store.mine() if run not in active]
        self._idle = {run: self._idle.get(run, time.monotonic()) for run in idle}
        for run, since in self._idle.items():
            if time.monotonic() - since > STUCK:
                self._store.release(run, self._unsaid.pop(run, "Its stored state could not be read; the log says more."))
