"""A failover pair: establishing and breaking it, and working apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import Browser
from reference_boxes import PASSWORD, SEED, Maker, look
from reference_pairs import KEY, BoxPair, clear_faults, content, failover_page, make_pair, press, send_session, sessions, wait_until

pytestmark = [pytest.mark.process, pytest.mark.network]


def establish(page: Browser, host: str, port: int) -> Browser:
    return page.fill("Establish Relationship", {("Host Name or IP Address", 0): host, ("TLS Port", 0): str(port)})


@pytest.fixture
def apart(two_boxes: BoxPair) -> BoxPair:
    """Two boxes in no pair, with the same key."""
    two_boxes.separate()
    for box in two_boxes.boxes:
        box.seed({"preshared_key": KEY})
    return two_boxes


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ("another " + KEY, "The Inter-appliance Communication Pre-shared Keys of the two sites are not the same."),
        ("", "No Inter-appliance Communication Pre-shared Key is set on the peer site."),
    ],
)
def test_a_pair_needs_the_same_key_which_is_not_shown(apart: BoxPair, theirs: str, sentence: str) -> None:
    change = {"Inter-appliance Communication Pre-shared Key": theirs, "Remove the key": not theirs}
    look(apart.b, "login").follow("Management", "Security").fill("Save Changes", change)
    page = establish(failover_page(apart.a), apart.b.admin, apart.b.port)
    assert page.error == sentence
    assert KEY not in page.answer.text
    assert page.facts()["Failover Role"] == "None"
    for box in apart.boxes:
        assert KEY not in (box.folder / "appliance.log").read_text()
    look(apart.a, "login").follow("Management", "Security").fill("Save Changes", {"Remove the key": True})
    page = establish(failover_page(apart.a), apart.b.admin, apart.b.port)
    assert page.error == "Set the Inter-appliance Communication Pre-shared Key first: Management > Security."


def test_what_will_not_do_as_a_peer_is_refused_and_changes_nothing(apart: BoxPair, make_box: Maker) -> None:
    a, old = apart.a, make_box("old")
    a.seed({"public_host": "support.example.test"})
    old.seed({"site_password": PASSWORD, "preshared_key": KEY})
    for host, port, sentence in (
        (a.admin, a.port, "is this appliance itself."),
        (old.admin, old.port, "The two sites do not run the same software: 21.1.1 (60111) here, 16.2.1 (42010) at the peer site."),
        (old.admin, 1, "cannot be reached"),
        ("SUPPORT.example.test", 443, "is the name that both sites share; give the appliance's own address."),
        ("a b", 443, "is not a host name."),
        (old.admin, 70000, "is not a port."),
    ):
        page = establish(failover_page(a), host, port)
        assert sentence in page.error
        assert page.facts()["Failover Role"] == "None"
    values = {("Host Name or IP Address", 0): apart.b.admin, ("TLS Port", 0): str(apart.b.port), ("TLS Port", 1): "2"}
    page = failover_page(a).fill("Establish Relationship", values)
    assert page.error == f"The new backup site cannot reach the primary site at {a.admin}:2."
    assert failover_page(apart.b).facts()["Failover Role"] == "None"


def test_the_first_data_sync_starts_by_itself(apart: BoxPair) -> None:
    apart.b.fault("first-sync-seconds", "0.1")
    apart.establish()
    wait_until(lambda: failover_page(apart.b).facts().get("Data Sync Status") == "OK", "the first data sync")
    clear_faults(apart.b)
    assert content(apart.b) == content(apart.a)


def test_what_each_took_while_they_worked_apart_is_on_both_when_they_are_together_again(apart: BoxPair) -> None:
    apart.establish(share=False)
    apart.sync()
    page = press(apart.a, "Break Failover Relationships")
    assert page.notice == "The relationship was broken."
    assert [apart.role(box) for box in apart.boxes] == ["None", "None"]
    taken = [apart.lsid(), apart.lsid()]
    for box, lsid in zip(apart.boxes, taken, strict=True):
        assert send_session(box.admin, box.port, lsid) == 201
    apart.establish(apart.b, share=False)
    assert apart.sync(apart.b)["Data Sync Status"] == "OK"
    assert set(taken) <= sessions(apart.a)
    assert content(apart.a) == content(apart.b)
    assert "1 sessions and recordings of this site were merged into the primary site." in failover_page(apart.a).text


def test_a_break_that_the_peer_does_not_hear_of_is_named_there(apart: BoxPair) -> None:
    apart.establish()
    apart.b.fault("peer-silent")
    page = press(apart.a, "Break Failover Relationships")
    assert page.notice == "The relationship was broken here; the peer site could not be told."
    clear_faults(apart.b)
    page = failover_page(apart.b)
    assert page.facts()["Peer Host's Status"] == "The peer site does not know this relationship (any more)."
    page.press("Sync Now")
    assert page.error or apart.role(apart.b) == "Backup"
    assert apart.establish().error == ""
    assert failover_page(apart.b).facts()["Peer Host's Status"] == "Primary"


def test_a_restore_brings_the_failover_settings_of_the_backup_with_it(apart: BoxPair) -> None:
    """As the vendor says; whoever restores into another box must know."""
    software = look(apart.a, "login").follow("Management", "Software Management")
    saved = software.fill("Download Backup", {"Backup Password": PASSWORD, "Confirm Password": PASSWORD}).answer.content
    apart.establish(share=False)
    software = look(apart.a, "login").follow("Management", "Software Management")
    software.fill("Upload Backup", {"Backup Password": PASSWORD}, files={"Configuration Backup File": ("a.nsb", saved)})
    wait_until(lambda: failover_page(apart.a).facts()["Failover Role"] == "None", "the restore")
    assert failover_page(apart.b).facts()["Peer Host's Status"] == "The peer site does not know this relationship (any more)."


def test_a_version_of_long_ago_does_not_merge_and_keeps_the_sessions_of_the_primary_alone(tmp_path: Path, vendor: Path) -> None:
    """Before 10.6: they must be taken from the old primary before the other one takes its place, or they are lost."""
    with make_pair(tmp_path, vendor, "ancient") as pair:
        taken = [pair.lsid(), pair.lsid()]
        for box, lsid in zip(pair.boxes, taken, strict=True):
            if box is pair.b:
                box.seed({"jump_clients": 1, "jump_client_secret": SEED["jump_client_secret"]})
            assert send_session(box.admin, box.port, lsid) == 201
        pair.establish(share=False)
        assert pair.sync()["Data Sync Status"] == "OK"
        assert taken[0] in sessions(pair.b)
        assert taken[1] not in sessions(pair.a) | sessions(pair.b)
