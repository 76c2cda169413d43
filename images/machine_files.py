"""What a machine of ours has on the disk: its folder, its disks, its console's log; and the definition that is made of them."""

from __future__ import annotations

import uuid
from pathlib import Path

from images.appliance_domain import render_appliance_domain
from images.appliance_machine import ensure_appliance
from images.claim import write_claim
from images.domain import Accelerator, Domain, Mark, render_domain
from images.home import Home, find_closed_folder
from images.ledger import Entry, EntryState
from images.store import DISK, Image, Store, no_space
from kit.errors import FailedError

CONSOLE = "console.log"


def folder_of(home: Home, entry: Entry) -> Path:
    """The machine's own folder."""
    return home.machines / str(uuid.UUID(entry.uuid))


def disk_of(home: Home, entry: Entry) -> Path:
    """The disk that the machine starts from."""
    return folder_of(home, entry) / DISK


def console_of(home: Home, entry: Entry) -> Path:
    """What its serial console said."""
    return folder_of(home, entry) / CONSOLE


def ensure_folder(home: Home, entry: Entry, mark: Mark) -> None:
    """The machine's folder, with a claim on the domain beside the ledger's."""
    folder = folder_of(home, entry)
    try:
        folder.mkdir(mode=0o711, exist_ok=True)
        folder.chmod(home.machines.stat().st_mode & 0o777)
    except OSError as error:
        raise no_space(folder, error) from error
    write_claim(folder, mark)


def ensure_definition(home: Home, store: Store, entry: Entry, *, mark: Mark, accelerator: Accelerator) -> str:
    """Make what is missing of the machine's files; the XML that defines it as its image wants it.

    Raises:
        UnknownImageError: its image was removed.
        AlteredImageError: the stored image is not what was stored.
        FailedError: a disk of a machine that was started is gone.
        PropertyError, UsageError: the appliance asks what nobody has answered, or a password is not where it should be.
        SpaceError, ToolError: a disk could not be made.

    """
    image = store.read_image(entry.image)
    ensure_folder(home, entry, mark)
    if image.hardware is not None:
        folder = folder_of(home, entry)
        return render_appliance_domain(
            ensure_appliance(store, image, folder, entry, mark=mark, accelerator=accelerator, base=home.root)
        )  # fmt: skip
    ensure_disk(home, store, entry)
    return render_domain(plan_domain(home, image, entry, mark=mark, accelerator=accelerator))


def ensure_disk(home: Home, store: Store, entry: Entry) -> None:
    """The overlay of a machine whose image was built here."""
    image, disk = store.read_image(entry.image), disk_of(home, entry)
    if disk.exists():
        store.verify(image)
    elif entry.state is EntryState.PLANNED:
        store.make_overlay(image, disk)
    else:
        raise FailedError(f"The disk of {entry.name} is gone: {disk}.", hint="Bring it back, or remove the machine.")


def plan_domain(home: Home, image: Image, entry: Entry, *, mark: Mark, accelerator: Accelerator) -> Domain:
    """The domain of a machine whose image was built here."""
    return Domain(
        name=entry.name,
        uuid=entry.uuid,
        mark=mark,
        memory_mib=entry.memory_mib,
        cpus=entry.cpus,
        accelerator=accelerator,
        disk=disk_of(home, entry),
        kernel=image.kernel,
        initrd=image.initrd,
        arguments=(*image.kernel_arguments, f"systemd.machine_id={entry.uuid.replace('-', '')}"),
        mac=entry.mac,
        forwards=entry.forwards,
        console_log=console_of(home, entry),
        segments=entry.segments,
        uplink=entry.uplink,
    )


def verify_reachable(home: Home, uri: str) -> None:
    """With a system daemon QEMU runs as another user, and must be able to pass through the folders above its disks.

    Raises:
        FailedError: it cannot.

    """
    closed = find_closed_folder(home.machines / "any") if uri.startswith("qemu:///system") else None
    if closed is not None:
        raise FailedError(
            f"QEMU runs as another user and could not reach its disks: the folder {closed} is closed to it.",
            hint=f"chmod o+x {closed}, or set BOXSHIFT_HOME to a folder that others may pass through.",
        )
