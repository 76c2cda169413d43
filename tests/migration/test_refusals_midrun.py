"""What goes wrong in the middle of a run: it stops there with one sentence, nothing is half done, and mending the cause lets it go on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from theatre import Theatre, edit

from images.local_appliance import LocalAppliance
from kit.process import run
from migrate.engine.model import NodeState, Outcome, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
FAILED, REFUSED, CHANGED = "failed", "refused", "changed"


def verify_failed(outcome: Outcome, kind: str, code: str, *words: str) -> None:
    """It failed as an error of this kind and code, with a sentence that holds the words, and with a hint."""
    assert not outcome.ok, outcome.value
    error = outcome.error
    assert error is not None
    names = [str(error["code"]), *list(error["kinds"])]  # type: ignore[call-overload]
    assert {kind, code} <= set(names), error
    said = f"{error['sentence']} {error['hint']} {error['facts']}"
    assert "\n" not in str(error["sentence"]), error
    assert error["hint"], error
    for word in words:
        assert word in said, error


@pytest.fixture(scope="module")
def prepared(theatre: Theatre) -> Theatre:
    """The backup is taken, the TTL is low; the new box has its passwords and nothing else."""
    theatre.at("prepared")
    assert theatre.execute("first-login").ok
    assert theatre.execute("read-new-facts").ok
    return theatre


# ---- the backup


@pytest.mark.parametrize("fault", ["backup-truncated", "backup-altered"])
def test_a_backup_that_does_not_read_back_is_no_backup(prepared: Theatre, fault: str) -> None:
    kept = (prepared.run_folder / "backup.nsb").read_bytes()
    try:
        with prepared.fault(prepared.rig.stage.old_box, fault):
            verify_failed(prepared.execute("backup-old"), FAILED, "rejected", "not usable")
        assert not (prepared.run_folder / "backup.nsb").exists(), "what is broken must not lie there as a backup"
    finally:
        (prepared.run_folder / "backup.nsb").write_bytes(kept)


def alter(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("spoil", [alter, truncate], ids=["altered", "truncated"])
def test_a_backup_file_that_changed_on_the_disk_is_not_restored(prepared: Theatre, spoil: Any) -> None:
    path = prepared.run_folder / "backup.nsb"
    kept = path.read_bytes()
    try:
        spoil(path)
        verify_failed(prepared.execute("restore"), FAILED, "backup-refused", "damaged")
    finally:
        path.write_bytes(kept)
    verify_new_is_empty(prepared)


def test_a_backup_is_not_restored_with_another_passphrase(prepared: Theatre) -> None:
    with secret_changed(prepared, "backup"):
        verify_failed(prepared.execute("restore"), FAILED, "backup-refused", "the password is not the one")
    verify_new_is_empty(prepared)


@contextmanager
def secret_changed(theatre: Theatre, name: str) -> Iterator[None]:
    path = theatre.folder / "secrets.yaml"
    kept = path.read_text()
    edit(path, f"{name}: ", f'{name}: "another one"\n{name}_before: ')
    try:
        yield
    finally:
        path.write_text(kept)


def verify_new_is_empty(theatre: Theatre) -> None:
    with theatre.open_new(restored=False) as new:
        content = new.read_content()
    assert content.sessions == ()
    assert len(content.users) == 1


# ---- the new box


def test_a_new_box_with_a_wrong_clock_is_refused(prepared: Theatre) -> None:
    with prepared.fault(prepared.rig.stage.new_box, "clock", "-7200"):
        verify_failed(prepared.execute("read-new-facts"), REFUSED, "blocked", "clock of the new box", "NTP")


def test_a_new_box_that_takes_no_certificate_is_told(prepared: Theatre) -> None:
    with prepared.fault(prepared.rig.stage.new_box, "refuse-certificates"):
        verify_failed(prepared.execute("transfer-certificate"), FAILED, "certificate-refused")
    with prepared.open_new(restored=False) as new:
        assert not [row for row in new.read_certificates() if "support.example.test" in row.names]


@pytest.mark.parametrize(("fault", "words"), [("disk-full", "space"), ("install-fails", "")])
def test_an_installation_that_fails_leaves_the_box_as_it_was(prepared: Theatre, fault: str, words: str) -> None:
    with prepared.fault(prepared.rig.stage.new_box, fault):
        verify_failed(prepared.execute("install-packages"), FAILED, "rejected", words)
    verify_versions(prepared, "5.1.0", "21.1.1")


def verify_versions(theatre: Theatre, base: str, site: str) -> None:
    with theatre.open_new(restored=False) as new:
        assert [version.version for version in new.read_versions()] == [base, site]


def test_the_licence_has_to_be_accepted(prepared: Theatre) -> None:
    with frozen_plan(prepared, "accept_eula: true", "accept_eula: false"):
        verify_failed(prepared.execute("install-packages"), REFUSED, "refused", "accept_eula")
    verify_versions(prepared, "5.1.0", "21.1.1")


@contextmanager
def frozen_plan(theatre: Theatre, old: str, new: str) -> Iterator[None]:
    """The run was begun with another plan."""
    path = theatre.run_folder / "plan.yaml"
    kept = path.read_text()
    edit(path, old, new)
    try:
        yield
    finally:
        path.write_text(kept)


def test_a_package_with_a_bad_signature_is_not_installed(prepared: Theatre, tmp_path: Path) -> None:
    for path in prepared.rig.stage.packages.glob("*.pkg"):
        forge(path, tmp_path / path.name)
    with frozen_plan(prepared, "source: box", f"source: folder, folder: {json.dumps(str(tmp_path))}"):
        verify_failed(prepared.execute("install-packages"), FAILED, "failed", "signature")
    verify_versions(prepared, "5.1.0", "21.1.1")


def forge(source: Path, target: Path) -> None:
    """The same package, one of its files changed, its signature left."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            new.writestr(item, content.replace(b"vendor", b"forger") + b" " if item.filename == "package.json" else content)


def test_a_package_whose_prerequisite_is_missing_is_told(prepared: Theatre, tmp_path: Path) -> None:
    shutil.copy(prepared.rig.stage.packages / "site-22.1.4.pkg", tmp_path)
    with frozen_plan(prepared, "source: box", f"source: folder, folder: {json.dumps(str(tmp_path))}"):
        verify_failed(prepared.execute("install-packages"), FAILED, "failed", "5.3.0", "requires")
    verify_versions(prepared, "5.1.0", "21.1.1")


def test_a_packages_folder_that_is_not_there_is_told(prepared: Theatre, tmp_path: Path) -> None:
    with frozen_plan(prepared, "source: box", f"source: folder, folder: {json.dumps(str(tmp_path / 'no ñ such'))}"):
        verify_failed(prepared.execute("install-packages"), FAILED, "failed", "no ñ such")


# ---- the world between inspection and switch


@pytest.fixture(scope="module")
def verified(theatre: Theatre) -> Theatre:
    """The run waits for the word to switch."""
    theatre.at("verified")
    return theatre


def test_an_old_box_that_is_another_one_now_stops_the_switch(verified: Theatre) -> None:
    with closing(sqlite3.connect(verified.rig.stage.old_box.root / "data" / "box.db", timeout=30)) as database:
        before = database.execute("select value from setting where name = 'guid'").fetchone()[0]
        with database:
            database.execute("update setting set value = ? where name = 'guid'", ("1" * len(before),))
        try:
            verify_failed(verified.execute("blockers-live"), CHANGED, "changed", "not the one that was inspected")
        finally:
            with database:
                database.execute("update setting set value = ? where name = 'guid'", (before,))


@pytest.mark.parametrize(("name", "value"), [("unhealthy", "on"), ("clock", "600")])
def test_a_blocker_that_came_up_since_stops_the_switch(verified: Theatre, name: str, value: str) -> None:
    with verified.fault(verified.rig.stage.old_box, name, value):
        verify_failed(verified.execute("blockers-live"), REFUSED, "blocked")


def test_a_record_that_somebody_else_changed_is_not_overwritten(verified: Theatre) -> None:
    address, ttl = verified.record()
    verified.set_record("127.0.0.77", ttl)
    try:
        verify_failed(verified.execute("switch"), CHANGED, "dns-changed", "127.0.0.77")
        assert verified.record() == ("127.0.0.77", ttl)
    finally:
        verified.set_record(address, ttl)


def test_a_name_server_that_refuses_the_key_is_told(verified: Theatre) -> None:
    before = verified.record()
    path = verified.folder / "secrets.yaml"
    kept = path.read_text()
    edit(path, verified.rig.scene.secrets.tsig.reveal(), "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    try:
        verify_failed(verified.execute("switch"), FAILED, "dns-key-refused")
    finally:
        path.write_text(kept)
    assert verified.record() == before


# ---- by the command, to the end


def test_a_truncated_backup_stops_the_run_and_rollback_leads_back(theatre: Theatre) -> None:
    theatre.at("fresh")
    theatre.rig.stage.old_box.fault("backup-truncated")
    answer = theatre.on_plan("run", "--yes")
    assert answer.code == 4, answer.all
    assert theatre.rig.status().waiting == ("backup-old",)
    assert theatre.rig.status().node("first-login").state is NodeState.PENDING
    back = theatre.on_plan("rollback", "--json")
    assert (back.code, back.json["state"]) == (0, "rolled back"), back.all
    theatre.verify_old_in_service()


def test_a_full_disk_on_the_new_box_is_told_and_the_run_goes_on_when_it_has_room(theatre: Theatre) -> None:
    theatre.at("quiesced")
    theatre.rig.stage.new_box.fault("disk-full")
    answer = theatre.on_plan("run", "--json")
    assert answer.code == 4, answer.all
    status = theatre.rig.status()
    assert status.waiting == ("final-restore",)
    assert "disk" in str(status.node("final-restore").error)
    again = theatre.on_plan("retry")
    assert again.code == 4, again.all
    theatre.rig.stage.new_box.fault("disk-full", "off")
    last = theatre.on_plan("retry", "--note", "made room")
    assert last.code == 6, last.all
    assert theatre.rig.status().waiting == ("approve-retire",)
    assert theatre.rig.status().node("final-restore").attempt == 3


def test_a_name_server_that_went_away_leaves_the_way_back_open(theatre: Theatre) -> None:
    theatre.at("restored")
    names = theatre.rig.scene.names
    names.stop_one(names.primary)
    try:
        answer = theatre.on_plan("run")
        assert answer.code == 4, answer.all
        assert theatre.rig.status().waiting == ("switch",)
        back = theatre.on_plan("rollback", "--json")
        assert (back.code, back.json["state"]) == (4, "rollback incomplete"), back.all
        assert "switch" in theatre.on_plan("status").out
    finally:
        names.start_one(names.primary)
    again = theatre.on_plan("rollback", "--json")
    assert (again.code, again.json["state"]) == (0, "rolled back"), again.all
    theatre.verify_old_in_service()


def test_a_hypervisor_that_went_away_is_told_and_the_old_box_is_not_touched(theatre: Theatre) -> None:
    theatre.at("watched")
    frozen = theatre.run_folder / "plan.yaml"
    before = frozen.read_text()
    pin = theatre.read_plan().old.pin
    gone = 'machine: {name: old, hypervisor: "qemu:///system?socket=/nonexistent/libvirt-sock"}'
    frozen.write_text(before.replace(f"pin: {pin}", f"pin: {pin}\n  {gone}", 1))
    assert frozen.read_text() != before
    answer = theatre.on_plan("approve", "--json")
    assert answer.code == 3, answer.all
    status = theatre.rig.status()
    assert status.waiting == ("retire-gate",)
    assert "hypervisor" in str(status.node("retire-gate").error)
    assert status.node("factory-reset").state is NodeState.PENDING
    frozen.write_text(before)
    back = theatre.on_plan("rollback", "--json")
    assert (back.code, back.json["state"]) == (0, "rolled back"), back.all
    theatre.verify_old_in_service()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


@contextmanager
def small_disk(theatre: Theatre) -> Iterator[Path]:
    """The work folder is on a file system of its own; the answer is a file that fills it."""
    kept = theatre.folder / "kept"
    theatre.runs.rename(kept)
    theatre.runs.mkdir(mode=0o700)
    run(["mount", "-t", "tmpfs", "-o", "size=80m,mode=700", "tmpfs", theatre.runs], timeout=20)
    try:
        shutil.copytree(kept, theatre.runs, dirs_exist_ok=True)
        fill(theatre.runs / "filler")
        yield theatre.runs / "filler"
    finally:
        run(["umount", "--lazy", theatre.runs], timeout=20)
        theatre.runs.rmdir()
        kept.rename(theatre.runs)


@needs_root
def test_too_little_room_on_this_machine_stops_the_switch(verified: Theatre) -> None:
    with small_disk(verified) as filler:
        os.truncate(filler, filler.stat().st_size - 1_000_000)
        verify_failed(verified.execute("blockers-live"), REFUSED, "blocked", "free in the run's folder")


@needs_root
def test_a_full_disk_on_this_machine_is_told_and_the_run_goes_on_when_it_has_room(theatre: Theatre) -> None:
    theatre.at("quiesced")
    with small_disk(theatre) as filler:
        for answer in (theatre.on_plan("run", "--json"), theatre.on_plan("rollback", "--json")):
            assert answer.code == 4, answer.all
            assert "no space left" in answer.error["sentence"].lower(), answer.all
            assert "Free space" in answer.error["hint"], answer.all
        # With a little room it begins, and stops where that is used up; what was written down by then holds.
        os.truncate(filler, filler.stat().st_size - 250_000)
        answer = theatre.on_plan("run")
        assert answer.code == 4, answer.all
        assert "ree space" in answer.err, answer.all
        filler.unlink()
        done = theatre.rig.finished()
        assert "quiesce-old" in done
        answer = theatre.on_plan("retry" if theatre.rig.status().state is RunState.DECISION else "run")
        assert answer.code == 6, answer.all
        assert theatre.rig.status().waiting == ("approve-retire",)
        assert done.items() <= theatre.rig.finished().items(), "a node that had finished ran again"


def fill(path: Path) -> None:
    """Take every byte that is left."""
    with path.open("wb", buffering=0) as sink:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    sink.write(b"\0" * size)
            except OSError:
                continue


def test_a_box_that_went_away_is_told(theatre: Theatre) -> None:
    theatre.at("quiesced")
    box: LocalAppliance = theatre.rig.stage.new_box
    box.stop()
    answer = theatre.on_plan("run")
    assert answer.code == 4, answer.all
    back = theatre.on_plan("rollback", "--json")
    assert (back.code, back.json["state"]) == (0, "rolled back"), back.all
    theatre.verify_old_in_service()
    box.start()
