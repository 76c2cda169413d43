"""The machine that an imported image was made for: what its bundle declares, in words of this repository, stored beside its disks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Firmware(StrEnum):
    """What starts the machine."""

    BIOS = "bios"
    UEFI = "uefi"


class Bus(StrEnum):
    """What a disk hangs on; the words are libvirt's."""

    IDE = "ide"
    SATA = "sata"
    SCSI = "scsi"
    VIRTIO = "virtio"
    FLOPPY = "fdc"

    @property
    def slots(self) -> int:
        """How many devices one controller takes."""
        return {Bus.IDE: 4, Bus.SATA: 6, Bus.SCSI: 16, Bus.VIRTIO: 24, Bus.FLOPPY: 2}[self]


class DriveKind(StrEnum):
    """What the machine takes a drive for; the words are libvirt's."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"


@dataclass(frozen=True)
class Controller:
    """``index`` counts within its bus from 0. ``model`` is libvirt's word, empty for the bus's usual one."""

    bus: Bus
    index: int
    model: str = ""


@dataclass(frozen=True)
class Drive:
    """One drive, at its place. ``file`` in the image's folder, empty for a drive without a medium; ``size`` in bytes.

    ``boot``: 1 for what is tried first, 0 for what is not started from.
    """

    kind: DriveKind
    file: str
    size: int
    bus: Bus
    controller: int
    unit: int
    boot: int = 0


@dataclass(frozen=True)
class Card:
    """A network card. ``model`` is libvirt's word; ``network`` the name that the bundle has for the network it belongs to.

    ``mac``: empty where any will do. Cards stand in the order in which the appliance counts them.
    """

    model: str
    network: str
    mac: str = ""
    connected: bool = True


@dataclass(frozen=True)
class DeclaredProperty:
    """A question that the appliance asks before its first start.

    ``kind`` is the OVF type (string, boolean, uint16, …). ``default`` is what the bundle says, ``value`` what was given at the import;
    None for what nobody said. A password is never stored: ``reference`` (``env:NAME`` or ``file:PATH``) says where it is read at the start.
    """

    key: str
    kind: str
    label: str = ""
    description: str = ""
    default: str | None = None
    value: str | None = None
    reference: str = ""
    askable: bool = False
    password: bool = False
    shortest: int = 0
    longest: int = 65535
    lowest: int | None = None
    highest: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def answer(self) -> str | None:
        """What was given, else what the bundle says; None where neither says anything."""
        return self.value if self.value is not None else self.default

    @property
    def is_open(self) -> bool:
        """True where someone has to say something before the appliance can start as meant."""
        return self.askable and self.answer is None and not self.reference


@dataclass(frozen=True)
class DirectKernel:
    """Kernel and initrd lie beside the disk, as in images built here; QEMU starts them without a boot loader."""

    arguments: tuple[str, ...]


@dataclass(frozen=True)
class MachineHardware:
    """All that a machine of this image needs. Memory in MiB; drives in the order in which the firmware sees them.

    ``chipset`` is libvirt's machine type (``pc`` or ``q35``). ``transports``: how the appliance expects its properties.
    """

    firmware: Firmware = Firmware.BIOS
    secure_boot: bool = False
    tpm: bool = False
    chipset: str = "q35"
    sockets: int = 1
    cores: int = 1
    memory_mib: int = 1024
    controllers: tuple[Controller, ...] = ()
    drives: tuple[Drive, ...] = ()
    cards: tuple[Card, ...] = ()
    properties: tuple[DeclaredProperty, ...] = ()
    transports: tuple[str, ...] = ()
    system_id: str = ""
    description: str = ""
    deployment: str = ""
    kernel: DirectKernel | None = None

    @property
    def cpus(self) -> int:
        return self.sockets * self.cores

    @property
    def wants_iso(self) -> bool:
        """True where the appliance reads its properties from a CD that has to be put in at every start."""
        return bool(self.properties) and "iso" in self.transports


def resize(hardware: MachineHardware, *, memory_mib: int, cpus: int) -> MachineHardware:
    """The same machine with other memory and processors; its sockets stay as they are where its processors do."""
    topology = (hardware.sockets, hardware.cores) if cpus == hardware.cpus else (cpus, 1)
    return replace(hardware, memory_mib=memory_mib, sockets=topology[0], cores=topology[1])


def plain_hardware(files: tuple[tuple[str, int, DriveKind], ...], *, firmware: Firmware = Firmware.BIOS) -> MachineHardware:
    """For disks that come without a description: SATA, which every system has a driver for, and one common network card.

    ``files``: name in the image's folder, size in bytes, kind.
    """
    drives = tuple(Drive(kind, name, size, Bus.SATA, 0, unit, boot=unit + 1) for unit, (name, size, kind) in enumerate(files))
    return MachineHardware(
        firmware=firmware,
        memory_mib=2048,
        sockets=1,
        cores=2,
        controllers=(Controller(Bus.SATA, 0),),
        drives=drives,
        cards=(Card("e1000e", ""),),
    )
