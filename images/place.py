"""Where the files of images and machines are: on this computer, or in a storage pool of the hypervisor's."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from images.acceleration import Acceleration, find_acceleration
from images.appliance_machine import PROPERTIES
from images.claim import find_claim
from images.console import console_tail
from images.domain import Accelerator, Domain, Mark
from images.home import Home
from images.hypervisor import Hypervisor
from images.ledger import Entry
from images.local_templates import LocalTemplates
from images.machine_files import console_of, disk_of, ensure_definition, ensure_folder, folder_of, plan_domain, verify_reachable
from images.store import Store, create_overlay
from images.template_store import TemplateStore
from kit.progress import Progress

OVERLAY_SECONDS = 60.0


class Place(Protocol):
    """Where a hypervisor's machines have their files. Nobody else reads or writes them by path.

    Every method may raise :class:`HypervisorError` and :class:`HypervisorUnreachableError` where files are reached through the hypervisor.
    """

    @property
    def is_here(self) -> bool:
        """Whether paths mean the same to us and to the hypervisor."""
        ...

    @property
    def templates(self) -> TemplateStore:
        """Saved machines that are cloned there."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether the hypervisor is another computer, so that its loopback addresses are not ours."""
        ...

    def find_acceleration(self, *, again: bool = False) -> Acceleration:
        """What the hypervisor's machines run on, proved by booting something there; ``again``: anew."""
        ...

    def ensure_definition(self, entry: Entry, *, mark: Mark, accelerator: Accelerator) -> str:
        """Make what is missing of a machine's files, a claim with its mark first; the XML that defines it.

        Raises:
            As :func:`images.machine_files.ensure_definition`, and NotOursError: what has the name of our pool is not ours.

        """
        ...

    def ensure_copy(self, entry: Entry, base: Path, *, mark: Mark, accelerator: Accelerator) -> Domain:
        """Make the files of a new copy of a saved machine, a claim first, its disk on top of ``base``; the domain to define.

        Raises:
            As :meth:`ensure_definition`.

        """
        ...

    def find_disk(self, entry: Entry) -> Path:
        """The disk that the machine starts from, as the hypervisor names it."""
        ...

    def find_console(self, entry: Entry) -> Path:
        """What its serial console said, as the hypervisor names it."""
        ...

    def read_console(self, entry: Entry, *, lines: int) -> tuple[str, ...]:
        """The last lines of that."""
        ...

    def forget_answers(self, entry: Entry) -> None:
        """Delete what holds passwords among its files."""
        ...

    def remove(self, machine: str) -> None:
        """Delete all files of the machine with this UUID, where there are any."""
        ...

    def list_claims(self) -> Mapping[str, Mark | None]:
        """The machines, by UUID, that have files, and the mark that these claim; None: none, or a damaged one."""
        ...

    def list_over(self, used: frozenset[str], *, idle: bool) -> Iterator[tuple[str, str]]:
        """What can be deleted beside machines' files, and why; ``used``: images of machines, ``idle``: there are none, nor planned."""
        ...

    def remove_over(self, key: str) -> None:
        """Delete one of these."""
        ...


class LocalPlace:
    """Folders of this computer, which QEMU opens by their paths."""

    is_here, is_remote = True, False

    def __init__(self, home: Home, store: Store, hypervisor: Hypervisor, progress: Progress) -> None:
        self._home = home
        self._store = store
        self._hypervisor = hypervisor
        self._progress = progress
        self.templates = LocalTemplates(home, hypervisor)

    def find_acceleration(self, *, again: bool = False) -> Acceleration:
        """Proved once since this computer was started."""
        return find_acceleration(self._home, progress=self._progress, again=again)

    def ensure_definition(self, entry: Entry, *, mark: Mark, accelerator: Accelerator) -> str:
        """Its folder in the home, and what is in it."""
        verify_reachable(self._home, self._hypervisor.uri)
        return ensure_definition(self._home, self._store, entry, mark=mark, accelerator=accelerator)

    def ensure_copy(self, entry: Entry, base: Path, *, mark: Mark, accelerator: Accelerator) -> Domain:
        """Its folder in the home, and what is in it."""
        verify_reachable(self._home, self._hypervisor.uri)
        ensure_folder(self._home, entry, mark)
        create_overlay(base, disk_of(self._home, entry), timeout=OVERLAY_SECONDS)
        return plan_domain(self._home, self._store.read_image(entry.image), entry, mark=mark, accelerator=accelerator)

    def find_disk(self, entry: Entry) -> Path:
        """In its folder."""
        return disk_of(self._home, entry)

    def find_console(self, entry: Entry) -> Path:
        """In its folder."""
        return console_of(self._home, entry)

    def read_console(self, entry: Entry, *, lines: int) -> tuple[str, ...]:
        """Without control characters."""
        return console_tail(console_of(self._home, entry), lines=lines)

    def forget_answers(self, entry: Entry) -> None:
        """The CD with answers is made anew at every start."""
        (folder_of(self._home, entry) / PROPERTIES).unlink(missing_ok=True)

    def remove(self, machine: str) -> None:
        """With its folder."""
        folder = self._home.machines / str(uuid.UUID(machine))
        if folder.exists():
            shutil.rmtree(folder)

    def list_claims(self) -> Mapping[str, Mark | None]:
        """One of each folder."""
        return {folder.name: find_claim(folder) for folder in self._home.machines.iterdir()}

    def list_over(self, used: frozenset[str], *, idle: bool) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - as the protocol has it
        """Nothing: images are in the store."""
        return iter(())

    def remove_over(self, key: str) -> None:
        """There is none."""
