"""The contract of every cutover: how visitors are sent from the old box to the new one, and back.

Several ways fulfil it: a DNS record, a gateway's NAT rule, commands of the operator's own. A *witness* is a place that says where
visitors go: an authoritative name server, a gateway, a program. Every method may raise

* ``UnreachableError``: a witness does not answer; the engine retries with a deadline, then fails the node;
* ``RejectedError``: it answers and refuses our key or password; never retried;
* ``ChangedError``: somebody else changed what we were about to change; nothing was overwritten;
* ``DeadlineError``: not every witness showed the change in time;
* ``UnexpectedError``: an answer in a form that is not known; never taken for success;
* ``ToolError``: a program of this machine failed.

Everything that changes something looks first, so that it may run again after a crash, and reads back from every witness before it
returns. Nothing here takes a "force". The order of a cutover::

    before = cutover.read_state()            # stored by the engine before anything is changed
    cutover.verify_ready()
    preparation = cutover.prepare(before)    # stored; its undo is restore(preparation)
    cutover.wait_until_settled(preparation)
    change = cutover.switch()                # its undo is switch_back()
    cutover.wait_until_settled(change)
    cutover.restore(preparation)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kit.progress import Progress


class Side(StrEnum):
    """Where visitors are sent."""

    OLD = "old"
    NEW = "new"
    SPLIT = "split"  # some witnesses say old, some say new
    ELSEWHERE = "elsewhere"  # neither of the two boxes, or not one of them alone


@dataclass(frozen=True)
class Witness:
    """One place that says where visitors go. ``shows`` are the addresses it gives; ``ttls`` as in :class:`CutoverState`.

    ``note``: what else it tells, in a sentence.
    """

    where: str
    side: Side
    shows: tuple[str, ...]
    ttls: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class CutoverState:
    """One reading of every witness. ``read_at`` in Unix seconds.

    ``ttls``: for how many seconds visitors may keep an answer, one number for each thing that is moved (an A and an AAAA record are
    two), the largest that any witness gives; empty where nothing is kept.
    """

    side: Side
    witnesses: tuple[Witness, ...]
    ttls: tuple[int, ...]
    read_at: float

    @property
    def ttl(self) -> int:
        """Seconds until every visitor has asked again."""
        return max(self.ttls, default=0)


@dataclass(frozen=True)
class Preparation:
    """Visitors ask often enough from now on. ``old_ttls`` is what :meth:`Cutover.restore` puts back.

    ``at``: Unix seconds when every witness was seen to give ``ttls``. Flat and small, so that the engine can store it.
    """

    old_ttls: tuple[int, ...]
    ttls: tuple[int, ...]
    at: float

    @property
    def settles_at(self) -> float:
        """Unix seconds from which on no visitor keeps an answer of before."""
        return self.at + max(self.old_ttls, default=0)


@dataclass(frozen=True)
class Change:
    """Visitors are sent to ``side``. ``asked_at``: when it was begun; ``at``: when every witness was seen to say so (Unix seconds).

    ``acted`` is False where it was so already: a run that was interrupted after the change, and resumed. ``notes``: what else came of it.
    """

    side: Side
    asked_at: float
    at: float
    ttls: tuple[int, ...]
    acted: bool
    notes: tuple[str, ...] = ()

    @property
    def settles_at(self) -> float:
        """Unix seconds from which on no visitor keeps an answer of before."""
        return self.at + max(self.ttls, default=0)


class Cutover(Protocol):
    """One way of sending visitors from the old box to the new one."""

    def read_state(self) -> CutoverState:
        """What every witness says now. A witness that does not answer raises: "could not tell" is no state."""
        ...

    def verify_ready(self) -> CutoverState:
        """Visitors go to the old box, every witness agrees, and we may change it: tried in a way that changes nothing.

        Raises:
            RefusedError: it is not as a switch needs it.

        """
        ...

    def prepare(self, before: CutoverState | None = None) -> Preparation:
        """Make visitors ask often. ``before`` is the state read before the first try; without it, what is there now counts as old."""
        ...

    def wait_until_settled(self, moment: Preparation | Change, progress: Progress | None = None) -> CutoverState:
        """Wait until no visitor keeps an answer of before ``moment``, then read every witness again.

        The time counts from ``moment.at``, so a resumed run waits only for what is left.

        Raises:
            ChangedError: what the witnesses say is no longer what ``moment`` made it.

        """
        ...

    def switch(self) -> Change:
        """Send visitors to the new box."""
        ...

    def switch_back(self) -> Change:
        """Send visitors to the old box: the undo of :meth:`switch`."""
        ...

    def restore(self, preparation: Preparation) -> CutoverState:
        """Let visitors ask as seldom as before: the undo of :meth:`prepare`, on whichever side they are."""
        ...

    def seconds_to_recover(self) -> float:
        """How long :meth:`switch_back` would take until the last visitor is back on the old box. Asks nobody."""
        ...

    def outage_estimate(self) -> float:
        """Seconds without service for the unluckiest visitor when the old box stops serving at the moment of the switch. Asks nobody."""
        ...
