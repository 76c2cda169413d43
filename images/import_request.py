"""What a person asks for when an image is imported, and the questions that go back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from images.disk_headers import DEFAULT_LIMITS, Limits
from images.hardware import DeclaredProperty, Firmware, MachineHardware
from images.import_errors import EulaError, SourceError
from images.ovf.deployment import find_default
from images.ovf.model import Deployment
from images.store import Image
from kit.findings import Finding


@dataclass(frozen=True)
class ImportRequest:
    """``source``: a file, a folder or an https address. ``checksum``: ``sha256:HEX``, needed for an address.

    ``anchors``: PEM files whose signatures are trusted. ``deployment``: the size; ``system``: which machine of several, all where empty.
    ``answers``: property keys and values (references for passwords). ``raw``: a file without any mark is a raw disk. ``firmware``:
    for disks that come without a description. ``dry_run``: read and check everything, store nothing.
    """

    source: str
    name: str = ""
    checksum: str = ""
    anchors: tuple[Path, ...] = ()
    must_be_signed: bool = False
    deployment: str = ""
    system: str = ""
    answers: tuple[tuple[str, str], ...] = ()
    accept_eula: bool = False
    raw: bool = False
    firmware: Firmware = Firmware.BIOS
    ca: Path | None = None
    limits: Limits = field(default=DEFAULT_LIMITS)
    dry_run: bool = False


@dataclass(frozen=True)
class PlannedImage:
    """An image that would be stored."""

    name: str
    hardware: MachineHardware
    disks: tuple[str, ...]


@dataclass(frozen=True)
class ImportReport:
    """``images`` that were stored (none in a dry run), ``planned`` in any case. ``manifest``: in words; ``trust``: of the signature.

    ``eulas``: the licences that come with it.
    """

    images: tuple[Image, ...]
    planned: tuple[PlannedImage, ...]
    findings: tuple[Finding, ...]
    manifest: str = ""
    trust: str = ""
    signer: str = ""
    eulas: tuple[str, ...] = ()


class Person(Protocol):
    """Who is asked what the request leaves open."""

    def accept(self, eula: str) -> bool: ...

    def choose(self, deployments: Sequence[Deployment], usual: Deployment) -> str: ...

    def answer(self, asked: DeclaredProperty) -> str | None: ...


class Nobody:
    """No one is there: what has a usual answer gets it, what needs a person waits for one."""

    def accept(self, eula: str) -> bool:
        """Nobody can accept a licence but a person.

        Raises:
            EulaError: always.

        """
        raise EulaError(
            "The appliance comes with a licence that somebody has to accept.",
            hint="Read it (boxshift images import SOURCE --dry-run shows it), then say --accept-eula.",
            characters=len(eula),
        )

    def choose(self, deployments: Sequence[Deployment], usual: Deployment) -> str:
        """The usual size."""
        return usual.id if deployments else ""

    def answer(self, asked: DeclaredProperty) -> str | None:
        """Left open."""
        return asked.value


def choose_deployment(deployments: Sequence[Deployment], wanted: str, person: Person) -> str:
    """The id of the size that is meant; empty where there is only one."""
    usual = find_default(deployments)
    if wanted or usual is None:
        return wanted
    return person.choose(deployments, usual) if len(deployments) > 1 else usual.id


def parse_image_name(text: str) -> str:
    """A name that an image may have.

    Raises:
        SourceError: it is none.

    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", text):
        raise SourceError(f"{text[:100]!r} cannot be an image's name.", hint="Use lower-case letters, digits, dots and dashes, at most 63.")
    return text


def plan_name(text: str) -> str:
    """A name made of what a file or machine is called."""
    plain = re.sub(r"(\.(ova|ovf|tar|vmdk|vhdx?|qcow2|raw|img|iso|xz|gz|zst))+$", "", text.lower())
    return re.sub(r"[^a-z0-9.-]+", "-", plain).strip(".-")[:63].rstrip(".-") or "imported"
