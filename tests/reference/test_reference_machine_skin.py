"""The machine skin, in a network namespace of its own: addresses really change on the interface, power goes to systemctl."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browsing import Browser
from reference_machines import Machine, start_machine

from kit.process import find_program, run
from kit.waiting import wait_for

PASSWORD = "a!b@c$ 'd\"e\\;ñ"

pytestmark = [
    pytest.mark.process,
    pytest.mark.network,
    pytest.mark.skipif(os.getuid() != 0 or find_program("unshare") is None, reason="network namespaces need root"),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with start_machine(tmp_path) as box:
        yield box


def test_an_added_address_is_on_the_interface_and_answers_until_it_is_disabled(machine: Machine) -> None:
    def work() -> None:
        browser = Browser("https://127.9.2.15", "appliance").first_login(PASSWORD).follow("Networking", "IP Configuration")
        browser.fill("Add Address", {"IP Address": "127.9.2.20", "Subnet Mask": "255.255.255.0", "Enabled": True})
        assert browser.notice == "The changes were saved.", browser.text
        assert machine.addresses() == ["127.9.2.15", "127.9.2.20"]
        assert httpx.get("https://127.9.2.20/check_health", verify=False).status_code == 200
        browser.follow("Networking", "IP Configuration")
        row = next(one for one in browser.rows("Networking :: IP Addresses") if one["IP Address"].text_content() == "127.9.2.20")
        browser.open(row["Actions"].xpath(".//a/@href")[0]).fill("Save Changes", {"Enabled": False})
        assert browser.notice == "The changes were saved.", browser.text
        assert machine.addresses() == ["127.9.2.15"]

    machine.inside(work)


def test_a_factory_reset_takes_added_addresses_off_the_interface_and_keeps_the_serial(machine: Machine) -> None:
    def work() -> None:
        browser = Browser("https://127.9.2.15", "appliance").first_login(PASSWORD)
        before = browser.facts()
        browser.follow("Networking", "IP Configuration")
        browser.fill("Add Address", {"IP Address": "127.9.2.20", "Subnet Mask": "24", "Enabled": True})
        browser.follow("Status", "Basics").press("Reset Appliance to Factory Defaults").press("Confirm")

        def is_new() -> dict[str, str] | None:
            try:
                fresh = Browser("https://127.9.2.15", "appliance").log_in("password")
                return fresh.change_password("password", PASSWORD).facts() if fresh.title == "Change Password" else None
            except (httpx.TransportError, AttributeError):
                return None

        after = wait_for(is_new, what="the reset", timeout=30, poll=0.2)
        assert after["Serial Number"] == before["Serial Number"]
        assert after["Appliance GUID"] != before["Appliance GUID"]
        assert machine.addresses() == ["127.9.2.15"]

    machine.inside(work)


def test_an_address_that_dhcp_gives_later_becomes_the_administration_address(machine: Machine) -> None:
    enter = ["nsenter", "-t", str(machine.child.pid), "-n", "ip", "addr"]
    run([*enter, "add", "127.9.9.7/24", "dev", "eth0", "scope", "global"], timeout=10)
    run([*enter, "del", "127.9.2.15/24", "dev", "eth0"], timeout=10)

    def answers() -> bool | None:
        try:
            return httpx.get("https://127.9.9.7/check_health", verify=False).status_code == 200 or None
        except httpx.TransportError:
            return None

    wait_for(lambda: machine.inside(answers), what="the new address", timeout=20, poll=0.2)


def test_shutting_down_asks_the_machine_to_power_off(machine: Machine) -> None:
    def work() -> None:
        browser = Browser("https://127.9.2.15", "appliance").first_login(PASSWORD)
        browser.press("Shut Down This Appliance")
        assert not machine.orders.exists()
        browser.press("Confirm")

    machine.inside(work)
    said = wait_for(lambda: machine.orders.read_text() if machine.orders.exists() else None, what="the order", timeout=10, poll=0.1)
    assert said == "poweroff\n"
