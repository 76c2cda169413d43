"""The folder in which packages travel into a closed network: the files, and a list of them with order, sizes and digests.

``transfer.json`` is written by ``boxshift packages fetch``. A folder without it is taken as well: then names tell kind and version, and no
digest is known. The packages' own signatures are for the box to check; they are inside the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kit.errors import FailedError, UsageError
from kit.files import write_private
from migrate.checks import parse_version
from migrate.facts import PackageKind, PackageOffer

LIST = "transfer.json"
MOST_BYTES = 2**20  # of the list


class TransferError(UsageError):
    """A folder of packages that is not whole, or not what it says."""

    code = "transfer"


class PackageEntry(BaseModel):
    """One package: ``file`` lies in the folder; ``size`` in bytes, ``sha256`` in hex (empty: not known)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    file: str = Field(min_length=1, max_length=255)
    kind: PackageKind
    version: str
    build: str = ""
    size: int = Field(ge=0)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @field_validator("file")
    @classmethod
    def _lies_in_the_folder(cls, value: str) -> str:
        if value != Path(value).name or value.startswith(".") or "\\" in value or not value.isprintable():
            raise ValueError("names a file elsewhere")
        return value

    def offer(self) -> PackageOffer:
        """As the page would offer it; whether prerequisites are met only the box can tell."""
        return PackageOffer(self.file, self.kind, self.version, self.build)


class Transfer(BaseModel):
    """The list: packages in the order of installing. ``server`` and ``fetched`` (Unix seconds) say where they came from, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    boxshift_transfer: int = Field(default=1, ge=1, le=1)
    server: str = ""
    fetched: float = 0.0
    packages: tuple[PackageEntry, ...]


def read_transfer(folder: Path) -> Transfer:
    """The folder's list; made from the names of the files where there is none.

    Raises:
        TransferError: the folder or the list cannot be read, or the list is not one.

    """
    path = folder / LIST
    try:
        if not path.exists():
            return Transfer(packages=_list_by_name(folder))
        raw = path.read_bytes()
    except OSError as error:
        raise TransferError(f"The folder of packages {folder} cannot be read: {error.strerror}.") from error
    try:
        if len(raw) > MOST_BYTES:
            raise TransferError(f"{path} is larger than such a list can be.", hint="Fetch the packages anew.")
        return Transfer.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TransferError(f"{path} is no list of packages: {where}: {first['msg']}.", hint="Fetch the packages anew.") from None


def write_transfer(folder: Path, packages: Sequence[PackageEntry], server: str, at: float) -> Transfer:
    """Write the list, base packages first and low versions first: the order in which a box takes them."""
    ordered = sorted(packages, key=lambda one: (one.kind is PackageKind.SITE, parse_version(one.version), parse_version(one.build)))
    transfer = Transfer(server=server, fetched=at, packages=tuple(ordered))
    write_private(folder / LIST, transfer.model_dump_json(indent=2).encode() + b"\n")
    return transfer


def verify_file(folder: Path, entry: PackageEntry) -> Path:
    """The package's path, its size and digest compared with the list.

    Raises:
        TransferError: not there, or changed on the way.

    """
    path = folder / entry.file
    try:
        size = path.stat().st_size
        if size != entry.size:
            raise TransferError(f"{path} has {size} bytes, the list says {entry.size}.", hint="It was not copied whole. Copy it again.")
        if entry.sha256 and digest_file(path) != entry.sha256:
            raise TransferError(f"{path} is not the file that was fetched: its digest differs.", hint="Copy it again, or fetch it anew.")
    except OSError as error:
        raise TransferError(f"The package {path} cannot be read: {error.strerror}.", hint="Was the whole folder copied?") from error
    return path


def find_entry(transfer: Transfer, file: str) -> PackageEntry:
    """The entry of that file. Raises FailedError where there is none (any more)."""
    found = next((entry for entry in transfer.packages if entry.file == file), None)
    if found is None:
        raise FailedError(f"{file} is not in the folder of packages any more.", hint="Put it back, then boxshift retry.")
    return found


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _list_by_name(folder: Path) -> tuple[PackageEntry, ...]:
    entries = []
    for path in sorted(folder.iterdir()):
        found = re.search(r"\d+(?:\.\d+)+", path.name)
        if found and path.is_file() and path.name.isprintable() and not path.name.startswith("."):
            kind = PackageKind.BASE if "base" in path.name.lower() else PackageKind.SITE
            entries.append(PackageEntry(file=path.name, kind=kind, version=found[0], size=path.stat().st_size))
    return tuple(entries)
