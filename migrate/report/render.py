"""A report as one HTML page that loads nothing, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from kit.errors import UsageError
from kit.findings import Severity
from kit.secret import Secret, scrub
from migrate.report import words
from migrate.report.model import Agreement, Fate, NodeOutcome, Report, Verdict
from migrate.report.timeline import Picture, plan_picture

SCHEMA = "boxshift-report/1"
_Json: TypeAlias = "str | int | float | bool | list[_Json] | dict[str, _Json] | None"
_ADAPTER = TypeAdapter(Report)


@dataclass(frozen=True)
class _Tones:
    """Which of the four tones of the page each choice has: good, bad, warn, idle."""

    verdict: dict[Verdict, str]
    outcome: dict[NodeOutcome, str]
    severity: dict[Severity, str]
    agreement: dict[Agreement, str]
    fate: dict[Fate, str]


_TONES = _Tones(
    verdict={
        Verdict.DONE: "good",
        Verdict.RUNNING: "idle",
        Verdict.WAITING: "warn",
        Verdict.INTERRUPTED: "warn",
        Verdict.FAILED: "bad",
        Verdict.ROLLING_BACK: "warn",
        Verdict.ROLLED_BACK: "warn",
        Verdict.ROLLBACK_INCOMPLETE: "bad",
    },
    outcome={
        NodeOutcome.PENDING: "idle",
        NodeOutcome.RUNNING: "idle",
        NodeOutcome.WAITING: "warn",
        NodeOutcome.INTERRUPTED: "warn",
        NodeOutcome.DONE: "good",
        NodeOutcome.FAILED: "bad",
        NodeOutcome.SKIPPED: "warn",
        NodeOutcome.UNDONE: "idle",
    },
    severity={Severity.BLOCKER: "bad", Severity.UNVERIFIED: "warn", Severity.WARNING: "warn", Severity.NOTE: "idle"},
    agreement={Agreement.SAME: "good", Agreement.EXPECTED: "good", Agreement.DIFFERENT: "bad", Agreement.UNTOLD: "warn"},
    fate={Fate.CARRIED: "good", Fate.ARCHIVED: "good", Fate.BY_HAND: "warn", Fate.LEFT: "warn", Fate.UNTOLD: "warn"},
)


def render_html(report: Report, hide: Sequence[Secret] = ()) -> str:
    """The whole page, styles and picture inside. ``hide``: values that are masked should a foreign text have brought one in."""
    shown = _ADAPTER.validate_python(_to_json(asdict(report), hide)) if hide else report
    picture = plan_picture(shown.phases, shown.measured, shown.decisions, shown.made_at)
    page = _environment().get_template("report.html.j2")
    return page.render(
        report=shown,
        css=Markup(_css()),  # noqa: S704 - our own file, not foreign text
        tones=_TONES,
        findings=sorted(shown.findings, key=lambda finding: finding.severity.rank),
        evidence=[node for phase in shown.phases for node in phase.nodes if node.evidence],
        picture=picture,
        picture_words=_picture_words(shown),
        svg_height=_height(picture),
        outage_words=_outage_words(shown),
        share_words=_share_words(shown),
        differences=_difference_words(shown),
    )


def render_json(report: Report, hide: Sequence[Secret] = ()) -> str:
    """The same as data: one object, ``schema`` first, ASCII only, texts whole."""
    return (
        json.dumps({"schema": SCHEMA, **{name: _to_json(value, hide) for name, value in asdict(report).items()}}, indent=1, allow_nan=False)
        + "\n"
    )


def parse_report(text: str) -> Report:
    """Back from :func:`render_json`.

    Raises:
        UsageError: it is not a report of this version.

    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise UsageError("This is not a report of boxshift.", hint=f"Its first field should be schema: {SCHEMA}.")
        return _ADAPTER.validate_python(content)
    except (ValueError, ValidationError) as error:
        raise UsageError("This report cannot be read.", hint="Write it again with boxshift report.") from error


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("migrate.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["time"] = words.render_time
    environment.filters["clock"] = words.render_clock
    environment.filters["seconds"] = words.render_seconds
    environment.filters["count"] = words.render_count
    environment.filters["bytes"] = words.render_bytes
    return environment


def _finalize(value: object) -> object:
    """Every value on its way into the page: foreign texts are cleaned, positions are rounded."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.2f}"
    return words.render_text(value) if isinstance(value, str) else value


@cache
def _css() -> str:
    return files("migrate.report").joinpath("report.css").read_text(encoding="utf-8")


def _to_json(value: Any, hide: Sequence[Secret]) -> _Json:
    """Texts masked where they must be, and without lone surrogates, which no encoding has."""
    if isinstance(value, str):
        return scrub(str(value), *hide).encode("utf-8", "replace").decode()
    if isinstance(value, tuple | list):
        return [_to_json(item, hide) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item, hide) for key, item in value.items()}
    plain: _Json = value
    return plain


def _height(picture: Picture | None) -> int:
    """Of the picture, in its own units: axis, lanes, the visitors' lane."""
    if picture is None:
        return 0
    return 26 + sum(lane.rows * 10 + 8 for lane in picture.lanes) + (12 if picture.watched is None else 46)


def _outage_words(report: Report) -> str:
    outages = report.measured.outages
    if report.measured.downtime_seconds is None:
        return ""
    if not outages:
        return "no outage was seen"
    number = "one outage" if len(outages) == 1 else f"{len(outages)} outages"
    still = "; the last is not over" if not outages[-1].over else ""
    return f"{number}, each from the last good answer to the next{still}".replace("one outage, each", "one outage,")


def _share_words(report: Report) -> str:
    inside, waiting, total = report.measured.seconds_inside, report.measured.seconds_waiting, report.measured.seconds_total
    parts = []
    if inside is not None:
        parts.append(f"{words.render_seconds(inside)} inside appliances")
    if waiting is not None:
        parts.append(f"{words.render_seconds(waiting)} waiting")
    if inside is not None and total:
        parts.append(f"{words.render_seconds(max(0.0, total - inside - (waiting or 0.0)))} added by boxshift")
    return ", ".join(parts)


def _difference_words(report: Report) -> str:
    different = [row.label for row in report.facts if row.agreement is Agreement.DIFFERENT]
    untold = [row.label for row in report.facts if row.agreement is Agreement.UNTOLD]
    parts = [
        f"{len(different)} of {len(report.facts)} facts differ: {', '.join(different)}."
        if different
        else "No fact differs that should not."
    ]
    if untold:
        parts.append(f"Could not be told: {', '.join(untold)}.")
    return " ".join(parts)


def _picture_words(report: Report) -> str:
    """The picture for those who cannot see it."""
    parts = []
    for phase in report.phases:
        begun = [node for node in phase.nodes if node.started is not None]
        if begun:
            done = sum(node.outcome is NodeOutcome.DONE for node in phase.nodes)
            first = min(node.started or 0.0 for node in begun)
            parts.append(f"{phase.name} from {words.render_clock(first)}, {done} of {len(phase.nodes)} nodes done.")
    parts += [
        f"Visitors were without service from {words.render_clock(one.since)} for {words.render_seconds(one.until - one.since)}."
        for one in report.measured.outages
    ]
    return " ".join(parts)
