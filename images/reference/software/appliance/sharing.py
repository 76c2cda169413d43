"""Addresses that the two boxes of a pair share: the primary has them switched on, the backup off."""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
from typing import TYPE_CHECKING

from .arp import is_taken
from .box import Skin
from .errors import Refused
from .pairs import Role

if TYPE_CHECKING:
    from .core import Appliance
    from .network import Address

log = logging.getLogger(__name__)


class Sharing:
    """Takes shared addresses and lets go of them."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._lock = threading.Lock()
        self._is_unfinished = False  # the last switch did not come to its end

    def rows(self) -> list[Address]:
        """The shared addresses of a box that is in a pair."""
        pair = self._box.failover.pairs.read()
        if pair.role is Role.NONE:
            return []
        return [row for row in self._box.network.rows() if row.address in pair.shared and row.kind == "service"]

    def enabled(self) -> list[str]:
        """Those that are on here."""
        return [row.address for row in self.rows() if row.enabled]

    def drop_at_start(self) -> None:
        """Before the web server starts: no shared address is on until the role is known to be right."""
        try:
            rows = self.rows()
        except sqlite3.DatabaseError:
            log.exception("the site's database cannot be read")  # the box starts all the same: its health check says so
            return
        for row in rows:
            self._box.store.box.run("update address set enabled = 0 where address = ?", row.address)

    def follow(self) -> None:
        """Switch them on at the primary and off at the backup, and return when the web server has followed.

        Raises:
            Refused: another machine has one of them; the others are switched all the same.

        """
        with self._lock:  # the role is read inside: who asks late does not undo what another did meanwhile
            try:
                taken = self._follow()
            except OSError as error:
                raise Refused("The network could not be changed: {reason}", reason=str(error)) from error
        if taken:
            raise Refused("The shared address {address} is held by another appliance.", address=", ".join(taken))

    def _follow(self) -> list[str]:
        """Answers the addresses that another machine has."""
        wanted = self._box.failover.role is Role.PRIMARY
        change = [row for row in self.rows() if row.enabled != wanted]
        taken = [row.address for row in change if wanted and self._is_elsewhere(row)]
        change = [row for row in change if row.address not in taken]
        if change or self._is_unfinished:
            self._is_unfinished = True
            self._switch(change, wanted=wanted)
            self._is_unfinished = False
        return taken

    def _switch(self, rows: list[Address], *, wanted: bool) -> None:
        for row in rows:
            self._box.store.box.run("update address set enabled = ? where address = ?", int(wanted), row.address)
        with self._box.store.site.transaction():
            pass  # who is writing now has finished; who writes later sees that the address is off
        self._box.network.apply()
        self._box.ensure_certificates_bound()
        self._box.front.apply()

    def _is_elsewhere(self, row: Address) -> bool:
        if self._box.box.skin is Skin.MACHINE:
            return ":" not in row.address and is_taken(self._box.network.find_interface(row.address), row.address)
        try:
            with socket.create_connection((row.address, self._box.box.port), 2):
                return True
        except OSError:
            return False
