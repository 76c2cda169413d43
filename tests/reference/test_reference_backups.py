"""Backups of the site: what they hold, what they leave out, and every way in which a restore says no."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import pytest
from browsing import Browser, wait_page
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance
from kit.waiting import wait_for

pytestmark = [pytest.mark.process, pytest.mark.network]
PAGE = ("Management", "Software Management")


@pytest.fixture(scope="module")
def old(shared_boxes: Maker) -> LocalAppliance:
    box = shared_boxes()
    box.seed(SEED)
    return box


@pytest.fixture
def new(make_box: Maker) -> LocalAppliance:
    return make_box()


def take(box: LocalAppliance, password: str = "", *, history: bool = True) -> bytes:
    browser = look(box, "login").follow(*PAGE)
    browser.fill("Download Backup", {"Backup Password": password, "Confirm Password": password, "Include logged history": history})
    assert browser.answer.headers["content-disposition"].startswith("attachment")
    content: bytes = browser.answer.content
    return content


def put(browser: Browser, backup: bytes, password: str = "") -> Browser:
    browser.follow(*PAGE)
    return browser.fill("Upload Backup", {"Backup Password": password}, files={"Configuration Backup File": ("old.nsb", backup)})


def wait_restored(browser: Browser) -> None:
    """The restore ended for good when everyone was logged out, for bad when the page says so."""
    wait_page(browser, "Username|Administration Interface Login|Last Restore (?:Finished|Failed)|Last RestoreF")


def tables(backup: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(backup)) as archive:
        found: dict[str, Any] = json.loads(zlib.decompress(archive.read("payload")))
    return found


def test_a_whole_site_moves_but_for_what_backups_do_not_hold(old: LocalAppliance, new: LocalAppliance) -> None:
    before = look(old, "login").facts()
    browser = Browser(new.url, "login").first_login("another password")
    put(browser, take(old, PASSWORD), PASSWORD)
    assert "is being restored" in browser.text
    wait_restored(browser)
    assert "wrong" in Browser(new.url, "login").log_in("another password").error, "users are those of the backup now"
    browser = look(new, "login")
    after = browser.facts()
    same = ("Site Name", "Company", "Public Host Name", "Users", "Jump Clients", "Sessions", "Vault Accounts")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after["Session Recordings"] == "0"
    assert after["File Store Items"] == "50", "60 items, 10 of them too large"
    assert browser.follow(*PAGE).facts()["Last Restore"] == "Finished"
    assert browser.follow("Management", "Security").facts() == {"Inter-appliance Communication Pre-shared Key": "Set"}


def test_at_most_fifty_files_and_none_of_200_kilobytes_are_held(make_box: Maker) -> None:
    box = make_box()
    box.seed({**SEED, "file_items": 80})
    held = tables(take(box))["file_item"]
    assert len(held) == 50
    assert max(len(item["content"]["base64"]) * 3 // 4 for item in held) < 200 * 1024 + 3


def test_without_logged_history_the_sessions_stay_out_and_those_of_the_target_stay(old: LocalAppliance, new: LocalAppliance) -> None:
    backup = take(old, history=False)
    assert "session" not in tables(backup)
    new.seed({**SEED, "sessions": 3})
    put(look(new, "login"), backup)
    wait_for(lambda: look(new, "login").follow(*PAGE).facts().get("Last Restore") == "Finished" or None, what="the restore", timeout=20)
    assert look(new, "login").facts()["Sessions"] == "3"


def test_no_backup_holds_recordings_keys_or_the_vaults_key(old: LocalAppliance) -> None:
    held = tables(take(old))
    assert set(held) == {"account", "setting", "api_account", "jump_client", "vault_account", "session", "file_item"}
    assert "vault_key" not in [row["name"] for row in held["setting"]]


def test_a_protected_backup_shows_nothing_without_its_password(old: LocalAppliance) -> None:
    backup = take(old, PASSWORD)
    with zipfile.ZipFile(io.BytesIO(backup)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        with pytest.raises(zlib.error):
            zlib.decompress(archive.read("payload"))
    assert manifest["kdf"]["name"] == "scrypt"
    assert manifest["site_version"] == "21.1.1"
    assert b"user001" not in backup


@pytest.mark.parametrize(
    ("spoil", "password", "sentence"),
    [
        (lambda made: made, "wrong", "The backup could not be opened: the password is wrong."),
        (lambda made: made, "", "The backup is protected: its password is needed."),
        (lambda made: made[: len(made) // 2], PASSWORD, "The file is not a configuration backup, or it is not complete."),
        (lambda made: made[:-1], PASSWORD, "The file is not a configuration backup, or it is not complete."),
        (lambda made: made[:2000] + bytes([made[2000] ^ 1]) + made[2001:], PASSWORD, None),
        (lambda _: b"", PASSWORD, "The file is not a configuration backup, or it is not complete."),
        (lambda _: b"<html>not a backup</html>", PASSWORD, "The file is not a configuration backup, or it is not complete."),
    ],
)
def test_a_restore_that_cannot_be_right_is_refused_and_changes_nothing(
    old: LocalAppliance, spoil: Any, password: str, sentence: str | None
) -> None:
    browser = look(old, "login")
    before = browser.facts()
    put(browser, spoil(take(old, PASSWORD)), password)
    assert browser.answer.status_code == 422
    assert browser.error == sentence if sentence else browser.error.startswith(("The backup is damaged", "The file is not"))
    after = browser.follow("Status").facts()
    assert {**after, "System Time": ""} == {**before, "System Time": ""}


def test_a_backup_of_another_version_is_refused_in_both_directions(old: LocalAppliance, make_box: Maker, vendor: Any) -> None:
    newer = make_box()
    newer.seed({**SEED, "packages": ["base-5.2.0", "site-21.2.1"], "package_folder": str(vendor / "packages")})
    for source, target in ((old, newer), (newer, old)):
        browser = put(look(target, "login"), take(source))
        assert "this site runs version" in browser.error
        assert browser.answer.status_code == 422


def test_two_different_passwords_make_no_backup(old: LocalAppliance) -> None:
    browser = look(old, "login").follow(*PAGE)
    browser.fill("Download Backup", {"Backup Password": "one", "Confirm Password": "other"})
    assert browser.error == "The two passwords are not the same."


def test_the_vault_opens_only_after_its_key_was_carried_too(old: LocalAppliance, new: LocalAppliance) -> None:
    source = look(old, "login").follow(*PAGE)
    fingerprint = source.facts()["Vault Key Fingerprint"]
    source.fill("Download Vault Encryption Key", {"Vault Key Password": PASSWORD, "Confirm Password": PASSWORD})
    key = source.answer.content
    put(Browser(new.url, "login").first_login(PASSWORD), take(old))
    browser = wait_for(lambda: _find_restored(new), what="the restore", timeout=20)
    assert browser.facts()["Vault Key Fingerprint"] == "None"
    assert {row["Can be decrypted"] for row in browser.follow("Vault", "Vault Accounts").texts("Vault :: Accounts")} == {"No"}
    for password, good in (("wrong", False), (PASSWORD, True)):
        browser.follow(*PAGE)
        browser.fill("Upload Vault Encryption Key", {"Vault Key Password": password}, files={"Vault Encryption Key File": ("key", key)})
        assert bool(browser.notice) is good, browser.text
    assert browser.facts()["Vault Key Fingerprint"] == fingerprint
    assert {row["Can be decrypted"] for row in browser.follow("Vault", "Vault Accounts").texts("Vault :: Accounts")} == {"Yes"}


def _find_restored(box: LocalAppliance) -> Browser | None:
    browser = look(box, "login")
    if browser.error:
        return None
    browser.follow(*PAGE)
    return browser if browser.facts().get("Last Restore") == "Finished" else None


def test_a_configuration_backup_is_not_taken_for_a_vault_key(old: LocalAppliance) -> None:
    browser = look(old, "login").follow(*PAGE)
    browser.fill(
        "Upload Vault Encryption Key", {"Vault Key Password": PASSWORD}, files={"Vault Encryption Key File": ("k", take(old, PASSWORD))}
    )
    assert browser.error == "The file is not a backup of a Vault encryption key."


def test_a_restore_that_fails_half_way_leaves_the_site_as_it_was(old: LocalAppliance, new: LocalAppliance) -> None:
    new.seed({**SEED, "sessions": 3, "company": "Before"})
    new.fault("restore-fails")
    browser = put(look(new, "login"), take(old))
    wait_page(browser, "Failed")
    facts = browser.follow("Status").facts()
    assert (facts["Company"], facts["Sessions"]) == ("Before", "3")
    assert browser.follow(*PAGE).facts()["Details"] == "The restore failed; the site is as it was before."


def test_a_restore_on_a_full_disk_fails_and_leaves_the_site_as_it_was(old: LocalAppliance, new: LocalAppliance) -> None:
    new.seed({**SEED, "sessions": 3, "file_items": 0, "company": "Before"})
    browser = look(new, "login").follow(*PAGE)
    new.fault("disk-full")
    put(browser, take(old))
    wait_page(browser, "Failed")
    new.fault("disk-full", "off")
    facts = browser.follow(*PAGE).facts()
    assert "disk of the appliance is full" in facts["Details"]
    facts = browser.follow("Status").facts()
    assert (facts["Company"], facts["Sessions"]) == ("Before", "3")


def test_clients_are_told_to_wait_while_a_restore_runs(old: LocalAppliance, new: LocalAppliance) -> None:
    import httpx

    new.seed(SEED)
    new.fault("restore-seconds", "1.5")
    browser = put(look(new, "login"), take(old))
    body = {"client": "jump-0001", "secret": SEED["jump_client_secret"], "version": "1"}
    assert httpx.post(f"{new.url}/client/checkin", json=body, verify=False).status_code == 503
    browser.follow(*PAGE)
    assert browser.facts()["Last Restore"] == "Running"
    put(browser, take(old))
    assert browser.answer.status_code == 503
    assert browser.error.startswith("A restore or an installation is running.")


@pytest.mark.parametrize("fault", ["backup-truncated", "backup-altered"])
def test_the_faults_of_backups_make_files_that_no_restore_takes(new: LocalAppliance, fault: str) -> None:
    new.seed(SEED)
    new.fault(fault)
    spoilt = take(new, PASSWORD)
    new.fault(fault, "off")
    browser = put(look(new, "login"), spoilt, PASSWORD)
    assert browser.answer.status_code == 422
