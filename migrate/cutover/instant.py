"""What cutovers have in common whose change holds for every visitor at once: a rule on a gateway, a command of the operator's own."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable

from kit.errors import ChangedError
from kit.progress import Progress
from migrate.cutover.contract import Change, Cutover, CutoverState, Preparation, Side

EITHER = (Side.OLD, Side.NEW)


class InstantCutover(Cutover):
    """No visitor keeps an answer, so there is nothing to prepare, to wait for or to restore; but every look is taken all the same.

    ``seconds``: how long a switch is expected to take. ``clock`` gives Unix seconds.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock

    @abstractmethod
    def _swing(self, side: Side) -> Change:
        """Look, act where it is not so yet, look again."""

    @abstractmethod
    def _changed(self, state: CutoverState) -> ChangedError:
        """Visitors do not go where they should."""

    def switch(self) -> Change:
        """Send visitors to the new box."""
        return self._swing(Side.NEW)

    def switch_back(self) -> Change:
        """Send visitors to the old box."""
        return self._swing(Side.OLD)

    def prepare(self, before: CutoverState | None = None) -> Preparation:  # noqa: ARG002 - the contract's; there is nothing to put back
        """Look that visitors are sent to one of the two boxes."""
        return Preparation((), (), self._need(EITHER).read_at)

    def wait_until_settled(self, moment: Preparation | Change, progress: Progress | None = None) -> CutoverState:  # noqa: ARG002 - at once
        """Look again."""
        return self._need((moment.side,) if isinstance(moment, Change) else EITHER)

    def restore(self, preparation: Preparation) -> CutoverState:  # noqa: ARG002 - as for prepare
        """Look that visitors are sent to one of the two boxes."""
        return self._need(EITHER)

    def seconds_to_recover(self) -> float:
        """One switch."""
        return self._seconds

    def outage_estimate(self) -> float:
        """One switch: whoever comes between its beginning and its end finds nobody."""
        return self._seconds

    def _need(self, sides: tuple[Side, ...]) -> CutoverState:
        state = self.read_state()
        if state.side not in sides:
            raise self._changed(state)
        return state
