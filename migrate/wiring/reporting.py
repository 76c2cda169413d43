"""Fills the report from what the engine and the steps stored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from kit.files import write_private
from kit.findings import Finding
from migrate.engine.model import NodeState, NodeStatus, RunState, RunStatus, UndoState
from migrate.facts import ApplianceFacts, Identity
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import CommonPlan, OldPlan, Plan
from migrate.report.compare import compare_facts
from migrate.report.model import (
    DecisionRow,
    EvidenceRow,
    Fate,
    LeftOutRow,
    Measurements,
    NodeNature,
    NodeOutcome,
    NodeRow,
    PhaseRow,
    PlanRow,
    Problem,
    Report,
    ReturnLine,
    ReturnPapers,
    UndoRow,
    Verdict,
)
from migrate.report.render import render_html, render_json
from migrate.runbook import NodeKind, Phase
from migrate.steps.build import Carried
from migrate.steps.inspect import Preflight
from migrate.steps.prepare import Archive
from migrate.steps.verify import Compared
from migrate.upgrade_plan import UpgradePlan, UpgradingPlan
from migrate.wiring.workspace import Workspace

T = TypeVar("T")
UNMEASURED = Measurements()
VERDICTS = {
    RunState.RUNNING: Verdict.RUNNING,
    RunState.APPROVAL: Verdict.WAITING,
    RunState.DECISION: Verdict.FAILED,
    RunState.WINDOW: Verdict.WAITING,
    RunState.SOAKING: Verdict.WAITING,
    RunState.ROLLING_BACK: Verdict.ROLLING_BACK,
    RunState.INTERRUPTED: Verdict.INTERRUPTED,
    RunState.DONE: Verdict.DONE,
    RunState.ROLLED_BACK: Verdict.ROLLED_BACK,
    RunState.ROLLBACK_INCOMPLETE: Verdict.ROLLBACK_INCOMPLETE,
    RunState.FAILED: Verdict.FAILED,
}


@dataclass(frozen=True)
class Written:
    """Where the report lies."""

    html: Path
    json: Path


def write_report(workspace: Workspace, status: RunStatus, measured: Measurements = UNMEASURED) -> Written:
    """Write ``report.html`` and ``report.json`` into the run's folder. ``measured`` is what visitors saw, where somebody watched."""
    folder = workspace.run_folder(status.run)
    plan = workspace.load_run(status.run, Path(status.runbook.plan)).plan
    report = make_report(plan, status, measured)
    written = Written(folder / "report.html", folder / "report.json")
    write_private(written.html, render_html(report).encode())
    write_private(written.json, render_json(report).encode())
    return written


def make_report(plan: CommonPlan, status: RunStatus, measured: Measurements) -> Report:
    """Everything that is known of a run."""
    reader = Reader(status)
    failed = next((node for node in status.nodes if node.state is NodeState.FAILED), None)
    ended = status.ended or max((node.ended for node in status.nodes if node.ended), default=None)
    return Report(
        site=status.runbook.site,
        run=status.run,
        runbook=status.runbook.name,
        verdict=VERDICTS[status.state],
        headline=_headline(plan, status, failed),
        tool_version=version("boxshift"),
        made_at=time.time(),
        started=status.submitted,
        ended=ended,
        problem=_problem(failed.error) if failed else None,
        plan=_plan_rows(plan, status),
        phases=tuple(_phase(phase, status) for phase in status.runbook.phases),
        findings=reader.findings(),
        facts=compare_facts(reader.old_facts(), reader.new_facts()),
        left_out=reader.left_out(),
        decisions=tuple(DecisionRow(one.kind.value, one.node, one.who, one.at, one.note) for one in status.decisions),
        undo=_undo_rows(status),
        measured=_measurements(status, measured, ended),
        papers=_papers(plan, status, reader),
    )


class Reader:
    """Reads what steps left."""

    def __init__(self, status: RunStatus) -> None:
        self._status = status

    def find(self, node: str, kind: type[T]) -> T | None:
        """The value that a node left, None where it did not get so far."""
        try:
            value = self._status.node(node).value
        except KeyError:
            return None
        inner = value.get("value") if isinstance(value, dict) else None
        return TypeAdapter(kind).validate_python(inner) if inner is not None else None

    def old_facts(self) -> ApplianceFacts | None:
        """The reading at the start: of the old box, or of the box before its upgrade."""
        return next((found for node in ("read-old", "read-box", "a-read-box") if (found := self.find(node, ApplianceFacts))), None)

    def new_facts(self) -> ApplianceFacts | None:
        """The newest reading of the new box, or of the box after its upgrade."""
        if self._is_upgrade:
            return self.find("compare", ApplianceFacts)
        compared = self._compared()
        return compared.new if compared is not None and compared.new is not None else self.find("read-new-facts", ApplianceFacts)

    def _compared(self) -> Compared | None:
        return None if self._is_upgrade else self.find("compare", Compared)

    @property
    def _is_upgrade(self) -> bool:
        return self._status.runbook.name != "migration"

    def findings(self) -> tuple[Finding, ...]:
        """Those of the inspection, of the look right before the switch, and of the comparison; each once."""
        found: list[Finding] = []
        for preflight in (self.find("judge", Preflight), self.find("blockers-live", Preflight)):
            found += preflight.findings if preflight is not None else ()
        compared = self._compared()
        found += compared.findings if compared is not None else ()
        return tuple(sorted(dict.fromkeys(found), key=lambda finding: finding.severity.rank))

    def left_out(self) -> tuple[LeftOutRow, ...]:
        """What backups do not hold, and what became of it."""
        archive, carried = self.find("archive-extras", Archive), self.find("carry-files", Carried)
        if archive is None:
            return ()
        sizes = sum(item.size for item in archive.files)
        fate = Fate.CARRIED if carried is not None else Fate.ARCHIVED
        rows = [LeftOutRow("file-store items beyond a backup's limits", fate, len(archive.files), sizes, str(archive.folder))]
        before, after = compared.counts.get("recordings", (0, 0)) if (compared := self._compared()) is not None else (0, 0)
        came = 0 < before <= after
        note = "by the data sync, and downloaded" if came else "no interface takes them back"
        fate = Fate.CARRIED if came else Fate.ARCHIVED
        rows.append(LeftOutRow("session recordings", fate, archive.recordings, None, str(archive.folder), note))
        if archive.vault_key:
            rows.append(LeftOutRow("vault encryption key", Fate.CARRIED if self._is_done("restore-vault-key") else Fate.ARCHIVED, 1))
        rows.append(
            LeftOutRow(
                "settings of /appliance: accounts, SNMP, syslog, static routes",
                Fate.BY_HAND,
                note="no backup and no interface holds them; compare the pages",
            )
        )
        rows.append(LeftOutRow("failover settings and pre-shared key", Fate.BY_HAND, note="a restore overwrites them with the backup's"))
        return tuple(rows)

    def _is_done(self, node: str) -> bool:
        return self._status.node(node).state is NodeState.DONE


def _headline(plan: CommonPlan, status: RunStatus, failed: NodeStatus | None) -> str:
    if failed is not None:
        return f"{failed.title}: {(failed.error or {}).get('sentence', 'failed')}"
    if isinstance(plan, UpgradingPlan) and status.state in {RunState.DONE, RunState.ROLLED_BACK}:
        what = "The box" if isinstance(plan, UpgradePlan) else "The pair"
        done = status.state is RunState.DONE
        return (
            f"{what} of {status.runbook.site} is upgraded as planned."
            if done
            else f"No package was installed; {what.lower()} is as it was."
        )
    if status.state is RunState.DONE:
        return f"{status.runbook.site} is served by the new box; the old one was retired as planned."
    if status.state is RunState.ROLLED_BACK:
        return f"{status.runbook.site} is served by the old box again; what the run had done is undone."
    return f"The run is {status.state.value}."


def _problem(record: Mapping[str, object] | None) -> Problem | None:
    if not record:
        return None
    return Problem(str(record.get("code", "")), str(record.get("sentence", "")), str(record.get("hint", "")))


def _plan_rows(plan: CommonPlan, status: RunStatus) -> tuple[PlanRow, ...]:
    rows = (
        PlanRow("Plan file", status.runbook.plan),
        PlanRow("SHA-256 of the plan", status.runbook.digest),
        PlanRow("Site", f"{plan.site.name}:{plan.site.port}"),
    )
    match plan:
        case Plan():
            return (*rows, *_migration_rows(plan))
        case UpgradePlan():
            return (*rows, _box_row("Box", plan.box), *_upgrade_rows(plan))
        case PairUpgradePlan():
            boxes = (_box_row("Box a", plan.a), _box_row("Box b", plan.b), PlanRow("Method", plan.method.value))
            return (*rows, *boxes, *_upgrade_rows(plan))
    return rows


def _migration_rows(plan: Plan) -> tuple[PlanRow, ...]:
    new = plan.new.machine
    return (
        PlanRow("Old box", f"{plan.old.address}:{plan.old.port}, service address {plan.old.service.visible}"),
        PlanRow("New box", f"{plan.new.address}:{plan.new.port}, service address {plan.new.service.visible}"),
        PlanRow("New machine", f"{new.name} on {new.hypervisor} from image {new.image}" if new and new.image else "stands already"),
        PlanRow("Cutover", f"{plan.cutover.method}, data: {plan.cutover.data}"),
        PlanRow("Soak, hold", f"{plan.watch.soak:.0f} s, {plan.retire.hold:.0f} s"),
    )


def _box_row(label: str, box: OldPlan) -> PlanRow:
    return PlanRow(label, f"{box.address}:{box.port}, service address {box.service.visible}")


def _upgrade_rows(plan: UpgradingPlan) -> tuple[PlanRow, ...]:
    target, window = plan.packages.target, plan.window
    hours = f"{window.opens:%H:%M} to {window.closes:%H:%M} {window.zone}, {', '.join(window.days)}" if window else "at any time"
    return (
        PlanRow("Target", f"site {target.site or 'newest'}, base {target.base or 'newest'}"),
        PlanRow("Clients", f"{plan.clients.wait.value}, at most {plan.clients.at_most / 3600:g} h"),
        PlanRow("Window", hours),
    )


def _phase(phase: Phase, status: RunStatus) -> PhaseRow:
    return PhaseRow(phase.name, phase.title, tuple(_node(status.node(node.name), status) for node in phase.nodes))


def _node(node: NodeStatus, status: RunStatus) -> NodeRow:
    planned = status.runbook.node(node.name)
    value = node.value if isinstance(node.value, dict) else {}
    evidence = value.get("evidence")
    undone = node.undo is UndoState.UNDONE
    return NodeRow(
        name=node.name,
        title=node.title,
        outcome=NodeOutcome.UNDONE if undone else NodeOutcome(node.state.value),
        nature=NodeNature(planned.kind.value),
        attempt=node.attempt,
        started=node.started,
        ended=node.ended,
        seconds=node.seconds,
        estimate=planned.seconds or planned.estimate,
        sentence=str(value.get("sentence") or ""),
        problem=_problem(node.error),
        evidence=TypeAdapter(tuple[EvidenceRow, ...]).validate_python(evidence) if evidence else (),
    )


def _undo_rows(status: RunStatus) -> tuple[UndoRow, ...]:
    return tuple(
        UndoRow(node.name, node.title, node.undo.value, node.undo_note) for node in status.nodes if node.undo is not UndoState.NOTHING
    )


def _measurements(status: RunStatus, seen: Measurements, ended: float | None) -> Measurements:
    kinds = {node.name: node.kind for node in status.runbook.nodes()}
    waiting = sum(node.seconds for node in status.nodes if kinds[node.name] is not NodeKind.STEP)
    inside = sum_inside(status)
    values = {name: getattr(seen, name) for name in seen.__dataclass_fields__}
    return Measurements(
        **values | {"seconds_total": ended - status.submitted if ended else None, "seconds_inside": inside, "seconds_waiting": waiting}
    )


def sum_inside(status: RunStatus) -> float:
    """Seconds in which at least one node was inside an appliance, a server or a hypervisor, or waited for a person or a time."""
    spells = sorted(spell for node in status.nodes for spell in _spells(node, status))
    total, until = 0.0, 0.0
    for begin, end in spells:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _spells(node: NodeStatus, status: RunStatus) -> list[tuple[float, float]]:
    if status.runbook.node(node.name).kind is not NodeKind.STEP:
        return [(node.started, node.ended)] if node.started is not None and node.ended is not None else []
    spells = node.value.get("inside") if isinstance(node.value, dict) else None
    return TypeAdapter(list[tuple[float, float]]).validate_python(spells or [])


def _papers(plan: CommonPlan, status: RunStatus, reader: Reader) -> ReturnPapers | None:
    old = reader.find("read-old", ApplianceFacts)
    if not isinstance(plan, Plan) or old is None or status.node("return-papers").state is not NodeState.DONE:
        return None
    after = reader.find("factory-reset", Identity)
    lines = (
        ReturnLine("Factory reset", f"GUID now {after.guid}" if after else "not asked for by the plan", proved=after is not None),
        ReturnLine(
            "Powered off", "the hypervisor says so" if plan.old.machine else "look at the box", proved=True if plan.old.machine else None
        ),
        ReturnLine("Pack it and attach the return label", plan.retire.carrier),
    )
    return ReturnPapers(old.identity.hostname, old.identity.serial, old.identity.guid, lines)
