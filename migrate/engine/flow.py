"""The durable part: the interpreter of runbooks as workflows of the library. The only module of the repository that imports it.

``run.v1`` and ``undo.v1`` are never edited in a way that changes the order of their steps while runs of them exist: a changed
interpreter is added beside them as ``run.v2``.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer, SetWorkflowID
from dbos._serialization import DefaultSerializer

from migrate.engine.model import EventKind, NodeState, UndoState
from migrate.engine.serial import JsonOnly, refuse_pickle
from migrate.engine.store import LostRunError
from migrate.engine.tables import Life
from migrate.engine.undoing import Entry, undo_one
from migrate.engine.work import THREAD, Job, Round, Shop, StoppingError, act, ask, wait_open
from migrate.runbook import Json, Node, NodeKind, Runbook

LOG = logging.getLogger("boxshift.engine")
VERSION = "boxshift-1"  # constant: the library's own default changes with every comment and strands old runs
T = TypeVar("T")


class ParkedError(BaseException):
    """Leaves a workflow unfinished, to be resumed. Not an Exception, so that the library does not record it as the end."""


class Floor:
    """The shop that workflows of this process work in, and which of them are at work."""

    def __init__(self) -> None:
        self.shop: Shop | None = None
        self.accept: Callable[[str], bool] = lambda _: False
        self.broken: Callable[[str, str], None] = lambda _run, _note: None
        self._guard = threading.Lock()
        self._active: dict[str, str] = {}

    def active(self) -> dict[str, str]:
        """Workflow ids at work, each with its run."""
        with self._guard:
            return dict(self._active)

    def enter(self, workflow: str, run: str) -> bool:
        """Whether the workflow may start here: only once at a time, and only a run that this worker was given."""
        with self._guard:
            if workflow in self._active or not self.accept(run):
                return False
            self._active[workflow] = run
            return True

    def leave(self, workflow: str) -> None:
        """It is not at work any more."""
        with self._guard:
            self._active.pop(workflow, None)


FLOOR = Floor()


# The library picks the serializer by a mark in the row itself, so a forged row could ask for pickle: there is none to be had.
for _method in ("serialize", "deserialize"):
    setattr(DefaultSerializer, _method, refuse_pickle)


class _Serializer(JsonOnly, Serializer):
    """JSON only, as the library wants to see it."""


def launch(engine: sa.Engine, worker: str, log: Path | None) -> None:
    """Start the library on an engine of ours, silent on the console, without telemetry, reading JSON only."""
    quiet(log)
    config: DBOSConfig = {
        "name": "boxshift",
        "system_database_engine": engine,
        "application_version": VERSION,
        "executor_id": worker,
        "serializer": _Serializer(),
        "enable_otlp": False,
        "log_level": "WARNING",
        "use_listen_notify": False,
        "scheduler_polling_interval_sec": 3600.0,
        "notification_listener_polling_interval_sec": 0.2,  # how long a stop waits for it; it has nothing to look at
    }
    registry = DBOS(config=config)._registry  # noqa: SLF001 - queues kept in memory have no public way in
    registry.internal_queue_map.clear()
    registry._register_internal_queue(queue_of(worker), polling_interval_sec=0.2)  # noqa: SLF001 - as above
    DBOS.launch()


def quiet(log: Path | None) -> None:
    """Send what the library and the engine log to a private file, or nowhere: the library adds a console only where nobody listens."""
    sink = _log_sink(log)
    sink.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    library = logging.getLogger("dbos")
    library.propagate = False
    for logger in (library, LOG):
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(sink)


def _log_sink(log: Path | None) -> logging.Handler:
    if log is None:
        return logging.NullHandler()
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    return logging.FileHandler(log)


def land() -> None:
    """Stop the library."""
    DBOS.destroy()


def queue_of(worker: str) -> str:
    """Every worker draws what it resumes from a queue of its own: what a dead one had drawn cannot start by itself anywhere.

    The queue lives in memory only, so it is there at once and leaves nothing behind.
    """
    return f"worker-{worker}"


def start_run(run: str, runbook: Runbook) -> None:
    """Start a new run in this process."""
    with SetWorkflowID(run):
        DBOS.start_workflow(run_v1, run, runbook.to_json())


def resume_run(run: str, runbook: Runbook, undo: int, worker: str) -> None:
    """Go on with whatever of the run is not at its end; start what never started: the run, or its rollback number ``undo`` (0: none)."""
    left = [name for name in (run, undo_id(run, undo)) if name not in FLOOR.active() and _unfinished(name)]
    if left:
        DBOS.resume_workflows(left, queue_name=queue_of(worker))
    elif DBOS.get_workflow_status(run) is None:
        start_run(run, runbook)
    elif undo and DBOS.get_workflow_status(undo_id(run, undo)) is None:
        with SetWorkflowID(undo_id(run, undo)):
            DBOS.start_workflow(undo_v1, run, undo)


def delete_workflows(engine: sa.Engine, workflows: list[str]) -> None:
    """Delete the library's rows of workflows that have ended, with or without a running worker. Ids that are not there are passed over."""
    client = DBOSClient(system_database_engine=engine, serializer=_Serializer())
    client.delete_workflows(workflows)


def undo_id(run: str, number: int) -> str:
    """The workflow id of a run's rollback number ``number``."""
    return f"{run}.undo.{number}"


def _unfinished(workflow: str) -> bool:
    status = DBOS.get_workflow_status(workflow)
    return status is not None and status.status not in ("SUCCESS", "ERROR")


@DBOS.workflow(name="run.v1", max_recovery_attempts=None)
def run_v1(run: str, runbook: dict[str, Json]) -> str:
    """Interpret a runbook from its first phase to its last, or until an operator stops it."""
    return _guarded(run, run, lambda shop: _Interpreter(shop, run, Runbook.from_json(runbook)).interpret())


@DBOS.workflow(name="undo.v1", max_recovery_attempts=None)
def undo_v1(run: str, number: int) -> str:
    """Take back what a run did, in reverse order."""
    return _guarded(undo_id(run, number), run, lambda shop: _undo(shop, run))


def _guarded(workflow: str, run: str, body: Callable[[Shop], str]) -> str:
    """The body, so that whatever goes wrong *in the engine* leaves the run resumable instead of recording a failure for ever."""
    shop = FLOOR.shop
    if shop is None or not FLOOR.enter(workflow, run):
        raise ParkedError
    try:
        return body(shop)
    except StoppingError:
        FLOOR.broken(run, "The worker was stopped.")
        raise ParkedError from None
    except LostRunError:
        LOG.warning("run %s: another worker has it", run)
        raise ParkedError from None
    except (Exception, BrokenStepError) as raised:
        error = raised.__cause__ or raised
        LOG.exception("run %s: the engine broke", run)
        sentence = getattr(error, "sentence", "")
        FLOOR.broken(run, f"The engine stopped here: {sentence}" if sentence else f"The engine broke with {type(error).__name__}.")
        raise ParkedError from None
    finally:
        FLOOR.leave(workflow)
        shop.hub.tell(EventKind.RUN, run)


class _Interpreter:
    """One execution of ``run.v1``. All that it decides on comes out of recorded steps, so a replay takes the same way."""

    def __init__(self, shop: Shop, run: str, runbook: Runbook) -> None:
        self._shop, self._run, self._runbook = shop, run, runbook
        self._finished: set[str] = set()
        self._attempts = {node.name: 1 for node in runbook.nodes()}
        self._rounds = 0

    def interpret(self) -> str:
        """To the end; answers the stored state of the run."""
        for phase in self._runbook.phases:
            while left := [node for node in phase.nodes if node.name not in self._finished]:
                if not self._one_round(left):
                    return self._end(finished=False)
        return self._end(finished=True)

    def _one_round(self, left: list[Node]) -> bool:
        """One round and the decisions that it needs; False when an operator said stop."""
        summary = self._work(left)
        ended: dict[str, str] = summary["ended"]
        self._finished |= {name for name, state in ended.items() if NodeState(state).finished}
        failed = {name: self._attempts[name] for name, state in sorted(ended.items()) if state == NodeState.FAILED.value}
        if summary["stop"]:
            return False
        if not failed:
            return True
        verdict: Any = _step("decision", ask, self._shop, self._run, failed)
        self._finished.update(verdict["skip"])
        for name in verdict["retry"]:
            self._attempts[name] += 1
        return not verdict["stop"]

    def _work(self, left: list[Node]) -> Any:
        self._rounds += 1
        number = self._rounds
        reserved = {node.name: DBOS.reserve_step() for node in left}
        closing = DBOS.reserve_step()
        found = self._shop.store.find_round(self._run, number)
        if found is None:
            found = self._side_by_side(left, reserved)
        return closing.run({"name": f"round {number}"}, _unrecorded(self._shop.store.close_round), self._run, number, found)

    def _side_by_side(self, left: list[Node], reserved: dict[str, Any]) -> Any:
        closing = threading.Event()
        jobs = {node.name: Job(node, self._attempts[node.name], self._starter(node, reserved[node.name], closing)) for node in left}
        return Round(self._shop, self._run, jobs, frozenset(self._finished), closing).work()

    def _starter(self, node: Node, place: Any, closing: threading.Event) -> Callable[[], str]:
        context = contextvars.copy_context()
        attempt = self._attempts[node.name]

        def body() -> str:
            if node.kind is NodeKind.STEP:
                return act(self._shop, self._run, node, attempt)
            return wait_open(self._shop, self._run, node, closing)

        return lambda: str(context.run(place.run, {"name": f"node {node.name}"}, _unrecorded(body)))

    def _end(self, *, finished: bool) -> str:
        way: Any = _step("settle", self._shop.store.settle, self._run, finished=finished)
        if "undo" not in way:
            return str(way["end"])
        with SetWorkflowID(undo_id(self._run, way["undo"])):
            DBOS.start_workflow(undo_v1, self._run, way["undo"])
        return Life.UNDOING


def _undo(shop: Shop, run: str) -> str:
    runbook = shop.store.runbook(run)
    lines = _step("ledger", lambda: [[row.node, row.attempt] for row in shop.store.ledger(run)])
    standing: list[str] = []
    for name, attempt in lines:
        body = partial(undo_one, shop, run, runbook, Entry(name, attempt), tuple(standing))
        state = _aside(shop, DBOS.reserve_step(), f"undo {name}", body)
        if state != UndoState.UNDONE.value:
            standing.append(name)
    return str(_step("end of rollback", shop.store.end_rollback, run))


def _aside(shop: Shop, place: Any, name: str, body: Callable[[], str]) -> str:
    """A durable step in a thread of its own, so that a stop need not wait for it."""
    context = contextvars.copy_context()
    said: list[str | BaseException] = []

    def carry() -> None:
        try:
            said.append(context.run(place.run, {"name": name}, _unrecorded(body)))
        except BaseException as error:  # noqa: BLE001 - handed to the thread of the run
            said.append(error)

    thread = threading.Thread(target=carry, name=f"{THREAD}{name}", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if shop.abandon.is_set() and thread.is_alive():
            raise StoppingError
    if isinstance(said[0], BaseException):
        raise said[0]
    return said[0]


def _step(name: str, body: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return DBOS.run_step({"name": name}, _unrecorded(body), *args, **kwargs)


class BrokenStepError(BaseException):
    """Carries an exception of the engine's own (a full disk, a lost database) past the library, which would record it for ever."""


def _unrecorded(body: Callable[..., T]) -> Callable[..., T]:
    def guarded(*args: Any, **kwargs: Any) -> T:
        try:
            return body(*args, **kwargs)
        except Exception as error:
            raise BrokenStepError from error

    return guarded
