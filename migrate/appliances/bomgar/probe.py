"""Which pages and words of this family a box has. Reads only: it logs in where it may, opens pages by their menu, and presses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from kit.errors import FailedError, RejectedError, UnexpectedError, UnreachableError
from migrate.appliances.bomgar.catalogue import PLACES, ConsoleName, Need, NeedKind, Place
from migrate.appliances.bomgar.console import Console, PageKind, classify
from migrate.appliances.bomgar.forms import View
from migrate.appliances.bomgar.parse import parse_page
from migrate.appliances.bomgar.words import Term, Words, find_languages, load_words
from migrate.appliances.contract import Account, Credentials, Endpoint
from migrate.appliances.http import BoxClient, Request
from migrate.appliances.pinned import Pin


class Presence(StrEnum):
    """Whether a thing is there. ``UNKNOWN``: it could not be looked at; that is never "there"."""

    THERE = "there"
    MISSING = "missing"
    OPTIONAL = "not there, not needed"  # only some versions, or boxes in some state, have it
    UNKNOWN = "could not be looked at"


@dataclass(frozen=True)
class ProbeRow:
    """One thing that the driver leans on. ``where`` names the console or interface, ``what`` the page or word, ``note`` what was seen."""

    where: str
    what: str
    presence: Presence
    note: str = ""


@dataclass(frozen=True)
class Probe:
    """All rows, the served key's fingerprint, and the languages whose words the login pages know."""

    rows: tuple[ProbeRow, ...]
    tls_spki_sha256: str
    languages: tuple[str, ...]

    @property
    def missing(self) -> tuple[ProbeRow, ...]:
        """What the driver needs and the box does not have."""
        return tuple(row for row in self.rows if row.presence is Presence.MISSING)


# Interfaces that answer without an account: path, the statuses that prove that it is there.
_OPEN_INTERFACES = (
    ("/check_health", {200, 500}),
    ("/get_mech_list?version=3", {200}),
)
# Interfaces that want an account: to be refused proves that they are there.
_CLOSED_INTERFACES = (
    ("/api/command", {401, 403, 200}),
    ("/api/backup", {401, 403}),
    ("/api/reporting", {401, 403, 200}),
    ("/api/config/v1/jump-client", {401, 403}),
)


def probe_box(endpoint: Endpoint, credentials: Credentials | None = None, *, language: str | None = None, patience: float = 1.0) -> Probe:
    """Look at a box. Without credentials: its landing pages and its open interfaces only.

    Raises:
        UnreachableError: nothing answers.
        WrongKeyError: another key than the pinned one.

    """
    pin = Pin(*endpoint.pins)

    def connect() -> BoxClient:
        return BoxClient(endpoint, pin, language=language or "en", patience=patience)

    with closing(connect()) as anyone:
        rows = list(_check_interfaces(anyone))
        languages = _find_languages(anyone)
    for name in ConsoleName:
        with closing(connect()) as client:
            rows += _check_console(client, name, credentials, load_words(language, partial=True))
    return Probe(tuple(rows), pin.seen or "", languages)


def _check_interfaces(client: BoxClient) -> Iterator[ProbeRow]:
    for path, good in (*_OPEN_INTERFACES, *_CLOSED_INTERFACES):
        shown = path.partition("?")[0]
        answer = client.send(Request("GET", path, closing=True))
        presence = Presence.THERE if answer.status in good else Presence.MISSING
        yield ProbeRow("API", shown, presence, f"HTTP {answer.status}")


def _find_languages(client: BoxClient) -> tuple[str, ...]:
    """The languages in which the login page of the site answers, as far as there are words for them."""
    found = []
    for language in find_languages():
        answer = client.send(Request("GET", ConsoleName.SITE, headers=(("Accept-Language", language),), closing=True))
        client.forget_session()
        if answer.type != "text/html" or answer.status >= 400:
            continue
        view = View(parse_page(answer.content, path=answer.path), load_words(language, partial=True))
        if classify(view) in {PageKind.LOGIN, PageKind.AGREEMENT}:
            found.append(language)
    return tuple(found)


def _check_console(client: BoxClient, name: ConsoleName, credentials: Credentials | None, words: Words) -> Iterator[ProbeRow]:
    console = Console(client, name, _account(name, credentials), words)
    yield _check_landing(console)
    places = [place for place in PLACES if place.console is name]
    if credentials is None:
        yield from (ProbeRow(name, place.name, Presence.UNKNOWN, "needs a login") for place in places)
        return
    try:
        console.enter()
    except (RejectedError, UnexpectedError) as error:
        yield ProbeRow(name, "login", Presence.UNKNOWN, error.sentence)
        yield from (ProbeRow(name, place.name, Presence.UNKNOWN, "the login failed") for place in places)
        return
    yield ProbeRow(name, "login", Presence.THERE)
    for place in places:
        yield from _check_place(console, place)


def _account(name: ConsoleName, credentials: Credentials | None) -> Account:
    if credentials is None:
        from kit.secret import Secret

        return Account("", Secret(""))  # never sent: without credentials nothing logs in
    return credentials.appliance if name is ConsoleName.APPLIANCE else credentials.site


def _check_landing(console: Console) -> ProbeRow:
    try:
        kind = console.look()
    except UnreachableError:
        raise
    except FailedError as error:
        return ProbeRow(console.name, "landing page", Presence.MISSING, error.sentence)
    known = kind is not PageKind.OTHER
    return ProbeRow(console.name, "landing page", Presence.THERE if known else Presence.MISSING, kind.value)


def _check_place(console: Console, place: Place) -> Iterator[ProbeRow]:
    try:
        view = console.find(place)
    except UnexpectedError as error:
        yield ProbeRow(console.name, place.name, Presence.UNKNOWN, error.sentence)
        return
    if view is None:
        way = " > ".join(console.words.name(term) for term in place.ways[0])
        yield ProbeRow(console.name, place.name, Presence.MISSING if place.needs else Presence.OPTIONAL, f"no menu entry {way}")
        return
    yield ProbeRow(console.name, place.name, Presence.THERE, view.page.path.partition("?")[0])
    for need in place.needs:
        yield _check_need(console, place, need, view)


def _check_need(console: Console, place: Place, need: Need, view: View) -> ProbeRow:
    there = _has(view, need)
    absent = Presence.OPTIONAL if need.optional else Presence.MISSING
    what = f"{place.name}: {need.kind.value} “{console.words.name(need.term)}”"
    return ProbeRow(console.name, what, Presence.THERE if there else absent)


def _has(view: View, need: Need) -> bool:
    page, term = view.page, need.term
    if need.kind is NeedKind.HEADING:
        return view.has_heading(term)
    if need.kind is NeedKind.LINK:
        return bool(view.find_links(term))
    if need.kind is NeedKind.BUTTON:
        return view.find_button(term) is not None
    if need.kind is NeedKind.FIELD:
        return any(view.find_field(form, term) is not None for form in page.forms)
    if need.kind is NeedKind.COLUMN:
        return view.find_table(term) is not None
    return _has_fact(view, term)


def _has_fact(view: View, term: Term) -> bool:
    """Whether the label is there; its value may well be empty on a new box."""
    labelled = any(view.words.match(term, label) for label, _ in view.page.facts)
    return labelled or view.find_fact(term) is not None
