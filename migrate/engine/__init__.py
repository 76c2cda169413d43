"""The durable run engine: runs a runbook to its end over crashes, restarts and operators' decisions.

:class:`Engine` is the worker (loads the workflow library when started), :class:`Control` what any other process uses. Both are loaded
when they are first named, so that the values alone cost next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from migrate.engine.model import (
    Call,
    Decision,
    DecisionKind,
    Event,
    EventKind,
    Executor,
    NodeState,
    NodeStatus,
    NoReturnError,
    NothingToDecideError,
    Outcome,
    RollbackPlan,
    RunLine,
    RunState,
    RunStatus,
    UndoState,
    UnknownRunError,
    Watcher,
    WorkerBusyError,
)

if TYPE_CHECKING:
    from migrate.engine.control import Control
    from migrate.engine.worker import Engine

_LATER = {"Control": "migrate.engine.control", "Engine": "migrate.engine.worker"}

__all__ = [
    "Call",
    "Control",
    "Decision",
    "DecisionKind",
    "Engine",
    "Event",
    "EventKind",
    "Executor",
    "NoReturnError",
    "NodeState",
    "NodeStatus",
    "NothingToDecideError",
    "Outcome",
    "RollbackPlan",
    "RunLine",
    "RunState",
    "RunStatus",
    "UndoState",
    "UnknownRunError",
    "Watcher",
    "WorkerBusyError",
]


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
