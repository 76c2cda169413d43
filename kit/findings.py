"""What a check found: the same shape in every room, so that one report shows them all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs."""

    BLOCKER = "blocker"  # nothing goes on; no flag bypasses it
    WARNING = "warning"  # a person should know before approving
    NOTE = "note"
    UNVERIFIED = "unverified"  # could not be told: never the same as fine

    @property
    def rank(self) -> int:
        """0 for the heaviest."""
        return (Severity.BLOCKER, Severity.UNVERIFIED, Severity.WARNING, Severity.NOTE).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing found. ``code`` is stable; ``subject`` names what it is about (old, new, a file, an address)."""

    code: str
    severity: Severity
    sentence: str
    hint: str = ""
    subject: str = ""
