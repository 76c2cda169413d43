"""Cutover by one address that the old box has first and the new box afterwards: no record and no gateway changes.

It is off at one box before it is on at the other, so that they are never both sent what visitors send.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Protocol

from kit.errors import ChangedError, FailedError, RefusedError, UnreachableError
from migrate.cutover.contract import Change, CutoverState, Side, Witness
from migrate.cutover.instant import InstantCutover
from migrate.facts import BoxAddress

ANSWER_SECONDS = 10.0


class SharedAddressStateError(RefusedError):
    """The shared address is not where a switch needs it."""

    code = "shared-address"


class SharedAddressChangedError(ChangedError):
    """Somebody else switched the shared address on or off."""

    code = "shared-address-changed"


class Holder(Protocol):
    """What is needed of a box."""

    def read_addresses(self) -> Sequence[BoxAddress]: ...

    def prepare_address(self, wanted: BoxAddress) -> Callable[[], None]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SharedIpCutoverPlan:
    """``address``: as the boxes name it; ``entrance`` and ``port``: where visitors reach it; ``new`` stands for the new box."""

    address: str
    entrance: str
    port: int
    new: str
    seconds: float


class SharedIpCutover(InstantCutover):
    """Both boxes' IP configuration is the witness. ``open_new`` None: the new box has not been given the address yet."""

    def __init__(
        self,
        plan: SharedIpCutoverPlan,
        open_old: Callable[[], Holder],
        open_new: Callable[[], Holder] | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(seconds=plan.seconds, clock=clock)
        self.plan = plan
        self._open_old = open_old
        self._open_new = open_new

    def read_state(self) -> CutoverState:
        """Which of the boxes has it on."""
        with ExitStack() as stack:
            return self._read(*self._open(stack))

    def verify_ready(self) -> CutoverState:
        """The old box has it on, and the new one has not.

        Raises:
            SharedAddressStateError: it is not so.

        """
        state = self.read_state()
        if state.side is not Side.OLD:
            raise SharedAddressStateError(
                f"The shared address {self.plan.address} is on at {_say(state)}, not at the old box alone.",
                hint="There is nothing to switch." if state.side is Side.NEW else "Look at Networking > IP Configuration of both boxes.",
            )
        return state

    def _swing(self, side: Side) -> Change:
        asked_at = self._clock()
        with ExitStack() as stack:
            old, new = self._open(stack)
            if side is Side.OLD and new is not None and self._is_gone(new):
                new = None
            rows = self._find(old), self._find(new)
            before = self._judge(rows, new)
            if before.side is Side.SPLIT:
                raise self._changed(before)
            boxes = tuple(zip((old, new), rows, strict=True))
            giver, taker = boxes if side is Side.NEW else boxes[::-1]
            acted = before.side is not side
            if acted:
                # Nobody is served between the two: what the second needs is made ready before the first.
                steps = self._prepare(*giver, enabled=False), self._prepare(*taker, enabled=True)
                for change in steps:
                    change()
            after = self._read(old, new)
        if after.side is not side:
            raise self._changed(after)
        return Change(side, asked_at, after.read_at, (), acted)

    def _open(self, stack: ExitStack) -> tuple[Holder, Holder | None]:
        old = stack.enter_context(closing(self._open_old()))
        return old, None if self._open_new is None else stack.enter_context(closing(self._open_new()))

    def _read(self, old: Holder, new: Holder | None) -> CutoverState:
        return self._judge((self._find(old), self._find(new)), new)

    def _judge(self, rows: tuple[BoxAddress | None, BoxAddress | None], new: Holder | None) -> CutoverState:
        has_old, has_new = (row is not None and row.enabled for row in rows)
        side = {(True, False): Side.OLD, (False, True): Side.NEW, (True, True): Side.SPLIT}.get((has_old, has_new), Side.ELSEWHERE)
        shows = (*((self.plan.entrance,) if has_old else ()), *((self.plan.new,) if has_new else ()))
        where = f"the IP configuration of {'the old box' if new is None else 'both boxes'}"
        return CutoverState(side, (Witness(where, side, shows),), (), self._clock())

    def _find(self, box: Holder | None) -> BoxAddress | None:
        rows = () if box is None else box.read_addresses()
        return next((row for row in rows if row.address == self.plan.address), None)

    def _is_gone(self, new: Holder) -> bool:
        """A new box that is off or broken must not hinder a way back; one that only we cannot reach may still have the address."""
        try:
            new.read_addresses()
        except UnreachableError as silent:
            if self._answers():
                raise SharedAddressStateError(
                    f"The new box cannot be reached, and something still answers at {self.plan.entrance}.",
                    hint="Switch the new box off, then go on with the rollback.",
                ) from silent
            return True
        return False

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.plan.entrance, self.plan.port), timeout=ANSWER_SECONDS).close()
        except OSError:
            return False
        return True

    def _prepare(self, box: Holder | None, row: BoxAddress | None, *, enabled: bool) -> Callable[[], None]:
        if box is not None and row is not None:
            return box.prepare_address(replace(row, enabled=enabled))
        if enabled:
            raise FailedError(f"A box has no address {self.plan.address} any more.", hint="Look at Networking > IP Configuration.")
        return lambda: None

    def _changed(self, state: CutoverState) -> ChangedError:
        return SharedAddressChangedError(
            f"The shared address {self.plan.address} is on at {_say(state)}.",
            hint="Somebody switched it on or off. Look at Networking > IP Configuration of both boxes.",
        )


def _say(state: CutoverState) -> str:
    words = {Side.OLD: "the old box", Side.NEW: "the new box", Side.SPLIT: "both boxes"}
    return words.get(state.side, "neither box")
