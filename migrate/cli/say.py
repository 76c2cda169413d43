"""How the command line speaks: results on standard output, everything else on standard error. Only the cli prints."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NoReturn

from kit.errors import BoxshiftError, ChangedError, FailedError, RefusedError, UsageError, WaitingError
from kit.plain import spell_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from kit.findings import Finding
    from migrate.engine.model import RunStatus

EXIT_WAITING = 6
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
_EXITS: tuple[tuple[type[BoxshiftError], int], ...] = (
    (UsageError, 2),
    (RefusedError, 3),
    (FailedError, 4),
    (ChangedError, 5),
    (WaitingError, EXIT_WAITING),
)
STYLES = {"blocker": "bold red", "unverified": "magenta", "warning": "yellow", "note": "dim"}


def exit_code(error: BoxshiftError) -> int:
    """The documented exit code of an error."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_BUG)


def exit_code_of(record: object) -> int:
    """The same for an error that was stored."""
    from kit.errors import from_record

    return exit_code(from_record(record)) if isinstance(record, dict) else EXIT_BUG


def exit_code_of_run(status: RunStatus) -> int:
    """0 done (or rolled back as asked), the failed node's own code, 6 where a person has to decide."""
    from migrate.engine.model import NodeState, RunState

    if status.state in {RunState.DONE, RunState.ROLLED_BACK}:
        return 0
    failed = next((node for node in status.nodes if node.state is NodeState.FAILED), None)
    if failed is not None:
        return exit_code_of(failed.error)
    return EXIT_WAITING if not status.state.ended else 4


def console() -> Console:
    """Standard error, with colour where that is wanted (NO_COLOR and pipes are respected)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_json(value: object) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def show(text: str) -> None:
    """A line of result on standard output."""
    sys.stdout.write(text + "\n")


def plain(text: str) -> str:
    """Text that may hold what a box or a file said, safe for a terminal and for markup."""
    from rich.markup import escape

    return escape(spell_out(text, keep="\n"))


def show_error(error: BoxshiftError) -> None:
    """A sentence, its details, and what to do next."""
    out = console()
    out.print(f"[bold red]boxshift:[/] {plain(error.sentence)}")
    for line in str(error.facts.get("faults", "")).splitlines():
        out.print(f"  {plain(line)}")
    if error.hint:
        out.print(f"  [cyan]→[/] {plain(error.hint)}")


def show_findings(findings: Sequence[Finding]) -> None:
    """All findings, the heaviest first."""
    out = console()
    for finding in sorted(findings, key=lambda one: one.severity.rank):
        style = STYLES[finding.severity.value]
        out.print(f"[{style}]{finding.severity.value:>10}[/]  {plain(finding.sentence)} [dim]({finding.code})[/]")
        if finding.hint:
            out.print(f"            [cyan]→[/] {plain(finding.hint)}")


def fail(error: BoxshiftError, *, as_json: bool = False, more: Mapping[str, object] | None = None) -> NoReturn:
    """Say the error and leave with its exit code. ``more`` stands beside it in the JSON object."""
    show_error(error)
    if as_json:
        show_json({**(more or {}), "error": error.to_record()})
    sys.exit(exit_code(error))
