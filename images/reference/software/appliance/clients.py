"""What clients of the site say to it: a Jump Client checks in, a session ends. An invention of the reference appliance."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask import Flask, Response, jsonify, make_response, request

from .accounts import hash_token
from .api import Turned, read_basic, verify_ready
from .core import Appliance
from .errors import Busy
from .front import INSIDE
from .presence import note_seen
from .upgrades import SLOT_SECONDS, UPDATE_BYTES, Upgrades, digest_update, write_update

_LSID = re.compile(r"[0-9a-f]{32}")


class Clients:
    """Answers of the client side."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._upgrades = Upgrades(box)

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
        return given, self._find(str(given.get("client", "")), str(given.get("secret", "")))

    def _find(self, client: str, secret: str) -> Any:
        row = self._box.store.site.find_row("select * from jump_client where client = ?", client)
        if row is None or not hmac.compare_digest(row["secret"], hash_token(secret)):
            raise Turned(401, {"message": "This client is not known, or its secret is wrong."})
        return row

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
        """``POST /client/checkin``: whether the client should update; where no slot is free, in how many seconds to ask again."""
        with self._writing():
            return self._take_check_in()

    def _take_check_in(self) -> Response:
        given, row = self._read()
        client, version = row["client"], str(given.get("version", ""))
        now, wanted = self._box.faults.now(), self._box.site.version
        # Not durable: what a sudden death takes is said again at the next check-in.
        with self._box.store.site.transaction(durable=False) as connection:
            connection.execute("update jump_client set version = ?, last_connect = ? where id = ?", (version, int(now), row["id"]))
        note_seen(self._box, client, now)
        if version == wanted:
            self._upgrades.end(client)
            return jsonify(update=None)
        asked = self._upgrades.ask(client, wanted)
        if asked.retry:
            response = jsonify(update=None, wanted=wanted, retry=asked.retry)
            response.headers["Retry-After"] = str(math.ceil(asked.retry))
            return response
        return jsonify(update=wanted, size=UPDATE_BYTES, sha256=digest_update(wanted), seconds=SLOT_SECONDS)

    def update(self) -> Response:
        """``GET /client/update``: the software that a client needs, with ``Range``. Only for who holds a slot, or gets one now."""
        verify_ready(self._box)
        client, secret = read_basic(request.headers.get("Authorization", ""))
        row = self._find(client, secret)
        asked = self._upgrades.ask(row["client"], self._box.site.version)
        if asked.retry:
            response = jsonify(message="As many clients as may be are updating.", retry=asked.retry)
            response.status_code = 503
            response.headers["Retry-After"] = str(math.ceil(asked.retry))
            return response
        response = make_response(b"")
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers["X-Accel-Redirect"] = f"{INSIDE}{write_update(self._box, self._box.site.version)}"
        pace = self._box.faults.seconds("update-pace")
        if pace:
            response.headers["X-Accel-Limit-Rate"] = str(int(pace))
        return response


def add_routes(app: Flask, box: Appliance) -> None:
    """Hang its addresses on the application."""
    clients = Clients(box)
    app.add_url_rule("/client/session", "client:session", clients.session, methods=["POST"])
    app.add_url_rule("/client/checkin", "client:checkin", clients.check_in, methods=["POST"])
    app.add_url_rule("/client/update", "client:update", clients.update, methods=["GET"])
