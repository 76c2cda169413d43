"""What a report says, as values. The caller fills it; nothing here reads a box, a database or a clock.

All times are Unix seconds, all lengths of time seconds, all sizes bytes. None means "not measured" or "could not be told", and the
report says so; it is never shown as zero or as fine. Texts may come from anywhere: they are cleaned and escaped when rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kit.findings import Finding


class Verdict(StrEnum):
    """How the run stands."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"


class NodeOutcome(StrEnum):
    """How one node stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNDONE = "undone"


class NodeNature(StrEnum):
    """What a node is: work, or one of the three kinds of waiting."""

    STEP = "step"
    GATE = "gate"
    WINDOW = "window"
    SOAK = "soak"


class Agreement(StrEnum):
    """Old against new."""

    SAME = "same"
    EXPECTED = "differs, as expected"
    DIFFERENT = "different"
    UNTOLD = "could not be told"


class Fate(StrEnum):
    """What became of something that backups do not hold."""

    CARRIED = "carried to the new box"
    ARCHIVED = "archived on this machine"
    BY_HAND = "to be done by hand"
    LEFT = "left behind"
    UNTOLD = "could not be told"


@dataclass(frozen=True)
class Problem:
    """An error as it is stored."""

    code: str
    sentence: str
    hint: str = ""


@dataclass(frozen=True)
class EvidenceRow:
    """One thing that was looked at: what, what was seen, where."""

    what: str
    seen: str
    source: str = ""


@dataclass(frozen=True)
class NodeRow:
    """One node of the runbook. ``seconds``: how long the last attempt took; ``estimate``: what the plan had said.

    ``sentence``: what it left to say. ``evidence``: what it saw.
    """

    name: str
    title: str
    outcome: NodeOutcome
    nature: NodeNature = NodeNature.STEP
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    estimate: float | None = None
    sentence: str = ""
    problem: Problem | None = None
    evidence: tuple[EvidenceRow, ...] = ()


@dataclass(frozen=True)
class PhaseRow:
    """Nodes that belong together, in the runbook's order."""

    name: str
    title: str
    nodes: tuple[NodeRow, ...]


@dataclass(frozen=True)
class PlanRow:
    """One line of the plan's summary, without secrets: a secret is named by its reference, never by its value."""

    label: str
    value: str


@dataclass(frozen=True)
class FactRow:
    """One fact of both boxes side by side; None where it was not read."""

    label: str
    old: str | None
    new: str | None
    agreement: Agreement
    note: str = ""


@dataclass(frozen=True)
class LeftOutRow:
    """Something that backups do not hold. ``count`` and ``size`` where they are known; ``where`` it lies now."""

    what: str
    fate: Fate
    count: int | None = None
    size: int | None = None
    where: str = ""
    note: str = ""


@dataclass(frozen=True)
class DecisionRow:
    """What a person decided: approve, retry, skip, shorten, abort, rollback."""

    kind: str
    node: str
    who: str
    at: float
    note: str = ""


@dataclass(frozen=True)
class UndoRow:
    """What can be, or has been, taken back. ``state`` in the engine's words."""

    node: str
    title: str
    state: str
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class OutageRow:
    """Visitors were without service from ``since`` to ``until``; ``over`` False: no good answer since. ``failures``: requests lost."""

    since: float
    until: float
    failures: int
    over: bool = True


@dataclass(frozen=True)
class Measurements:
    """What was measured. ``seconds_inside``: spent by appliances, servers and hypervisors, not by boxshift.

    ``seconds_waiting``: for people, windows and soaks. ``watched_since``, ``watched_until``: when the visitor was at work.
    """

    seconds_total: float | None = None
    seconds_inside: float | None = None
    seconds_waiting: float | None = None
    downtime_seconds: float | None = None
    requests_sent: int | None = None
    requests_lost: int | None = None
    records_written: int | None = None
    records_lost: int | None = None
    served_chain_equal: bool | None = None
    outages: tuple[OutageRow, ...] = ()
    watched_since: float | None = None
    watched_until: float | None = None


@dataclass(frozen=True)
class FigureRow:
    """One more figure, ready to be read: ``value`` with its unit, ``target`` where there is one, ``met`` None where it was not judged."""

    label: str
    value: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class ReturnLine:
    """One line of the return papers. ``proved`` None: for a person to do and tick."""

    what: str
    detail: str = ""
    proved: bool | None = None


@dataclass(frozen=True)
class ReturnPapers:
    """What goes with the old box: who it is, what was proved about it, what is left to do."""

    hostname: str
    serial: str
    guid: str
    lines: tuple[ReturnLine, ...]


@dataclass(frozen=True)
class Report:
    """Everything a report says. Empty parts are said to be empty, not left out, except ``papers`` and ``figures``.

    ``headline``: one sentence of what came out. ``rollback_seconds``: how long the way back would take now; None where there is none,
    and ``rollback_note`` says why. ``problem``: why it stopped.
    """

    site: str
    run: str
    runbook: str
    verdict: Verdict
    headline: str
    tool_version: str
    made_at: float
    started: float | None = None
    ended: float | None = None
    problem: Problem | None = None
    plan: tuple[PlanRow, ...] = ()
    phases: tuple[PhaseRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    facts: tuple[FactRow, ...] = ()
    left_out: tuple[LeftOutRow, ...] = ()
    decisions: tuple[DecisionRow, ...] = ()
    undo: tuple[UndoRow, ...] = ()
    rollback_seconds: float | None = None
    rollback_note: str = ""
    measured: Measurements = Measurements()
    figures: tuple[FigureRow, ...] = ()
    papers: ReturnPapers | None = None
