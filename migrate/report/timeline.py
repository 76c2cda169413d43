"""Where things stand on the timeline: times become positions. Long waits in which no work was done are drawn short, and marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrate.report.model import DecisionRow, Measurements, NodeNature, NodeOutcome, NodeRow, PhaseRow

WAIT_SHARE = 0.06  # of the picture's width, for a wait that is drawn short
WAIT_FACTOR = 0.25  # a wait is drawn short where it is longer than this part of all work


@dataclass(frozen=True)
class Bar:
    """A stretch of time in percent of the width. Bars of one lane that overlap stand in different rows, from 0 down."""

    row: int
    left: float
    width: float
    outcome: NodeOutcome
    nature: NodeNature
    label: str


@dataclass(frozen=True)
class Lane:
    """One phase with the bars of its nodes."""

    name: str
    title: str
    bars: tuple[Bar, ...]

    @property
    def rows(self) -> int:
        return max((bar.row for bar in self.bars), default=0) + 1


@dataclass(frozen=True)
class Mark:
    """A moment, or a short-drawn wait around it."""

    left: float
    width: float
    label: str


@dataclass(frozen=True)
class Picture:
    """Everything the timeline draws; all positions in percent of the width."""

    lanes: tuple[Lane, ...]
    ticks: tuple[Mark, ...]
    breaks: tuple[Mark, ...]
    outages: tuple[Mark, ...]
    decisions: tuple[Mark, ...]
    watched: Mark | None


class Scale:
    """Maps times to percent. Built from stretches ``(from, to, weight)`` that follow one another."""

    def __init__(self, stretches: Sequence[tuple[float, float, float]]) -> None:
        self._stretches = tuple(stretches)
        self._whole = sum(weight for _, _, weight in stretches) or 1.0

    def place(self, at: float) -> float:
        """Percent from the left; times outside are put on the edge."""
        seen = 0.0
        for begin, end, weight in self._stretches:
            if at < end:
                part = (at - begin) / (end - begin) if at > begin else 0.0
                return 100 * (seen + weight * part) / self._whole
            seen += weight
        return 100.0


def plan_picture(phases: Sequence[PhaseRow], measured: Measurements, decisions: Sequence[DecisionRow], now: float) -> Picture | None:
    """The timeline; None where nothing has begun. ``now`` ends what is still running."""
    spans = [(node.started, _end(node, now), node) for phase in phases for node in phase.nodes if node.started is not None]
    if not spans:
        return None
    begin, end = min(start for start, _, _ in spans), max(stop for _, stop, _ in spans)
    end = max(end, begin + 0.001)
    work = _merge([(start, stop) for start, stop, node in spans if node.nature is NodeNature.STEP and stop > start])
    scale, waits = _scale(begin, end, work)
    return Picture(
        lanes=tuple(_lane(phase, scale, now) for phase in phases),
        ticks=_ticks(begin, end, scale, waits),
        breaks=tuple(_mark(scale, start, stop, _length(stop - start)) for start, stop in waits),
        outages=tuple(_mark(scale, one.since, one.until, _length(one.until - one.since)) for one in measured.outages if one.until >= begin),
        decisions=tuple(_mark(scale, one.at, one.at, f"{one.kind} {one.node}".strip()) for one in decisions if begin <= one.at <= end),
        watched=_watched(scale, measured, begin, end),
    )


def _watched(scale: Scale, measured: Measurements, begin: float, end: float) -> Mark | None:
    """When a visitor watched; None where none did. Without times it is taken for the whole run."""
    if measured.requests_sent is None:
        return None
    since = begin if measured.watched_since is None else measured.watched_since
    until = end if measured.watched_until is None else measured.watched_until
    return _mark(scale, since, until, "visitors")


def _end(node: NodeRow, now: float) -> float:
    started = node.started or 0.0
    if node.ended is not None:
        return max(node.ended, started)
    return max(now, started) if node.outcome in (NodeOutcome.RUNNING, NodeOutcome.WAITING) else started + (node.seconds or 0.0)


def _merge(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _scale(begin: float, end: float, work: list[tuple[float, float]]) -> tuple[Scale, list[tuple[float, float]]]:
    """The scale, and the waits that it draws short."""
    total = sum(stop - start for start, stop in work)
    edges = [begin, *(edge for span in work for edge in span), end]
    gaps = [(start, stop) for start, stop in list(pairwise(edges))[::2] if stop > start]
    waits = [(start, stop) for start, stop in gaps if total > 0 and stop - start > WAIT_FACTOR * total]
    rest = (end - begin) - sum(stop - start for start, stop in waits)
    stretches: list[tuple[float, float, float]] = []
    at = begin
    for start, stop in waits:
        if start > at:
            stretches.append((at, start, start - at))
        stretches.append((start, stop, WAIT_SHARE * rest))
        at = stop
    if end > at:
        stretches.append((at, end, end - at))
    return Scale(stretches), waits


def _lane(phase: PhaseRow, scale: Scale, now: float) -> Lane:
    bars: list[Bar] = []
    ends: list[float] = []  # for each row, where its last bar ends
    for node in sorted((node for node in phase.nodes if node.started is not None), key=lambda node: node.started or 0.0):
        start, stop = node.started or 0.0, _end(node, now)
        row = next((number for number, end in enumerate(ends) if end <= start), len(ends))
        ends[row : row + 1] = [stop]
        mark = _mark(scale, start, stop, f"{node.title}: {node.outcome}, {_length(stop - start)}")
        bars.append(Bar(row, mark.left, mark.width, node.outcome, node.nature, mark.label))
    return Lane(phase.name, phase.title, tuple(bars))


def _mark(scale: Scale, start: float, stop: float, label: str) -> Mark:
    left, right = scale.place(start), scale.place(stop)
    return Mark(round(left, 3), round(right - left, 3), label)


def _ticks(begin: float, end: float, scale: Scale, waits: list[tuple[float, float]]) -> tuple[Mark, ...]:
    """Elapsed time at round steps, none inside a wait that is drawn short, none too close to the one before."""
    shown = (end - begin) - sum(stop - start for start, stop in waits)
    steps = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
    step = next((one for one in steps if shown / one <= 8), steps[-1])
    ticks: list[Mark] = []
    stretches = [begin, *(edge for wait in waits for edge in wait), end]
    for start, stop in list(pairwise(stretches))[::2]:
        number = -int(-(start - begin) // step)
        while begin + number * step <= stop and len(ticks) < 100:
            mark = _mark(scale, begin + number * step, begin + number * step, _length(number * step))
            if not ticks or mark.left - ticks[-1].left >= 7:
                ticks.append(mark)
            number += 1
    return tuple(ticks)


def _length(seconds: float) -> str:
    """``30 s``, ``2.5 min``, ``1 h 04 min``, ``3 d 04 h``: short, for a picture."""
    if seconds >= 86400:
        return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:02.0f} h".removesuffix(" 00 h")
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min".removesuffix(" 00 min")
    if seconds >= 60:
        return f"{seconds / 60:.1f}".removesuffix(".0") + " min"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
