"""One console of one box: its session, its menu, its pages."""

from __future__ import annotations

import threading
from enum import Enum
from pathlib import Path

from kit.errors import RejectedError, UnexpectedError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.bomgar.catalogue import ConsoleName, Place
from migrate.appliances.bomgar.forms import Button, Entry, Field, FieldKind, Form, Link, View, fill
from migrate.appliances.bomgar.parse import parse_page
from migrate.appliances.bomgar.words import Term, Words
from migrate.appliances.contract import Account
from migrate.appliances.errors import LockedOutError, LoginRefusedError, PasswordExpiredError, SessionLostError
from migrate.appliances.http import Answer, BoxClient, Request, Saved


class PageKind(Enum):
    """What a page is in the course of a session."""

    INSIDE = "inside"
    LOGIN = "login"
    CHANGE = "change"
    AGREEMENT = "agreement"
    LOCKED = "locked"
    OTHER = "other"


class Console:
    """Opens pages by their menu words and submits forms. Logs in when it must, again once when a session has run out."""

    def __init__(self, client: BoxClient, name: ConsoleName, account: Account, words: Words) -> None:
        self.client = client
        self.name = name
        self.account = account
        self.words = words
        self._home: View | None = None
        self._lock = threading.RLock()

    def enter(self, *, new_password: Secret | None = None) -> View:
        """The first page behind the login; logs in where there is no session.

        ``new_password`` answers a forced change of password; without it a forced change is an error.

        Raises:
            LoginRefusedError: refused, now or earlier in this process: there is no second try.
            LockedOutError, PasswordExpiredError: what they say.
            UnexpectedError: a page of no known kind.

        """
        with self._lock:
            view = self._read(self.name)
            for _ in range(3):
                kind = classify(view)
                if kind is PageKind.INSIDE:
                    self._home = view
                    return view
                view = self._next(view, kind, new_password)
            kind = classify(view)
            if kind is not PageKind.INSIDE:
                raise self._stuck(view)
            self._home = view
            return view

    def ensure_password(self, wanted: Secret) -> None:
        """Change the account's password where it is another one (a login that did not force it).

        Raises:
            UnexpectedError: no menu entry leads to the change.

        """
        if self.account.password == wanted:
            return
        links = self.enter().find_links(Term.CHANGE_PASSWORD)
        if not links:
            raise UnexpectedError(f"{self.client.where}{self.name} neither forces nor offers a change of the password.")
        self._change(self.follow(links[0]), wanted)

    def find(self, place: Place) -> View | None:
        """The page; None where no menu entry leads there."""
        with self._lock:
            for home in (self._home, None):
                start = home or self.enter()
                for way in place.ways:
                    view = self._walk(start, way)
                    if view is not None:
                        self._home = view
                        return view
            return None

    def open(self, place: Place) -> View:
        """The page, freshly read.

        Raises:
            UnexpectedError: no menu entry leads there.

        """
        view = self.find(place)
        if view is None:
            way = " > ".join(self.words.name(term) for term in place.ways[0])
            raise UnexpectedError(
                f"The menu of {self.client.where}{self.name} has no entry “{way}”.",
                hint="The account may lack the permission, or this version has other words: boxshift probe shows what is there.",
            )
        return view

    def follow(self, link: Link) -> View:
        """The page behind a link of a page that was just read."""
        with self._lock:
            view = self._read(link.url)
            if classify(view) in {PageKind.LOGIN, PageKind.AGREEMENT}:
                self.enter()
                view = self._read(link.url)
            return self._inside(view)

    def press(self, request: Request) -> View:
        """Submit a form, once. The page that comes back.

        Raises:
            SessionLostError: a login page came back: look at the box's state before anything is sent again.

        """
        with self._lock:
            return self._inside(self._view(self.client.send(request)))

    def press_last(self, request: Request) -> View:
        """Submit a form that may end the session: any page may come back."""
        with self._lock:
            self._home = None
            return self._view(self.client.send(request))

    def fetch(self, request: Request) -> Answer:
        """Submit, and give whatever comes back: a small file, kept in memory, or a page that says why not.

        Raises:
            SessionLostError: a login page came back.

        """
        with self._lock:
            answer = self.client.send(request)
            if answer.type == "text/html":
                self._inside(self._view(answer))
            return answer

    def save(self, request: Request, target: Path, *, progress: Progress, label: str) -> Saved:
        """Submit, and save the file that comes back.

        Raises:
            SessionLostError: a login page came back.
            UnexpectedError: another page came back; carries what it says.

        """
        with self._lock:
            saved = self.client.save(request, target, progress=progress, label=label)
            if isinstance(saved, Saved):
                return saved
            view = self._inside(self._view(saved))
            raise UnexpectedError(f"Instead of {label} a page came back.", status=saved.status, page_says=view.note())

    def save_link(self, link: Link, target: Path, *, progress: Progress, label: str) -> Saved:
        """Save the file behind a link of a page that was just read; raises as :meth:`save`."""
        return self.save(Request("GET", link.url, seconds=1800.0), target, progress=progress, label=label)

    def look(self) -> PageKind:
        """What the landing page is now. Never logs in."""
        with self._lock:
            return classify(self._read(self.name))

    def peek(self) -> View | None:
        """The first page behind the login as the open session sees it; None where the session has ended. Never logs in."""
        with self._lock:
            view = self._read(self.name)
            if classify(view) is not PageKind.INSIDE:
                self._home = None
                return None
            self._home = view
            return view

    def glance(self, place: Place) -> View | None:
        """The page as the open session sees it; None where the session has ended, also between two looks. Never logs in.

        Raises:
            UnexpectedError: the session is open, and no menu entry leads there.

        """
        with self._lock:
            home = self.peek()
            if home is None:
                return None
            view = next(filter(None, (self._walk(home, way) for way in place.ways)), None)
            if view is None and self.peek() is not None:
                raise UnexpectedError(f"The menu of {self.client.where}{self.name} lost an entry while it was being read.")
            return view

    def explain(self, answer: Answer) -> str:
        """What an answer says to the person, for sentences."""
        if answer.type == "text/html":
            return (
                View(parse_page(answer.content, path=answer.path, status=answer.status), self.words).note() or "the page does not say why"
            )
        return answer.content[:300].decode(errors="replace").strip() or f"HTTP {answer.status}"

    def forget(self) -> None:
        """Drop the session."""
        with self._lock:
            self._home = None
            self.client.forget_session()

    def _inside(self, view: View) -> View:
        if classify(view) in {PageKind.LOGIN, PageKind.AGREEMENT, PageKind.CHANGE, PageKind.LOCKED}:
            self._home = None
            raise SessionLostError(f"The session at {self.client.where}{self.name} ended in between.")
        return view

    def _walk(self, view: View, way: tuple[Term, ...]) -> View | None:
        link = _choose(view, way)
        if link is None and len(way) > 1:
            upper = self._walk(view, way[:-1])
            link = _choose(upper, way[-1:]) if upper is not None else None
        if link is None:
            return None
        there = self._read(link.url)
        return there if classify(there) is PageKind.INSIDE else None

    def _read(self, path: str) -> View:
        return self._view(self.client.send(Request("GET", path)))

    def _view(self, answer: Answer) -> View:
        html = answer.type in {"text/html", "application/xhtml+xml"}
        if not html or answer.status == 404 or answer.status >= 500:
            said = answer.content[:300].decode(errors="replace").strip() if answer.type == "text/plain" else answer.type or "no type"
            kind = RejectedError if answer.status == 403 else UnexpectedError
            raise kind(f"{self.client.where} answers {answer.status} for {answer.path.partition('?')[0]}: {said}", status=answer.status)
        return View(parse_page(answer.content, path=answer.path, status=answer.status), self.words, answer)

    def _next(self, view: View, kind: PageKind, new_password: Secret | None) -> View:
        if kind is PageKind.AGREEMENT:
            return self._agree(view)
        if kind is PageKind.LOGIN:
            return self._log_in(view)
        if kind is PageKind.CHANGE:
            return self._change(view, new_password)
        raise self._stuck(view)

    def _agree(self, view: View) -> View:
        form, button = view.need_button(Term.ACCEPT_AGREEMENT)
        ticks = [Entry(f, value=True) for f in form.fields if f.kind is FieldKind.TICK and not f.disabled]
        return self._view(self.client.send(fill(form, ticks, press=button)))

    def _log_in(self, view: View) -> View:
        form, button = _login_form(view)
        entries = [
            Entry(view.need_field(form, Term.USERNAME, kinds=(FieldKind.TEXT,)), self.account.user),
            Entry(_passwords(form)[0], self.account.password),
        ]
        with refusals.one_try(self.client.place, self.name, self.account.user, self.account.password):
            after = self._view(self.client.send(fill(form, entries, press=button)))
            self._raise_if_refused(after)
        return after

    def _raise_if_refused(self, after: View) -> None:
        kind = classify(after)
        place = f"{self.client.where}{self.name}"
        if kind is PageKind.LOCKED:
            raise LockedOutError(
                f"{place} has locked the account {self.account.user} after failed logins.",
                hint="Wait for the lock-out to end, or let another administrator unlock it; then correct the secret.",
                page_says=after.note(),
            )
        if kind is PageKind.LOGIN:
            raise LoginRefusedError(
                f"{place} refuses the user {self.account.user} with the password given.",
                hint="Correct the password in the secrets; it was tried once and is not tried again.",
                page_says=after.note(),
            )

    def _change(self, view: View, new_password: Secret | None) -> View:
        if new_password is None:
            raise PasswordExpiredError(
                f"{self.client.where}{self.name} wants {self.account.user} to choose a new password first.",
                hint="Log in once in a browser, change the password, and put the new one into the secrets.",
            )
        form = _change_form(view)
        if form is None:
            raise self._stuck(view)
        new = view.need_field(form, Term.NEW_PASSWORD, kinds=(FieldKind.PASSWORD,))
        fields = _passwords(form)
        again = view.find_field(form, Term.CONFIRM_PASSWORD, kinds=(FieldKind.PASSWORD,))
        current = view.find_field(form, Term.CURRENT_PASSWORD, kinds=(FieldKind.PASSWORD,))
        entries = [Entry(f, new_password) for f in (new, again) if f is not None]
        if current is not None:
            entries.append(Entry(current, self.account.password))
        if len(entries) != len(fields):
            raise UnexpectedError(f"The page {view.page.path} has {len(fields)} password fields, {len(entries)} of them are known.")
        after = self._view(self.client.send(fill(form, entries, press=form.buttons[0] if form.buttons else None)))
        self._raise_if_unchanged(after)
        self.account = Account(self.account.user, new_password)
        refusals.forget(self.client.endpoint.host, self.client.endpoint.port, self.name)
        return after

    def _raise_if_unchanged(self, after: View) -> None:
        if classify(after) is PageKind.CHANGE:
            raise RejectedError(
                f"{self.client.where}{self.name} refuses the new password: {after.note() or 'it does not say why'}",
                hint="Choose one that meets the box's rules for passwords.",
            )

    def _stuck(self, view: View) -> UnexpectedError | RejectedError:
        place = f"{self.client.where}{self.name}"
        if classify(view) is PageKind.LOCKED:
            return LockedOutError(f"{place} is locked after failed logins.", hint="Wait for the lock-out to end.", page_says=view.note())
        return UnexpectedError(
            f"{place} shows a page that is neither a login nor a menu: {view.page.title or view.page.path!r}.",
            hint="boxshift probe shows what it has; another language may help.",
            status=view.page.status,
            page_says=view.note(),
        )


_MENU = (Term.STATUS, Term.BASICS, Term.MANAGEMENT, Term.SOFTWARE)  # a page with one of these links is behind the login


def classify(view: View) -> PageKind:
    """What this page is in the course of a session."""
    if any(view.find_links(term) for term in _MENU):
        return PageKind.INSIDE
    if _change_form(view) is not None:
        return PageKind.CHANGE
    if view.words.find_phrase(Term.LOCKED_OUT, view.page.text):
        return PageKind.LOCKED
    if _find_login_form(view) is not None:
        return PageKind.LOGIN
    if view.find_button(Term.ACCEPT_AGREEMENT) is not None:
        return PageKind.AGREEMENT
    return PageKind.INSIDE if view.find_links(Term.LOG_OUT) else PageKind.OTHER


def _choose(view: View, way: tuple[Term, ...]) -> Link | None:
    """The menu entry for the last word of the way: nested under the word before it if there is such a one."""
    links = view.find_links(way[-1])
    if len(way) == 1:
        return next((link for link in links if not link.under), links[0] if links else None)
    nested = [link for link in links if link.under and view.words.match(way[-2], link.under[-1])]
    if nested:
        return nested[0]
    return links[0] if len(links) == 1 and not links[0].under and way[-1] not in _TWICE else None


_TWICE = {Term.SECURITY, Term.STATUS, Term.USERS}  # words that both menus use at two levels: never taken without what they stand under


def _find_login_form(view: View) -> Form | None:
    for form in view.page.forms:
        if len(_passwords(form)) == 1 and any(view.words.match_any(Term.LOG_IN, button.texts) for button in form.buttons):
            return form
    return None


def _login_form(view: View) -> tuple[Form, Button]:
    form = _find_login_form(view)
    if form is None:
        raise view.lacking("no button", Term.LOG_IN)
    return form, next(button for button in form.buttons if view.words.match_any(Term.LOG_IN, button.texts))


def _change_form(view: View) -> Form | None:
    for form in view.page.forms:
        if view.find_field(form, Term.NEW_PASSWORD, kinds=(FieldKind.PASSWORD,)) is not None:
            return form
    return None


def _passwords(form: Form) -> list[Field]:
    return [f for f in form.fields if f.kind is FieldKind.PASSWORD]
