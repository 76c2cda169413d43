"""A run from its submission to its end, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.errors import RefusedError
from migrate.engine import Control, Engine
from migrate.engine.model import RunState
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Runbook
from migrate.wiring.desk import Desk, find_database
from migrate.wiring.executor import StepExecutor
from migrate.wiring.procedures import make_runbook
from migrate.wiring.references import verify_secrets
from migrate.wiring.workspace import Workspace, keep_core_private


@dataclass(frozen=True)
class Running:
    """A run that this process works on. ``over``: it was done before, so that there is nothing left to do."""

    engine: Engine
    desk: Desk
    runbook: Runbook
    resumed: bool
    over: bool


@contextmanager
def open_run(loaded: LoadedPlan[CommonPlan], *, engine: str = "", anew: bool = False, run: str = "") -> Iterator[Running]:
    """Go on with the plan's last run unless it was rolled back, or submit a new one. Inside the block this process is its worker.

    A run that is done is not done again: who was killed in its last second types the same command, and the old box is gone by then.

    Raises:
        RefusedError: the plan changed since its unfinished run began.
        UsageError: a new run, and a secret that the plan names is not there.

    """
    keep_core_private()
    workspace = Workspace.beside(loaded.path)
    database = find_database(workspace, engine)
    executor = StepExecutor(workspace, lambda name: plan_path(database, name))
    with Engine(database, executor, log=workspace.root / "engine.log") as worker:
        earlier = run or ("" if anew else _find_earlier(worker.control, workspace, loaded))
        if not earlier:
            verify_secrets(loaded)
        status = worker.control.status(earlier) if earlier else None
        runbook = status.runbook if status else make_runbook(loaded)
        name = earlier or workspace.open_run(loaded)
        _log_to(workspace.run_folder(name) / "run.log")
        desk = Desk(workspace, worker.control, name)
        yield Running(worker, desk, runbook, resumed=bool(earlier), over=status is not None and status.state is RunState.DONE)


def start(running: Running) -> None:
    """Submit or resume; to be called once the view watches."""
    if running.over:
        return
    if running.resumed:
        running.engine.resume(running.desk.run)
    else:
        running.engine.submit(running.runbook, running.desk.run)


def plan_path(database: str, run: str) -> Path:
    """The plan file that a run was submitted with."""
    control = Control(database)
    try:
        return Path(control.status(run).runbook.plan)
    finally:
        control.close()


def _find_earlier(control: Control, workspace: Workspace, loaded: LoadedPlan[CommonPlan]) -> str:
    """The plan's run that has not ended, else its newest one where that is done and the plan is still the same; empty otherwise."""
    mine = [line for line in control.runs() if workspace.run_folder(line.run).is_dir()]
    lines = [(line, book) for line in mine if Path((book := control.status(line.run).runbook).plan) == loaded.path]
    for line, runbook in lines:
        if line.ended is not None:
            continue
        if runbook.digest != loaded.digest:
            raise RefusedError(
                f"{loaded.path.name} was changed since its run {line.run} began, which has not ended.",
                hint="A run keeps the plan it began with. End that run first (boxshift rollback), or begin another with --new.",
            )
        return line.run
    newest = lines[0] if lines else None
    return newest[0].run if newest and newest[0].state is RunState.DONE and newest[1].digest == loaded.digest else ""


def _log_to(path: Path) -> None:
    logger = logging.getLogger("boxshift")
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
