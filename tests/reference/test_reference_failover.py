"""Data syncs of a failover pair, and what a backup does and does not do."""

from __future__ import annotations

import threading

import httpx
import pytest
from reference_boxes import look
from reference_pairs import (
    BoxPair,
    clear_faults,
    content,
    failover_page,
    kill,
    send_session,
    sessions,
    wait_for_sync,
    wait_until,
)

pytestmark = [pytest.mark.process, pytest.mark.network]


def test_letters_without_the_right_seal_are_not_opened(one_pair: BoxPair) -> None:
    for word in ("hello", "leave", "step_down", "listing"):
        answer = httpx.post(f"{one_pair.a.url}/failover/{word}", json={}, verify=False)
        assert (answer.status_code, answer.json()) == (403, {"error": "key"})
    assert one_pair.role(one_pair.a) == "Primary"


def test_clocks_that_differ_are_named(one_pair: BoxPair) -> None:
    one_pair.b.fault("clock", "4000")
    try:
        page = failover_page(one_pair.a)
        assert "The clocks of the two appliances differ by" in page.facts()["Peer Host's Status"]
    finally:
        clear_faults(one_pair.b)
    assert failover_page(one_pair.a).facts()["Peer Host's Status"] == "Backup"
    # By the clock of then a data sync may have been due, which fails where clocks differ.
    wait_until(lambda: failover_page(one_pair.b).facts()["Data Sync Status"] != "Running", "the end of a data sync that was due")
    one_pair.sync()


def test_a_data_sync_makes_the_backup_what_the_primary_is(one_pair: BoxPair) -> None:
    assert content(one_pair.b) == content(one_pair.a)
    facts = failover_page(one_pair.b).facts()
    assert (facts["Failover Role"], facts["Peer Host's Status"], facts["Data Sync Status"]) == ("Backup", "Primary", "OK")
    assert facts["Last Data Sync"] != "None"


def test_a_second_data_sync_moves_only_what_changed(one_pair: BoxPair) -> None:
    assert one_pair.sync()["Data Moved"] == "0 bytes"
    lsid = one_pair.lsid()
    assert send_session(one_pair.shared, one_pair.a.port, lsid) == 201
    look(one_pair.a, "login").follow("Public Portals", "File Store").fill("Upload", {}, files={"File": ("groß.bin", bytes(300_000))})
    files = look(one_pair.a, "login").follow("Public Portals", "File Store")
    files.press("Delete", within=files.rows("File Store :: Files")[0]["Actions"])
    moved = int(one_pair.sync(one_pair.b)["Data Moved"].split()[0])
    assert 300_000 < moved < 303_000
    assert content(one_pair.b) == content(one_pair.a)
    assert lsid in sessions(one_pair.b)


def test_a_backup_answers_for_administration_and_not_for_the_site(one_pair: BoxPair) -> None:
    b = one_pair.b
    assert send_session(b.admin, b.port, one_pair.lsid()) == 503
    assert httpx.post(f"{b.url}/client/checkin", json={}, verify=False).status_code == 503
    assert httpx.get(b.url, verify=False).status_code == 503
    assert httpx.get(f"{b.url}/check_health", verify=False).status_code == 200
    page = look(b, "login")
    assert {"Jump Clients", "Vault Accounts"}.isdisjoint(page.links())
    page.follow("Public Portals", "File Store").fill("Upload", {}, files={"File": ("x.bin", b"x")})
    assert page.error == "This site is the backup of a failover pair: change it at the primary site."
    assert content(b) == content(one_pair.a)


def test_a_data_sync_that_fails_changes_nothing_and_may_be_repeated(one_pair: BoxPair) -> None:
    before = content(one_pair.b)
    assert send_session(one_pair.shared, one_pair.a.port, one_pair.lsid()) == 201
    one_pair.b.fault("sync-fails")
    try:
        facts = one_pair.sync()
    finally:
        clear_faults(one_pair.b)
    assert (facts["Data Sync Status"], facts["Data Sync Details"]) == ("Failed", "The data sync failed; the site is as it was before.")
    assert content(one_pair.b) == before
    assert failover_page(one_pair.b).facts()["Data Sync Status"] == "Failed"
    assert one_pair.sync()["Data Sync Status"] == "OK"
    assert content(one_pair.b) == content(one_pair.a)


def test_progress_is_told_on_both_pages_while_it_runs_and_no_second_one_starts(one_pair: BoxPair) -> None:
    one_pair.b.fault("sync-seconds", "1.5")
    try:
        pages = [failover_page(box) for box in one_pair.boxes]
        before = pages[0].facts()
        pages[0].press("Sync Now")
        for page in pages:
            wait_until(lambda page=page: "Data Sync Progress" in page.open(str(page.answer.url)).facts(), "the progress")
            assert page.facts()["Data Sync Progress"].endswith("bytes)")
        pages[0].press("Break Failover Relationships")
        assert pages[0].error == "A data sync or a role change is running. Try again when it has ended."
        assert wait_for_sync(pages[0], before)["Data Sync Status"] == "OK"
    finally:
        clear_faults(one_pair.b)


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_box_that_dies_during_a_data_sync_leaves_a_state_that_is_named_and_may_be_repeated(one_pair: BoxPair, victim: str) -> None:
    box, other = (one_pair.a, one_pair.b) if victim == "a" else (one_pair.b, one_pair.a)
    before = content(one_pair.b)
    assert send_session(one_pair.shared, one_pair.a.port, one_pair.lsid()) == 201
    one_pair.b.fault("sync-seconds", "3")
    page = failover_page(other)
    page.press("Sync Now")
    wait_until(lambda: "Data Sync Progress" in page.open(str(page.answer.url)).facts(), "the data sync")
    kill(box)
    assert content(one_pair.b) == before
    clear_faults(one_pair.b)
    if victim == "a":
        wait_until(lambda: page.open(str(page.answer.url)).facts()["Data Sync Status"] == "Failed", "the failure")
        assert "cannot be reached" in page.facts()["Data Sync Details"]
    else:
        assert "cannot be reached" in page.open(str(page.answer.url)).facts()["Peer Host's Status"]
    box.start()
    if victim == "b":
        facts = failover_page(box).facts()
        assert (facts["Data Sync Status"], facts["Data Sync Details"]) == ("Failed", "It was interrupted; try again.")
    wait_until(lambda: one_pair.holders() == [one_pair.a.folder.name], "the shared address at the primary")
    assert one_pair.sync(one_pair.b)["Data Sync Status"] == "OK"
    assert content(one_pair.b) == content(one_pair.a)


def test_a_shared_address_follows_the_role_and_not_the_address_page(one_pair: BoxPair) -> None:
    assert one_pair.holders() == [one_pair.a.folder.name]
    page = look(one_pair.b, "appliance").follow("Networking", "IP Configuration")
    row = next(row for row in page.rows("Networking :: IP Addresses") if row["IP Address"].text_content() == one_pair.shared)
    page.open(row["Actions"].xpath(".//a/@href")[0]).fill("Save Changes", {"Enabled": True})
    assert page.error.startswith("The address is shared in a failover pair")
    assert one_pair.holders() == [one_pair.a.folder.name]


def test_the_page_is_spanish_for_who_reads_spanish(one_pair: BoxPair) -> None:
    facts = failover_page(one_pair.b, "es").facts()
    assert (facts["Estado de este host"], facts["Estado del otro host"]) == ("Respaldo", "Principal")
    assert facts["Estado de la sincronización de datos"] == "Correcto"


def test_nothing_that_the_primary_confirms_while_syncs_run_is_missing_at_the_backup(one_pair: BoxPair) -> None:
    confirmed: list[str] = []
    is_over = threading.Event()

    def write() -> None:
        with httpx.Client(verify=False) as client:
            while not is_over.is_set():
                lsid = one_pair.lsid()
                if send_session(one_pair.shared, one_pair.a.port, lsid, client) == 201:
                    confirmed.append(lsid)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        assert one_pair.sync()["Data Sync Status"] == "OK"
    is_over.set()
    writer.join(10)
    assert one_pair.sync()["Data Sync Status"] == "OK"
    assert len(confirmed) > 3
    assert set(confirmed) <= sessions(one_pair.b)
    assert content(one_pair.b) == content(one_pair.a)
