"""Small pure parts: what is left after a reset, clocks, sizes, versions in words, refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stands import FACTORY, HOSTILE, OWN

from kit.errors import ChangedError, DeadlineError, RejectedError, UnexpectedError, UnreachableError
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.bomgar.driver import credentials_after_reset
from migrate.appliances.bomgar.pages.basics import parse_time, read_clock
from migrate.appliances.bomgar.pages.files import parse_size
from migrate.appliances.bomgar.patience import ensure, wait_until
from migrate.appliances.bomgar.reset import verify_nothing_left
from migrate.appliances.errors import BusyError, LoginRefusedError, SessionLostError
from migrate.appliances.http import Answer
from migrate.facts import ApplianceFacts, BoxAddress, CertificateRow, ClockReading, FileItem, Identity, JumpClient, SiteContent, Version

BEFORE = Identity("guid-1", "S1", "old-box", "aa" * 32)
EMPTY = SiteContent(("admin",), (), (), (), ())
OWN_ROW = CertificateRow("appliance", "appliance", "2036", ("appliance",), has_key=True, addresses=(), warnings=("Self-signed",))
CLEAN = ApplianceFacts(
    identity=Identity("guid-2", "S1", "appliance", "bb" * 32),
    site=Version("21.1.1", "1"),
    base=Version("5.1.0", "1"),
    site_name="",
    healthy=True,
    health_note="",
    failover_role="none",
    clock=ClockReading(0, 1),
    addresses=(BoxAddress("127.0.0.1", 8, enabled=True),),
    certificates=(OWN_ROW,),
    content=EMPTY,
    read_at=0.0,
)


def test_a_box_in_factory_state_has_nothing_left() -> None:
    verify_nothing_left(BEFORE, CLEAN, FACTORY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"identity": replace(CLEAN.identity, guid="guid-1")}, "GUID"),
        ({"identity": replace(CLEAN.identity, tls_spki_sha256="aa" * 32)}, "key"),
        ({"content": replace(EMPTY, users=("admin", "eve"))}, "1 users"),
        ({"content": replace(EMPTY, sessions=("a", "b"))}, "2 sessions"),
        ({"content": replace(EMPTY, recordings=("a",))}, "recordings"),
        ({"content": replace(EMPTY, files=(FileItem("f", 1),))}, "file-store"),
        ({"content": replace(EMPTY, jump_clients=(JumpClient(1, "n", False, False, False, None),))}, "Jump Clients"),
        ({"certificates": (OWN_ROW, replace(OWN_ROW, issued_to="support.example.test"))}, "support.example.test"),
    ],
)
def test_whatever_is_left_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        verify_nothing_left(BEFORE, replace(CLEAN, **change), FACTORY)


@pytest.mark.parametrize("name", ["users", "sessions", "recordings", "files", "jump_clients"])
def test_what_could_not_be_read_is_not_taken_for_erased(name: str) -> None:
    with pytest.raises(UnexpectedError, match=name):
        verify_nothing_left(BEFORE, replace(CLEAN, content=replace(EMPTY, **{name: None})), FACTORY)


def test_another_serial_number_is_another_box() -> None:
    with pytest.raises(ChangedError, match="S2"):
        verify_nothing_left(BEFORE, replace(CLEAN, identity=replace(CLEAN.identity, serial="S2")), FACTORY)


def test_passwords_after_a_reset_are_found_again_and_differ_by_console_and_box() -> None:
    one, again = credentials_after_reset(OWN), credentials_after_reset(OWN)
    assert one == again
    assert one.site.password != one.appliance.password
    assert one != credentials_after_reset(replace(OWN, site=replace(OWN.site, password=Secret("x"))))
    assert HOSTILE not in one.site.password.reveal()
    assert len(one.site.password.reveal()) > 30


def _answer(date: str, asked: float, answered: float) -> Answer:
    return Answer(200, "/x", httpx.Headers({"date": date} if date else {}), b"", asked, answered)


NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()


@given(st.floats(-1e6, 1e6), st.floats(0, 5), st.floats(0, 1))
def test_the_true_offset_is_always_within_the_uncertainty(offset: float, travel: float, share: float) -> None:
    asked, answered = NOON, NOON + travel
    truth = asked + travel * share + offset  # the box's clock when it made the page
    shown = datetime.fromtimestamp(int(truth // 1), UTC)
    reading = read_clock(shown.strftime("%Y-%m-%dT%H:%M:%SZ"), _answer(shown.strftime("%a, %d %b %Y %H:%M:%S GMT"), asked, answered))
    assert abs(reading.offset - offset) <= reading.uncertainty + 1e-6
    assert reading.uncertainty <= travel / 2 + 0.51


def test_where_page_and_header_disagree_the_page_counts() -> None:
    reading = read_clock("2026-11-22T11:00:00Z", _answer("Sun, 22 Nov 2026 12:00:00 GMT", NOON, NOON))
    assert reading.offset == pytest.approx(-3599.5)
    assert reading.uncertainty == pytest.approx(0.5)


def test_a_box_that_tells_no_time_is_an_error() -> None:
    for shown in (None, "", "half past nine"):
        with pytest.raises(UnexpectedError, match="no time"):
            read_clock(shown, _answer("", NOON, NOON))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T12:00:00Z",
        "2026-11-22 12:00:00",
        "2026-11-22T13:00:00+01:00",
        "Sun, 22 Nov 2026 12:00:00 GMT",
        "Sun 22 Nov 2026 12:00:00 UTC",
    ],
)
def test_times_are_read_as_pages_write_them(text: str) -> None:
    found = parse_time(text)
    assert found is not None
    assert found.timestamp() == NOON


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text: str) -> None:
    found = parse_time(text)
    assert found is None or found.tzinfo is not None


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1234", 1234), ("1,234,567", 1234567), ("1.5 KB", 1536), ("2 MB", 2097152), ("12 bytes", 12)]
)
def test_sizes_are_read_as_pages_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "12 parsecs", "-3", "KB"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(UnexpectedError):
        parse_size(text)


def _attempt(place: refusals.Place, password: str) -> None:
    with refusals.one_try(place, "/x", "admin", Secret(password)):
        raise RejectedError("The password is wrong.")


def test_a_refusal_is_remembered_for_this_box_and_this_password_only() -> None:
    place = refusals.Place("host", 443, "key-1")
    with pytest.raises(RejectedError, match=r"^The password is wrong\.$"):
        _attempt(place, "a")
    with pytest.raises(LoginRefusedError, match="not tried again"):
        _attempt(place, "a")
    for other, password in ((place, "b"), (replace(place, key="key-2"), "a")):
        with pytest.raises(RejectedError, match=r"^The password is wrong\.$"):
            _attempt(other, password)
    refusals.forget("host", 443, "/x")
    with pytest.raises(RejectedError, match=r"^The password is wrong\.$"):
        _attempt(place, "a")


class Box:
    """Something that is so or not, and errors that acting on it meets."""

    def __init__(self, *errors: Exception | None, done: bool = False) -> None:
        self.done, self.errors, self.acts = done, list(errors), 0

    def look(self) -> str | None:
        return "so" if self.done else None

    def act(self) -> None:
        self.acts += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.done = True


def _ensure(box: Box) -> str:
    return ensure(box.look, box.act, what="it", timeout=0.05, poll=0.01)


def test_what_is_so_is_not_done_again() -> None:
    box = Box(done=True)
    assert _ensure(box) == "so"
    assert box.acts == 0


def test_a_lost_session_leads_to_a_second_try_only_if_nothing_happened() -> None:
    box = Box(SessionLostError("lost"))
    assert _ensure(box) == "so"
    assert box.acts == 2
    with pytest.raises(SessionLostError):
        _ensure(Box(SessionLostError("lost"), SessionLostError("lost")))


def test_a_connection_that_broke_off_is_not_tried_again_but_looked_at() -> None:
    box = Box(UnreachableError("broke off"))
    with pytest.raises(UnreachableError, match="broke off"):
        _ensure(box)
    assert box.acts == 1
    with pytest.raises(BusyError):
        _ensure(Box(BusyError("busy")))


def test_what_does_not_become_so_is_an_error_that_says_what_was_waited_for() -> None:
    with pytest.raises(DeadlineError, match="for it"):
        ensure(lambda: None, lambda: None, what="it", timeout=0.02, poll=0.01)


def test_waiting_ends_at_once_at_an_error_that_does_not_pass() -> None:
    def look() -> None:
        raise RejectedError("no")

    with pytest.raises(RejectedError, match="no"):
        wait_until(look, what="it", timeout=60)
