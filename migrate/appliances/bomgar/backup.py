"""A backup file on disk, read back: whole, unaltered, and of what. What cannot be told without the box is not claimed."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.errors import FailedError, UnexpectedError
from kit.secret import Secret
from migrate.appliances.contract import BackupReceipt
from migrate.appliances.errors import BackupRefusedError
from migrate.facts import Version

_MANIFEST, _PAYLOAD = "manifest.json", "payload"
_LARGEST_MANIFEST = 2**20
_LARGEST_SEALED = 2**30  # AES-GCM is opened in one piece in memory
_MEMORY = 2**26  # for scrypt
_BOUND = ("product", "site_version", "site_build", "guid", "created")  # manifest values that the seal covers, in this order


@dataclass(frozen=True)
class _Container:
    manifest: dict[str, Any] | None
    payload_size: int


def verify_backup_file(path: Path, password: Secret | None) -> BackupReceipt:
    """Read a ``.nsb`` file back.

    Its parts are read to their ends and compared with their checksums; where it has a manifest, the payload's SHA-256 is compared,
    and where the manifest describes a seal that is known, the payload is opened with the password.

    Raises:
        BackupRefusedError: truncated, altered, or the password does not open it.
        FailedError: the file cannot be read.

    """
    try:
        with path.open("rb") as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
            source.seek(0)
            return _verify(path, source, password, size, sha256)
    except OSError as error:
        raise FailedError(f"The backup {path} cannot be read: {error.strerror}.") from error


def _verify(path: Path, source: IO[bytes], password: Secret | None, size: int, sha256: str) -> BackupReceipt:
    looked = ["complete length"]
    try:
        with zipfile.ZipFile(source) as archive:
            container = _open_container(path, archive)
            looked.append("container opened, every part read and its checksum right")
            if container.manifest is None:
                return BackupReceipt(path, size, sha256, None, None, None, tuple(looked))
            manifest = container.manifest
            _compare_payload(path, archive, manifest)
            looked.append("payload's SHA-256 is the manifest's")
            if manifest.get("kdf") is not None and container.payload_size <= _LARGEST_SEALED and _is_known_seal(manifest["kdf"]):
                _open_seal(path, archive.read(_PAYLOAD), manifest, password)
                looked.append("opens with the password")
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, "it is not a whole ZIP container") from error
    site = Version(str(manifest["site_version"]), str(manifest["site_build"])) if "site_version" in manifest else None
    return BackupReceipt(path, size, sha256, site, manifest.get("guid"), manifest.get("kdf") is not None, tuple(looked))


def _open_container(path: Path, archive: zipfile.ZipFile) -> _Container:
    broken = archive.testzip()
    if broken is not None:
        raise _damaged(path, f"its part {broken} is altered")
    names = archive.namelist()
    if _MANIFEST not in names:
        return _Container(None, 0)
    if archive.getinfo(_MANIFEST).file_size > _LARGEST_MANIFEST:
        raise _damaged(path, "its manifest is absurdly large")
    try:
        manifest = json.loads(archive.read(_MANIFEST))
    except ValueError as error:
        raise _damaged(path, "its manifest cannot be read") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("payload_sha256"), str) or _PAYLOAD not in names:
        raise UnexpectedError(f"The manifest of the backup {path} is in an unknown form.")
    return _Container(manifest, archive.getinfo(_PAYLOAD).file_size)


def _compare_payload(path: Path, archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    digest = hashlib.sha256()
    with archive.open(_PAYLOAD) as payload:
        while chunk := payload.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != manifest["payload_sha256"]:
        raise _damaged(path, "its payload is not what its manifest says")


def _is_known_seal(kdf: Any) -> bool:
    """Whether it is scrypt at a sane cost: a file must not make this machine compute for hours."""
    if not isinstance(kdf, dict) or kdf.get("name") != "scrypt":
        return False
    cost = [kdf.get(name) for name in ("n", "r", "p")]
    if not all(isinstance(value, int) and value > 0 for value in cost):
        return False
    n, r, p = (int(value or 0) for value in cost)
    return 128 * n * r <= _MEMORY // 2 and p <= 4


def _open_seal(path: Path, sealed: bytes, manifest: dict[str, Any], password: Secret | None) -> None:
    if password is None:
        raise BackupRefusedError(f"The backup {path} is protected by a password, and none is given.", hint="Name it in the plan's secrets.")
    kdf = manifest["kdf"]
    try:
        salt, nonce = bytes.fromhex(kdf["salt"]), bytes.fromhex(kdf["nonce"])
        key = hashlib.scrypt(password.to_bytes(), salt=salt, n=kdf["n"], r=kdf["r"], p=kdf["p"], dklen=32, maxmem=_MEMORY)
        AESGCM(key).decrypt(nonce, sealed, "\n".join(str(manifest.get(name)) for name in _BOUND).encode())
    except InvalidTag as error:
        raise BackupRefusedError(
            f"The backup {path} does not open: the password is not the one that it was made with, or the file was altered.",
            hint="Compare the backup password in the secrets; else make a new backup.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UnexpectedError(f"The backup {path} describes its protection in an unknown form.") from error


def _damaged(path: Path, why: str) -> BackupRefusedError:
    return BackupRefusedError(f"The backup {path} is damaged: {why}.", hint="Make a new backup; do not restore this file.")
