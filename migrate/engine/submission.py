"""What is checked before a run exists, and its first rows."""

from __future__ import annotations

import re
import time

import sqlalchemy as sa

from kit.errors import RefusedError, UsageError
from migrate.engine import tables as t
from migrate.engine.database import translated
from migrate.engine.model import NodeState, UndoState
from migrate.engine.serial import to_text, verify_json
from migrate.engine.tables import Life
from migrate.runbook import Runbook

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@translated()
def add_run(engine: sa.Engine, run: str, runbook: Runbook, *, worker: str) -> None:
    """A new run and all its nodes. ``worker`` is empty where any worker may take it.

    Raises:
        UsageError: the name or the runbook makes no sense, or a parameter is not plain JSON (a secret, for one).
        RefusedError: there is a run of that name.

    """
    if not RUN_NAME.fullmatch(run):
        raise UsageError(f"{run!r} is no name for a run.", hint="Letters, digits, - and _; 80 at most.")
    verify_runbook(runbook)
    row = {
        "run": run, "runbook": to_text(runbook.to_json()), "name": runbook.name, "site": runbook.site, "submitted": time.time(),
        "state": Life.ACTIVE, "worker": worker, "wanted": 0 if worker else 1,
    }  # fmt: skip
    lines = [{"run": run, "node": node.name, "state": NodeState.PENDING.value, "undo": UndoState.NOTHING.value} for node in runbook.nodes()]
    try:
        with engine.begin() as connection:
            connection.execute(t.runs.insert().values(row))
            if lines:
                connection.execute(t.nodes.insert(), lines)
    except sa.exc.IntegrityError:
        raise RefusedError(f"There is already a run named {run}.", hint="Resume it, or choose another name.", run=run) from None


def verify_runbook(runbook: Runbook) -> None:
    """Raise unless it can be run.

    Raises:
        UsageError: a name twice, an ``after`` that names nothing in its phase, a circle, a parameter that is not plain JSON.

    """
    names = [node.name for node in runbook.nodes()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"The runbook names {', '.join(twice)} more than once.")
    for phase in runbook.phases:
        done: set[str] = set()
        left = list(phase.nodes)
        while ready := [node for node in left if set(node.after) <= done]:
            done |= {node.name for node in ready}
            left = [node for node in left if node.name not in done]
        if left:
            raise UsageError(f"In phase {phase.name}, {left[0].name} comes after nodes that are not there or wait for it.")
    for node in runbook.nodes():
        verify_json(node.params, f"{node.name}.params")
