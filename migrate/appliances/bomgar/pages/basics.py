"""Status > Basics of /appliance: who the box is, its clock, its end."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from kit.errors import UnexpectedError, UnreachableError
from migrate.appliances.bomgar.catalogue import BASICS
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Entry, FieldKind, Form, View, fill
from migrate.appliances.bomgar.patience import twice
from migrate.appliances.bomgar.words import Term
from migrate.appliances.errors import BusyError, WrongBoxError, WrongKeyError
from migrate.appliances.http import Answer, Request
from migrate.facts import ClockReading, Identity, Version


@dataclass(frozen=True)
class Basics:
    """What the page says, and when it said so."""

    identity: Identity
    base: Version
    clock: ClockReading


def read_basics(console: Console) -> Basics:
    """Read the page."""
    return parse_basics(console.open(BASICS), console.client.pin.seen or "")


def parse_basics(view: View, fingerprint: str) -> Basics:
    """The page's values; ``fingerprint`` is of the key that served it."""
    identity = Identity(
        guid=view.need_fact(Term.APPLIANCE_GUID),
        serial=view.need_fact(Term.SERIAL_NUMBER),
        hostname=view.need_fact(Term.HOSTNAME),
        tls_spki_sha256=fingerprint,
    )
    base = Version(view.need_fact(Term.BASE_VERSION), view.need_fact(Term.BASE_BUILD))
    if view.answer is None:
        raise UnexpectedError("A clock cannot be read from a page without its answer.")
    return Basics(identity, base, read_clock(view.find_fact(Term.SYSTEM_TIME), view.answer))


def read_clock(shown: str | None, answer: Answer) -> ClockReading:
    """The box's clock from the time that the page shows and from the HTTP Date of the same answer; both are cut to full seconds.

    Raises:
        UnexpectedError: neither is there.

    """
    page = parse_time(shown or "")
    moments = [moment.timestamp() for moment in (page, answer.date) if moment is not None]
    if not moments:
        raise UnexpectedError("The box tells no time: neither System Time nor an HTTP Date can be read.")
    # A moment cut to its second lies in [t, t + 1); it was taken between asking and answering.
    low, high = max(moments) - answer.answered_at, min(moments) + 1.0 - answer.asked_at
    if low > high:  # page and header disagree: what the page shows is the clock that the box works by
        low, high = moments[0] - answer.answered_at, moments[0] + 1.0 - answer.asked_at
    return ClockReading(offset=(low + high) / 2, uncertainty=(high - low) / 2)


def parse_time(text: str) -> datetime | None:
    """A time as pages write it: ISO 8601, or as in mails; UTC where no zone is named. None where it is neither."""
    plain = text.strip().replace(" UTC", "+00:00").replace(" GMT", "+00:00")
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(plain)
        except (ValueError, TypeError):
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None


def verify_identity(console: Console, expected: Identity) -> View:
    """The Basics page of the box that is expected.

    Raises:
        WrongBoxError: GUID, serial number, host name or key is another one; says which.

    """
    try:
        view = console.open(BASICS)
        found = parse_basics(view, console.client.pin.seen or "").identity
    except WrongKeyError as error:
        raise WrongBoxError(
            f"{console.client.where} is not the box that was meant: it serves another key. Nothing was touched.",
            hint="Compare the addresses in the plan with the boxes.",
            **error.facts,
        ) from error
    for name in ("guid", "serial", "hostname", "tls_spki_sha256"):
        is_, meant = getattr(found, name), getattr(expected, name)
        if not hmac.compare_digest(is_.lower().encode(), meant.lower().encode()):
            raise WrongBoxError(
                f"{console.client.where} is not the box that was meant: its {name} is {is_}, not {meant}. Nothing was touched.",
                hint="Compare the addresses in the plan with the boxes.",
                found=is_,
                expected=meant,
                what=name,
            )
    return view


def end_box(console: Console, expected: Identity, term: Term, guard: Callable[[], None]) -> None:
    """Press one of the page's last buttons (reset, shut down) and confirm on the page that follows.

    ``guard`` is called when the identity has been compared and nothing is pressed yet: a version without a confirmation page would
    obey the first button. What it raises stops everything.
    """
    asked = twice(lambda: _press_first(console, expected, term, guard))
    if expected.hostname.lower() not in asked.page.text.lower():
        raise UnexpectedError(
            f"After “{console.words.name(term)}” comes no page that asks to confirm it for {expected.hostname}.",
            hint="Look at the box: whether it obeyed the first button at once cannot be told from here.",
            page_says=asked.note(),
        )
    last = _confirming_form(asked, term)
    try:
        console.press_last(last)
    except BusyError:
        raise
    except UnreachableError:
        return  # a box that ends may do so before it has answered; the caller looks at what became of it


def _press_first(console: Console, expected: Identity, term: Term, guard: Callable[[], None]) -> View:
    view = verify_identity(console, expected)
    form, button = view.need_button(term)
    guard()
    return console.press(fill(form, (), press=button))


def _confirming_form(asked: View, term: Term) -> Request:
    for wanted in (Term.CONFIRM, term):
        found = asked.find_button(wanted)
        if found is not None and not found[1].disabled:
            return fill(found[0], _ticks(asked, found[0]), press=found[1])
    raise asked.lacking("no button", Term.CONFIRM)


def _ticks(asked: View, form: Form) -> list[Entry]:
    return [Entry(f, value=True) for f in form.fields if f.kind is FieldKind.TICK and asked.words.match_any(Term.CONFIRM, f.labels)]
