"""Two consoles on one web server: logging in, the menu, forms with hidden tokens, and the pages that the other modules add."""

from __future__ import annotations

import functools
import hmac
import ipaddress
import logging
import secrets
import sqlite3
import urllib.parse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

from flask import Flask, Response, make_response, redirect, request
from jinja2 import Environment, Template

from .accounts import Visit
from .core import Appliance
from .errors import Busy, Refused
from .pairs import Role
from .release import LANGUAGES, Release
from .widgets import Button, Field, Form, Input, Names, Page, Say, Section, Shown, Text

log = logging.getLogger(__name__)
WRITABLE_ON_BACKUP = ("failover", "security", "software")  # pages of the site whose forms a backup takes
TITLES = {"appliance": "Appliance Administration Interface", "login": "Site Administration Interface"}


class Posted:
    """What a form brought, by our own names for its fields."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def text(self, key: str) -> str:
        return str(request.form.get(self._names.name(key), ""))

    def texts(self, key: str) -> list[str]:
        return [str(one) for one in request.form.getlist(self._names.name(key))]

    def has(self, key: str) -> bool:
        """Whether this box was ticked, or this button pressed."""
        return self._names.name(key) in request.form

    def file(self, key: str) -> bytes:
        """The content of an uploaded file.

        Raises:
            Refused: no file was chosen.

        """
        given = request.files.get(self._names.name(key))
        if given is None or not given.filename:
            raise Refused("Choose a file.")
        content: bytes = given.read()
        return content

    def file_name(self, key: str) -> str:
        given = request.files.get(self._names.name(key))
        name = "" if given is None or given.filename is None else given.filename
        # The three characters that HTML forms percent-encode in a file's name. Debian 12's Werkzeug leaves them so, newer ones do not.
        return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


@dataclass(frozen=True)
class Going:
    """Answer of a page that took a form: go to ``page`` and say ``notice`` there."""

    page: str
    notice: Say | None = None
    query: str = ""


@dataclass(frozen=True)
class File:
    """Answer of a page that gives a file."""

    name: str
    content: bytes
    kind: str = "application/octet-stream"


Answer = Page | Going | File


@dataclass(frozen=True)
class Call:
    """One request to a page: the open visit, the form if one was sent, and the query."""

    box: Appliance
    visit: Visit
    posted: Posted | None

    def asked(self, key: str) -> str:
        """A value of the address's query."""
        return str(request.args.get(key, ""))


View = Callable[[Call], Answer]


@dataclass(frozen=True)
class Entry:
    """A page of a console. ``menu``: group and label; None where no menu leads to it. ``needs``: a feature, "!" before it: its absence.

    ``on_backup``: whether the backup of a failover pair has it.
    """

    key: str
    view: View
    menu: tuple[str, str] | None = None
    needs: str = ""
    on_backup: bool = True

    def is_there(self, release: Release) -> bool:
        if not self.needs:
            return True
        return not release.has(self.needs[1:]) if self.needs.startswith("!") else release.has(self.needs)


@functools.lru_cache(maxsize=8)
def compile_frame(text: str) -> Template:
    """A page frame; compiled once, also for processes that are forked afterwards, since it takes seconds under emulation."""
    return Environment(autoescape=True).from_string(text)


class Console:
    """One console: its pages, who is logged in, and what a browser is shown."""

    def __init__(self, name: str, box: Appliance, entries: tuple[Entry, ...]) -> None:
        self.name = name
        self._box = box
        self._release = box.release_of(name)
        self._accounts = box.accounts(name)
        self._entries = {entry.key: entry for entry in entries if entry.is_there(self._release)}
        self.take_names()
        self._frame = compile_frame(self._release.frame)
        self._home = next(iter(self._entries))
        self._cookie = f"{name}_visit"

    def take_names(self) -> None:
        """Name pages and fields by the box's secret of now."""
        self._names = Names(self._box.store.box.setting("page_secret"))
        self._slugs = {self._names.slug(self.name, key): key for key in [*self._entries, "log-out", "password"]}

    # what is asked

    def answer(self, slug: str) -> Response:
        """Answer a request below ``/appliance`` or ``/login``; ``slug`` is "" for the landing page."""
        if self.name == "appliance":
            self._verify_address()
        visit = self._accounts.find_visit(request.cookies.get(self._cookie, ""))
        if visit is None:
            return self._answer_stranger(slug)
        key = self._slugs.get(slug, "") if slug else self._home
        if request.method == "POST" and not hmac.compare_digest(self._posted().text("token"), visit.form_token):
            return self._show(self._gone(), visit, error=Say("This form has expired. Nothing was changed."), status=403)
        if key == "log-out":
            self._accounts.log_out(visit)
            return redirect(f"/{self.name}")  # type: ignore[return-value]
        if key == "password" or visit.must_change:
            return self._change_password(visit)
        if key not in self._entries or not self._is_shown(self._entries[key]):
            return self._show(self._gone(), visit, error=Say("There is no such page."), status=404)
        return self._answer_page(self._entries[key], visit)

    def _is_shown(self, entry: Entry) -> bool:
        return entry.on_backup or self._box.failover.role is not Role.BACKUP

    def _writing(self, entry: Entry | None = None) -> AbstractContextManager[None]:
        """Around what a form of the site's console does; what leads a change of roles is not kept out by it."""
        if self.name == "appliance" or request.method != "POST" or (entry is not None and entry.key == "failover"):
            return nullcontext()
        if entry is not None and entry.key not in WRITABLE_ON_BACKUP and self._box.failover.role is Role.BACKUP:
            raise Refused("This site is the backup of a failover pair: change it at the primary site.")
        return self._box.failover.gate.writing()

    def _answer_page(self, entry: Entry, visit: Visit) -> Response:
        error, status = None, 200
        call = Call(self._box, visit, self._posted() if request.method == "POST" else None)
        try:
            with self._writing(entry):
                answer = entry.view(call)
        except Refused as refused:
            log.warning("%s refused: %s", entry.key, refused)
            error, status = Say(refused.sentence, refused.facts), 503 if isinstance(refused, Busy) else 422
            try:
                answer = entry.view(Call(self._box, visit, None))
            except Refused:
                answer = self._gone()
        if isinstance(answer, Going):
            if answer.notice is not None:
                self._accounts.leave_notice(visit, self._say(visit.language)(answer.notice))
            return redirect(self._address(answer.page, answer.query))  # type: ignore[return-value]
        if isinstance(answer, File):
            return send(answer)
        return self._show(answer, visit, error=error, status=status)

    def _posted(self) -> Posted:
        return Posted(self._names)

    def _verify_address(self) -> None:
        accepted = self._box.store.box.setting("accepted").split()
        if accepted and not is_accepted(request.headers.get("X-Real-IP", ""), accepted):
            raise Refused("This address may not use the appliance's console.")

    # logging in

    def _answer_stranger(self, slug: str) -> Response:
        landing = f"/{self.name}"
        if self._needs_agreement():
            return self._agreement()
        if request.method == "GET" or slug or not self._posted().has("log_in"):
            if slug:
                return redirect(landing)  # type: ignore[return-value]
            return self._show(self._login_page(), None)
        posted = self._posted()
        if not self._is_own_form():
            return self._show(self._login_page(), None, error=Say("This form has expired. Nothing was changed."), status=403)
        try:
            token = self._accounts.log_in(posted.text("username"), posted.text("password"))
        except Refused as refused:
            log.warning("a login to /%s failed: %s", self.name, refused)
            return self._show(self._login_page(), None, error=Say(refused.sentence, refused.facts), status=403)
        response = make_response(redirect(landing))
        response.set_cookie(self._cookie, token, secure=True, httponly=True, samesite="Strict", path=landing)
        return response

    def _is_own_form(self) -> bool:
        """Whether the form's token is the one in the cookie that came with the form."""
        given, kept = self._posted().text("token"), request.cookies.get(f"{self.name}_form", "")
        return bool(kept) and hmac.compare_digest(given, kept)

    def _needs_agreement(self) -> bool:
        return self._box.store.box.setting("agreement") == "on" and request.cookies.get(f"{self.name}_agreed") != self._agreed()

    def _agreed(self) -> str:
        return self._names.name("agreed:" + self._box.store.box.setting("agreement_text"))

    def _agreement(self) -> Response:
        if request.method == "POST" and self._posted().has("agree") and self._is_own_form():
            response = make_response(redirect(f"/{self.name}"))
            response.set_cookie(f"{self.name}_agreed", self._agreed(), secure=True, httponly=True, path=f"/{self.name}")
            return response
        parts = (Text(self._box.store.box.setting("agreement_text")), Form((Button("agree", Say("Accept")),)))
        return self._show(Page(Say("Login Agreement"), (Section(Say("Prerequisite Login Agreement"), parts),)), None)

    def _login_page(self) -> Page:
        fields = (
            Field("username", Say("Username")),
            Field("password", Say("Password"), Input.PASSWORD),
            Button("log_in", Say("Login")),
        )
        return Page(Say(TITLES[self.name]), (Section(Say("Login"), (Form(fields),)),))

    def _change_password(self, visit: Visit) -> Response:
        error = None
        posted = self._posted()
        if request.method == "POST" and posted.has("change"):
            try:
                with self._writing():
                    self._accounts.change_password(visit, posted.text("password"), posted.text("new"), posted.text("again"))
                self._accounts.leave_notice(visit, self._say(visit.language)(Say("The password was changed.")))
                return redirect(f"/{self.name}")  # type: ignore[return-value]
            except Refused as refused:
                error = Say(refused.sentence, refused.facts)
        fields = (
            Field("password", Say("Current Password"), Input.PASSWORD),
            Field("new", Say("New Password"), Input.PASSWORD),
            Field("again", Say("Confirm New Password"), Input.PASSWORD),
            Button("change", Say("Change Password")),
        )
        page = Page(Say("Change Password"), (Section(Say("Change Password"), (Form(fields),)),))
        return self._show(page, visit, error=error, status=422 if error else 200, bare=visit.must_change)

    # what is shown

    def _gone(self) -> Page:
        return Page(Say(TITLES[self.name]), ())

    def language(self, preferred: str) -> str:
        """The account's language, else the browser's, else English."""
        return preferred or request.accept_languages.best_match(list(LANGUAGES)) or "en"

    def _say(self, preferred: str) -> Callable[[Shown], str]:
        language = self.language(preferred)

        def say(shown: Shown) -> str:
            if not isinstance(shown, Say):
                return shown
            facts = {key: say(value) if isinstance(value, Say) else value for key, value in shown.facts.items()}
            return self._release.say(language, shown.text, facts)

        return say

    def _address(self, page: str, query: str) -> str:
        if not page:
            return request.full_path.rstrip("?")
        slug = self._names.slug(self.name, page)
        return f"/{self.name}/{slug}" + (f"?{query}" if query else "")

    def _menu(self) -> list[tuple[Say, list[tuple[Say, str]]]]:
        groups: dict[str, list[tuple[Say, str]]] = {}
        for entry in self._entries.values():
            if entry.menu is not None and self._is_shown(entry):
                groups.setdefault(entry.menu[0], []).append((Say(entry.menu[1]), entry.key))
        groups["Account"] = [(Say("Change Password"), "password"), (Say("Logout"), "log-out")]
        return [(Say(group), entries) for group, entries in groups.items()]

    def _show(self, page: Page, visit: Visit | None, *, error: Say | None = None, status: int = 200, bare: bool = False) -> Response:
        preferred = visit.language if visit else ""
        say, numbers = self._say(preferred), count(1)
        token = visit.form_token if visit else (request.cookies.get(f"{self.name}_form") or secrets.token_urlsafe(16))
        shown = self._frame.render(
            page=page,
            say=say,
            names=self._names,
            address=self._address,
            next_id=lambda: f"{self._names.name('id')[:5]}{next(numbers)}",
            token=token,
            menu=self._menu() if visit and not bare else None,
            notice=visit.notice if visit else "",
            error=say(error) if error else "",
            language=self.language(preferred),
            host=self._box.hostname,
            brand=self._release.product,
            version=self._release.version,
            colour="#243b53" if self.name == "appliance" else "#6b2d5c",
        )
        response = make_response(shown, status)
        response.headers["Cache-Control"] = "no-store"
        if visit is None:
            response.set_cookie(f"{self.name}_form", token, secure=True, httponly=True, samesite="Strict", path=f"/{self.name}")
        return response


def is_accepted(address: str, networks: list[str]) -> bool:
    """Whether an address lies in one of the networks.

    Raises:
        ValueError: one of them is no network.

    """
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False) for network in networks)


def send(file: File) -> Response:
    """A file as a download."""
    response = make_response(file.content)
    response.headers["Content-Type"] = file.kind
    # Written out: names are not always Latin-1, and the libraries of Debian 12 do not encode them.
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{urllib.parse.quote(file.name, safe='')}"
    response.headers["Cache-Control"] = "no-store"
    return response


def add_error_answers(app: Flask, box: Appliance) -> None:
    """A full disk and a refusal outside a page have their own answers; the page frame is not used, so they always work."""

    @app.before_request
    def hold_the_disk() -> None:
        box.store.hold_growth(hold=box.faults.is_on("disk-full"))

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Any:
        return f"{error}\n", 503 if isinstance(error, Busy) else 403, {"Content-Type": "text/plain; charset=utf-8"}

    @app.errorhandler(sqlite3.OperationalError)
    def failed(error: sqlite3.OperationalError) -> Any:
        log.error("database: %s", error)
        return "The disk of the appliance is full, or its database cannot be written.\n", 507, {"Content-Type": "text/plain; charset=utf-8"}
