"""What a machine of an imported image needs beside its domain: overlays of all its disks, a CD with its answers, addresses of its cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from images.appliance_domain import ApplianceDomain
from images.domain import Accelerator, Forward, Mark
from images.errors import SpecError
from images.hardware import MachineHardware, resize
from images.ledger import Entry, EntryState
from images.ovf.environment import render_environment_iso
from images.store import Image, Store
from kit.errors import FailedError
from kit.files import write_private
from kit.references import resolve_secret

PROPERTIES = "properties.iso"
CONSOLE = "console.log"


def ensure_appliance(
    store: Store, image: Image, folder: Path, entry: Entry, *, mark: Mark, accelerator: Accelerator, base: Path
) -> ApplianceDomain:
    """Make what is missing of a machine's files in its folder, and tell the domain to define.

    Memory and processors are the entry's; ``base`` is where relative paths of references to passwords begin.

    Raises:
        As :func:`ensure_appliance_disks` and :func:`write_properties_cd`.

    """
    ensure_appliance_disks(store, image, folder, is_new=entry.state is EntryState.PLANNED)
    write_properties_cd(image, folder, instance=entry.name, base=base)
    domain = plan_appliance_domain(
        image, folder, name=entry.name, uuid=entry.uuid, mark=mark, mac=entry.mac, accelerator=accelerator, forwards=entry.forwards
    )
    return replace(domain, hardware=resize(domain.hardware, memory_mib=entry.memory_mib, cpus=entry.cpus), uplink=entry.uplink)


def ensure_appliance_disks(store: Store, image: Image, folder: Path, *, is_new: bool) -> tuple[tuple[str, Path], ...]:
    """An overlay in the machine's folder for every drive that holds something; those that are there stay as they are.

    ``is_new``: the machine was never started, so that a missing overlay may be made.

    Raises:
        FailedError: an overlay of a machine that was started is gone.
        AlteredImageError, SpaceError, ToolError: as :meth:`Store.make_overlay`.

    """
    found = []
    for name in dict.fromkeys(drive.file for drive in need_hardware(image).drives if drive.file):
        target = folder / name
        if target.exists():
            store.verify(image)
        elif not is_new:
            raise FailedError(f"A disk of the machine is gone: {target}.", hint="Bring it back, or remove the machine.")
        else:
            store.make_overlay(image, target, disk=name)
        found.append((name, target))
    return tuple(found)


def write_properties_cd(image: Image, folder: Path, *, instance: str, base: Path) -> Path | None:
    """The CD with the answers to the appliance's questions, mode 0600, made anew at every start; None where it asks none.

    References to passwords are resolved now, paths relative to ``base``; ``instance`` names the machine.

    Raises:
        PropertyError, UsageError: an answer is missing, or a password is not where it should be.

    """
    hardware = need_hardware(image)
    if not hardware.properties:
        return None
    path = folder / PROPERTIES
    content = render_environment_iso(
        hardware, lambda reference: resolve_secret(reference, base=base, what=f"{image.name}'s password"), instance=instance
    )
    write_private(path, content)
    return path


def plan_macs(first: str, count: int) -> tuple[str, ...]:
    """``first`` for the first card, the following addresses for the others; within one maker's range."""
    head, number = first[:8], int(first[9:].replace(":", ""), 16)
    following = (f"{(number + step) % (1 << 24):06x}" for step in range(count))
    return tuple(f"{head}:{one[:2]}:{one[2:4]}:{one[4:]}" for one in following)


def plan_appliance_domain(
    image: Image, folder: Path, *, name: str, uuid: str, mark: Mark, mac: str, accelerator: Accelerator, forwards: tuple[Forward, ...]
) -> ApplianceDomain:
    """The domain of a machine whose files lie in ``folder``."""
    hardware = need_hardware(image)
    files = dict.fromkeys(drive.file for drive in hardware.drives if drive.file)
    return ApplianceDomain(
        name=name,
        uuid=uuid,
        mark=mark,
        accelerator=accelerator,
        hardware=hardware,
        disks=tuple((file, folder / file) for file in files),
        macs=plan_macs(mac, len(hardware.cards)),
        forwards=forwards,
        console_log=folder / CONSOLE,
        properties=folder / PROPERTIES if hardware.properties else None,
        kernel=(image.kernel, image.initrd) if hardware.kernel is not None else None,
    )


def need_hardware(image: Image) -> MachineHardware:
    """What the image's bundle declares.

    Raises:
        SpecError: it was built here and declares nothing; its machines are made from a recipe's values.

    """
    if image.hardware is None:
        raise SpecError(f"The image {image.name} was not imported; it declares no hardware of its own.")
    return image.hardware
