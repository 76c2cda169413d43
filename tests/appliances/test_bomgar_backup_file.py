"""A backup file read back: every way in which it can be broken is named, and nothing is claimed that was not looked at."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.errors import BoxshiftError, FailedError, UnexpectedError
from kit.secret import Secret
from migrate.appliances.bomgar.backup import verify_backup_file
from migrate.appliances.errors import BackupRefusedError
from migrate.facts import Version

PASSWORD = Secret("a!b@c$ 'd\"e\\;ñ")


def make(path: Path, *, sealed: bool = True, payload: bytes = b"settings" * 5000, **change: object) -> Path:
    manifest: dict[str, object] = {
        "product": "P", "site_version": "22.1.4", "site_build": "9", "guid": "g", "created": "now", "kdf": None
    }  # fmt: skip
    manifest |= {name: value for name, value in change.items() if name in {"product", "site_version"}}
    if sealed:
        kdf = {"name": "scrypt", "n": 2**14, "r": 8, "p": 1, "salt": "00" * 16, "nonce": "11" * 12}
        key = hashlib.scrypt(PASSWORD.to_bytes(), salt=bytes(16), n=2**14, r=8, p=1, dklen=32, maxmem=2**26)
        bound = "\n".join(str(manifest[name]) for name in ("product", "site_version", "site_build", "guid", "created")).encode()
        payload = AESGCM(key).encrypt(bytes.fromhex("11" * 12), payload, bound)
        manifest["kdf"] = kdf | (change.get("kdf") or {})  # type: ignore[operator]
    manifest["payload_sha256"] = hashlib.sha256(payload).hexdigest()
    manifest |= {name: value for name, value in change.items() if name in {"payload_sha256", "guid"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("payload", payload)
    return path


def test_a_sound_one_tells_what_it_is_of_and_what_was_looked_at(tmp_path: Path) -> None:
    receipt = verify_backup_file(make(tmp_path / "a.nsb"), PASSWORD)
    assert (receipt.site, receipt.guid, receipt.encrypted) == (Version("22.1.4", "9"), "g", True)
    assert receipt.size == (tmp_path / "a.nsb").stat().st_size
    assert receipt.sha256 == hashlib.sha256((tmp_path / "a.nsb").read_bytes()).hexdigest()
    assert "opens with the password" in receipt.verified


def test_without_a_password_nothing_is_said_of_opening(tmp_path: Path) -> None:
    receipt = verify_backup_file(make(tmp_path / "a.nsb", sealed=False), None)
    assert receipt.encrypted is False
    assert "opens with the password" not in receipt.verified


def test_a_container_without_a_manifest_is_not_claimed_to_be_known(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.nsb", "w") as archive:
        archive.writestr("something", b"else")
    receipt = verify_backup_file(tmp_path / "a.nsb", PASSWORD)
    assert (receipt.site, receipt.guid, receipt.encrypted) == (None, None, None)
    assert len(receipt.verified) == 2


def test_a_seal_of_an_unknown_kind_is_not_claimed_to_open(tmp_path: Path) -> None:
    for kdf in ({"name": "argon2"}, {"n": 2**30}, {"p": 10**6}, {"n": "many"}):
        receipt = verify_backup_file(make(tmp_path / "a.nsb", kdf=kdf), Secret("whatever"))
        assert receipt.encrypted
        assert "opens with the password" not in receipt.verified


@pytest.mark.parametrize("password", [None, Secret("another")])
def test_a_missing_or_wrong_password_is_refused(tmp_path: Path, password: Secret | None) -> None:
    with pytest.raises(BackupRefusedError, match="password"):
        verify_backup_file(make(tmp_path / "a.nsb"), password)


def test_every_truncation_and_many_alterations_are_refused(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.nsb", payload=b"x" * 300).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "a.nsb").write_bytes(whole[:length])
        with pytest.raises(BackupRefusedError):
            verify_backup_file(tmp_path / "a.nsb", PASSWORD)


def test_an_altered_payload_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nsb", payload_sha256="00" * 32)
    with pytest.raises(BackupRefusedError, match="manifest"):
        verify_backup_file(path, PASSWORD)
    raw = bytearray(make(tmp_path / "b.nsb").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "b.nsb").write_bytes(raw)
    with pytest.raises(BackupRefusedError):
        verify_backup_file(tmp_path / "b.nsb", PASSWORD)


def test_a_manifest_that_was_given_anew_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(BackupRefusedError):
        verify_backup_file(make(tmp_path / "a.nsb", guid="another"), PASSWORD)


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b"not json", b'{"payload_sha256": 1}', b'"' * 10])
def test_an_unknown_manifest_is_an_error(tmp_path: Path, manifest: bytes) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("manifest.json", manifest)
        archive.writestr("payload", b"x")
    (tmp_path / "a.nsb").write_bytes(sink.getvalue())
    with pytest.raises((UnexpectedError, BackupRefusedError)):
        verify_backup_file(tmp_path / "a.nsb", PASSWORD)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"cannot be read"):
        verify_backup_file(tmp_path / "none.nsb", None)


def test_no_error_holds_the_password(tmp_path: Path) -> None:
    with pytest.raises(BoxshiftError) as caught:
        verify_backup_file(make(tmp_path / "a.nsb"), Secret("hush-hush"))
    assert "hush" not in str(caught.value.to_record())
