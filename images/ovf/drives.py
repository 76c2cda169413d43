"""The controllers and drives of a machine, each drive at the place that the descriptor gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from images.hardware import Bus, Controller, DriveKind, Firmware
from images.import_errors import OvfError
from images.ovf.model import CONTROLLERS, DRIVES, DiskDeclaration, Envelope, FileReference, Item, Kind, VirtualSystem
from kit.findings import Finding, Severity

MOST_DRIVES = 64
# The subtype in lower case: bus and libvirt's word for the model.
_MODELS: dict[str, tuple[Bus, str]] = {
    "lsilogic": (Bus.SCSI, "lsilogic"), "lsi53c895a": (Bus.SCSI, "lsilogic"), "lsilogicsas": (Bus.SCSI, "lsisas1068"),
    "lsisas1068": (Bus.SCSI, "lsisas1068"), "virtualscsi": (Bus.SCSI, "vmpvscsi"), "pvscsi": (Bus.SCSI, "vmpvscsi"),
    "virtio-scsi": (Bus.SCSI, "virtio-scsi"), "virtioscsi": (Bus.SCSI, "virtio-scsi"), "ahci": (Bus.SATA, ""), "sata": (Bus.SATA, ""),
    "vmware.sata.ahci": (Bus.SATA, ""), "virtio": (Bus.VIRTIO, ""), "virtio-blk": (Bus.VIRTIO, ""), "piix4": (Bus.IDE, ""),
    "piix3": (Bus.IDE, ""), "ich6": (Bus.IDE, ""), "ide": (Bus.IDE, ""),
}  # fmt: skip
# What QEMU or libvirt does not have, and what stands in for it.
_STAND_INS: dict[str, tuple[Bus, str, str]] = {
    "buslogic": (Bus.SCSI, "lsilogic", "an LSI Logic controller"),
    "vmware.nvme.controller": (Bus.SATA, "", "a SATA controller"),
    "nvme": (Bus.SATA, "", "a SATA controller"),
    "nvmexpress": (Bus.SATA, "", "a SATA controller"),
}
_SLOTS = {"lsilogic": 7, "lsisas1068": 8}  # what QEMU's models take
_RESOURCE = re.compile(r"(?:ovf:)?/*(?P<what>disk|file)/(?P<id>.+)")


@dataclass(frozen=True)
class PlannedDrive:
    """A drive and what will be in it: a file of the bundle, a blank disk (``file`` None and a ``capacity``), or nothing.

    ``capacity``: bytes, or ``${property} units``; None where the file decides.
    """

    kind: DriveKind
    bus: Bus
    controller: int
    unit: int
    boot: int
    label: str
    file: FileReference | None = None
    capacity: int | str | None = None


@dataclass(frozen=True)
class Storage:
    """All controllers and drives, in the order in which the firmware sees them."""

    controllers: tuple[Controller, ...]
    drives: tuple[PlannedDrive, ...]


@dataclass(frozen=True)
class _Place:
    item: Item
    drive: PlannedDrive


def plan_drives(envelope: Envelope, system: VirtualSystem, items: Sequence[Item], firmware: Firmware, findings: list[Finding]) -> Storage:
    """Where everything goes: by controller, then by slot, whatever the order in the file.

    Raises:
        OvfError: a drive names a disk or controller that is not there, or a disk stands on another one.

    """
    found = [item for item in items if item.kind in DRIVES]
    if len(found) > MOST_DRIVES:
        raise OvfError(f"The descriptor has {len(found)} drives.", hint=f"At most {MOST_DRIVES} can be had.")
    controllers = _controllers(items, firmware, findings)
    places = []
    for item in found:
        controller = _controller_of(item, controllers, findings)
        drive = _content(item, envelope, findings)
        slot = int(item.slot) if item.slot.isascii() and item.slot.isdigit() and len(item.slot) < 6 else -1
        places.append(_Place(item, replace(drive, bus=controller.bus, controller=controller.index, unit=slot)))
    order = list(dict.fromkeys(one.bus for _, one in controllers))
    places.sort(key=lambda one: (order.index(one.drive.bus) if one.drive.bus in order else 99, one.drive.controller, _slot(one.drive)))
    slots = {(one.bus, one.index): _SLOTS.get(one.model, one.bus.slots) for _, one in controllers}
    settled = _settle(places, slots, findings)
    drives = _number_boot(settled, system.boot_order, findings)
    used = {(one.bus, one.controller) for one in drives if one.bus is not Bus.FLOPPY}
    declared = [one for _, one in controllers if (one.bus, one.index) in used]
    declared.sort(key=lambda one: (order.index(one.bus), one.index))
    others = sorted(used - {(one.bus, one.index) for one in declared})
    return Storage((*declared, *(Controller(*key) for key in others)), drives)


def _slot(drive: PlannedDrive) -> int:
    return drive.unit if drive.unit >= 0 else 1 << 20


def _controllers(items: Sequence[Item], firmware: Firmware, findings: list[Finding]) -> list[tuple[str, Controller]]:
    """By instance. VMware's two IDE controllers are the two channels of libvirt's one: their places are told apart later."""
    found: list[tuple[str, Controller]] = []
    declared = [item for item in items if item.kind in CONTROLLERS and not is_foreign_storage(item)]
    for item in sorted(
        declared, key=lambda one: int(one.address) if one.address.isascii() and one.address.isdigit() and len(one.address) < 6 else 0
    ):
        bus, model = _bus(item, findings)
        if bus is Bus.IDE and firmware is Firmware.UEFI:
            findings.append(Finding("ovf.controller", Severity.NOTE, f"{item.label} becomes SATA: with UEFI there is no IDE."))
            bus = Bus.SATA
        index = sum(1 for _, one in found if one.bus is bus)
        found.append((item.instance, Controller(bus, index, model)))
    order = [item.instance for item in declared]
    return sorted(found, key=lambda pair: order.index(pair[0]))


def is_foreign_storage(item: Item) -> bool:
    """True for what counts as other storage and is no controller that is known."""
    known = (*_MODELS, *_STAND_INS)
    return item.kind == Kind.OTHER_STORAGE and bool(item.subtype) and not any(word in known for word in item.subtype.lower().split())


def _bus(item: Item, findings: list[Finding]) -> tuple[Bus, str]:
    usual = {Kind.IDE: (Bus.IDE, ""), Kind.SCSI: (Bus.SCSI, "lsilogic")}.get(Kind(item.kind), (Bus.SATA, ""))
    words = item.subtype.lower().split()
    for word in words:
        if word in _MODELS and (item.kind != Kind.IDE or _MODELS[word][0] is Bus.IDE):
            return _MODELS[word]
    for word in words:
        if word in _STAND_INS:
            bus, model, name = _STAND_INS[word]
            said = f"{item.label} ({item.subtype}) is none that libvirt gives its machines; {name} stands in."
            findings.append(Finding("ovf.controller", Severity.WARNING, said, "The system needs a driver for that to start."))
            return bus, model
    if words:
        said = f"{item.label} ({item.subtype}) is not known; a plain {usual[0].value.upper()} controller stands in."
        findings.append(Finding("ovf.controller", Severity.WARNING, said, "The system needs a driver for that to start."))
    return usual


def _controller_of(item: Item, controllers: Sequence[tuple[str, Controller]], findings: list[Finding]) -> Controller:
    if item.kind == Kind.FLOPPY:
        return Controller(Bus.FLOPPY, 0)
    found = next((one for instance, one in controllers if instance == item.parent and item.parent), None)
    if found is not None:
        return found
    if item.parent:
        said = f"{item.label} hangs on the controller {item.parent}, which is not there; it hangs on SATA."
        findings.append(Finding("ovf.controller", Severity.WARNING, said, "The system needs a driver for that to start."))
    else:
        findings.append(Finding("ovf.controller", Severity.NOTE, f"{item.label} hangs on no controller; it hangs on SATA."))
    return Controller(Bus.SATA, 0)


def _content(item: Item, envelope: Envelope, findings: list[Finding]) -> PlannedDrive:
    kind = {Kind.FLOPPY: DriveKind.FLOPPY, Kind.CD: DriveKind.CDROM, Kind.DVD: DriveKind.CDROM}.get(Kind(item.kind), DriveKind.DISK)
    empty = PlannedDrive(kind, Bus.SATA, 0, -1, 0, item.label)
    if len(item.resources) > 1:
        findings.append(Finding("ovf.drive", Severity.WARNING, f"{item.label} has several backings; the first is taken."))
    match = _RESOURCE.fullmatch(item.resources[0]) if item.resources else None
    if match is None:
        if kind is DriveKind.DISK:
            raise OvfError(f"The descriptor does not say what is on {item.label}.", hint="Ask for a whole bundle.")
        return empty
    if match["what"] == "file":
        return replace(empty, file=_file(envelope, match["id"], item.label))
    disk = envelope.find_disk(match["id"])
    if disk is None:
        raise OvfError(f"{item.label} holds the disk {match['id'][:100]!r}, which is not declared.")
    _refuse_parent(disk)
    return replace(empty, file=_file(envelope, disk.file, item.label) if disk.file else None, capacity=disk.capacity)


def _file(envelope: Envelope, wanted: str, label: str) -> FileReference:
    found = envelope.find_file(wanted)
    if found is None:
        raise OvfError(f"{label} holds the file {wanted[:100]!r}, which is not declared.")
    return found


def _refuse_parent(disk: DiskDeclaration) -> None:
    if disk.parent:
        raise OvfError(
            f"The disk {disk.id} holds only what differs from the disk {disk.parent[:100]}.", hint="Export the machine without snapshots."
        )


def _settle(places: Sequence[_Place], slots: Mapping[tuple[Bus, int], int], findings: list[Finding]) -> list[_Place]:
    """Every drive in a place that libvirt has and that no other has."""
    settled: list[_Place] = []
    taken: set[tuple[Bus, int, int]] = set()
    for place in places:
        drive = place.drive
        wanted = _as_libvirt(drive, slots)
        if wanted is None or wanted in taken:
            wanted = _next_free(drive, slots, taken)
            if drive.unit >= 0:
                said = f"{drive.label} cannot be in slot {drive.unit}; it is in slot {wanted[2]} of {wanted[0].value} {wanted[1]}."
                findings.append(Finding("ovf.slot", Severity.WARNING, said))
        taken.add(wanted)
        settled.append(_Place(place.item, replace(drive, bus=wanted[0], controller=wanted[1], unit=wanted[2])))
    return settled


def _as_libvirt(drive: PlannedDrive, slots: Mapping[tuple[Bus, int], int]) -> tuple[Bus, int, int] | None:
    """IDE has one controller with two channels of two; a SCSI controller sits in slot 7 itself."""
    if drive.bus is Bus.IDE:
        return (Bus.IDE, 0, 2 * drive.controller + drive.unit) if drive.unit in (0, 1) and drive.controller < 2 else None
    fits = 0 <= drive.unit < slots.get((drive.bus, drive.controller), drive.bus.slots) and not (drive.bus is Bus.SCSI and drive.unit == 7)
    return (drive.bus, drive.controller, drive.unit) if fits else None


def _next_free(drive: PlannedDrive, slots: Mapping[tuple[Bus, int], int], taken: set[tuple[Bus, int, int]]) -> tuple[Bus, int, int]:
    bus = drive.bus if drive.bus is not Bus.IDE or sum(one[0] is Bus.IDE for one in taken) < Bus.IDE.slots else Bus.SATA
    controller = 0 if bus is Bus.IDE else drive.controller
    while True:
        for unit in range(slots.get((bus, controller), bus.slots)):
            if (bus, controller, unit) not in taken and not (bus is Bus.SCSI and unit == 7):
                return bus, controller, unit
        controller += 1


def _number_boot(places: Sequence[_Place], order: Sequence[str], findings: list[Finding]) -> tuple[PlannedDrive, ...]:
    """What the machine starts from: in the descriptor's order where it gives one, else its disks, then CDs that hold something."""
    ranked = [place for one in order for place in places if place.item.instance == one]
    if len(ranked) < len(order):
        findings.append(
            Finding("ovf.boot-order", Severity.NOTE, "Its boot order names more than its drives; the drives are kept in that order.")
        )
    if not ranked:
        full = [place for place in places if place.drive.file or place.drive.capacity]
        ranked = sorted(full, key=lambda place: (DriveKind.DISK, DriveKind.CDROM, DriveKind.FLOPPY).index(place.drive.kind))
    buses = {place.drive.bus for place in places if place.drive.kind is DriveKind.DISK}
    if len(buses) > 1 and not order:
        words = ", ".join(sorted(bus.value for bus in buses))
        findings.append(
            Finding("ovf.boot-order", Severity.NOTE, f"Its disks hang on several buses ({words}); the first declared is started from.")
        )
    numbers = {id(place): number for number, place in enumerate(ranked, 1)}
    return tuple(replace(place.drive, boot=numbers.get(id(place), 0)) for place in places)
