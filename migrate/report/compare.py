"""Facts of two boxes side by side, in an operator's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from migrate.facts import ApplianceFacts, FileItem, Version
from migrate.report.model import Agreement, FactRow


class Rule(StrEnum):
    """What is right of two boxes' values."""

    EQUAL = "equal"
    OWN = "own"  # each box has its own: being equal is what would be wrong
    FREE = "free"  # may be equal or not
    COVERS = "covers"  # the new box has everything that the old one has, perhaps more


@dataclass(frozen=True)
class _Row:
    """How one row is read, and judged."""

    label: str
    read: Callable[[ApplianceFacts], str | None]
    rule: Rule = Rule.EQUAL
    note: str = ""


def compare_facts(old: ApplianceFacts | None, new: ApplianceFacts | None) -> tuple[FactRow, ...]:
    """Every fact of either box; what was not read of one is said to be so."""
    return tuple(_compare(row, old, new) for row in _ROWS)


def _compare(row: _Row, old: ApplianceFacts | None, new: ApplianceFacts | None) -> FactRow:
    one = row.read(old) if old is not None else None
    other = row.read(new) if new is not None else None
    return FactRow(row.label, one, other, judge(one, other, row.rule), row.note)


def judge(old: str | None, new: str | None, rule: Rule = Rule.EQUAL) -> Agreement:
    """How two values stand to each other; None (not read) is never equal to anything."""
    if old is None or new is None:
        return Agreement.UNTOLD
    if rule is Rule.OWN:
        return Agreement.EXPECTED if old != new else Agreement.DIFFERENT
    if old == new:
        return Agreement.SAME
    covered = rule is Rule.COVERS and set(old.split(", ")) <= set(new.split(", "))
    return Agreement.EXPECTED if covered or rule is Rule.FREE else Agreement.DIFFERENT


def _version(version: Version) -> str | None:
    return f"{version.version} (build {version.build})" if version.version else "nothing installed"


def _count(items: Sequence[object] | None) -> str | None:
    return None if items is None else f"{len(items):,}"


def _files(files: tuple[FileItem, ...] | None) -> str | None:
    return None if files is None else f"{len(files):,} with {sum(one.size for one in files):,} bytes"


def _names(facts: ApplianceFacts) -> str:
    return ", ".join(sorted({row.issued_to for row in facts.certificates})) or "none"


def _warnings(facts: ApplianceFacts) -> str:
    return "; ".join(warning for row in facts.certificates for warning in row.warnings) or "none"


def _addresses(facts: ApplianceFacts) -> str:
    return ", ".join(f"{one.address}/{one.prefix}{'' if one.enabled else ' (disabled)'}" for one in facts.addresses) or "none"


_ROWS = (
    _Row("Site", lambda facts: facts.site_name),
    _Row("Site software", lambda facts: _version(facts.site)),
    _Row("Base software", lambda facts: _version(facts.base)),
    _Row("Health", lambda facts: "healthy" if facts.healthy else f"not healthy: {facts.health_note}"),
    _Row("Users", lambda facts: _count(facts.content.users)),
    _Row("Finished sessions", lambda facts: _count(facts.content.sessions)),
    _Row("Session recordings", lambda facts: _count(facts.content.recordings), Rule.FREE, "Backups do not hold recordings; see below."),
    _Row("File store", lambda facts: _files(facts.content.files)),
    _Row("Jump Clients", lambda facts: _count(facts.content.jump_clients)),
    _Row("Certificates", _names, Rule.COVERS),
    _Row("Warnings on certificates", _warnings),
    _Row("Failover role", lambda facts: facts.failover_role),
    _Row("Appliance GUID", lambda facts: facts.identity.guid, Rule.OWN),
    _Row("Serial number", lambda facts: facts.identity.serial, Rule.OWN),
    _Row("Addresses", _addresses, Rule.FREE),
)
