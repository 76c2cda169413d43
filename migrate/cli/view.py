"""What a person sees while a run goes on: a live list at a terminal, plain lines in a pipe."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kit.plain import spell_out
from migrate.cli.say import console, plain
from migrate.engine.model import Event, EventKind

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

    from migrate.runbook import Phase, Runbook

SIGNS = {
    "done": "[green]✔[/]",
    "failed": "[red]✘[/]",
    "waiting": "[yellow]⏸[/]",
    "skipped": "[yellow]↷[/]",
    "undone": "[cyan]↩[/]",
    "undo failed": "[red]✘[/]",
    "not undone": "[red]✘[/]",
}


ENDS = {"done", "failed", "skipped", "undone", "undo failed", "not undone"}


@dataclass
class Row:
    """What is shown of one node."""

    state: str = "pending"
    started: float = 0.0
    seconds: float = 0.0
    text: str = ""


class View:
    """Draws one run. Threads of the engine call :meth:`on_event`; the drawing itself is rich's."""

    def __init__(self, runbook: Runbook) -> None:
        self._runbook = runbook
        self._rows = {node.name: Row() for node in runbook.nodes()}
        self._lock = threading.Lock()
        self._console = console()
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=False) if live else None
        self._start = time.time()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pause()

    def pause(self) -> None:
        """Leave the screen to a prompt."""
        if self._live is not None:
            self._live.stop()

    def resume(self) -> None:
        """Draw again."""
        if self._live is not None:
            self._live.start()

    def show_finished(self, name: str, state: str, seconds: float, text: str) -> None:
        """A node that ended before this view began."""
        row = self._rows[name]
        row.state, row.seconds, row.text = state, seconds, text

    def on_event(self, event: Event) -> None:
        """Take one thing that happened."""
        row = self._rows.get(event.node)
        if row is None:
            return
        with self._lock:
            before = (row.state, row.text)
            _apply(row, event)
        if self._live is None and event.kind is not EventKind.PROGRESS and (row.state, row.text) != before:
            self._say_line(event.node, row)

    def _say_line(self, name: str, row: Row) -> None:
        node = self._runbook.node(name)
        ended = row.state in ENDS
        seconds = f" {row.seconds:.1f} s" if ended and row.seconds else ""
        self._console.print(
            f"{time.time() - self._start:7.1f}  {name:<22} {row.state}{seconds}  {plain(row.text if ended else node.title)}"
        )

    def _render(self) -> RenderableType:
        with self._lock:
            return Group(*(part for phase in self._runbook.phases for part in self._render_phase(phase)))

    def _render_phase(self, phase: Phase) -> list[RenderableType]:
        rows = [self._rows[node.name] for node in phase.nodes]
        if all(row.state == "pending" for row in rows):
            return [Text.from_markup(f"[dim]  {phase.name}: {plain(phase.title)}[/]")]
        done = all(row.state in {"done", "skipped"} for row in rows)
        heading = Text.from_markup(f"[{'green' if done else 'bold'}]{'✔' if done else '▸'} {phase.name}[/]: {plain(phase.title)}")
        if done:
            return [heading]
        table = Table.grid(padding=(0, 1))
        for node, row in zip(phase.nodes, rows, strict=True):
            if row.state != "pending":
                table.add_row("  ", _sign(row), plain(node.title), _seconds(row), Text(spell_out(_clip(row.text)), style="dim"))
        return [heading, table]


def _apply(row: Row, event: Event) -> None:
    match event.kind:
        case EventKind.STARTED:
            row.state, row.started, row.text = "running", event.at, ""
        case EventKind.PROGRESS:
            row.text = event.text if event.total is None or event.done is None else f"{event.text}: {event.done:.0f} of {event.total:.0f}"
        case EventKind.WAITING:
            row.state, row.started, row.text = "waiting", event.at, event.text
        case EventKind.UNDOING:
            row.state, row.started, row.text = "undoing", event.at, event.text
        case EventKind.UNDONE:
            row.state, row.text = str(event.facts.get("state", "undone")), event.text
            row.seconds = event.at - row.started if row.started else 0.0
        case EventKind.ENDED:
            row.state = str(event.facts.get("state", "done"))
            row.seconds = event.at - row.started if row.started else 0.0
            row.text = event.text
        case EventKind.RUN:
            pass


def _sign(row: Row) -> RenderableType:
    if row.state in {"running", "undoing"}:
        return Spinner("dots")
    return Text.from_markup(SIGNS.get(row.state, " "))


def _seconds(row: Row) -> str:
    seconds = time.time() - row.started if row.state in {"running", "waiting", "undoing"} and row.started else row.seconds
    return f"{seconds:6.1f} s"


def _clip(text: str, most: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
