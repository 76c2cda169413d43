"""What a box in a failover pair does by itself: looks at its peer, keeps the shared addresses where they belong, syncs when it is due."""

from __future__ import annotations

import logging
import threading
import time

from .core import Appliance
from .errors import Refused
from .pairs import Kind, Role

log = logging.getLogger(__name__)
LOOK_EVERY = 2.0  # seconds


class Keeper(threading.Thread):
    """One thread beside the requests; ``box`` is set by who builds the application."""

    def __init__(self) -> None:
        super().__init__(name="keeper", daemon=True)
        self.box: Appliance | None = None
        self._was_conflict = False
        self._said = ""

    def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                if self.box is not None and self.box.failover.role is not Role.NONE:
                    self._look_after(self.box)
            except Exception:
                log.exception("the pair could not be looked after")
            time.sleep(LOOK_EVERY)

    def _look_after(self, box: Appliance) -> None:
        failover = box.failover
        if failover.works.find_running(Kind.PULL, Kind.ROLE) is None:
            failover.look()
        is_conflict = failover.is_conflict()
        if is_conflict and not self._was_conflict:
            failover.pairs.note("There is a conflict: both sites have the same role.")
        self._was_conflict = is_conflict
        if not (is_conflict and failover.role is Role.PRIMARY):
            self._follow(box)
        if failover.role is Role.BACKUP and failover.pairs.read_seen().role is Role.PRIMARY:
            self._sync_when_due(box)

    def _follow(self, box: Appliance) -> None:
        try:
            box.failover.sharing.follow()
            self._said = ""
        except Refused as refused:
            if self._said != str(refused):
                box.failover.pairs.note(refused.sentence, **refused.facts)
            self._said = str(refused)

    def _sync_when_due(self, box: Appliance) -> None:
        due = float(box.store.box.setting("sync_due", "0"))
        failover = box.failover
        is_first = not box.store.box.setting("sync_position")
        if box.faults.now() < due or (failover.pairs.read().interval == 0 and not is_first) or box.jobs.is_busy:
            return
        if failover.works.find_running(*Kind) is None:
            failover.start_sync()
