"""Two boxes as far as a cutover by their shared address sees them: rows of addresses that it reads and switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kit.errors import UnreachableError
from migrate.cutover.shared_ip import SharedIpCutover, SharedIpCutoverPlan
from migrate.facts import BoxAddress

SHARED = "127.0.0.87"  # nothing listens there
PLAN = SharedIpCutoverPlan(SHARED, SHARED, 18087, "127.0.0.88", 10.0)


@dataclass
class Box:
    """One of them. ``log``: what was done to any of them, in order."""

    name: str
    log: list[str]
    rows: dict[str, BoxAddress] = field(default_factory=dict)
    dead: bool = False

    def read_addresses(self) -> tuple[BoxAddress, ...]:
        if self.dead:
            raise UnreachableError(f"{self.name} does not answer.")
        return tuple(self.rows.values())

    def prepare_address(self, wanted: BoxAddress) -> Callable[[], None]:
        if self.dead:
            raise UnreachableError(f"{self.name} does not answer.")

        def change() -> None:
            self.log.append(f"{self.name} {'on' if wanted.enabled else 'off'}")
            self.rows[wanted.address] = wanted

        return change

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class TwoBoxes:
    """Old has it on, new has it off."""

    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.old, self.new = Box("old", self.log), Box("new", self.log)
        self.put(self.old, enabled=True)
        self.put(self.new, enabled=False)

    def put(self, box: Box, *, enabled: bool) -> None:
        """Somebody switches it."""
        box.rows[SHARED] = BoxAddress(SHARED, 24, enabled)

    def make(self) -> Any:
        return SharedIpCutover(PLAN, lambda: self.old, lambda: self.new)

    def read(self) -> str:
        return str((self.old.rows, self.new.rows))

    def lead_elsewhere(self) -> None:
        self.put(self.old, enabled=True)
        self.put(self.new, enabled=True)

    def make_dead(self) -> Any:
        self.old.dead = True
        return self.make()
