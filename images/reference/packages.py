"""Makes the reference appliance's packages: what a vendor would do. Keys belong to one lab, made once, kept in its vendor folder.

A vendor folder holds ``signing.key`` (Ed25519, private), ``vendor.pub``, ``download.key`` (shared with the boxes, seals their download
keys) and ``packages/*.pkg``, one for every release of the catalogue. A factory folder is what a box is born with: the two packages of
a profile, ``vendor.pub`` and ``download.key``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

HERE = Path(__file__).parent
RELEASES = HERE / "releases"
LANGUAGES = ("en", "es")


@dataclass(frozen=True)
class Entry:
    """A release of the catalogue. ``requires``: kind -> lowest version; ``words``: language -> what it says otherwise."""

    name: str
    build: str
    requires: dict[str, str]
    features: tuple[str, ...]
    api_version: str
    words: dict[str, dict[str, str]]

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]

    @property
    def version(self) -> str:
        return self.name.partition("-")[2]


@dataclass(frozen=True)
class Catalogue:
    """All releases, and which two a box of each profile is born with."""

    products: dict[str, str]
    eula: str
    profiles: dict[str, tuple[str, ...]]
    releases: tuple[Entry, ...]


def read_catalogue() -> Catalogue:
    """The releases that exist."""
    facts = json.loads((RELEASES / "catalogue.json").read_text())
    releases = tuple(_entry(one) for one in facts["releases"])
    profiles = {name: tuple(names) for name, names in facts["profiles"].items()}
    return Catalogue(facts["product"], facts["eula"], profiles, releases)


def _entry(one: dict[str, Any]) -> Entry:
    return Entry(one["name"], one["build"], one["requires"], tuple(one["features"]), one.get("api_version", ""), one.get("words", {}))


def make_vendor(vendor: Path) -> Path:
    """Make a vendor folder with all packages, or bring one up to date with the software; its keys stay. Answers the folder."""
    vendor.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _ensure_keys(vendor)
    packages = vendor / "packages"
    packages.mkdir(exist_ok=True)
    catalogue = read_catalogue()
    for entry in catalogue.releases:
        path = packages / f"{entry.name}.pkg"
        content = render_package(entry, catalogue, key)
        if not path.exists() or path.read_bytes() != content:
            _write(path, content, 0o644)
    return vendor


def _ensure_keys(vendor: Path) -> Ed25519PrivateKey:
    if not (vendor / "signing.key").exists():
        fresh = Ed25519PrivateKey.generate()
        _write(vendor / "download.key", os.urandom(32).hex().encode(), 0o600)
        _write(vendor / "vendor.pub", fresh.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
        _write(vendor / "signing.key", fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    key = load_pem_private_key((vendor / "signing.key").read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("the vendor's signing key is not Ed25519")
    return key


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, with its mode from the first byte on."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as sink:
        sink.write(content)
        os.fchmod(sink.fileno(), mode)
    Path(name).replace(path)


def make_factory(vendor: Path, target: Path, profile: str = "current", *, update_server: str = "") -> Path:
    """Write what a box of this profile is born with. ``update_server``: the address its Updates page starts with.

    Raises:
        KeyError: there is no such profile.

    """
    names = read_catalogue().profiles[profile]
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for name in names:
        _write(target / f"{name}.pkg", (vendor / "packages" / f"{name}.pkg").read_bytes(), 0o644)
    _write(target / "vendor.pub", (vendor / "vendor.pub").read_bytes(), 0o644)
    _write(target / "download.key", (vendor / "download.key").read_bytes(), 0o600)
    if update_server:
        _write(target / "update_server", update_server.encode(), 0o644)
    return target


def render_package(entry: Entry, catalogue: Catalogue, key: Ed25519PrivateKey) -> bytes:
    """A signed package: the same bytes for the same release and key."""
    files = _files(entry, catalogue)
    described = json.dumps(
        {
            "format": 1,
            "kind": entry.kind,
            "version": entry.version,
            "build": entry.build,
            "product": catalogue.products[entry.kind],
            "requires": entry.requires,
            "eula": catalogue.eula.format(version=entry.version),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        },
        indent=1,
        sort_keys=True,
    ).encode()
    parts = {"package.json": described, "signature": key.sign(described)} | {f"release/{name}": content for name, content in files.items()}
    return _zip(parts)


def _files(entry: Entry, catalogue: Catalogue) -> dict[str, bytes]:
    facts = {
        "kind": entry.kind,
        "version": entry.version,
        "build": entry.build,
        "product": catalogue.products[entry.kind],
        "api_version": entry.api_version,
        "features": list(entry.features),
    }
    files = {"release.json": json.dumps(facts, indent=1).encode(), "page.html": (RELEASES / "page.html").read_bytes()}
    for code in LANGUAGES:
        words = json.loads((RELEASES / "words" / f"{code}.json").read_text()) | entry.words.get(code, {})
        files[f"words/{code}.json"] = json.dumps(words, indent=1, ensure_ascii=False).encode()
    return files


def _zip(parts: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryFile() as sink:
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(parts.items()):
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
        sink.seek(0)
        return sink.read()
