"""Work that outlives its request: installations and restores. One at a time; its state is in the database, so a restart can tell."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .control import Order
from .control import tell as tell_supervisor
from .errors import Busy, Refused
from .faults import Faults
from .store import Store

log = logging.getLogger(__name__)


class State(Enum):
    """RESTARTING: done but for the restart of the application."""

    RUNNING = "running"
    RESTARTING = "restarting"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (State.FINISHED, State.FAILED)


@dataclass(frozen=True)
class Job:
    """``step`` is an English sentence (key of its translation) with ``facts`` for its braces."""

    id: int
    kind: str
    state: State
    step: str
    facts: dict[str, Any]
    started: float
    ended: float | None


class Jobs:
    """Starts work and tells how it goes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._faults = Faults(store.box)
        self._starting = threading.Lock()

    def find_last(self, kind: str | None = None) -> Job | None:
        row = self._store.box.find_row("select * from job where ? is null or kind = ? order by id desc limit 1", kind, kind)
        if row is None:
            return None
        facts = json.loads(row["facts"])
        return Job(row["id"], row["kind"], State(row["state"]), row["step"], facts, row["started"], row["ended"])

    @property
    def is_busy(self) -> bool:
        last = self.find_last()
        return last is not None and not last.state.is_over

    def verify_idle(self) -> None:
        """Nothing else is being done now.

        Raises:
            Busy: a restore or an installation is running.

        """
        if self.is_busy:
            raise Busy("A restore or an installation is running. Try again when it has ended.")

    def start(self, kind: str, work: Callable[[Callable[..., None]], State]) -> None:
        """Run ``work`` beside the requests; it gets a function to tell its steps and answers the state it ended in."""
        with self._starting:
            self.verify_idle()
            now = self._faults.now()
            self._store.box.run("insert into job (kind, state, step, started) values (?, 'running', 'Starting', ?)", kind, now)
            number = int(self._store.box.value("select max(id) from job"))
        threading.Thread(target=self._run, args=(number, work), name=kind, daemon=True).start()

    def _run(self, number: int, work: Callable[[Callable[..., None]], State]) -> None:
        def tell(step: str, **facts: object) -> None:
            self._store.box.run("update job set step = ?, facts = ? where id = ?", step, json.dumps(facts, default=str), number)

        try:
            self._store.hold_growth(hold=self._faults.is_on("disk-full"))
            state = work(tell)
        except Refused as refused:
            tell(refused.sentence, **refused.facts)
            state = State.FAILED
        except sqlite3.OperationalError as error:
            self._store.hold_growth(hold=False)
            tell("The disk of the appliance is full ({reason}).", reason=str(error))
            state = State.FAILED
        except Exception:
            log.exception("job %s failed", number)
            tell("It failed for a reason that is in the appliance's log.")
            state = State.FAILED
        finally:
            self._store.site.close()
        self._end(number, state)
        self._store.box.close()
        if state is State.RESTARTING:
            tell_supervisor(Order.RESTART)

    def _end(self, number: int, state: State) -> None:
        ended = self._faults.now() if state.is_over else None
        self._store.box.run("update job set state = ?, ended = ? where id = ?", state.value, ended, number)

    def settle(self) -> None:
        """After a start of the application: what was running was cut off, what waited for the restart is done."""
        last = self.find_last()
        if last is None or last.state.is_over:
            return
        if last.state is State.RUNNING:
            self._store.box.run("update job set step = 'It was interrupted; nothing was changed.' where id = ?", last.id)
        self._end(last.id, State.FINISHED if last.state is State.RESTARTING else State.FAILED)
