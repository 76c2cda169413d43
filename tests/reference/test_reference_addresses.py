"""Addresses of a local box: added, switched off and on, with effect at once."""

from __future__ import annotations

import os
import threading

import httpx
import pytest
from browsing import Browser
from reference_boxes import PASSWORD, SEED, Maker, look, next_address

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]
PAGE = ("Networking", "IP Configuration")


@pytest.fixture
def box(make_box: Maker) -> LocalAppliance:
    return make_box()


@pytest.fixture
def browser(box: LocalAppliance) -> Browser:
    return Browser(box.url, "appliance").first_login(PASSWORD).follow(*PAGE)


def answers(address: str, port: int) -> bool:
    try:
        return httpx.get(f"https://{address}:{port}/check_health", verify=False).status_code == 200
    except httpx.ConnectError:
        return False


def change(browser: Browser, address: str, *, enabled: bool) -> Browser:
    browser.follow(*PAGE)
    row = next(one for one in browser.rows("Networking :: IP Addresses") if one["IP Address"].text_content() == address)
    return browser.open(row["Actions"].xpath(".//a/@href")[0]).fill("Save Changes", {"Enabled": enabled})


def test_an_address_answers_from_the_moment_the_page_says_so_until_it_is_disabled(box: LocalAppliance, browser: Browser) -> None:
    address = next_address()
    assert not answers(address, box.port)
    browser.fill("Add Address", {"IP Address": address, "Subnet Mask": "255.0.0.0", "Enabled": True})
    assert browser.notice == "The changes were saved."
    assert answers(address, box.port)
    for enabled in (False, True, False):
        change(browser, address, enabled=enabled)
        assert browser.notice == "The changes were saved."
        assert answers(address, box.port) is enabled
    row = next(one for one in browser.rows("Networking :: IP Addresses") if one["IP Address"].text_content() == address)
    browser.open(row["Actions"].xpath(".//a/@href")[0]).press("Delete")
    assert address not in browser.text


@pytest.mark.parametrize(
    ("address", "mask", "sentence"),
    [
        ("300.1.1.1", "24", "is not an IP address"),
        ("127.9.9.9", "'; rm -rf", "is not an IP address"),
        ("192.0.2.7", "24", "is not a loopback address"),
        ("", "", "is not an IP address"),
    ],
)
def test_an_address_that_will_not_do_is_refused(browser: Browser, address: str, mask: str, sentence: str) -> None:
    browser.fill("Add Address", {"IP Address": address, "Subnet Mask": mask})
    assert sentence in browser.error
    assert len(browser.rows("Networking :: IP Addresses")) == 2


def test_the_same_address_twice_is_refused(box: LocalAppliance, browser: Browser) -> None:
    browser.fill("Add Address", {"IP Address": box.service[0], "Subnet Mask": "8"})
    assert browser.error == f"The appliance has the address {box.service[0]} already."


def test_the_last_enabled_address_stays_and_the_administration_address_cannot_be_deleted(box: LocalAppliance, browser: Browser) -> None:
    change(browser, box.service[0], enabled=False)
    change(browser, box.admin, enabled=False)
    assert browser.error == "The last enabled address cannot be disabled."
    browser.follow(*PAGE)
    assert [row["Enabled"] for row in browser.texts("Networking :: IP Addresses")] == ["Yes", "No"]


def test_a_disabled_address_stays_disabled_after_a_restart(box: LocalAppliance, browser: Browser) -> None:
    change(browser, box.service[0], enabled=False)
    box.stop()
    box.start()
    assert answers(box.admin, box.port)
    assert not answers(box.service[0], box.port)


def test_a_request_still_on_its_way_when_its_address_goes_off_is_not_confirmed(box: LocalAppliance, browser: Browser) -> None:
    """It passed the web server before the switch and reaches the application after it: here it is put there directly."""
    box.seed(SEED)
    body = {"client": "jump-0001", "secret": SEED["jump_client_secret"], "lsid": "cd" * 16, "customer": "x", "started": 1, "ended": 2}

    def send() -> int:
        here = os.open(".", os.O_RDONLY)
        os.chdir(box.root)  # the path of a socket must be short
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds="run/app.sock")) as client:
                return client.post("http://box/client/session", json=body, headers={"X-Served-On": box.service[0]}).status_code
        finally:
            os.fchdir(here)
            os.close(here)

    browser = look(box, "appliance")
    change(browser, box.service[0], enabled=False)
    assert send() == 503
    change(browser, box.service[0], enabled=True)
    assert send() == 201


def test_what_was_answered_before_an_address_goes_off_is_kept_and_nothing_is_taken_after(box: LocalAppliance) -> None:
    """A writer hammers the service address while it is switched off: every 201 it saw is in the database, and it sees the end."""
    box.seed(SEED)
    done: list[str] = []
    refused = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=f"https://{box.service[0]}:{box.port}", verify=False) as client:
            for at in range(100_000):
                lsid = f"{at:032x}"
                body = {
                    "client": "jump-0001",
                    "secret": SEED["jump_client_secret"],
                    "lsid": lsid,
                    "customer": "x",
                    "started": 1,
                    "ended": 2,
                }
                try:
                    if client.post("/client/session", json=body).status_code == 201:
                        done.append(lsid)
                except httpx.TransportError:
                    if not answers(box.service[0], box.port):
                        refused.set()
                        return

    writer = threading.Thread(target=write)
    writer.start()
    browser = look(box, "appliance")
    while len(done) < 20:
        pass
    change(browser, box.service[0], enabled=False)
    assert browser.notice == "The changes were saved."
    writer.join(30)
    assert refused.is_set()
    counted = look(box, "login").facts()["Sessions"]
    assert int(counted) >= 120 + len(done)
    assert int(counted) <= 120 + len(done) + 1, "at most the one whose answer was cut off"
