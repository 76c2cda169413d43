"""The engine's values: what it hands to an executor, what it gets back, what it tells an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from kit.errors import BoxshiftError, RefusedError
from kit.progress import Progress
from migrate.runbook import Json, Node, Runbook


class NothingToDecideError(RefusedError):
    """The run waits for no such decision, or it has been taken already."""

    code = "nothing-to-decide"


class NoReturnError(RefusedError):
    """A point of no return has been passed: there is no way back by rollback."""

    code = "no-return"


class WorkerBusyError(RefusedError):
    """Another worker holds the database."""

    code = "worker-busy"


class UnknownRunError(RefusedError):
    """There is no run of that name."""

    code = "unknown-run"


@dataclass(frozen=True)
class Call:
    """One attempt at one node.

    ``results`` are the values of finished nodes by name (None for a skipped one); ``execute`` may rely on those of every node it
    comes after, ``undo`` on nothing: its own value is missing where the node was cut off. ``attempt`` counts from 1 and grows with
    every retry that an operator asks for. ``again`` is true when an earlier execution of this same attempt (or of this undo) was cut
    off: look before acting. ``stop_wanted`` tells, whenever it is asked, whether an operator wants the run to stop: a step that
    only waits should then end.
    """

    run: str
    node: Node
    attempt: int
    results: Mapping[str, Json]
    again: bool = False
    stop_wanted: Callable[[], bool] = field(default=lambda: False, compare=False)


@dataclass(frozen=True)
class Outcome:
    """How a call ended: data, never an exception. ``error`` is :meth:`BoxshiftError.to_record`, None when ``ok``; ``seconds`` it took."""

    ok: bool
    value: Json = None
    error: Mapping[str, object] | None = None
    seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """What it came to, for people: the error's sentence, or the one that an executor put into its value."""
        told = self.value if self.ok else self.error
        return str(told.get("sentence") or "") if isinstance(told, Mapping) else ""

    @staticmethod
    def failed(error: BoxshiftError, seconds: float = 0.0) -> Outcome:
        """The outcome that tells of ``error``."""
        return Outcome(ok=False, error=error.to_record(), seconds=seconds)


class Executor(Protocol):
    """What does the work. Both methods answer with an outcome and never raise; both may be called again after a crash."""

    def execute(self, call: Call, progress: Progress) -> Outcome: ...

    def undo(self, call: Call, progress: Progress) -> Outcome: ...


class NodeState(StrEnum):
    """Where one node is."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"  # a gate, window or soak that is open
    INTERRUPTED = "interrupted"  # it was running when its worker went away
    DONE = "done"
    FAILED = "failed"  # waits for an operator's decision
    SKIPPED = "skipped"

    @property
    def finished(self) -> bool:
        """Whether what comes after it may start."""
        return self in (NodeState.DONE, NodeState.SKIPPED)


class UndoState(StrEnum):
    """What can be, or has been, taken back of one node."""

    NOTHING = "nothing to undo"
    REGISTERED = "can be undone"
    RUNNING = "undoing"
    UNDONE = "undone"
    FAILED = "undo failed"
    BLOCKED = "not undone"  # the undo of a node that stands on it failed
    GIVEN_UP = "undo given up"  # an operator said so


class RunState(StrEnum):
    """Where a run is, as an operator would say it."""

    RUNNING = "running"
    APPROVAL = "waiting for approval"
    DECISION = "waiting for decision"
    WINDOW = "waiting for its window"
    SOAKING = "soaking"
    ROLLING_BACK = "rolling back"
    INTERRUPTED = "interrupted"  # no live worker has it; resume it
    DONE = "done"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"
    FAILED = "failed"  # stopped by an operator after a point of no return

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself, and nothing is left to resume."""
        return self in (RunState.DONE, RunState.ROLLED_BACK, RunState.ROLLBACK_INCOMPLETE, RunState.FAILED)

    @property
    def needs_person(self) -> bool:
        """Whether somebody has to say something before it goes on."""
        return self in (RunState.APPROVAL, RunState.DECISION, RunState.INTERRUPTED)


class DecisionKind(StrEnum):
    """What an operator can say."""

    APPROVE = "approve"
    RETRY = "retry"
    SKIP = "skip"
    SHORTEN = "shorten"
    ABORT = "abort"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Decision:
    """One recorded decision. ``node`` is empty for the whole run; ``at`` and ``until`` in Unix seconds."""

    kind: DecisionKind
    node: str
    attempt: int
    who: str
    note: str
    at: float
    until: float | None = None


@dataclass(frozen=True)
class NodeStatus:
    """One node as it stands. Times in Unix seconds; ``seconds`` is how long the last attempt took (or has taken, while it runs).

    ``until`` is when a window or soak ends. ``undo_note`` says why an undo failed or was not tried.
    """

    name: str
    title: str
    phase: str
    state: NodeState
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    value: Json = None
    error: Mapping[str, object] | None = None
    progress: str = ""
    until: float | None = None
    undo: UndoState = UndoState.NOTHING
    undo_note: str = ""


@dataclass(frozen=True)
class RunStatus:
    """One run as it stands. ``note`` is a sentence where there is something to say (why it failed, why it is interrupted).

    ``waiting`` names the nodes that wait for a person; ``worker`` says which live process works on it (host and pid), empty where none.
    """

    run: str
    state: RunState
    note: str
    runbook: Runbook
    nodes: tuple[NodeStatus, ...]
    submitted: float
    ended: float | None
    waiting: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    worker: str = ""
    version: int = 0

    def node(self, name: str) -> NodeStatus:
        """The node of that name; KeyError where there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


@dataclass(frozen=True)
class RunLine:
    """One line of the list of runs."""

    run: str
    runbook: str
    site: str
    state: RunState
    submitted: float
    ended: float | None


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback would do now: the nodes in the order of undoing, the estimate in seconds; ``refusal`` is empty when it can go.

    ``begun``: it is refused because one has begun that has not ended; then the nodes are what is left of that.
    """

    nodes: tuple[str, ...]
    seconds: float
    refusal: str = ""
    begun: bool = False


class EventKind(StrEnum):
    """What a live view may want to draw."""

    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"
    WAITING = "waiting"
    UNDOING = "undoing"
    UNDONE = "undone"
    RUN = "run"  # the run as a whole: submitted, resumed, ended, stopped


@dataclass(frozen=True)
class Event:
    """One thing that just happened in this process. ``text`` is a short line; ``done`` and ``total`` belong to progress."""

    kind: EventKind
    run: str
    node: str
    at: float
    text: str = ""
    done: float | None = None
    total: float | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)


Watcher = Callable[[Event], None]
