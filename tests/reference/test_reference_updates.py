"""Updates: the update server's rules, prerequisites, licence, signatures, by hand and automatically."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import Browser, wait_page
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance, LocalUpdateServer
from images.reference.packages import make_vendor

pytestmark = [pytest.mark.process, pytest.mark.network]


@pytest.fixture
def box(make_box: Maker, shop: LocalUpdateServer) -> LocalAppliance:
    return make_box(update_server=shop.url)


@pytest.fixture
def browser(box: LocalAppliance) -> Browser:
    return Browser(box.url, "appliance").first_login(PASSWORD).follow("Updates")


def names(rows: list[dict[str, str]]) -> list[str]:
    return [row["Name"] for row in rows]


def offered(browser: Browser) -> list[str]:
    browser.follow("Updates").press("Check for Updates")
    assert browser.notice == "The update server was asked.", browser.text
    return names(browser.texts("Available Updates"))


def install(browser: Browser, version: str) -> Browser:
    row = next(one for one in browser.rows("Available Updates") if one["Version"].text_content() == version)
    browser.press("Install This Update", within=row["Actions"])
    browser.fill("Continue", {"I accept": True})
    return wait_page(browser, "Last Installation")


def installed(browser: Browser) -> list[str]:
    return [row["Version"] for row in browser.follow("Updates").texts("Installed Software")]


def test_what_is_offered_and_what_is_greyed_out(browser: Browser) -> None:
    assert offered(browser) == [f"{kind} Software {version}" for kind, version in [
        ("Base", "5.2.0"), ("Base", "5.3.0"), ("Site", "21.2.1"), ("Site", "21.3.2"), ("Site", "22.1.4")
    ]]  # fmt: skip
    needs = {row["Version"]: row["Prerequisites"] for row in browser.texts("Available Updates")}
    assert needs == {
        "5.2.0": "",
        "5.3.0": "",
        "21.2.1": "requires Base Software 5.2.0",
        "21.3.2": "requires Site Software 21.2.1",
        "22.1.4": "requires Base Software 5.3.0",
    }
    grey = {row["Version"].text_content() for row in browser.rows("Available Updates") if row["Actions"].xpath(".//*[@disabled]")}
    assert grey == {"21.2.1", "21.3.2", "22.1.4"}
    assert len(browser.page.xpath("//tr[@aria-disabled='true']")) == 3


def test_the_whole_path_changes_the_running_software_step_by_step(box: LocalAppliance, browser: Browser) -> None:
    Browser(box.url, "login").first_login(PASSWORD)
    offered(browser)
    for version in ("5.2.0", "21.2.1", "5.3.0", "21.3.2", "22.1.4"):
        install(browser, version)
        assert browser.facts()["Last Installation"] == "Finished", browser.text
    assert installed(browser) == ["5.3.0", "22.1.4"]
    assert browser.follow("Status", "Basics").facts()["Base Software Version"] == "5.3.0"
    site = look(box, "login").facts()
    assert (site["Product Version"], site["Product Build"], site["API Version"]) == ("22.1.4", "62304", "1.22.1")
    browser.follow("Security", "Certificates")
    assert "Assign IP" not in browser.text, "that version chooses by itself"
    box.stop()
    box.start()
    assert look(box, "login").facts()["Product Version"] == "22.1.4"


def test_a_package_is_listed_only_until_this_box_has_downloaded_it(
    box: LocalAppliance, browser: Browser, shop: LocalUpdateServer, make_box: Maker
) -> None:
    offered(browser)
    install(browser, "5.2.0")
    key = browser.facts()["Appliance Download Key"]
    listed = httpx.get(f"{shop.url}/check", params={"key": key}).json()["packages"]
    assert [one["name"] for one in listed] == ["base-5.3.0", "site-21.2.1", "site-21.3.2", "site-22.1.4"]
    content = httpx.get(f"{shop.url}/package/base-5.3.0.pkg", params={"key": key})
    assert content.status_code == 200
    assert httpx.get(f"{shop.url}/package/base-5.3.0.pkg", params={"key": key}).status_code == 403
    assert "Base Software 5.3.0" not in offered(browser)
    other = Browser(make_box(update_server=shop.url).url, "appliance").first_login(PASSWORD)
    assert "Base Software 5.3.0" in offered(other)
    browser.follow("Updates").fill("Update Software", {}, files={"Update File": ("b.pkg", content.content)})
    browser.fill("Continue", {"I accept": True})
    wait_page(browser, "Last Installation")
    assert installed(browser) == ["5.3.0", "21.1.1"]


def test_a_download_that_could_not_be_installed_is_kept(box: LocalAppliance, browser: Browser) -> None:
    offered(browser)
    box.fault("install-fails")
    install(browser, "5.2.0")
    assert browser.facts()["Last Installation"] == "Failed"
    assert "could not be unpacked" in browser.facts()["Details"]
    assert installed(browser) == ["5.1.0", "21.1.1"]
    box.fault("install-fails", "off")
    assert "Base Software 5.2.0" in offered(browser), "the server does not list it any more, but the box has it"
    install(browser, "5.2.0")
    assert installed(browser) == ["5.2.0", "21.1.1"]


def test_nothing_is_installed_without_accepting_the_licence(browser: Browser) -> None:
    offered(browser)
    browser.press("Install This Update", within=browser.rows("Available Updates")[0]["Actions"])
    assert browser.title == "End User License Agreement"
    browser.press("Continue")
    assert browser.error == "The licence agreement must be accepted."
    assert installed(browser) == ["5.1.0", "21.1.1"]


@pytest.mark.parametrize("seconds", [-2401 * 60, 3600])
def test_the_key_fails_when_the_clock_is_wrong(box: LocalAppliance, browser: Browser, seconds: int) -> None:
    box.fault("clock", str(seconds))
    browser = look(box, "appliance").follow("Updates").press("Check for Updates")
    assert "Check the clock" in browser.error


def test_a_key_of_another_lab_is_not_taken(shop: LocalUpdateServer, tmp_path: Path) -> None:
    from reference_boxes import next_address

    with LocalAppliance(tmp_path / "stranger", next_address()) as stranger:
        browser = Browser(stranger.url, "appliance").first_login(PASSWORD).follow("Updates")
        browser.fill("Save Changes", {"Update Server": shop.url})
        browser.press("Check for Updates")
        assert "was not made by an appliance of this vendor" in browser.error


@pytest.mark.parametrize("server", ["", "file:///etc/passwd", "http://127.0.0.1:1", "nonsense"])
def test_an_update_server_that_cannot_be_asked_is_told_in_a_sentence(browser: Browser, server: str) -> None:
    browser.fill("Save Changes", {"Update Server": server})
    browser.press("Check for Updates")
    assert browser.error.startswith(("No update server is set.", "The update server http://127.0.0.1:1 cannot be reached"))


def package(vendor: Path, name: str) -> bytes:
    return (vendor / "packages" / f"{name}.pkg").read_bytes()


def altered(content: bytes, name: str, change: Any) -> bytes:
    """The package with one of its members changed."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(sink, "w") as copy:
        for entry in archive.namelist():
            copy.writestr(entry, change(archive.read(entry)) if entry == name else archive.read(entry))
    return sink.getvalue()


def by_hand(browser: Browser, content: bytes) -> Browser:
    return browser.follow("Updates").fill("Update Software", {}, files={"Update File": ("update.pkg", content)})


def test_an_altered_file_in_a_package_is_refused(browser: Browser, vendor: Path) -> None:
    by_hand(browser, altered(package(vendor, "base-5.2.0"), "release/page.html", lambda page: page + b"<!-- -->"))
    assert browser.error.startswith("The package is damaged")


def test_an_altered_description_is_refused(browser: Browser, vendor: Path) -> None:
    def newer(described: bytes) -> bytes:
        return json.dumps(json.loads(described) | {"version": "9.9.9"}).encode()

    by_hand(browser, altered(package(vendor, "base-5.2.0"), "package.json", newer))
    assert browser.error.startswith("The signature of the package is not the vendor's.")


def test_a_package_that_someone_else_signed_is_refused(browser: Browser, tmp_path: Path) -> None:
    by_hand(browser, package(make_vendor(tmp_path / "other"), "base-5.2.0"))
    assert browser.error.startswith("The signature of the package is not the vendor's.")
    assert installed(browser) == ["5.1.0", "21.1.1"]


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_package_is_refused(browser: Browser, content: bytes) -> None:
    by_hand(browser, content)
    assert browser.error == "The file is not an update package."


def test_a_package_without_its_prerequisite_and_one_that_is_not_newer_are_refused(browser: Browser, vendor: Path) -> None:
    by_hand(browser, package(vendor, "site-21.2.1"))
    assert browser.error == "site-21.2.1 requires base 5.2.0, which is not installed."
    by_hand(browser, package(vendor, "base-5.1.0"))
    assert browser.error == "Version 5.1.0 is installed; base-5.1.0 is not newer."


def test_an_old_box_finds_its_updates_under_support(make_box: Maker, shop: LocalUpdateServer) -> None:
    browser = Browser(make_box("old", update_server=shop.url).url, "appliance").first_login(PASSWORD)
    browser.follow("Support", "Updates").press("Check for Updates")
    install(browser, "5.1.0")
    assert browser.facts()["Last Installation"] == "Finished"
    assert [one.text_content() for one in browser.page.xpath("//nav/ul/li/a")] == ["Users", "Updates"], (
        "the new version has its own menu entry"
    )


def test_an_installation_that_is_cut_off_is_told_and_changes_nothing(box: LocalAppliance, browser: Browser) -> None:
    offered(browser)
    box.fault("install-seconds", "60")
    browser.press("Install This Update", within=browser.rows("Available Updates")[0]["Actions"])
    browser.fill("Continue", {"I accept": True})
    assert "The installation is running. Do not restart the appliance." in browser.text
    box.stop()
    box.start()
    browser = look(box, "appliance").follow("Updates")
    assert browser.facts()["Last Installation"] == "Failed"
    assert browser.facts()["Details"] == "It was interrupted; nothing was changed."
    assert installed(browser) == ["5.1.0", "21.1.1"]


def test_clients_are_told_to_update_and_slots_are_limited(box: LocalAppliance, browser: Browser) -> None:
    box.seed(SEED)
    site = look(box, "login").follow("Jump", "Jump Clients")
    site.fill("Save Changes", {"Maximum number of concurrent Jump Client upgrades": "2"})

    def check_in(client: str, version: str) -> Any:
        body = {"client": client, "secret": SEED["jump_client_secret"], "version": version}
        return httpx.post(f"{box.url}/client/checkin", json=body, verify=False).json()["update"]

    answers = [check_in(f"jump-{at:04d}", "20.1.1") for at in range(1, 4)]
    assert answers == ["21.1.1", "21.1.1", None]
    assert check_in("jump-0001", "21.1.1") is None
    assert check_in("jump-0003", "20.1.1") == "21.1.1", "the first one is done, so a slot is free"


def test_the_update_servers_page_is_for_people(shop: LocalUpdateServer, browser: Browser) -> None:
    key = browser.facts()["Appliance Download Key"]
    assert "base-5.2.0" in httpx.get(shop.url, params={"key": key}).text
    assert httpx.get(shop.url, params={"key": "<b>x"}).status_code == 403
    assert httpx.get(f"{shop.url}/elsewhere").status_code == 404
