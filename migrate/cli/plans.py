"""``init``, ``plan`` and ``check``: everything before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migrate.cli.options import AsJson
from migrate.cli.say import console, fail, show, show_findings, show_json

if TYPE_CHECKING:
    from migrate.runbook import Runbook

PlanFile = Annotated[Path, typer.Argument(help="The plan file.")]


def register(app: typer.Typer) -> None:
    """Mount this module's commands."""
    app.command("init")(init)
    app.command("plan")(plan)
    app.command("check")(check)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write plan.yaml and secrets.yaml.")] = Path(),
    site: Annotated[str, typer.Option(help="Name of the site, such as support.example.com.")] = "support.example.com",
    old: Annotated[str, typer.Option(help="Administration address of the old box, HOST[:PORT].")] = "CHANGE-ME",
    new: Annotated[str, typer.Option(help="Administration address of the new box, HOST[:PORT].")] = "",
    image: Annotated[str, typer.Option(help="Image to provision the new box from; without it the new box stands already.")] = "",
    dns: Annotated[str, typer.Option(help="Address of the zone's primary name server.")] = "",
    upgrade: Annotated[str, typer.Option(help="Begin the plan of an upgrade of the box at this address instead, HOST[:PORT].")] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Begin a plan: reads the keys that the boxes serve, writes plan.yaml and secrets.yaml."""
    from migrate.wiring.beginning import begin, begin_upgrade

    if upgrade:
        written = begin_upgrade(folder, site=site, box=upgrade, dry_run=dry_run, say=console().print)
    else:
        written = begin(folder, site=site, old=old, new=new, image=image, dns=dns, dry_run=dry_run, say=console().print)
    if as_json:
        show_json({"plan": str(written.plan), "secrets": str(written.secrets), "pins": written.pins, "written": not dry_run})
    elif dry_run:
        show(written.text)
    else:
        show(str(written.plan))


def plan(file: PlanFile, as_json: AsJson = False) -> None:
    """Show the runbook of a plan: what would be done, in which order, and how long it takes."""
    from migrate.cli.running import warn_of_loss
    from migrate.plan_file import read_any_plan
    from migrate.wiring.procedures import make_runbook

    loaded = read_any_plan(file)
    warn_of_loss(loaded.plan)
    runbook = make_runbook(loaded)
    if as_json:
        show_json({"runbook": runbook.to_json(), "estimate_seconds": runbook.estimate(), "outage_seconds": runbook.outage()})
    else:
        show(render_runbook(runbook))


def check(file: PlanFile, as_json: AsJson = False) -> None:
    """Look at everything that the plan is about, from boxes to name servers; change nothing. Exit 3 when something blocks."""
    from kit.errors import BoxshiftError
    from migrate.checks import verify_no_blockers
    from migrate.plan_file import read_any_plan
    from migrate.wiring.checking import inspect_now

    inspection = inspect_now(read_any_plan(file), say=console().print)
    show_findings(inspection.findings)
    found = {"findings": [vars(finding) | {"severity": finding.severity.value} for finding in inspection.findings]} | inspection.summary
    try:
        verify_no_blockers(inspection.findings)
    except BoxshiftError as error:
        fail(error, as_json=as_json, more=found)
    if as_json:
        show_json(found)
    else:
        show(inspection.sentence)


def render_runbook(runbook: Runbook) -> str:
    """The runbook as a person reads it."""
    from migrate.runbook import NodeKind, Undo

    signs = {NodeKind.GATE: "gate", NodeKind.WINDOW: "window", NodeKind.SOAK: "wait", NodeKind.STEP: ""}
    undo = {Undo.NONE: "", Undo.STEP: "can be undone", Undo.IMPOSSIBLE: "NO WAY BACK"}
    lines = [f"{runbook.name} of {runbook.site}"]
    for phase in runbook.phases:
        lines.append(f"\n{phase.name}: {phase.title}")
        for node in phase.nodes:
            seconds = node.seconds or node.estimate
            marks = ", ".join(mark for mark in (signs[node.kind], undo[node.undo], "may be skipped" if node.may_skip else "") if mark)
            after = f"  after {', '.join(node.after)}" if node.after else ""
            lines.append(f"  {node.name:<22} {node.title:<52} {seconds:>7.0f} s  {marks}{after}".rstrip())
    lines.append(f"\nAbout {runbook.estimate():.0f} s without people; visitors are without service for about {runbook.outage():.0f} s.")
    return "\n".join(lines)
