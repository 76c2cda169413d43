"""``run``, ``status``, ``runs`` and ``report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migrate.cli.options import AsJson, EngineUrl, PlanOrFolder, RunName, engine_option
from migrate.cli.say import console, exit_code_of_run, show, show_json

if TYPE_CHECKING:
    from migrate.engine.model import RunStatus

Yes = Annotated[bool, typer.Option("--yes", help="Approve every gate in advance.")]
Anew = Annotated[bool, typer.Option("--new", help="Begin a new run even though an earlier one has not ended, or is done.")]


def register(app: typer.Typer) -> None:
    """Mount this module's commands."""
    for command in (run, upgrade, status, runs, report):
        app.command(command.__name__)(command)


def run(
    plan: Annotated[Path, typer.Argument(help="The plan file.")],
    yes: Yes = False,
    anew: Anew = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runbook, do nothing.")] = False,
    engine: EngineUrl = "",
    as_json: AsJson = False,
) -> None:
    """Run a plan, or go on with its run that was interrupted. Exit 6 when it waits for a person who is not here."""
    from migrate.cli.plans import plan as show_plan
    from migrate.cli.running import run_plan

    if dry_run:
        show_plan(plan, as_json)
        return
    ended = run_plan(plan, engine=engine, yes=yes, anew=anew)
    if as_json:
        show_json(to_json(ended))
    sys.exit(exit_code_of_run(ended))


def upgrade(
    plan: Annotated[Path, typer.Argument(help="The plan file of an upgrade (`procedure: upgrade`).")],
    yes: Yes = False,
    anew: Anew = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the path and the runbook, do nothing.")] = False,
    pair: Annotated[str, typer.Option(help="sync or async: only if the plan upgrades a failover pair by this method.")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Only if the plan takes the packages from a folder.")] = False,
    engine: EngineUrl = "",
    as_json: AsJson = False,
) -> None:
    """Upgrade a box package by package, in its windows, waiting for its clients. The same as `run` with the plan of an upgrade."""
    from migrate.wiring.procedures import verify_upgrade

    verify_upgrade(plan, pair=pair, offline=offline)
    run(plan, yes, anew, dry_run, engine, as_json)


def status(plan: PlanOrFolder = Path(), run: RunName = "", engine: EngineUrl = "", as_json: AsJson = False) -> None:
    """Where a run is, from any terminal, while it goes on or after."""
    from migrate.wiring.desk import open_desk

    with open_desk(plan, run, engine) as desk:
        now, way_back = desk.status(), desk.rollback_sentence()
    if as_json:
        show_json(to_json(now) | {"rollback": way_back, "next": render_next(now, engine)})
    else:
        show(render_status(now))
        show("\n".join(filter(None, (render_next(now, engine), way_back))))


def runs(plan: PlanOrFolder = Path(), engine: EngineUrl = "", as_json: AsJson = False) -> None:
    """All runs of a plan, the newest first."""
    from migrate.wiring.desk import list_runs

    lines = list_runs(plan, engine)
    if as_json:
        show_json({"runs": [vars(line) for line in lines]})
    for line in [] if as_json else lines:
        show(f"{line.run:<40} {line.site:<30} {line.state.value}")


def report(plan: PlanOrFolder = Path(), run: RunName = "", engine: EngineUrl = "", as_json: AsJson = False) -> None:
    """Write the report of a run (HTML and JSON) and say where it is."""
    from migrate.wiring.desk import open_desk
    from migrate.wiring.reporting import write_report

    with open_desk(plan, run, engine) as desk:
        written = write_report(desk.workspace, desk.status())
    if as_json:
        show_json({"report": str(written.html), "json": str(written.json)})
    else:
        show(str(written.html))


def to_json(status: RunStatus) -> dict[str, object]:
    """The status as small JSON; the runbook is left out, its nodes are all there."""
    from pydantic import TypeAdapter

    dumped: dict[str, object] = TypeAdapter(type(status)).dump_python(status, mode="json", exclude={"runbook"})
    return dumped


def render_status(status: RunStatus) -> str:
    """The run in words: state, then every node that has begun."""
    lines = [f"{status.run}: {status.state.value}" + (f" ({status.worker})" if status.worker else "")]
    if status.note:
        lines.append(status.note)
    for node in status.nodes:
        if node.state.value == "pending":
            continue
        said = node.value.get("sentence", "") if isinstance(node.value, dict) else node.progress
        error = node.error.get("sentence", "") if node.error else ""
        hint = f" → {node.error['hint']}" if node.error and node.error.get("hint") else ""
        lines.append(f"  {node.phase:<8} {node.name:<22} {node.state.value:<12} {node.seconds:7.1f} s  {error or said}{hint}")
        if node.undo.value not in {"nothing to undo", "can be undone"}:
            lines.append(f"  {'':<8} {'':<22} {node.undo.value}{': ' if node.undo_note else ''}{node.undo_note}")
    return "\n".join(lines)


def render_next(status: RunStatus, engine: str = "") -> str:
    """What leads on from a run that stands: the command, to be typed as it is. Empty where nothing has to be typed."""
    from migrate.engine.model import RunState

    at = f"{shlex.quote(status.runbook.plan)}{engine_option(engine)}"
    match status.state:
        case RunState.INTERRUPTED:
            return f"It goes on where it was cut off with: boxshift run {at}"
        case RunState.APPROVAL:
            return f"It goes on with: boxshift approve {at} --node {status.waiting[0]}"
        case RunState.DECISION if any(_is_judged(status, name) for name in status.waiting):
            return f"Nothing was changed. Once it is mended: boxshift rollback {at}, then boxshift run {at}, which reads everything anew."
        case RunState.DECISION:
            skip = f", or without it with: boxshift skip {at}" if all(status.runbook.node(name).may_skip for name in status.waiting) else ""
            return f"Once it is mended, it goes on with: boxshift retry {at}{skip}"
        case RunState.ROLLBACK_INCOMPLETE:
            return f"Once it is mended, what was not undone is tried again with: boxshift rollback {at}"
        case _:
            return ""


def _is_judged(status: RunStatus, name: str) -> bool:
    """Whether a node failed over what was found when the run had only read: tried again, it would judge the same again."""
    inspect = {node.name for node in status.runbook.phases[0].nodes}
    return name in inspect and (status.node(name).error or {}).get("code") == "blocked"


def say_status(status: RunStatus) -> None:
    """The same on standard error."""
    console().print(render_status(status), markup=False)
