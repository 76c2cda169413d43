"""The documented API's common part: OAuth tokens, permissions, rate limit; backup, health and the unauthenticated probes."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, make_response, request

from .accounts import hash_token
from .backup import Parts, make_backup
from .core import Appliance
from .errors import Refused
from .software_pages import backup_name, bend
from .web import File, send

TOKEN_SECONDS = 3600
MOST_TOKENS = 30
PER_SECOND, PER_HOUR = 20, 15000
DENIED = {"error": "access_denied", "message": "The resource owner or authorization server denied the request."}
NOT_FOUND = "Document Not Found"
NOT_PERMITTED = {"message": "This API account has no permission for that. See /login > API Configuration."}


class Turned(Exception):  # noqa: N818 - it carries an answer, not a fault
    """Ends a request with this answer."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Limits:
    """How often each API account may ask: :data:`PER_SECOND` and :data:`PER_HOUR`. Kept in memory: one process answers all."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._asked: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def count(self, account: str) -> tuple[bool, int]:
        """Count a request; answers whether it is within the limits, and how many are left of this hour's."""
        import time

        now = time.monotonic()
        per_second = self._box.faults.seconds("api-limit", PER_SECOND)
        with self._lock:
            asked = self._asked.setdefault(account, deque())
            while asked and asked[0] < now - 3600:
                asked.popleft()
            recent = 0
            for at in reversed(asked):
                if at < now - 1:
                    break
                recent += 1
            if recent >= per_second or len(asked) >= PER_HOUR:
                return False, max(0, PER_HOUR - len(asked))
            asked.append(now)
            return True, PER_HOUR - len(asked)


class Api:
    """Checks who asks; the other API modules hang their answers on it."""

    def __init__(self, box: Appliance) -> None:
        self.box = box
        self._limits = Limits(box)

    def token(self) -> Response:
        """``POST /oauth2/token``."""
        client_id, secret = read_basic(request.headers.get("Authorization", ""))
        row = self.box.store.site.find_row("select * from api_account where client_id = ? and enabled = 1", client_id)
        # The comparison is made for an unknown account too, so that both take the same time.
        good = hmac.compare_digest(hash_token(secret), row["secret"] if row is not None else hash_token(secrets.token_hex(8)))
        if row is None or not good:
            raise Turned(401, {"error": "invalid_client", "message": "Client authentication failed"})
        if request.form.get("grant_type") != "client_credentials":
            raise Turned(400, {"error": "unsupported_grant_type", "message": "The authorization grant type is not supported."})
        token, now = secrets.token_urlsafe(48), self.box.faults.now()
        with self.box.store.box.transaction() as connection:
            connection.execute("insert into api_token values (?, ?, ?)", (hash_token(token), client_id, now))
            connection.execute(
                "delete from api_token where account = ? and token not in"
                " (select token from api_token where account = ? order by issued desc, rowid desc limit ?)",
                (client_id, client_id, MOST_TOKENS),
            )
        return jsonify(token_type="Bearer", expires_in=TOKEN_SECONDS, access_token=token)  # noqa: S106 - a kind of token

    def admit(self, permission: str, *levels: str) -> tuple[str, int]:
        """Who asks, and how many requests are left; for ``perm_command`` one of ``levels`` is needed.

        Raises:
            Turned: no valid token, too many requests, or not permitted.

        """
        account = self._find_account()
        if account is None:
            raise Turned(401, DENIED)
        within, left = self._limits.count(account["client_id"])
        if not within:
            raise Turned(429, {"error": "rate_limit_exceeded", "message": "Too many requests."})
        held = json.loads(account["permissions"]).get(permission, False)
        if held not in levels if levels else not held:
            raise Turned(403, None)
        return str(account["client_id"]), left

    def _find_account(self) -> Any:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return None
        row = self.box.store.box.find_row("select * from api_token where token = ?", hash_token(token.strip()))
        if row is None or abs(self.box.faults.now() - row["issued"]) > TOKEN_SECONDS:
            return None
        return self.box.store.site.find_row("select * from api_account where client_id = ? and enabled = 1", row["account"])

    def backup(self) -> Response:
        """``GET`` or ``POST /api/backup``; an optional JSON body ``{"password": "…"}``."""
        try:
            _, left = self.admit("perm_backup")
        except Turned as turned:
            if turned.status == 403:
                raise Turned(404, NOT_FOUND) from turned
            raise
        self.box.jobs.verify_idle()
        given = request.get_json(silent=True) if request.data else {}
        if not isinstance(given, dict) or not isinstance(given.get("password", ""), str):
            raise Turned(422, {"message": "The body must be a JSON object with a password."})
        made = make_backup(self.box.store, self.box.base, self.box.site, Parts(history=True, password=given.get("password", "")))
        response = send(File(backup_name(self.box), bend(self.box, made)))
        return limited(response, left)

    def health(self) -> Response:
        """``GET /check_health``: 200 or 500 and a sentence."""
        fault = self.box.find_fault()
        if fault is not None:
            return _text(f"The appliance is not healthy: {fault}.", 500)
        return _text("The appliance is healthy.", 200)

    def mechanisms(self) -> Response:
        """``GET /get_mech_list?version=3``: what can be logged in with, and whose site this is."""
        company = self.box.store.site.setting("company")
        return jsonify(mechs=["password"], default_mech="password", cache=0, company=company, product="rs")


def read_basic(header: str) -> tuple[str, str]:
    """Name and secret of HTTP's basic authentication; empty where it is none."""
    kind, _, packed = header.partition(" ")
    try:
        client_id, _, secret = base64.b64decode(packed, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        client_id = secret = ""
    return (client_id, secret) if kind.lower() == "basic" else ("", "")


def limited(response: Response, left: int) -> Response:
    """The rate limit's headers."""
    response.headers["X-RateLimit-Limit"] = str(PER_HOUR)
    response.headers["X-RateLimit-Remaining"] = str(left)
    return response


def _text(sentence: str, status: int) -> Response:
    response = make_response(sentence + "\n", status)
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    return response


def answer_turned(turned: Turned) -> Response:
    """The answer that a :class:`Turned` carries."""
    if isinstance(turned.body, str):
        return _text(turned.body, turned.status)
    response = jsonify(turned.body if turned.body is not None else NOT_PERMITTED)
    response.status_code = turned.status
    if turned.status == 429:
        limited(response, 0)
        response.headers["Retry-After"] = "1"
    return response


def add_routes(app: Flask, api: Api) -> None:
    """Token, backup, health, probes, in their present and their older addresses."""
    routes: tuple[tuple[str, Callable[[], Response], list[str]], ...] = (
        ("/oauth2/token", api.token, ["POST"]),
        ("/api/backup", api.backup, ["GET", "POST"]),
        ("/api/backup.ns", api.backup, ["GET", "POST"]),
        ("/check_health", api.health, ["GET"]),
        ("/get_mech_list", api.mechanisms, ["GET"]),
    )
    for path, view, methods in routes:
        app.add_url_rule(path, f"api:{path}", view, methods=methods)
    app.register_error_handler(Turned, answer_turned)


def verify_ready(box: Appliance) -> None:
    """Let a client in only while the site is not being changed.

    Raises:
        Turned: 503 while a restore or an installation is running, and at the backup of a failover pair.

    """
    try:
        box.jobs.verify_idle()
        box.failover.verify_serving()
    except Refused as refused:
        raise Turned(503, {"error": "busy", "message": str(refused)}) from refused
