"""Power, factory reset, sudden death; and that no secret leaves the places where it belongs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import httpx
import psutil
import pytest
from authority import issue_chain
from browsing import Browser
from reference_boxes import PASSWORD, SEED, Maker, look, next_address

from images.local_appliance import LocalAppliance
from images.reference.packages import read_catalogue
from kit.errors import DeadlineError, ToolError, UnreachableError
from kit.waiting import wait_for

pytestmark = [pytest.mark.process, pytest.mark.network]


def test_a_factory_reset_wipes_everything_but_the_serial_number(make_box: Maker) -> None:
    box = make_box()
    chain = issue_chain()
    box.seed({**SEED, "certificate_pem": chain.pem.decode(), "key_pem": chain.leaf.key_pem().decode()})
    browser = look(box, "appliance")
    before = browser.facts()
    browser.press("Reset Appliance to Factory Defaults")
    assert browser.facts() == {"Hostname": before["Hostname"]}, "it asks first, and says whom it would wipe"
    assert browser.open().facts()["Appliance GUID"] == before["Appliance GUID"]
    browser.press("Reset Appliance to Factory Defaults").press("Confirm")
    assert "is being reset" in browser.text

    def find_new() -> Browser | None:
        try:
            fresh = Browser(box.url, "appliance").log_in("password")
            is_new = fresh.title == "Change Password"  # no page at all while it answers 503
        except (httpx.TransportError, AttributeError):
            return None
        return fresh if is_new else None

    fresh = wait_for(find_new, what="the reset", timeout=20, poll=0.1).change_password("password", PASSWORD)
    after = fresh.facts()
    assert after["Serial Number"] == before["Serial Number"]
    assert after["Appliance GUID"] != before["Appliance GUID"]
    assert [row["Issued To"] for row in fresh.follow("Security", "Certificates").texts("Security :: Certificates")] == [after["Hostname"]]
    assert [row["IP Address"] for row in fresh.follow("Networking", "IP Configuration").texts("Networking :: IP Addresses")] == [box.admin]
    site = Browser(box.url, "login").first_login(PASSWORD).facts()
    assert (site["Users"], site["Sessions"], site["Company"], site["Vault Accounts"]) == ("1", "0", "", "0")
    left = b"".join(path.read_bytes() for path in (box.root / "data").rglob("*") if path.is_file())
    for trace in (b"support.example.test", b"jump-0001", chain.leaf.key_pem()):
        assert trace not in left


def test_shutting_down_asks_first_and_ends_every_process(make_box: Maker) -> None:
    box = make_box()
    browser = Browser(box.url, "appliance").first_login(PASSWORD)
    children = psutil.Process(box.pid).children(recursive=True)
    assert {"nginx"} <= {child.name() for child in children}
    browser.press("Shut Down This Appliance")
    assert box.is_running
    browser.press("Confirm")
    assert "is shutting down" in browser.text
    wait_for(lambda: True if not box.is_running else None, what="the end", timeout=20, poll=0.1)
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not box.answers()
    box.start()
    assert look(box, "appliance").title == "Basics"


def test_a_reboot_comes_back_by_itself_with_its_data(make_box: Maker) -> None:
    box = make_box()
    browser = Browser(box.url, "appliance").first_login(PASSWORD)
    guid = browser.facts()["Appliance GUID"]
    (box.root / "run" / "started").touch()
    os.utime(box.root / "run" / "started", (0, 0))
    browser.press("Reboot This Appliance")

    def find_back() -> dict[str, str] | None:
        try:
            facts = look(box, "appliance").facts()
        except (httpx.TransportError, AttributeError):
            return None
        return facts if facts["Uptime"].startswith("0 d") else None

    assert wait_for(find_back, what="the reboot", timeout=20, poll=0.1)["Appliance GUID"] == guid


def test_what_was_confirmed_survives_sudden_death(make_box: Maker) -> None:
    """Every process is killed at once while clients write; all that was answered with 201 is there afterwards."""
    box = make_box()
    box.seed(SEED)
    confirmed: list[str] = []

    def write(number: int) -> None:
        with httpx.Client(base_url=box.url, verify=False, timeout=10) as client:
            for at in range(10_000):
                lsid = f"{number:04x}{at:028x}"
                body = {
                    "client": "jump-0001",
                    "secret": SEED["jump_client_secret"],
                    "lsid": lsid,
                    "customer": "ñ",
                    "started": 1,
                    "ended": 2,
                }
                try:
                    if client.post("/client/session", json=body).status_code == 201:
                        confirmed.append(lsid)
                except httpx.TransportError:
                    return

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    wait_for(lambda: len(confirmed) > 60 or None, what="some writes", timeout=30, poll=0.01)
    supervisor = psutil.Process(box.pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # a child ends with the supervisor, which was killed before it
            process.send_signal(signal.SIGKILL)
    for writer in writers:
        writer.join()
    psutil.wait_procs(family[1:], timeout=10)
    box.stop()
    box.start()
    auth = (str(SEED["api_client_id"]), str(SEED["api_client_secret"]))
    token = httpx.post(f"{box.url}/oauth2/token", auth=auth, data={"grant_type": "client_credentials"}, verify=False).json()
    asked = {"generate_report": "SupportSessionListing", "start_time": "0", "duration": "10"}
    listing = httpx.get(
        f"{box.url}/api/reporting", params=asked, headers={"Authorization": f"Bearer {token['access_token']}"}, verify=False
    ).text
    assert [lsid for lsid in confirmed if lsid not in listing] == []


def test_when_only_the_supervisor_is_killed_nothing_is_left_running(make_box: Maker) -> None:
    box = make_box()
    supervisor = psutil.Process(box.pid)
    children = supervisor.children(recursive=True)
    supervisor.kill()
    assert psutil.wait_procs(children, timeout=15)[1] == []
    box.stop()
    box.start()
    assert box.answers()


def test_the_application_is_started_again_when_it_dies(make_box: Maker) -> None:
    box = make_box()
    arbiters = [child for child in psutil.Process(box.pid).children() if child.name() != "nginx"]
    for arbiter in arbiters:
        arbiter.kill()
    wait_for(lambda: box.answers() or None, what="the application", timeout=20, poll=0.1)


def test_no_secret_is_in_logs_process_lists_or_readable_files(make_box: Maker) -> None:
    box = make_box()
    chain = issue_chain()
    box.seed({**SEED, "certificate_pem": chain.pem.decode(), "key_pem": chain.leaf.key_pem().decode()})
    look(box, "login").follow("Management", "Software Management").fill(
        "Download Backup", {"Backup Password": PASSWORD + "-backup", "Confirm Password": PASSWORD + "-backup"}
    )
    Browser(box.url, "login").log_in(PASSWORD + "-wrong")
    httpx.post(f"{box.url}/oauth2/token", auth=("automation", PASSWORD + "-wrong"), data={"grant_type": "client_credentials"}, verify=False)
    words = {PASSWORD, json.dumps(PASSWORD)[1:-1]}
    for process in psutil.Process(box.pid).children(recursive=True):
        assert not any(word in " ".join(process.cmdline()) for word in words)
    for path in [*box.root.rglob("*"), box.folder / "appliance.log"]:
        if path.is_file():
            content = path.read_bytes()
            hold_a_preshared_key = {"site.db", "site.db-wal"}  # it has to be known in clear, like every pre-shared key
            if path.name not in hold_a_preshared_key:
                assert not any(word.encode() in content for word in words), path
            if b"PRIVATE KEY" in content or path.suffix == ".db":
                assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path


def test_two_boxes_share_nothing(make_box: Maker) -> None:
    first, second = (Browser(make_box().url, "appliance").first_login(PASSWORD).facts() for _ in range(2))
    for name in ("Serial Number", "Appliance GUID", "Hostname"):
        assert first[name] != second[name]


def test_a_box_that_cannot_start_says_why(tmp_path: Path, vendor: Path) -> None:
    address = next_address()
    with LocalAppliance(tmp_path / "one", address, vendor=vendor) as first:
        second = LocalAppliance(tmp_path / "two", address, vendor=vendor)
        with pytest.raises(DeadlineError, match="nginx ended by itself"):
            second.start()
        assert not second.is_running
        assert first.answers()


def test_seeding_asks_for_a_box_and_for_words_it_knows(tmp_path: Path, make_box: Maker) -> None:
    with pytest.raises(UnreachableError):
        LocalAppliance(tmp_path / "never", next_address()).seed({})
    with pytest.raises(ToolError, match="not known: colour"):
        make_box().seed({"colour": "blue"})


def test_seeding_is_the_same_every_time(make_box: Maker) -> None:
    boxes = [make_box(), make_box()]
    summaries = [box.seed(SEED) for box in boxes]
    for name in ("jump_clients", "large_file_items", "sessions", "recordings"):
        assert summaries[0][name] == summaries[1][name]


def test_faults_are_listed_and_unknown_ones_refused(make_box: Maker) -> None:
    box = make_box()
    assert "disk-full" in box.command("fault")
    with pytest.raises(ToolError, match="there is no fault"):
        box.fault("nonsense")
    with pytest.raises(ToolError):
        box.fault("clock", "soon")


@pytest.mark.parametrize("profile", sorted(read_catalogue().profiles))
def test_every_profile_starts_healthy(make_box: Maker, profile: str) -> None:
    assert httpx.get(f"{make_box(profile).url}/check_health", verify=False).status_code == 200
