"""What a person decides while a run waits: from any terminal, recorded with who and when."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migrate.cli.options import AsJson, EngineUrl, PlanOrFolder, RunName
from migrate.cli.say import console, exit_code_of_run, show, show_json

if TYPE_CHECKING:
    from migrate.engine.model import RunStatus
    from migrate.wiring.desk import Desk

NodeName = Annotated[str, typer.Option("--node", help="The node; default: the one that waits.")]
Note = Annotated[str, typer.Option("--note", help="Why; kept in the report.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be decided, decide nothing.")]


def register(app: typer.Typer) -> None:
    """Mount this module's commands."""
    for command in (approve, retry, skip, shorten, abort, rollback):
        app.command(command.__name__)(command)


def approve(
    plan: PlanOrFolder,
    run: RunName = "",
    node: NodeName = "",
    note: Note = "",
    engine: EngineUrl = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Open the gate that waits."""
    _decide(plan, run, engine, "approve", lambda desk: desk.approve(node, getpass.getuser(), note), dry_run, as_json)


def retry(
    plan: PlanOrFolder,
    run: RunName = "",
    node: NodeName = "",
    note: Note = "",
    engine: EngineUrl = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try the failed node again; secrets are read anew, so a corrected password counts."""
    _decide(plan, run, engine, "retry", lambda desk: desk.retry(node, getpass.getuser(), note), dry_run, as_json)


def skip(
    plan: PlanOrFolder,
    run: RunName = "",
    node: NodeName = "",
    note: Note = "",
    engine: EngineUrl = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go on without the failed node, where the runbook allows that."""
    _decide(plan, run, engine, "skip", lambda desk: desk.skip(node, getpass.getuser(), note), dry_run, as_json)


def shorten(
    plan: PlanOrFolder,
    run: RunName = "",
    node: NodeName = "",
    note: Note = "",
    engine: EngineUrl = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End a wait now (a soak or a window; never the hold that protects the old box)."""
    _decide(plan, run, engine, "shorten", lambda desk: desk.shorten(node, getpass.getuser(), note), dry_run, as_json)


def abort(
    plan: PlanOrFolder, run: RunName = "", note: Note = "", engine: EngineUrl = "", dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Stop the run and undo what it did."""
    _decide(plan, run, engine, "abort", lambda desk: desk.abort(getpass.getuser(), note), dry_run, as_json)


def rollback(
    plan: PlanOrFolder, run: RunName = "", note: Note = "", engine: EngineUrl = "", dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Lead back to the old box in service; says first how many seconds that takes. Possible until the factory reset begins."""
    _decide(plan, run, engine, "rollback", lambda desk: desk.rollback(getpass.getuser(), note), dry_run, as_json)


def _decide(plan: Path, run: str, engine: str, what: str, act: Callable[[Desk], str], dry_run: bool, as_json: bool) -> None:
    from migrate.wiring.desk import open_desk

    with open_desk(plan, run, engine) as desk:
        sentence = desk.preview(what) if dry_run else act(desk)
        if not as_json:
            show(sentence)
        ended = _carry_out(desk) if not dry_run and desk.is_idle() else None
        if as_json:
            state = ended.state if ended else desk.status().state
            show_json({"run": desk.run, "decision": what, "done": not dry_run, "sentence": sentence, "state": state.value})
    if ended:
        sys.exit(exit_code_of_run(ended))


def _carry_out(desk: Desk) -> RunStatus:
    """Nobody works on the run: this process does, so that what was decided also happens."""
    from migrate.cli.running import run_loaded

    console().print(f"No process works on {desk.run}; this one goes on with it.")
    plan = Path(desk.status().runbook.plan)
    loaded = desk.workspace.load_run(desk.run, plan)
    engine = desk.database
    desk.control.close()
    return run_loaded(loaded, engine=engine, run=desk.run)
