"""One round of a phase: nodes run side by side as soon as what they come after is done. Knows nothing of the library.

Every node runs in a thread of its own, inside a durable step whose place in the history was reserved before. What the round leads to
is decided from its summary, which is itself recorded: a replay never has to guess in which order threads once ended.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kit.errors import BoxshiftError, FailedError
from migrate.engine.hub import Hub, NodeProgress
from migrate.engine.model import Call, DecisionKind, EventKind, Executor, NodeState, Outcome
from migrate.engine.serial import UnfitValueError, plain, verify_json
from migrate.engine.store import LostRunError, Store
from migrate.runbook import Json, Node, NodeKind

LOG = logging.getLogger("boxshift.engine")
OPEN, STOPPED = "open", "stopped"  # ends of a durable step that are no end of the node
THREAD = "boxshift node "  # how threads that work on a node are named
LOOK = 0.5  # seconds between two looks of the thread of a run
WAIT = 1.0  # seconds a waiting thread goes without looking, should a wake-up be lost


class StoppingError(BaseException):
    """The worker is being stopped. Not an Exception, so that no step records it: the run goes on from here at the next start."""


class StepBrokeError(FailedError):
    """A step raised instead of answering: a fault of the program."""

    code = "step-broke"


@dataclass
class Shop:
    """What all runs of one worker share. ``stopping``: start nothing more; ``abandon``: do not even wait for what runs."""

    store: Store
    executor: Executor
    hub: Hub
    parallel: int
    stopping: threading.Event
    abandon: threading.Event

    def pause(self, seconds: float) -> None:
        """Wait for a change, ``seconds`` at most.

        Raises:
            StoppingError: the worker is being stopped.

        """
        if self.stopping.is_set():
            raise StoppingError
        self.hub.pause(seconds)
        if self.stopping.is_set():
            raise StoppingError


@dataclass(frozen=True)
class Job:
    """One node of a round. ``start`` runs its durable step in the calling thread and answers how it ended."""

    node: Node
    attempt: int
    start: Callable[[], str]


class Round:
    """Runs jobs until nothing more can start. ``finished`` names the nodes that were done before."""

    def __init__(self, shop: Shop, run: str, jobs: Mapping[str, Job], finished: frozenset[str], closing: threading.Event) -> None:
        self._shop, self._run, self._finished = shop, run, set(finished)
        self._waiting = dict(jobs)
        self._running: dict[str, Job] = {}
        self._ended: dict[str, str] = {}
        self._said: queue.SimpleQueue[tuple[str, str | BaseException]] = queue.SimpleQueue()
        self._broken: BaseException | None = None
        self._hold = self._had_failed()
        self.closing = closing  # set when open waits should give way

    def work(self) -> dict[str, Json]:
        """Until nothing runs. Answers ``{"ended": {node: state}, "stop": bool}``.

        Raises:
            StoppingError: the worker stops before the round is over.
            LostRunError: another worker has the run.

        """
        while True:
            self._start_ready()
            if not self._running:
                break
            self._collect()
        if self._broken is not None:
            raise self._broken
        if self._shop.stopping.is_set() and not self._over():
            raise StoppingError
        stop = STOPPED in self._ended.values()
        ended: dict[str, Json] = {name: end for name, end in self._ended.items() if end not in (OPEN, STOPPED)}
        return {"ended": ended, "stop": stop}

    def _over(self) -> bool:
        return not self._waiting or any(end in (NodeState.FAILED.value, STOPPED) for end in self._ended.values())

    def _start_ready(self) -> None:
        for name in list(self._waiting):
            job = self._waiting[name]
            if self._may_start(job):
                del self._waiting[name]
                self._running[name] = job
                threading.Thread(target=self._carry, args=(name, job), name=f"{THREAD}{name}", daemon=True).start()

    def _may_start(self, job: Job) -> bool:
        if self._shop.stopping.is_set() or self.closing.is_set():
            return False
        if self._hold:  # a crash came after a failure: only what had begun goes on
            return self._begun(job)
        steps = sum(1 for other in self._running.values() if other.node.kind is NodeKind.STEP)
        free = job.node.kind is not NodeKind.STEP or steps < self._shop.parallel
        return free and all(name in self._finished for name in job.node.after)

    def _carry(self, name: str, job: Job) -> None:
        try:
            self._said.put((name, job.start()))
        except BaseException as error:  # noqa: BLE001 - it is handed to the thread of the run, which decides
            self._said.put((name, error))

    def _collect(self) -> None:
        try:
            name, said = self._said.get(timeout=LOOK)
        except queue.Empty:
            if self._shop.abandon.is_set():
                raise StoppingError from None
            return
        del self._running[name]
        if isinstance(said, BaseException):
            self._broken = self._worse(said)
            self._close()
            return
        self._ended[name] = said
        if said in (NodeState.DONE.value, NodeState.SKIPPED.value):
            self._finished.add(name)
        else:
            self._close()

    def _worse(self, error: BaseException) -> BaseException:
        return self._broken if isinstance(self._broken, LostRunError) else error

    def _close(self) -> None:
        self.closing.set()
        self._shop.hub.wake()

    def _had_failed(self) -> bool:
        return any(self._row_state(job) == NodeState.FAILED.value for job in self._waiting.values())

    def _begun(self, job: Job) -> bool:
        return self._row_state(job) in (NodeState.FAILED.value, NodeState.DONE.value, NodeState.RUNNING.value)

    def _row_state(self, job: Job) -> str:
        row = self._shop.store.wait_row(self._run, job.node.name)
        return str(row.state) if row.attempt == job.attempt else NodeState.PENDING.value


def act(shop: Shop, run: str, node: Node, attempt: int) -> str:
    """One attempt at a step node: look whether it ended before, register the undo, execute, write down. Answers how it ended."""
    begun = shop.store.begin_node(run, node, attempt)
    if begun.ended is not None:
        return begun.ended.value
    if begun.stop:
        return STOPPED
    shop.hub.tell(EventKind.STARTED, run, node.name, node.title, attempt=attempt, again=begun.again)
    call = Call(run, node, attempt, shop.store.results(run), begun.again, lambda: shop.store.stop_wanted(run))
    outcome = call_safely(shop.executor.execute, call, NodeProgress(shop.hub, shop.store, run, node.name))
    shop.store.finish_node(run, node.name, attempt, outcome)
    state = NodeState.DONE if outcome.ok else NodeState.FAILED
    shop.hub.tell(EventKind.ENDED, run, node.name, outcome.sentence, state=state.value, seconds=outcome.seconds, attempt=attempt)
    return state.value


def call_safely(method: Callable[[Call, NodeProgress], Outcome], call: Call, progress: NodeProgress) -> Outcome:
    """The outcome of one call. What the executor raises against its contract, or returns against the rules, becomes a failure.

    The text of such an exception is never kept: it may repeat a secret.
    """
    begin = time.monotonic()
    try:
        outcome = method(call, progress)
        verify_json(outcome.value, f"{call.node.name}.value")
        verify_json(dict(outcome.error or {}), f"{call.node.name}.error")
        seconds = outcome.seconds or time.monotonic() - begin
        return replace(outcome, value=plain(outcome.value), seconds=seconds, error=_error_of(outcome, call))
    except UnfitValueError as error:
        return Outcome.failed(error, time.monotonic() - begin)
    except Exception as error:  # noqa: BLE001 - an executor's fault must not take the run with it
        places = "".join(traceback.format_tb(error.__traceback__))
        LOG.error("%s of %s broke: %s at\n%s", call.node.step, call.node.name, type(error).__name__, places)  # noqa: TRY400 - no text
        sentence = f"The step {call.node.step or call.node.name} broke with {type(error).__name__}."
        return Outcome.failed(
            StepBrokeError(sentence, hint="This is a fault of the program; the log says where."), time.monotonic() - begin
        )


def _error_of(outcome: Outcome, call: Call) -> Mapping[str, object] | None:
    if outcome.ok or outcome.error:
        return outcome.error
    return BoxshiftError(f"The step {call.node.step or call.node.name} failed and did not say why.").to_record()


def wait_open(shop: Shop, run: str, node: Node, closing: threading.Event) -> str:
    """Wait at a gate, window or soak until it is over; answers ``open`` when it should give way, ``stopped`` on an operator's stop."""
    shop.store.open_wait(run, node)
    told = False
    while True:
        row = shop.store.wait_row(run, node.name)
        if NodeState(row.state).finished:
            return str(row.state)
        if shop.store.stop_wanted(run):
            return STOPPED
        over = _over_by(shop, run, node, row.until)
        if over is not None:
            outcome = Outcome(ok=True, value=over, seconds=time.time() - row.started)
            shop.store.finish_node(run, node.name, 1, outcome)
            shop.hub.tell(EventKind.ENDED, run, node.name, "", state=NodeState.DONE.value, seconds=outcome.seconds)
            return NodeState.DONE.value
        if closing.is_set():
            return OPEN
        if not told:
            shop.hub.tell(EventKind.WAITING, run, node.name, node.title, kind=node.kind.value, until=row.until)
            told = True
        shop.pause(WAIT if row.until is None else min(WAIT, row.until - time.time()))


def _over_by(shop: Shop, run: str, node: Node, until: float | None) -> dict[str, Json] | None:
    """What ended the wait, as the node's value; None while it goes on."""
    kinds = [DecisionKind.APPROVE] if node.kind is NodeKind.GATE else [DecisionKind.SHORTEN]
    said = [row for row in shop.store.decided(run, kinds) if row.node == node.name]
    if node.kind is NodeKind.GATE:
        return {"approved_by": said[0].who, "note": said[0].note, "at": said[0].at} if said else None
    if until is None or time.time() < until:
        return None
    return {"until": until, "shortened_by": said[-1].who, "note": said[-1].note} if said else {"until": until}


def ask(shop: Shop, run: str, failed: Mapping[str, int]) -> dict[str, Json]:
    """Wait for an operator's word on every failed node (name to attempt): ``{"stop": bool, "retry": [...], "skip": [...]}``."""
    shop.hub.tell(EventKind.WAITING, run, "", "waits for a decision", failed=list(failed))
    while True:
        if shop.store.stop_wanted(run):
            return {"stop": True, "retry": [], "skip": []}
        rows = shop.store.decided(run, [DecisionKind.RETRY, DecisionKind.SKIP])
        said = {row.node: row.kind for row in rows if failed.get(row.node) == row.attempt}
        if len(said) == len(failed):
            skip: list[Json] = [name for name, kind in said.items() if kind == DecisionKind.SKIP.value]
            for name in skip:
                shop.store.skip_node(run, str(name))
            return {"stop": False, "retry": [name for name in said if name not in skip], "skip": skip}
        shop.pause(WAIT)
