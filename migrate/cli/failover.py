"""``boxshift failover``: a pair of boxes, looked at and acted on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kit.errors import RefusedError
from kit.plain import spell_out
from migrate.cli.options import AsJson
from migrate.cli.say import show, show_findings, show_json

if TYPE_CHECKING:
    from migrate.pair_checks import PairFacts
    from migrate.wiring.pairs import Pair

app = typer.Typer(name="failover", help="A failover pair: look, sync, break, establish, swap.", no_args_is_help=True, rich_markup_mode=None)
Plan = Annotated[Path, typer.Argument(help="The plan file of a pair (`procedure: pair`), or of a migration by failover.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Look at both boxes, say what would be done, and do nothing.")]


@app.command("status")
def status(plan: Plan, as_json: AsJson = False) -> None:
    """Roles, data syncs, shared addresses and versions of both boxes. Exit 3 when something stands against using them as a pair."""
    _tell(_open(plan).read(), as_json=as_json)


@app.command("sync")
def sync(plan: Plan, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Sync now, and wait for the real end of it."""
    _act(plan, "A data sync is begun on the primary and waited for.", lambda pair: pair.sync(), dry_run=dry_run, as_json=as_json)


@app.command("break")
def end(plan: Plan, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Break the relationship on both boxes. Nothing else is lost; until it is established again there is no failover."""
    what = "The failover relationship is ended on both boxes."
    _act(plan, what, lambda pair: pair.end(), ask=not yes, dry_run=dry_run, as_json=as_json)


@app.command("establish")
def establish(
    plan: Plan,
    primary: Annotated[Literal["a", "b"], typer.Option(help="Which box is to be the primary.")] = "a",
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set the key on both, tick the shared addresses, establish the relationship, and sync. What the other box holds is overwritten."""
    other = "b" if primary == "a" else "a"
    what = f"{primary} becomes the primary, {other} its backup; the site on {other} is OVERWRITTEN by the data sync."
    _act(plan, what, lambda pair: pair.establish(primary), ask=not yes, dry_run=dry_run, as_json=as_json)


@app.command("swap")
def swap(
    plan: Plan,
    primary: Annotated[
        Literal["a", "b"] | None,
        typer.Option(help="Which box is to be the primary; nothing is done where it is already. Default: the backup."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the backup the primary, after a data sync. Visitors are without service while the roles change."""
    what = f"{primary} becomes the primary after a data sync." if primary else "The roles are swapped after a data sync."
    _act(plan, what, lambda pair: pair.promote(primary) if primary else pair.swap(), ask=not yes, dry_run=dry_run, as_json=as_json)


@app.command("resolve")
def resolve(plan: Plan, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Where both boxes have the same role, let them decide which keeps it, as their page offers."""
    _act(plan, "The boxes decide which of them keeps the role.", lambda pair: pair.resolve(), ask=not yes, dry_run=dry_run, as_json=as_json)


def _open(plan: Path) -> Pair:
    from migrate.cli.demonstration import Lines
    from migrate.plan_file import read_any_plan
    from migrate.wiring.pairs import make_pair

    return make_pair(read_any_plan(plan), Lines("failover"))


def _act(plan: Path, what: str, act: Callable[[Pair], PairFacts], *, ask: bool = False, dry_run: bool, as_json: bool) -> None:
    pair = _open(plan)
    if dry_run:
        show(what)
        _tell(pair.read(), as_json=as_json)
        return
    if ask:
        _ask(what)
    _tell(act(pair), as_json=as_json)


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise RefusedError(f"{what} Nobody is at the terminal to agree.", hint="--yes agrees in advance.")
    if not typer.confirm(f"{what} Go on?", err=True):
        raise RefusedError("Nothing was done.")


def _tell(pair: PairFacts, *, as_json: bool) -> None:
    from pydantic import TypeAdapter

    from migrate.checks import BlockedError, verify_no_blockers
    from migrate.pair_checks import check_pair

    findings = check_pair(pair)
    if as_json:
        found = TypeAdapter(type(pair)).dump_python(pair, mode="json")
        show_json(found | {"state": pair.state, "findings": [vars(one) | {"severity": one.severity.value} for one in findings]})
    else:
        show(render_pair(pair))
        show_findings(findings)
    try:
        verify_no_blockers(findings)
    except BlockedError:
        sys.exit(3)


def render_pair(pair: PairFacts) -> str:
    """As a person reads it."""
    lines = [f"The pair: {pair.state}."]
    for name, half in pair.halves():
        facts = half.failover
        shared = ", ".join(f"{row.address}{' (here)' if row.enabled else ''}" for row in facts.shared if row.shared) or "nothing"
        lines += [
            f"{name}  {spell_out(half.identity.hostname)}: {facts.role.value}, site {half.site.version} on base {half.base.version}",
            f"   shares {shared}; last data sync: {facts.sync.value} {spell_out(facts.sync_note)}".rstrip(),
        ]
    lines += [f"{name}  could not be read: {spell_out(note)}" for name, note in pair.notes.items()]
    return "\n".join(lines)
