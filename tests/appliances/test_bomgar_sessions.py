"""Sessions: one failed login at most, lock-out, agreement, sessions that end in between, keys that change."""

from __future__ import annotations

import itertools
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pki import make_bundle
from stands import API, FACTORY, HOSTILE, OWN, Stand

from kit.errors import BoxshiftError, DeadlineError, RejectedError
from kit.progress import Silent
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.bomgar.catalogue import ADMINISTRATION, USERS
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.driver import BomgarAppliance
from migrate.appliances.bomgar.forms import Entry, FieldKind, fill
from migrate.appliances.bomgar.words import Term
from migrate.appliances.contract import Account, ApiAccount, Credentials
from migrate.appliances.errors import BusyError, LockedOutError, LoginRefusedError, PasswordExpiredError, WrongKeyError
from migrate.appliances.http import Answer, Request
from migrate.facts import BoxAddress

pytestmark = [pytest.mark.process, pytest.mark.network]


def _wrong(number: int = 0) -> Credentials:
    account = Account("admin", Secret(f"{HOSTILE} wrong {number}"))
    return Credentials(account, account)


def test_a_wrong_password_is_tried_once_however_many_nodes_try(one_stand: Stand) -> None:
    one_stand.settle()
    for _ in range(8):  # the box locks the account after five
        with pytest.raises(LoginRefusedError):
            one_stand.open(_wrong()).read_identity()
    one_stand.open().verify_access()


def test_parallel_nodes_try_a_wrong_password_once(one_stand: Stand) -> None:
    from concurrent.futures import ThreadPoolExecutor

    one_stand.settle()

    def read(_: int) -> str:
        try:
            one_stand.open(_wrong()).read_identity()
        except LoginRefusedError as error:
            return error.sentence
        return "opened"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(read, range(8)))
    assert sum("not tried again" not in sentence for sentence in said) == 1
    one_stand.open().verify_access()


def test_a_wrong_api_secret_is_tried_once(worn_stand: Stand) -> None:
    worn_stand.open_with_api()
    wrong = replace(OWN, api=ApiAccount(API.client_id, Secret("wrong")))
    for count in range(2):
        with pytest.raises(RejectedError, match="API account" if count == 0 else "not tried again"):
            worn_stand.open(wrong).verify_access()


def test_a_locked_account_is_told_as_such_and_not_tried(one_stand: Stand) -> None:
    one_stand.settle()
    errors = []
    for number in range(6):
        with pytest.raises(RejectedError) as caught:
            one_stand.open(_wrong(number)).read_identity()
        errors.append(type(caught.value))
    assert errors[-1] is LockedOutError
    with pytest.raises(LockedOutError):
        one_stand.open().read_identity()
    one_stand.unlock()
    refusals.forget(one_stand.endpoint.host, one_stand.endpoint.port, "/appliance")
    one_stand.open().read_identity()


def test_a_new_box_is_not_entered_with_the_factorys_password(one_stand: Stand) -> None:
    with pytest.raises(PasswordExpiredError, match="new password"):
        one_stand.open(FACTORY).read_identity()


def test_the_agreement_before_the_login_is_accepted(one_stand: Stand) -> None:
    driver = one_stand.settle()
    view = driver._box.open(ADMINISTRATION)
    form = next(f for f in view.page.forms if any("Prerequisite" in heading for heading in f.headings))
    tick = next(f for f in form.fields if f.kind is FieldKind.TICK)
    text = next(f for f in form.fields if f.kind is FieldKind.TEXT)
    driver._box.press(fill(form, (Entry(tick, value=True), Entry(text, "Be good. Status, Login, locked.")), press=form.buttons[0]))
    one_stand.open().verify_access()
    one_stand.open(language=None).verify_access()


def _ending(driver: BomgarAppliance, stand: Stand, console: Console, when: Callable[[Request], bool]) -> list[str]:
    """End every session right before the first request that ``when`` picks."""
    ended: list[str] = []
    send, save = console.client.send, console.client.save

    def end_first(request: Request) -> None:
        if not ended and when(request):
            ended.append(request.path)
            stand.fault("end-sessions", "on")

    def sending(request: Request) -> object:
        end_first(request)
        return send(request)

    def saving(request: Request, target: Path, **more: object) -> object:
        end_first(request)
        return save(request, target, **more)  # type: ignore[arg-type]

    console.client.send, console.client.save = sending, saving  # type: ignore[method-assign, assignment]
    return ended


_prefixes = itertools.count(8)


def _changes(tmp_path: Path) -> dict[str, tuple[str, Callable[[BomgarAppliance, Stand], object]]]:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    passphrase = Secret("p")

    def restore(driver: BomgarAppliance, stand: Stand) -> None:
        stand.open().take_backup(tmp_path / "r.nsb", None, history=True, progress=Silent())
        driver.restore_backup(tmp_path / "r.nsb", None, progress=Silent())

    return {
        "upload": ("_site", lambda driver, _: driver.upload_file(tmp_path / "f", f"{tmp_path.name}.bin")),
        "address": ("_box", lambda driver, stand: driver.ensure_address(BoxAddress(stand.spare, next(_prefixes), enabled=True))),
        "certificate": ("_box", lambda driver, _: driver.import_certificate(make_bundle().to_pkcs12(passphrase), "c.p12", passphrase)),
        "backup": ("_site", lambda driver, _: driver.take_backup(tmp_path / "b.nsb", None, history=False, progress=Silent())),
        "restore": ("_site", restore),
        "facts": ("_box", lambda driver, _: driver.read_facts()),
    }


@pytest.mark.parametrize("name", ["upload", "address", "certificate", "backup", "restore", "facts"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_that_ends_in_between_does_not_stop_the_work(worn_stand: Stand, tmp_path: Path, name: str, method: str) -> None:
    console, act = _changes(tmp_path)[name]
    driver = worn_stand.open()
    driver.verify_access()
    ended = _ending(driver, worn_stand, getattr(driver, console), lambda request: request.method == method)
    act(driver, worn_stand)
    assert ended or (name, method) == ("facts", "POST"), "the test must have ended a session"


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_installation_survives_the_end_of_its_session_at_each_of_its_forms(one_stand: Stand, nth: int) -> None:
    one_stand.settle()
    driver = one_stand.open()
    driver.verify_access()
    offer = next(offer for offer in driver.read_offers() if not offer.missing)
    posts: list[str] = []

    def pick(request: Request) -> bool:
        posts.extend([request.path] if request.method == "POST" else [])
        return len(posts) == nth

    _ending(driver, one_stand, driver._box, pick)
    assert driver.install_offer(offer, progress=Silent(), accept_eula=True).version == offer.version


@pytest.mark.parametrize("arrives", [True, False], ids=["arrives", "is lost"])
def test_an_installation_whose_last_form_has_no_answer_is_not_taken_for_one_that_failed(one_stand: Stand, *, arrives: bool) -> None:
    """The box restarts from a quick package before it has answered; or it never heard of it."""
    one_stand.settle()
    driver = one_stand.open()
    driver.verify_access()
    offer = next(offer for offer in driver.read_offers() if not offer.missing)
    client, posts = driver._box.client, []
    send = client.send

    def sending(request: Request) -> Answer:
        posts.extend([request.path] if request.method == "POST" else [])
        if request.method != "POST" or len(posts) != 2:
            return send(request)
        if arrives:
            send(request)
        raise BusyError("it answers 503")

    client.send = sending  # type: ignore[method-assign]
    assert driver.install_offer(offer, progress=Silent(), accept_eula=True).version == offer.version
    assert len(posts) == (2 if arrives else 4)


def test_another_key_stops_everything_before_a_byte_is_sent(worn_stand: Stand) -> None:
    worn_stand.open_with_api()
    driver = worn_stand.open(endpoint=replace(worn_stand.endpoint, pins=("ab" * 32,)))
    for act in (driver.read_identity, driver.read_health, driver.verify_access):
        with pytest.raises(WrongKeyError, match="nothing was sent"):
            act()


def test_a_key_learned_at_the_first_contact_is_the_only_one_from_then_on(worn_stand: Stand) -> None:
    driver = worn_stand.open_with_api()
    first = driver.read_identity().tls_spki_sha256
    worn_stand.open(endpoint=replace(worn_stand.endpoint, pins=(first,))).verify_access()
    worn_stand.open(endpoint=replace(worn_stand.endpoint, pins=("ab" * 32, first.upper()))).verify_access()


def test_an_account_with_a_language_of_its_own_is_understood(one_stand: Stand) -> None:
    driver = one_stand.settle()
    view = driver._site.open(USERS)
    form, choice = next(
        (f, c) for f in view.page.forms for c in f.fields if c.kind is FieldKind.SELECT and any(o.text == "Español" for o in c.options)
    )
    driver._site.press(fill(form, (Entry(choice, "Español"),), press=form.buttons[0]))
    mixed = one_stand.open(language=None)
    assert mixed.read_content().users == ("admin",)
    assert mixed._site.find(USERS) is not None
    assert mixed._site.open(USERS).has_heading(Term.USERS)


def test_no_secret_is_in_errors_logs_or_reprs(worn_stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    driver = worn_stand.open_with_api()
    driver.verify_access()
    shown = [repr(driver.__dict__), repr(driver._box.__dict__), caplog.text]
    for credentials in (_wrong(), replace(OWN, api=ApiAccount(API.client_id, Secret(HOSTILE + " wrong")))):
        try:
            worn_stand.open(credentials).verify_access()
        except BoxshiftError as error:
            shown += [str(error.to_record()), "".join(traceback.format_exception(error))]
    shown.append(caplog.text)
    assert len(shown) > 4
    for secret in (HOSTILE, "a!b@c"):
        assert all(secret not in text for text in shown)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_session_that_ends_before_the_last_button_ends_nothing_by_halves(one_stand: Stand, nth: int) -> None:
    one_stand.settle(users=3)
    driver = one_stand.open()
    before = driver.read_identity()
    posts: list[str] = []
    guarded: list[str] = []

    def pick(request: Request) -> bool:
        posts.extend([request.path] if request.method == "POST" else [])
        return len(posts) == nth

    _ending(driver, one_stand, driver._box, pick)
    driver._patience = 0.01
    if nth == 1:
        driver._patience = 1.0
        driver.reset_to_factory(before, lambda: guarded.append("asked"))
        assert one_stand.open().verify_reset(before, FACTORY).identity.guid != before.guid
        assert guarded == ["asked", "asked"], "asked again for the second try"
    else:
        with pytest.raises(DeadlineError, match="another key"):
            driver.reset_to_factory(before, lambda: guarded.append("asked"))
        assert one_stand.open().read_identity() == before, "it was not pressed a second time"
