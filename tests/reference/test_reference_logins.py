"""Logging in: the forced change, lock-out, the agreement, sessions that end, forms that expire, addresses that are shut out."""

from __future__ import annotations

import pytest
from browsing import Browser
from reference_boxes import PASSWORD, Maker

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]


@pytest.fixture
def box(make_box: Maker) -> LocalAppliance:
    return make_box()


def test_the_first_login_forces_a_change_on_each_console_by_itself(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").log_in("password")
    assert browser.title == "Change Password"
    assert browser.links() == []
    browser.open("/appliance")
    assert browser.title == "Change Password"
    browser.change_password("password", PASSWORD)
    assert browser.title == "Basics"
    assert browser.notice == "The password was changed."
    assert Browser(box.url, "login").log_in(PASSWORD).error == "The user name or password is wrong."
    assert Browser(box.url, "login").first_login(PASSWORD).title == "Status"


@pytest.mark.parametrize("new", ["short", "password", "PASSWORD"])
def test_a_password_that_will_not_do_is_refused(box: LocalAppliance, new: str) -> None:
    browser = Browser(box.url, "appliance").log_in("password")
    browser.change_password("password", new)
    assert "must have 8 characters or more and be another one" in browser.error
    assert Browser(box.url, "appliance").log_in("password").title == "Change Password"


def test_five_failures_lock_the_account_until_it_is_unlocked(box: LocalAppliance) -> None:
    Browser(box.url, "appliance").first_login(PASSWORD)
    for _ in range(5):
        assert Browser(box.url, "appliance").log_in("wrong").error == "The user name or password is wrong."
    assert "locked" in Browser(box.url, "appliance").log_in(PASSWORD).error
    box.command("unlock", "admin")
    assert Browser(box.url, "appliance").log_in(PASSWORD).title == "Basics"


def test_the_limit_of_failures_can_be_set(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD).follow("Security", "Appliance Administration")
    section = browser.page.xpath("//section[h2='Security :: Failed Logins']")[0]
    browser.fill("Save Changes", {"Failed Login Attempts Before Lock-out": "1"}, within=section)
    assert browser.notice == "The changes were saved."
    Browser(box.url, "appliance").log_in("wrong")
    assert "locked" in Browser(box.url, "appliance").log_in(PASSWORD).error


def test_an_unknown_name_is_answered_like_a_wrong_password(box: LocalAppliance) -> None:
    assert Browser(box.url, "login").log_in("password", "nobody").error == "The user name or password is wrong."


def test_the_agreement_stands_before_the_login_form(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD).follow("Security", "Appliance Administration")
    section = browser.page.xpath("//section[h2='Security :: Prerequisite Login Agreement']")[0]
    text = 'Only <b>authorised</b> people & "ñ" may go on.'
    browser.fill("Save Changes", {"Enable Prerequisite Login Agreement": True, "Agreement Text": text}, within=section)
    for console in ("appliance", "login"):
        fresh = Browser(box.url, console).open()
        assert fresh.title == "Login Agreement"
        assert text in fresh.text
        assert not fresh.page.xpath("//input[@type='password']")
        fresh.press("Accept")
        assert fresh.page.xpath("//input[@type='password']")


def test_a_session_ends_when_it_is_idle(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD)
    box.fault("session-seconds", "0.001")
    browser.open()
    assert browser.title == "Appliance Administration Interface"
    assert browser.page.xpath("//input[@type='password']")


def test_a_form_sent_after_the_session_ended_changes_nothing(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD).follow("Networking", "IP Configuration")
    box.fault("end-sessions")
    section = browser.page.xpath("//section[h2='Networking :: Global Network Configuration']")[0]
    browser.fill("Save Changes", {"Hostname": "changed.example.test"}, within=section)
    assert browser.page.xpath("//input[@type='password']")
    assert browser.log_in(PASSWORD).facts()["Hostname"] != "changed.example.test"


def test_a_form_with_a_wrong_token_changes_nothing(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD).follow("Networking", "IP Configuration")
    section = browser.page.xpath("//section[h2='Networking :: Global Network Configuration']")[0]
    section.xpath(".//input[@type='hidden']")[0].set("value", "forged")
    browser.fill("Save Changes", {"Hostname": "changed.example.test"}, within=section)
    assert browser.answer.status_code == 403
    assert browser.error == "This form has expired. Nothing was changed."


def test_logging_out_ends_the_session(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD)
    kept = dict(browser.client.cookies)
    browser.follow("Account", "Logout")
    browser.client.cookies.update(kept)
    assert browser.open().page.xpath("//input[@type='password']")


def test_addresses_that_are_not_accepted_are_shut_out_and_one_cannot_shut_out_oneself(box: LocalAppliance) -> None:
    browser = Browser(box.url, "appliance").first_login(PASSWORD).follow("Security", "Appliance Administration")
    section = browser.page.xpath("//section[h2='Security :: Accepted Addresses']")[0]
    browser.fill("Save Changes", {"Accepted Addresses": "192.0.2.0/24"}, within=section)
    assert browser.error == "Your own address would be shut out."
    section = browser.page.xpath("//section[h2='Security :: Accepted Addresses']")[0]
    browser.fill("Save Changes", {"Accepted Addresses": "nonsense"}, within=section)
    assert "nonsense" in browser.error
    section = browser.page.xpath("//section[h2='Security :: Accepted Addresses']")[0]
    browser.fill("Save Changes", {"Accepted Addresses": "127.0.0.0/8"}, within=section)
    assert browser.notice == "The changes were saved."
