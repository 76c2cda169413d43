"""``demo``: a whole migration, from nothing, on real machines."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from migrate.cli.say import console, show_json

ScenarioName = Literal["migration", "migrate-by-failover", "upgrade", "offline", "pair-sync", "pair-async", "nat", "shared-ip"]


def register(app: typer.Typer) -> None:
    """Mount this module's commands."""
    app.command("demo")(demo)


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where plan, secrets, journal and report are kept; default: a new folder in TMPDIR.")
    ] = None,
    scenario: Annotated[ScenarioName, typer.Option(help="Which procedure is performed.")] = "migration",
    local: Annotated[
        bool, typer.Option("--local", help="On local processes instead of virtual machines: seconds instead of minutes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes/--ask", help="Approve the gates in advance, or ask at each.")] = True,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="Put up boxes, name server and visitors, write the plan, and leave the run to you.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave both machines there afterwards.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")] = False,
) -> None:
    """Perform a whole procedure on a filled appliance, with visitors all along, and prove that nothing was lost."""
    from migrate.cli.demonstration import demonstrate, go_apart, leave_to_operator, surroundings
    from migrate.demo.play import Play, Scenario
    from migrate.demo.stage import SiteSize

    what = Scenario(scenario)
    play = Play(folder or Path(tempfile.mkdtemp(prefix="boxshift-demo-")), SiteSize(), scenario=what)
    apart = what is Scenario.NAT if local else what.needs_network
    if apart and (status := go_apart(what, by_hand=by_hand, keep=keep, local=local)) is not None:
        sys.exit(status)
    with surroundings(apart=apart and not local):
        ended = leave_to_operator(play, local=local, keep=keep) if by_hand else demonstrate(play, local=local, yes=yes, keep=keep)
    if as_json:
        show_json(ended.json)
    console().print(ended.sentence, markup=False)
    sys.exit(0 if ended.good else 4)
