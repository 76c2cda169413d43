"""The documented machine interfaces: OAuth, backup, command, configuration, reporting. One connection per call, as the vendor asks."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from lxml import etree

from kit.errors import RejectedError, UnexpectedError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.contract import ApiAccount
from migrate.appliances.errors import ApiForbiddenError
from migrate.appliances.http import Answer, BoxClient, Request, Saved
from migrate.facts import JumpClient

CALLS_PER_SECOND = 18.0  # the vendor allows 20 a second for each API account
_TRIES = 6  # of a call that is answered 429
_PAGE = 100
T = TypeVar("T")
_SESSIONS = {"session", "session_summary"}

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True)
class Health:
    """What ``check_health`` tells. ``role`` is none, primary or backup."""

    guid: str
    hostname: str
    healthy: bool
    error: str
    role: str


@dataclass(frozen=True)
class Session:
    """One finished session of the reports, and whether the report names a recording of it."""

    lsid: str
    recorded: bool


class Api:
    """Calls of one API account on one box."""

    def __init__(self, client: BoxClient, account: ApiAccount) -> None:
        self.client = client
        self.account = account
        self._token: Secret | None = None
        self._lapses = 0.0
        self._lock = threading.Lock()

    def verify_access(self) -> None:
        """Get a token.

        Raises:
            RejectedError: client id or secret is refused, now or earlier in this process.

        """
        self._bearer()

    def read_health(self) -> Health:
        """Ask the JSON command API, and where there is none (or it lacks what is needed) the XML one."""
        answer = self._call(Request("GET", "/api/command/v2/health", headers=(("Accept", "application/json"),)))
        if answer.status == 200 and answer.type == "application/json":
            found = _json_health(self._json(answer))
            if found is not None:
                return found
        return _xml_health(self.command("check_health"))

    def command(self, action: str) -> etree._Element:
        """One call of the XML command API; the root of what it answers.

        Raises:
            RejectedError: it answers an error, or the account lacks the permission.

        """
        return self._xml(self._call(Request("POST", "/api/command", (("action", action),))), f"the command {action}")

    def set_failover_role(self, role: str, *, data_sync_first: bool, force: bool) -> str:
        """Begin a change of roles; what the box says to it.

        Raises:
            RejectedError: it does not; says why.

        """
        fields = [("action", "set_failover_role"), ("role", role), ("data_sync_first", str(int(data_sync_first)))]
        fields += [("force", "1")] if force else []
        root = self._xml(self._call(Request("POST", "/api/command", tuple(fields), seconds=180.0)), f"the role {role}")
        said = next((element for element in root.iter() if _name(element) == "success"), None)
        if said is None:
            raise UnexpectedError(f"{self.client.where} answers the change of roles in an unknown form.")
        return (said.text or "").strip()

    def take_backup(self, target: Path, password: Secret | None, *, progress: Progress) -> Saved:
        """Save a backup, with all logged data, as the API gives it."""
        if password is None:
            request = Request("GET", "/api/backup", seconds=600.0)
        else:
            request = Request("POST", "/api/backup", json=json.dumps({"password": password.reveal()}).encode(), seconds=600.0)
        return self._save(request, target, progress, "the backup")

    def take_recording(self, lsid: str, target: Path, *, progress: Progress) -> Saved:
        """Save a session's recording."""
        query = urlencode({"generate_report": "SupportSessionRecording", "lsid": lsid})
        return self._save(Request("GET", f"/api/reporting?{query}", seconds=600.0), target, progress, f"the recording of {lsid}")

    def read_sessions(self) -> tuple[Session, ...]:
        """All sessions that have ended, in the box's order.

        The listing is asked first. Where it names no recording at all, that may be its form: then the full report is asked, which
        documents them.
        """
        listed = self._report("SupportSessionListing")
        if listed and not any(one.recorded for one in listed):
            return self._report("SupportSession")
        return listed

    def _report(self, kind: str) -> tuple[Session, ...]:
        fields = (("generate_report", kind), ("start_time", "1"), ("duration", "0"))
        root = self._xml(self._call(Request("POST", "/api/reporting", fields, seconds=600.0)), f"the report {kind}")
        sessions = [element for element in root.iter() if _name(element) in _SESSIONS and element.get("lsid")]
        return tuple(_session(element) for element in sessions if _has_ended(element))

    def read_users(self) -> tuple[str, ...]:
        """The names of all users of the site."""
        return tuple(str(_need(row, "username", str)) for row in self._collection("user"))

    def read_jump_clients(self) -> tuple[JumpClient, ...]:
        """All Jump Clients."""
        return tuple(_jump_client(row) for row in self._collection("jump-client"))

    def _collection(self, name: str) -> list[dict[str, Json]]:
        rows: list[dict[str, Json]] = []
        page, last, total = 1, 1, None
        while page <= last:
            path = f"/api/config/v1/{name}?per_page={_PAGE}&current_page={page}"
            answer = self._call(Request("GET", path, headers=(("Accept", "application/json"),)))
            self._raise_if_refused(answer, f"the list {name}")
            content = self._json(answer)
            if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
                raise UnexpectedError(f"{self.client.where} answers the list {name} in an unknown form.")
            rows += [row for row in content if isinstance(row, dict)]
            last, total = _header(answer, "X-BT-Pagination-Last-Page") or last, _header(answer, "X-BT-Pagination-Total")
            page += 1
        if total is None and len(rows) >= _PAGE:
            raise UnexpectedError(f"{self.client.where} does not say how long the list {name} is.")
        if total is not None and total != len(rows):
            raise UnexpectedError(f"{self.client.where} says that the list {name} has {total} entries, but gives {len(rows)}.")
        return rows

    def _save(self, request: Request, target: Path, progress: Progress, label: str) -> Saved:
        saved = self._repeat(request, lambda ready: self.client.save(ready, target, progress=progress, label=label))
        if isinstance(saved, Saved):
            return saved
        self._raise_if_refused(saved, label)
        self._raise_if_error(saved, label)
        raise UnexpectedError(f"{self.client.where} sends a page instead of {label}.", status=saved.status)

    def _call(self, request: Request) -> Answer:
        return self._repeat(request, self.client.send)

    def _repeat(self, request: Request, send: Callable[[Request], T | Answer]) -> T | Answer:
        """Send at the allowed pace; again where it was too fast, and once with a new token where the old one has ended early."""
        renewed = False
        for _ in range(_TRIES):
            _PACE.wait((self.client.where, self.account.client_id))
            answer = send(self._authorised(request))
            if not isinstance(answer, Answer):
                return answer
            if answer.status == 429:
                wanted = answer.headers.get("retry-after", "")
                time.sleep(min(float(wanted), 30.0) if wanted.isdigit() else 1.0)
            elif answer.status == 401 and b"access_denied" in answer.content and not renewed:
                renewed, self._token = True, None
            else:
                return answer
        raise RejectedError(f"{self.client.where} keeps refusing API calls because there are too many.", hint="Try again later.")

    def _authorised(self, request: Request) -> Request:
        headers = (*request.headers, ("Authorization", f"Bearer {self._bearer().reveal()}"))
        return Request(request.method, request.path, request.pairs, False, request.json, headers, True, request.seconds)

    def _bearer(self) -> Secret:
        with self._lock:
            if self._token is None or time.monotonic() > self._lapses - 60:
                self._token, self._lapses = self._fetch_token()
            return self._token

    def _fetch_token(self) -> tuple[Secret, float]:
        pair = f"{self.account.client_id}:{self.account.secret.reveal()}".encode()
        headers = (("Authorization", f"Basic {base64.b64encode(pair).decode()}"),)
        with refusals.one_try(self.client.place, "api", self.account.client_id, self.account.secret):
            asked = time.monotonic()
            answer = self.client.send(
                Request("POST", "/oauth2/token", (("grant_type", "client_credentials"),), headers=headers, closing=True)
            )
            if answer.status in {400, 401, 403}:
                raise RejectedError(
                    f"{self.client.where} refuses the API account {self.account.client_id}.",
                    hint="Compare client id and secret with Management > API Configuration; it was tried once and is not tried again.",
                )
        content = self._json(answer)
        token, seconds = (content.get("access_token"), content.get("expires_in")) if isinstance(content, dict) else (None, None)
        if answer.status != 200 or not isinstance(token, str) or not isinstance(seconds, int | float):
            raise UnexpectedError(f"{self.client.where} gives no token (HTTP {answer.status}).", status=answer.status)
        return Secret(token), asked + float(seconds)

    def _json(self, answer: Answer) -> Json:
        try:
            content: Json = json.loads(answer.content)
        except ValueError as error:
            raise UnexpectedError(f"{self.client.where} answers {answer.path.partition('?')[0]} with something that is no JSON.") from error
        return content

    def _xml(self, answer: Answer, what: str) -> etree._Element:
        self._raise_if_refused(answer, what)
        self._raise_if_error(answer, what)
        root = _parse_xml(answer.content)
        if root is None:
            raise UnexpectedError(f"{self.client.where} answers {what} with something that is no XML.", status=answer.status)
        return root

    def _raise_if_refused(self, answer: Answer, what: str) -> None:
        if answer.status in {401, 403, 404}:  # 404 is how some versions say that the permission is missing
            raise ApiForbiddenError(
                f"{self.client.where} refuses {what} to the API account (HTTP {answer.status}).",
                hint="Give the account the permission at Management > API Configuration: command, backup, configuration, reporting.",
                status=answer.status,
            )
        if answer.status != 200:
            raise UnexpectedError(f"{self.client.where} answers {answer.status} for {what}.", status=answer.status)

    def _raise_if_error(self, answer: Answer, what: str) -> None:
        """Errors of the XML interfaces come with status 200: as the root, or as a child of the usual root."""
        root = _parse_xml(answer.content) if answer.content.lstrip()[:1] == b"<" else None
        if root is not None:
            said = root if _name(root) == "error" else next((child for child in root if _name(child) == "error"), None)
            if said is not None:
                raise RejectedError(f"{self.client.where} refuses {what}: {' '.join(''.join(map(str, said.itertext())).split())[:300]}")


class _Pace:
    """Keeps all calls of this process under one API account below the vendor's limit."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def wait(self, account: tuple[str, str]) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free.get(account, 0.0))
            self._free[account] = start + 1.0 / CALLS_PER_SECOND
        time.sleep(start - now)


_PACE = _Pace()


def _header(answer: Answer, name: str) -> int | None:
    text = answer.headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _need(row: dict[str, Json], name: str, kind: type | tuple[type, ...]) -> Any:
    value = row.get(name)
    if not isinstance(value, kind):
        raise UnexpectedError(f"An entry of the configuration API has no usable {name!r}.", has=", ".join(sorted(row))[:300])
    return value


def _jump_client(row: dict[str, Json]) -> JumpClient:
    came, went = _seconds(row.get("last_connect_timestamp")), _seconds(row.get("last_disconnect_timestamp"))
    seen = [moment for moment in (came, went) if moment is not None]
    told = row.get("connected")  # not every version has it
    return JumpClient(
        number=_need(row, "id", int),
        name=_need(row, "name", str),
        connected=told if isinstance(told, bool) else came is not None and (went is None or went < came),
        lost=_need(row, "is_lost", bool),
        needs_update=_need(row, "needs_update", bool),
        last_seen=max(seen, default=None),
    )


def _seconds(value: Json) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) or None
    if isinstance(value, str) and value:
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError as error:
            raise UnexpectedError(f"The configuration API gives a time that cannot be read: {value!r}.") from error
    return None


def _parse_xml(content: bytes) -> etree._Element | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _children(element: etree._Element) -> Iterator[tuple[str, str]]:
    for child in element.iter():
        if child is not element and _name(child):
            yield _name(child), (child.text or "").strip()


def _has_ended(element: etree._Element) -> bool:
    """A session that goes on has an empty end, or none."""
    return any(name == "end_time" and text for name, text in _children(element))


def _session(element: etree._Element) -> Session:
    told = [text for name, text in _children(element) if name.startswith("session_recording")]
    return Session(str(element.get("lsid")), any(told))


def _json_health(content: Json) -> Health | None:
    """Field names of the JSON form are not documented publicly: taken as far as they are those of the XML form, else None."""
    if not isinstance(content, dict):
        return None
    box, good, role = content.get("appliance"), content.get("success"), content.get("failover_role")
    if not isinstance(box, dict) or not isinstance(good, bool) or not isinstance(role, str) or not isinstance(box.get("id"), str):
        return None
    return Health(str(box["id"]), str(box.get("hostname") or box.get("name") or ""), good, str(content.get("error_message") or ""), role)


def _xml_health(root: etree._Element) -> Health:
    box = next((child for child in root.iter() if _name(child) == "appliance"), None)
    told = dict(_children(root))
    if box is None or not box.get("id") or "success" not in told:
        raise UnexpectedError("The answer to check_health is in an unknown form.", has=", ".join(sorted(told))[:300])
    role = told.get("failover_role", "none").lower() or "none"
    return Health(str(box.get("id")), (box.text or "").strip(), told["success"] == "1", told.get("error_message", ""), role)
