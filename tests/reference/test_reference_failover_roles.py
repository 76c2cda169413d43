"""Changes of roles in a failover pair: nothing that was confirmed is lost, and what goes wrong in between is named and mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree as ET

import httpx
import pytest
from reference_boxes import SEED
from reference_pairs import (
    FORCE,
    PULL_FIRST,
    BoxPair,
    clear_faults,
    content,
    failover_page,
    kill,
    press,
    send_session,
    sessions,
    wait_for_role_change,
    wait_until,
)

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]
CONFLICT = "NOTE: There is a conflict in the primary and secondary site instances."


@pytest.fixture
def pair(one_pair: BoxPair) -> Iterator[BoxPair]:
    """Afterwards ``a`` is the primary again and ``b`` has all that it has."""
    yield one_pair
    for box in one_pair.boxes:
        box.start()
        clear_faults(box)
    wait_until(lambda: is_primary_again(one_pair.a), "a to be the primary", tell=one_pair.tell)
    wait_until(lambda: one_pair.holders() == ["a"], "the shared address at a", tell=one_pair.tell)
    assert one_pair.sync()["Data Sync Status"] == "OK"
    assert content(one_pair.a) == content(one_pair.b)


def is_primary_again(box: LocalAppliance) -> bool:
    page = failover_page(box)
    if CONFLICT in page.text:
        page.press("Fix This Error")
    elif page.facts()["Failover Role"] == "Backup":
        page.press("Become Primary")
    page = failover_page(box)
    return page.facts()["Failover Role"] == "Primary" and CONFLICT not in page.text


@contextmanager
def writer(pair: BoxPair) -> Iterator[list[str]]:
    """A client that sends sessions to the shared address without a pause; gives those that were confirmed to it."""
    confirmed: list[str] = []
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            lsid = pair.lsid()
            if send_session(pair.shared, pair.a.port, lsid) == 201:
                confirmed.append(lsid)
            time.sleep(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield confirmed
    finally:
        is_over.set()
        thread.join(10)


def test_a_swap_with_a_data_sync_first_loses_nothing_and_moves_the_shared_address(pair: BoxPair) -> None:
    with writer(pair) as confirmed:
        for new in (pair.b, pair.a):
            before = len(confirmed)
            facts = pair.swap(new)
            assert (facts["Failover Role"], facts["Last Role Change"]) == ("Primary", "OK")
            wait_until(lambda before=before: len(confirmed) > before + 5, "sessions at the new primary")
            assert pair.holders() == [new.folder.name]
    assert set(confirmed) <= sessions(pair.a)


def test_after_a_swap_only_what_changed_is_moved_back(pair: BoxPair) -> None:
    pair.swap(pair.b)
    assert pair.role(pair.a) == "Backup"
    assert send_session(pair.shared, pair.b.port, pair.lsid()) == 201
    assert int(pair.sync(pair.a)["Data Moved"].split()[0]) < 2000
    assert content(pair.a) == content(pair.b)


def test_a_primary_may_become_the_backup_by_its_own_page(pair: BoxPair) -> None:
    page = press(pair.a, "Become Backup", {PULL_FIRST.format(role="backup"): True})
    assert "has begun" in page.notice
    wait_until(lambda: pair.role(pair.b) == "Primary", "the change of roles")
    assert pair.role(pair.a) == "Backup"
    page = press(pair.b, "Become Backup")
    assert page.notice == "The role was changed."
    assert [pair.role(box) for box in pair.boxes] == ["Primary", "Backup"]


def command(box: LocalAppliance, **asked: str) -> ET.Element:
    auth = ("automation", str(SEED["api_client_secret"]))
    with httpx.Client(base_url=box.url, verify=False) as client:
        token = client.post("/oauth2/token", auth=auth, data={"grant_type": "client_credentials"}).json()["access_token"]
        content = client.get("/api/command", params=asked, headers={"Authorization": f"Bearer {token}"}).content
    root = ET.fromstring(content)
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
    return root


def test_roles_by_the_api_in_its_documented_words(pair: BoxPair) -> None:
    assert command(pair.b, action="get_appliances").findtext("appliance/failover_role") == "backup"
    health = command(pair.a, action="check_health")
    assert (health.findtext("failover_role"), health.findtext("enabled_shared_ips/ip")) == ("primary", pair.shared)
    assert health.find("last_data_sync_time").get("ts").isdigit()
    assert health.findtext("last_data_sync_status").startswith("OK")
    assert command(pair.b, action="check_health").find("enabled_shared_ips") is None
    said = command(pair.b, action="set_failover_role", role="primary", data_sync_first="1")
    assert (said.tag, said.text) == (
        "success",
        "Successfully started data sync. Role change will occur upon successful completion.",
    )
    wait_until(lambda: command(pair.b, action="check_health").findtext("failover_role") == "primary", "the change of roles")
    said = command(pair.b, action="set_failover_role", role="backup")
    assert (said.tag, said.text) == ("success", "Successfully changed role.")
    assert command(pair.a, action="check_health").findtext("failover_role") == "primary"
    assert command(pair.a, action="set_failover_role", role="primary").tag == "error"


def test_a_peer_that_does_not_answer_keeps_the_primary_from_becoming_the_backup_unless_it_is_forced(pair: BoxPair) -> None:
    pair.b.fault("peer-silent")
    page = press(pair.a, "Become Backup")
    assert "cannot be reached" in page.error
    assert page.facts()["Failover Role"] == "Primary"
    lsid = pair.lsid()
    assert send_session(pair.shared, pair.a.port, lsid) == 201
    page.fill("Become Backup", {FORCE: True})
    assert page.notice == "The role was changed."
    assert pair.holders() == []
    clear_faults(pair.b)
    assert CONFLICT in failover_page(pair.a).text
    # Two backups: the one that becomes the primary takes over what the last primary had.
    assert pair.swap(pair.b)["Failover Role"] == "Primary"
    assert lsid in sessions(pair.b)
    assert [pair.role(box) for box in pair.boxes] == ["Backup", "Primary"]


def test_two_primaries_are_named_and_resolved_without_losing_a_session(pair: BoxPair) -> None:
    for box in pair.boxes:
        box.fault("peer-silent")
    page = press(pair.b, "Become Primary")
    assert page.facts()["Failover Role"] == "Primary"
    apart = [pair.lsid(), pair.lsid()]
    for box, lsid in zip(pair.boxes, apart, strict=True):
        assert send_session(box.admin, box.port, lsid) == 201
    for box in pair.boxes:
        clear_faults(box)
    assert pair.holders() == ["a"], "the address is not taken from who has it"
    for box in pair.boxes:
        page = failover_page(box)
        assert CONFLICT in page.text
        page.press("Sync Now")
        assert page.error == "Resolve the conflict first."
    page = press(pair.b, "Fix This Error")
    assert page.notice == "The conflict was resolved.", page.error
    assert [pair.role(box) for box in pair.boxes] == ["Primary", "Backup"], "who has the shared address stays the primary"
    wait_until(lambda: content(pair.a) == content(pair.b), "the data sync after the conflict")
    assert set(apart) <= sessions(pair.a)


def test_an_answer_that_gets_lost_leaves_two_backups_which_the_next_try_resolves(pair: BoxPair) -> None:
    pair.a.fault("step-down-silent")
    facts = pair.swap(pair.b)
    assert (facts["Failover Role"], facts["Last Role Change"]) == ("Backup", "Failed")
    assert facts["Role Change Details"].startswith("It is not known whether the peer site stepped down")
    assert CONFLICT in failover_page(pair.b).text
    assert CONFLICT in failover_page(pair.a).text
    assert pair.holders() == []
    clear_faults(pair.a)
    assert pair.swap(pair.b)["Failover Role"] == "Primary"
    assert pair.holders() == ["b"]


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_box_that_dies_during_a_change_of_roles_leaves_a_state_from_which_it_can_be_tried_again(pair: BoxPair, victim: str) -> None:
    dying, living = (pair.a, pair.b) if victim == "a" else (pair.b, pair.a)
    pair.a.fault("step-down-seconds", "2")
    lsid = pair.lsid()
    assert send_session(pair.shared, pair.a.port, lsid) == 201
    page = press(pair.b, "Become Primary", {PULL_FIRST.format(role="primary"): True})
    wait_until(lambda: send_session(pair.shared, pair.a.port, pair.lsid()) == 503, "the moment when the primary takes nothing")
    time.sleep(0.5)
    kill(dying)
    clear_faults(pair.a)
    if victim == "a":
        facts = wait_for_role_change(page)
        assert (facts["Failover Role"], facts["Last Role Change"]) == ("Backup", "Failed")
    else:
        wait_until(lambda: pair.role(living) in {"Backup", "Primary"}, "the living box")
    dying.start()
    wait_until(lambda: pair.swap(pair.b)["Failover Role"] == "Primary", "the second try")
    assert [pair.role(box) for box in pair.boxes] == ["Backup", "Primary"]
    assert lsid in sessions(pair.b)


def test_a_primary_that_starts_again_takes_its_address_only_when_the_peer_has_not_become_primary(pair: BoxPair) -> None:
    kill(pair.a)
    page = press(pair.b, "Become Primary")
    assert page.notice == "The role was changed.", page.error
    wait_until(lambda: send_session(pair.shared, pair.b.port, pair.lsid()) == 201, "service at b")
    pair.a.start()
    wait_until(lambda: CONFLICT in failover_page(pair.a).text, "the conflict")
    assert pair.holders() == ["b"]
    page = press(pair.a, "Fix This Error")
    assert [pair.role(box) for box in pair.boxes] == ["Backup", "Primary"]
