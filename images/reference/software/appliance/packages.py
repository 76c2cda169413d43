"""Packages: opening one, checking whose it is and whether it fits, and putting it in place.

A package is a ZIP archive: ``package.json`` (kind, version, build, what it requires, its EULA, SHA-256 of every file), ``signature``
(Ed25519 of the vendor over the bytes of ``package.json``) and the files themselves under ``release/``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .box import Box
from .errors import Refused
from .faults import Faults
from .release import Kind, parse_version
from .store import Store

LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True)
class Package:
    """An opened package whose signature and files are right. ``requires``: kind -> lowest version that must be installed."""

    kind: Kind
    version: str
    build: str
    product: str
    requires: dict[str, str]
    eula: str
    files: dict[str, bytes]

    @property
    def name(self) -> str:
        return f"{self.kind.value}-{self.version}"


def open_package(content: bytes, vendor_key: bytes) -> Package:
    """Read a package.

    Raises:
        Refused: it is not a package, not the vendor's, or altered.

    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {entry.filename: archive.read(entry) for entry in _entries(archive)}
            described, signature = parts.pop("package.json"), parts.pop("signature")
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise Refused("The file is not an update package.") from error
    try:
        load_pem_public_key(vendor_key).verify(signature, described)  # type: ignore[union-attr, call-arg]
    except InvalidSignature as error:
        raise Refused("The signature of the package is not the vendor's. Nothing was installed.") from error
    facts = json.loads(described)
    files = {name.removeprefix("release/"): body for name, body in parts.items()}
    if {name: hashlib.sha256(body).hexdigest() for name, body in files.items()} != facts["files"]:
        raise Refused("The package is damaged: its files are not those that were signed. Nothing was installed.")
    return Package(Kind(facts["kind"]), facts["version"], facts["build"], facts["product"], facts["requires"], facts["eula"], files)


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise Refused("The file is not an update package.")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts:
            raise Refused("The file is not an update package.")
    return entries


def find_missing(store: Store, requires: dict[str, str]) -> tuple[str, str] | None:
    """The first prerequisite that is not installed, as (kind, version); None where all are there."""
    for kind, version in requires.items():
        installed = store.box.value("select version from installed where kind = ?", kind)
        if installed is None or parse_version(installed) < parse_version(version):
            return kind, version
    return None


def verify_fits(store: Store, package: Package) -> None:
    """It can be installed on what is there.

    Raises:
        Refused: it is not newer than what is installed, or a prerequisite is missing.

    """
    installed = store.box.value("select version from installed where kind = ?", package.kind.value)
    if installed is not None and parse_version(package.version) <= parse_version(installed):
        raise Refused("Version {installed} is installed; {name} is not newer.", installed=installed, name=package.name)
    missing = find_missing(store, package.requires)
    if missing is not None:
        raise Refused("{name} requires {kind} {version}, which is not installed.", name=package.name, kind=missing[0], version=missing[1])


def install(box: Box, store: Store, package: Package, *, at_factory: bool = False) -> None:
    """Unpack a package and make it the installed release of its kind, in one step that happens whole or not at all.

    ``at_factory``: what a box is born with does not ask what was there before.

    Raises:
        Refused: it does not fit, or the disk is full.

    """
    if not at_factory:
        verify_fits(store, package)
    folder = f"{package.name}-{uuid.uuid4().hex[:6]}"
    try:
        _unpack(box.releases / folder, package)
        verify_space(Faults(store.box), "install-fails")
        old = store.box.value("select folder from installed where kind = ?", package.kind.value)
        store.box.run(
            "insert or replace into installed values (?, ?, ?, ?, ?)",
            *(package.kind.value, package.version, package.build, folder, Faults(store.box).now()),
        )
    except OSError as error:
        shutil.rmtree(box.releases / folder, ignore_errors=True)
        raise Refused("The package could not be unpacked: {reason}. Nothing was installed.", reason=error.strerror) from error
    if old:
        shutil.rmtree(box.releases / str(old), ignore_errors=True)


def _unpack(folder: Path, package: Package) -> None:
    for name, body in package.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sink:
            sink.write(body)
            sink.flush()
            os.fsync(sink.fileno())


def verify_space(faults: Faults, *more: str) -> None:
    """Fail as a full disk does where that fault (or one of ``more``) is switched on."""
    if any(faults.is_on(name) for name in ("disk-full", *more)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_vendor_key(box: Box) -> bytes:
    """The vendor's public key, which came with the box."""
    return (box.factory / "vendor.pub").read_bytes()
