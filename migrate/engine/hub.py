"""What happens in this process, told to those who watch; and waking those who wait for an operator."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from migrate.engine import tables as t
from migrate.engine.model import Event, EventKind, Watcher
from migrate.engine.store import Store
from migrate.runbook import Json

LOG = logging.getLogger("boxshift.engine")
PROGRESS_EVERY = 1.0  # seconds between two progress lines written to the database for one node


class Hub:
    """Passes events on to watchers. A watcher that raises is dropped: drawing must never hurt a run."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._guard = threading.Lock()
        self.changed = threading.Condition()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher`` with every event from now on, from the threads in which things happen. The answer ends it."""
        with self._guard:
            self._watchers.append(watcher)
        return lambda: self._drop(watcher)

    def tell(self, kind: EventKind, run: str, node: str = "", text: str = "", /, **facts: Json) -> None:
        """Tell everybody that something happened, and wake whoever waits."""
        self._pass_on(Event(kind, run, node, time.time(), text, facts=facts))
        self.wake()

    def tell_progress(self, run: str, node: str, text: str, done: float | None, total: float | None) -> None:
        """Tell everybody how far a node is. Nobody is woken for it."""
        self._pass_on(Event(EventKind.PROGRESS, run, node, time.time(), text, done, total))

    def wake(self) -> None:
        """Let everybody who waits look again."""
        with self.changed:
            self.changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait until something changed, ``seconds`` at most."""
        with self.changed:
            self.changed.wait(max(seconds, 0.0))

    def _pass_on(self, happened: Event) -> None:
        with self._guard:
            watchers = list(self._watchers)
        for watcher in watchers:
            try:
                watcher(happened)
            except Exception as error:  # noqa: BLE001 - whatever a view does wrong, the run goes on
                LOG.warning("a live view failed with %s and is dropped", type(error).__name__)
                self._drop(watcher)

    def _drop(self, watcher: Watcher) -> None:
        with self._guard:
            if watcher in self._watchers:
                self._watchers.remove(watcher)


class NodeProgress:
    """The :class:`kit.progress.Progress` of one node: every line to the live views, one a second to the database."""

    def __init__(self, hub: Hub, store: Store, run: str, node: str) -> None:
        self._hub, self._store, self._run, self._node = hub, store, run, node
        self._next = 0.0

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        """Pass one line on. Never raises: a progress line is not worth a node."""
        self._hub.tell_progress(self._run, self._node, label, done, total)
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY
        line = label if done is None else f"{label} {done:g}" + (f" / {total:g}" if total is not None else "")
        try:
            self._store.note_progress(self._run, self._node, line)
        except sa.exc.SQLAlchemyError as error:
            LOG.warning("a progress line was not stored (%s)", type(error).__name__)


class ChangeWatch:
    """Looks at the change counters of the runs at work with one small query, and wakes the hub when another process changed one."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub, self._store = hub, store
        self._seen: dict[str, int] = {}

    def look(self, runs: set[str]) -> None:
        """One look. ``runs`` are those that this worker has."""
        if not runs:
            return
        query = sa.select(t.runs.c.run, t.runs.c.seq).where(t.runs.c.run.in_(sorted(runs)))
        with self._store.engine.connect() as connection:
            now = {row.run: row.seq for row in connection.execute(query)}
        if now != self._seen:
            self._seen = now
            self._hub.wake()
