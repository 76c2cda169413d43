"""The operator's desk: one run of one plan, looked at and decided on from any process."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from kit.errors import RefusedError, UsageError
from migrate.cutover.contract import CutoverState
from migrate.engine import Control, NodeState, RollbackPlan, RunLine, RunState, RunStatus
from migrate.runbook import NodeKind
from migrate.secrets import resolve_secret
from migrate.wiring.workspace import Workspace

HOLD = "hold"  # protects the old box: never shortened


@dataclass(frozen=True)
class Desk:
    """Everything that can be asked and said about ``run``."""

    workspace: Workspace
    control: Control
    run: str
    database: str = ""

    def status(self) -> RunStatus:
        """Where it is."""
        return self.control.status(self.run)

    def is_idle(self) -> bool:
        """True when no live process works on it although there is something to do."""
        return self.status().state is RunState.INTERRUPTED

    def approve(self, node: str, who: str, note: str) -> str:
        """Open a gate."""
        gate = node or self._waiting(NodeState.WAITING, NodeKind.GATE)
        self.control.approve(self.run, gate, who, note)
        return f"{gate} is approved by {who}."

    def retry(self, node: str, who: str, note: str) -> str:
        """Try again what failed."""
        done = self.control.retry(self.run, who, note, node=node or None)
        return f"{', '.join(done)}: tried again."

    def skip(self, node: str, who: str, note: str) -> str:
        """Go on without a node that failed."""
        failed = node or self._waiting(NodeState.FAILED, NodeKind.STEP)
        self.control.skip(self.run, failed, who, note)
        return f"{failed} is skipped; the report says so."

    def shorten(self, node: str, who: str, note: str) -> str:
        """End a wait now; the hold that protects the old box excepted."""
        wait = node or self._waiting(NodeState.WAITING, NodeKind.SOAK, NodeKind.WINDOW)
        if wait == HOLD:
            raise RefusedError(
                "The hold protects the old box and is not shortened.", hint="retire.hold in the plan of the next run says how long."
            )
        self.control.shorten(self.run, wait, who, note)
        return f"{wait} ends now."

    def abort(self, who: str, note: str) -> str:
        """Stop a run that waits, and undo."""
        seconds = self._restored_ttl()
        return "Stopped. " + render_rollback(self.control.abort(self.run, who, note), seconds)

    def rollback(self, who: str, note: str) -> str:
        """Undo from wherever it is; what an earlier rollback could not undo is tried again. One that was cut off goes on."""
        before = self.control.rollback_plan(self.run)
        if before.begun and self.is_idle():
            return render_rollback(before, 0.0)
        seconds = self._restored_ttl()
        return render_rollback(self.control.rollback(self.run, who, note), seconds)

    def rollback_sentence(self) -> str:
        """What a rollback would do now."""
        return render_rollback(self.control.rollback_plan(self.run), self._restored_ttl())

    def _restored_ttl(self) -> float:
        """Once the record has its long TTL back, that is how long the last visitor takes to come back."""
        node = next((node for node in self.status().nodes if node.name == "restore-ttl"), None)
        stored = node.value.get("value") if node and isinstance(node.value, dict) and node.state is NodeState.DONE else None
        return max(TypeAdapter(CutoverState).validate_python(stored).ttls, default=0) if stored else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the database."""
        self.control.close()

    def preview(self, what: str) -> str:
        """What a decision would be about."""
        if what in {"rollback", "abort"}:
            return self.rollback_sentence()
        waiting = ", ".join(self.status().waiting) or "nothing that waits"
        return f"{what} would decide on: {waiting}."

    def _waiting(self, state: NodeState, *kinds: NodeKind) -> str:
        status = self.status()
        found = [node.name for node in status.nodes if node.state is state and status.runbook.node(node.name).kind in kinds]
        if len(found) != 1:
            raise RefusedError(
                f"{self.run} has {'no node' if not found else 'several nodes'} that this could be about ({status.state.value}).",
                hint=f"Name one with --node: {', '.join(found)}" if found else "boxshift status shows where it is.",
            )
        return found[0]


def render_rollback(plan: RollbackPlan, ttl: float) -> str:
    """The way back in one sentence. ``ttl``: seconds for which visitors keep an answer beyond the time of the cutover."""
    if plan.begun:
        return f"A rollback has begun: it has yet to undo {', '.join(plan.nodes) or 'nothing'}."
    if plan.refusal:
        return f"No rollback: {plan.refusal}"
    if not plan.nodes:
        return "A rollback has nothing to undo: nothing was changed."
    seconds = plan.seconds + (ttl if "switch" in plan.nodes else 0.0)
    return f"A rollback undoes {', '.join(plan.nodes)}, in about {seconds:.0f} s."


def open_desk(place: Path, run: str, engine: str) -> Desk:
    """The desk of a plan's newest run, or of the one named.

    Raises:
        UsageError: there is no run.

    """
    workspace = Workspace.find(place)
    control = Control(find_database(workspace, engine))
    try:
        return Desk(workspace, control, run or _find_newest(workspace, control, place), engine)
    except BaseException:
        control.close()
        raise


def _find_newest(workspace: Workspace, control: Control, place: Path) -> str:
    runs = [line for line in control.runs() if workspace.run_folder(line.run).is_dir()]
    if not runs:
        raise UsageError(f"There has been no run of {place}.", hint=f"boxshift run {place}")
    return runs[0].run


def list_runs(place: Path, engine: str) -> tuple[RunLine, ...]:
    """All runs of the workspace, the newest first."""
    with closing(Control(find_database(Workspace.find(place), engine))) as control:
        return control.runs()


def find_database(workspace: Workspace, engine: str) -> str:
    """The database's URL: beside the plan, or what ``--engine`` names (directly, or by a reference to a secret)."""
    if not engine:
        return workspace.database
    if engine.startswith(("env:", "file:", "keyring:")):
        return resolve_secret(engine, base=Path(), what="the database").reveal()
    return engine
