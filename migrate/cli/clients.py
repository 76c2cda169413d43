"""``clients``: who has followed an update, and who has not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kit.plain import spell_out
from migrate.cli.options import AsJson, EngineUrl
from migrate.cli.say import EXIT_WAITING, show, show_json

if TYPE_CHECKING:
    from migrate.wiring.following import Following


def register(app: typer.Typer) -> None:
    """Mount this module's command."""
    app.command("clients")(clients)


def clients(
    plan: Annotated[Path, typer.Argument(help="The plan file of an upgrade, of one box or of a pair.")],
    engine: EngineUrl = "",
    as_json: AsJson = False,
) -> None:
    """Which Jump Clients have followed the update, who is missing since when, what to redo by hand. Exit 6 while some are missing."""
    from migrate.wiring.following import read_following

    found = read_following(plan, engine)
    if as_json:
        show_json(found.to_json())
    else:
        show(render_following(found))
    sys.exit(EXIT_WAITING if found.followed.missing else 0)


def render_following(found: Following) -> str:
    """As a person reads it."""
    from migrate.steps.clients import render_moment

    rate = f"{found.per_minute:.1f} a minute on average" if found.per_minute is not None else "the rate is not known"
    limit = f"at most {found.limit} at a time" if found.limit is not None else "the box names no limit"
    left = f"; about {found.minutes_left:.0f} min to go at this rate" if found.followed.missing and found.minutes_left is not None else ""
    lines = [f"{found.followed.updated} of {found.followed.expected} Jump Clients have taken {found.version}; {rate}, {limit}{left}."]
    lines += [f"  missing  {spell_out(name):<40} last seen {render_moment(seen)}" for name, seen in found.followed.missing]
    lines += [f"  lost     {spell_out(name)}" for name in found.followed.lost]
    return "\n".join([*lines, "By hand:", *(f"  {line}" for line in found.by_hand)])
