"""What a template is, and where templates are kept: beside the machines' own files, on this computer or in a hypervisor's pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from images.domain import Accelerator, Domain
from images.errors import SavedStateError
from images.home import Home
from images.spec import MachineFacts


@dataclass(frozen=True)
class Template:
    """A saved machine. ``mac``: its network card's address; ``leaf``: SHA-256 of the certificate that it served, in hex.

    ``name``: what its store calls it; ``state`` and ``disk``: files on the hypervisor. ``host_keys``: names of the files of its SSH host
    keys; ``spares``: how many cards for private segments it has. Memory in MiB, ``created`` in seconds since 1970.
    """

    key: str
    name: str
    state: Path
    disk: Path
    image: str
    memory_mib: int
    cpus: int
    mac: str
    leaf: str
    created: float
    host_keys: tuple[str, ...]
    spares: int


class TemplateStore(Protocol):
    """Where a hypervisor's templates are. Every method may raise :class:`HypervisorError` where files are reached through it."""

    def find_obstacle(self) -> str:
        """Why this hypervisor cannot clone; empty where nothing is known against it."""
        ...

    def read_fingerprint(self, accelerator: Accelerator) -> tuple[object, ...]:
        """What a saved machine depends on beside its own shape, as values that JSON has."""
        ...

    def find(self, key: str) -> Template | None:
        """The template of that key.

        Raises:
            SavedStateError: it is damaged.

        """
        ...

    def keep(self, key: str, machine: MachineFacts, record: Mapping[str, object], leave: Callable[[], None]) -> None:
        """Save the machine, which is ready for it, and make a template of it. ``leave``: make ledger and hypervisor forget a machine.

        Raises:
            SavedStateError: libvirt saves in a form that is not known.
            PermissionError: the saved state cannot be read.

        """
        ...

    def forget(self, key: str) -> None:
        """Take the memory away and what tells of it; the disk goes when no clone stands on it any more."""
        ...

    def list_all(self) -> tuple[Template, ...]:
        """All that are whole, by key; what is damaged is left out."""
        ...

    def list_over(self, images: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Names of what can be deleted, and why; ``images``: those that are in the store."""
        ...

    def remove(self, name: str) -> None:
        """Delete one of these, what was in its memory first."""
        ...

    def restore(self, template: Template, domain: Domain) -> None:
        """Start ``domain``, which is defined and has a disk on top of the template's, from the template's saved state.

        Raises:
            SavedStateError: the template is damaged.

        """
        ...


def render_record(record: Mapping[str, object], **more: object) -> bytes:
    """What is written of a template: all that it is, less what its place says; and ``more``, by which damage is found."""
    return json.dumps({**record, **more}, indent=1).encode()


def parse_record(content: bytes, seal: str, **place: Any) -> tuple[Template, Mapping[str, Any]]:
    """The template of a record, and what stands in it under ``seal``; ``place``: what its place says.

    Raises:
        SavedStateError: it cannot be read.

    """
    try:
        record = json.loads(content)
        sealed = record.pop(seal)
        record["host_keys"] = tuple(record["host_keys"])
        return Template(**place, **record), dict(sealed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SavedStateError("The template's facts cannot be read.", hint="It is made anew.") from error


def lock_of(home: Home, key: str) -> Path:
    """What a process holds that finds, makes or forgets the template of that key."""
    return home.locks / f"template-{key}"
