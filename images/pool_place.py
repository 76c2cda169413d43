"""Files of machines in a storage pool of the hypervisor's: made, read and deleted through libvirt alone, wherever the hypervisor is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from images.acceleration import Acceleration
from images.appliance_domain import render_appliance_domain
from images.appliance_machine import PROPERTIES, need_hardware, plan_appliance_domain
from images.console import CONSOLE_BYTES, clean_console
from images.domain import Accelerator, Domain, Mark, render_domain
from images.errors import SpecError
from images.hardware import resize
from images.home import Home
from images.hypervisor import Hypervisor
from images.hypervisor_storage import Backing, VolumeFacts
from images.ledger import Entry, EntryState
from images.machine_files import CONSOLE, plan_domain
from images.ovf.environment import render_environment_iso
from images.pool import Pool
from images.pool_images import PoolImages
from images.pool_proof import PROOF, PoolProof
from images.pool_templates import CLAIM, PoolTemplates, find_bases, find_machine, find_templates, name_of
from images.store import DISK, INITRD, KERNEL, Image, Store
from kit.errors import FailedError
from kit.progress import Progress
from kit.references import resolve_secret

VARIABLE = "BOXSHIFT_POOL_FOLDER"
SYSTEM_FOLDER = PurePosixPath("/var/lib/libvirt/images")
EMPTY_POOL = "pool"


def is_remote(uri: str) -> bool:
    """Whether the hypervisor of this URI is another computer."""
    return bool(urlsplit(uri).netloc)


def find_pool_folder(uri: str) -> PurePosixPath | None:
    """Where the hypervisor of this URI shall keep our pool; None: its files are folders of this computer.

    Raises:
        SpecError: it has to be said, and was not.

    """
    given = os.environ.get(VARIABLE)
    if given:
        return _parse_folder(given)
    if not is_remote(uri):
        return None
    if urlsplit(uri).path.strip("/") != "system":
        raise SpecError(
            f"Where {uri.partition('?')[0]} may keep files is not known: only a system daemon has a usual place.",
            hint=f"Set {VARIABLE} to a folder there that its user may write to.",
        )
    return SYSTEM_FOLDER


class PoolPlace:
    """One pool for the images and machines of one ledger."""

    is_here = False

    def __init__(self, home: Home, store: Store, hypervisor: Hypervisor, owner: str, folder: PurePosixPath, *, progress: Progress) -> None:
        self.is_remote = is_remote(hypervisor.uri)
        self.pool = Pool(hypervisor, owner, folder)
        self._home = home
        self._store = store
        self._images = PoolImages(home, store, self.pool, progress)
        self._proof = PoolProof(home, hypervisor, self.pool, progress)
        self.templates = PoolTemplates(home, hypervisor, self.pool)

    def find_acceleration(self, *, again: bool = False) -> Acceleration:
        """Proved there, once a day."""
        return self._proof.find(again=again)

    def ensure_definition(self, entry: Entry, *, mark: Mark, accelerator: Accelerator) -> str:
        """Its volumes, the claim first; the image before, where it is not there."""
        image = self._ensure_begun(entry, mark)
        if image.hardware is not None:
            return self._define_appliance(image, entry, mark, accelerator)
        self._ensure_disk(image, entry, DISK)
        return render_domain(self._plan_domain(image, entry, mark, accelerator))

    def ensure_copy(self, entry: Entry, base: Path, *, mark: Mark, accelerator: Accelerator) -> Domain:
        """Its volumes, the claim first."""
        image = self._ensure_begun(entry, mark)
        capacity = self._images.backing(image, DISK).capacity
        self.pool.ensure_overlay(name_of(entry.uuid, DISK), Backing(PurePosixPath(base), capacity))
        return self._plan_domain(image, entry, mark, accelerator)

    def find_disk(self, entry: Entry) -> Path:
        """A path on the hypervisor."""
        return Path(self.pool.path_of(disk_name(entry, DISK)))

    def list_disks(self, entry: Entry) -> tuple[tuple[str, int], ...]:
        """Its image's files that it has an overlay of, and how many bytes the machine sees of each."""
        image = self._store.read_image(entry.image)
        drives = () if image.hardware is None else image.hardware.drives
        files = (DISK,) if image.hardware is None else tuple(dict.fromkeys(drive.file for drive in drives if drive.file))
        return tuple((file, self._images.backing(image, file).capacity) for file in files)

    def find_console(self, entry: Entry) -> Path:
        """A path on the hypervisor."""
        return self._path(entry, CONSOLE)

    def read_console(self, entry: Entry, *, lines: int) -> tuple[str, ...]:
        """Read through a stream."""
        name = name_of(entry.uuid, CONSOLE)
        if not self.pool.is_usable() or (found := self.pool.find_volume(name)) is None:
            return ()
        return clean_console(self.pool.read(name, offset=max(0, found.size - CONSOLE_BYTES)), lines=lines)

    def forget_answers(self, entry: Entry) -> None:
        """The CD with answers is made anew at every start."""
        if self.pool.is_usable():
            self.pool.delete(name_of(entry.uuid, PROPERTIES))

    def remove(self, machine: str) -> None:
        """What makes a template of it first, then all volumes that are named after it, the claim last."""
        self.templates.remove_files(machine)

    def list_claims(self) -> Mapping[str, Mark | None]:
        """Of every machine that has a volume, but for those that are templates or on whose disks others stand."""
        volumes = self.pool.list_volumes()
        machines = {find_machine(one.name) for one in volumes} - {""}
        free = sorted(machines - find_templates(volumes) - find_bases(volumes))
        return {one: _parse_claim(self.pool.find_content(name_of(one, CLAIM))) for one in free}

    def list_over(self, used: frozenset[str], *, idle: bool) -> Iterator[tuple[str, str]]:
        """Images that nobody needs, what a proof of the accelerator left, and the pool when it is empty."""
        volumes = self.pool.list_volumes()
        yield from self._images.list_over(volumes, used)
        if not self._proof.is_running():
            yield from ((one.name, "a proof of the accelerator was cut off") for one in volumes if one.name.startswith(PROOF))
        if idle and not volumes and self.pool.find() is not None:
            yield EMPTY_POOL, "nothing is in it"

    def remove_over(self, key: str) -> None:
        """An image by its digest, a volume by its name, or the pool."""
        if key == EMPTY_POOL:
            self.pool.remove()
        elif key.startswith(PROOF):
            self.pool.delete(key)
        else:
            self._images.remove(key)

    def _ensure_begun(self, entry: Entry, mark: Mark) -> Image:
        self.pool.ensure()
        image = self._store.read_image(entry.image)
        claim = json.dumps(asdict(mark)).encode()
        if _parse_claim(self.pool.find_content(name_of(entry.uuid, CLAIM))) != mark:
            self.pool.write(name_of(entry.uuid, CLAIM), BytesIO(claim), len(claim))
        self._images.ensure(image)
        self.pool.ensure_empty(name_of(entry.uuid, CONSOLE))
        return image

    def _plan_domain(self, image: Image, entry: Entry, mark: Mark, accelerator: Accelerator) -> Domain:
        return replace(
            plan_domain(self._home, image, entry, mark=mark, accelerator=accelerator),
            disk=self.find_disk(entry),
            kernel=self._images.path_of(image, KERNEL),
            initrd=self._images.path_of(image, INITRD),
            console_log=self.find_console(entry),
        )

    def _define_appliance(self, image: Image, entry: Entry, mark: Mark, accelerator: Accelerator) -> str:
        hardware = need_hardware(image)
        planned = plan_appliance_domain(
            image, Path("/"), name=entry.name, uuid=entry.uuid, mark=mark, mac=entry.mac, accelerator=accelerator, forwards=entry.forwards
        )
        for file, _ in planned.disks:
            self._ensure_disk(image, entry, file)
        if hardware.properties:
            what = f"{image.name}'s password"
            content = render_environment_iso(
                hardware, lambda reference: resolve_secret(reference, base=self._home.root, what=what), instance=entry.name
            )
            self.pool.write(name_of(entry.uuid, PROPERTIES), BytesIO(content), len(content))
        domain = replace(
            planned,
            hardware=resize(hardware, memory_mib=entry.memory_mib, cpus=entry.cpus),
            uplink=entry.uplink,
            disks=tuple((file, Path(self.pool.path_of(disk_name(entry, file)))) for file, _ in planned.disks),
            console_log=self.find_console(entry),
            properties=self._path(entry, PROPERTIES) if hardware.properties else None,
            kernel=(self._images.path_of(image, KERNEL), self._images.path_of(image, INITRD)) if planned.kernel is not None else None,
        )
        return render_appliance_domain(domain)

    def _ensure_disk(self, image: Image, entry: Entry, file: str) -> None:
        name, backing = disk_name(entry, file), self._images.backing(image, file)
        found = self.pool.find_volume(name)
        if entry.state is not EntryState.PLANNED and found is None:
            raise FailedError(f"A disk of {entry.name} is gone: {self.pool.path_of(name)}.", hint="Bring it back, or remove the machine.")
        if found is None or self._find_bottom(found) != str(backing.path):
            self.pool.ensure_overlay(name, backing)

    def _find_bottom(self, disk: VolumeFacts) -> str:
        """What it stands on below the disks of machines: a clone's stands on its template's, and that one on the image."""
        while find_machine(PurePosixPath(disk.backing).name):
            base = self.pool.find_volume(PurePosixPath(disk.backing).name)
            if base is None or str(base.path) != disk.backing:
                break
            disk = base
        return disk.backing

    def _path(self, entry: Entry, file: str) -> Path:
        return Path(self.pool.path_of(name_of(entry.uuid, file)))


def disk_name(entry: Entry, file: str, generation: int | None = None) -> str:
    """The volume of a disk of a machine: the one that it writes to, or that of another ``generation``."""
    number = entry.generation if generation is None else generation
    return name_of(entry.uuid, f"{number}.{file}" if number else file)


def _parse_claim(content: bytes) -> Mark | None:
    try:
        return Mark(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _parse_folder(text: str) -> PurePosixPath:
    folder = PurePosixPath(text)
    if not folder.is_absolute():
        raise SpecError(f"{VARIABLE} must be an absolute path on the hypervisor, not {text!r}.", hint="Such as /srv/machines.")
    return folder
