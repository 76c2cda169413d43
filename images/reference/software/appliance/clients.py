"""What clients of the site say to it: a Jump Client checks in, a session ends. An invention of the reference appliance."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask import Flask, Response, jsonify, request

from .accounts import hash_token
from .api import Turned, verify_ready
from .core import Appliance
from .errors import Busy

CONNECTED_FOR = 300.0  # seconds after its last check-in that a client counts as connected
UPGRADE_TAKES = 60.0  # seconds that an upgrade slot stays taken by a client that was offered one
_LSID = re.compile(r"[0-9a-f]{32}")


def is_connected(box: Appliance, client: str) -> bool:
    """Whether it checked in lately, on this box."""
    seen = box.store.box.value("select seen from presence where client = ?", client)
    return seen is not None and box.faults.now() - seen < CONNECTED_FOR


class Clients:
    """Answers of the client side."""

    def __init__(self, box: Appliance) -> None:
        self._box = box

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Kept out while the role of this site is being changed."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._box.failover.gate.writing())
            except Busy as busy:
                raise Turned(503, {"error": "busy", "message": str(busy)}) from busy
            yield

    def _read(self) -> tuple[dict[str, Any], Any]:
        verify_ready(self._box)
        given = request.get_json(silent=True)
        if not isinstance(given, dict):
            raise Turned(400, {"message": "A JSON object is needed."})
        row = self._box.store.site.find_row("select * from jump_client where client = ?", str(given.get("client", "")))
        if row is None or not hmac.compare_digest(row["secret"], hash_token(str(given.get("secret", "")))):
            raise Turned(401, {"message": "This client is not known, or its secret is wrong."})
        return given, row

    def session(self) -> tuple[Response, int]:
        """``POST /client/session``: 201 only when the record is on the disk; the same record again is answered the same."""
        with self._writing():
            return self._take_session()

    def _take_session(self) -> tuple[Response, int]:
        given, row = self._read()
        lsid, customer = str(given.get("lsid", "")), str(given.get("customer", ""))
        started, ended = given.get("started"), given.get("ended")
        if not _LSID.fullmatch(lsid) or not isinstance(started, int) or not isinstance(ended, int):
            raise Turned(422, {"message": "lsid (32 hexadecimal digits), started and ended (seconds since 1970) are needed."})
        record = (lsid, customer, row["client"], "", started, ended)
        with self._box.store.site.transaction() as connection:
            self._verify_taken()
            known = connection.execute("select * from session where lsid = ?", (lsid,)).fetchone()
            if known is not None and tuple(known) != record:
                raise Turned(409, {"message": "Another session has this lsid."})
            if known is None:
                connection.execute("insert into session values (?, ?, ?, ?, ?, ?)", record)
        return jsonify(lsid=lsid), 201

    def _verify_taken(self) -> None:
        """Inside the write: the site is not being changed, and the address that this request came in by has not been switched off.

        Whoever switches an address off then waits for the write lock, so nothing is confirmed after the page has said so.
        """
        verify_ready(self._box)
        came_by = request.headers.get("X-Served-On", "")
        if self._box.store.box.value("select enabled from address where address = ?", came_by) == 0:
            raise Turned(503, {"error": "busy", "message": "This address has been switched off."})

    def check_in(self) -> Response:
        """``POST /client/checkin``: tells which version the client should update to, null where none or no slot is free."""
        with self._writing():
            return self._take_check_in()

    def _take_check_in(self) -> Response:
        given, row = self._read()
        now, box, version = self._box.faults.now(), self._box.store.box, str(given.get("version", ""))
        self._box.store.site.run("update jump_client set version = ?, last_connect = ? where id = ?", version, int(now), row["id"])
        wanted = self._box.site.version
        with box.transaction() as connection:
            connection.execute(
                "insert into presence (client, seen) values (?, ?) on conflict (client) do update set seen = excluded.seen",
                (row["client"], now),
            )
            if version == wanted:
                connection.execute("update presence set offered = 0 where client = ?", (row["client"],))
                return jsonify(update=None)
            slots = int(self._box.store.site.setting("upgrade_slots", "8"))
            others = "select count(*) from presence where offered > ? and client <> ?"
            if connection.execute(others, (now - UPGRADE_TAKES, row["client"])).fetchone()[0] >= slots:
                return jsonify(update=None)
            connection.execute("update presence set offered = ? where client = ?", (now, row["client"]))
        return jsonify(update=wanted)


def add_routes(app: Flask, box: Appliance) -> None:
    """Hang its addresses on the application."""
    clients = Clients(box)
    app.add_url_rule("/client/session", "client:session", clients.session, methods=["POST"])
    app.add_url_rule("/client/checkin", "client:checkin", clients.check_in, methods=["POST"])
