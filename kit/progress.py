"""How long work tells a person where it is: a port that the command line fills with bars, and tests with lists."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes one line at a time. ``done`` and ``total`` are in whatever unit ``label`` implies; ``total`` None where it is not known."""

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        """Drop it."""
