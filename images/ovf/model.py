"""An OVF descriptor as values: what it says, not yet what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from images.hardware import DeclaredProperty


class Kind(IntEnum):
    """Resource types (CIM) that machines are made of."""

    OTHER = 1
    PROCESSOR = 3
    MEMORY = 4
    IDE = 5
    SCSI = 6
    FIBRE = 7
    ISCSI = 8
    ETHERNET = 10
    OTHER_NETWORK = 11
    FLOPPY = 14
    CD = 15
    DVD = 16
    DISK = 17
    STORAGE = 19
    OTHER_STORAGE = 20
    SERIAL = 21
    PARALLEL = 22
    USB = 23
    GRAPHICS = 24
    LOGICAL_DISK = 31
    STORAGE_VOLUME = 32
    SOUND = 35


CONTROLLERS = (Kind.IDE, Kind.SCSI, Kind.OTHER_STORAGE)
DRIVES = (Kind.FLOPPY, Kind.CD, Kind.DVD, Kind.DISK, Kind.STORAGE, Kind.LOGICAL_DISK, Kind.STORAGE_VOLUME)


@dataclass(frozen=True)
class FileReference:
    """A file of the bundle. ``size`` in bytes as shipped, None where it is not said; ``chunk``: size of its parts, 0 where it is whole."""

    id: str
    href: str
    size: int | None
    compression: str
    chunk: int


@dataclass(frozen=True)
class DiskDeclaration:
    """A disk. ``capacity`` in bytes as the machine sees it; text where it is ``${property}``. ``file`` is empty for a blank disk."""

    id: str
    file: str
    capacity: int | str
    parent: str


@dataclass(frozen=True)
class Setting:
    """A ``vmw:Config`` or ``vmw:ExtraConfig`` line."""

    key: str
    value: str
    required: bool


@dataclass(frozen=True)
class Item:
    """One piece of hardware. ``kind``: CIM's number; texts are empty where nothing is said, ``quantity`` is as it stands there."""

    instance: str
    kind: int
    subtype: str
    name: str
    parent: str
    address: str
    slot: str
    quantity: str
    units: str
    resources: tuple[str, ...]
    connections: tuple[str, ...]
    connected: bool
    required: bool
    bound: str
    configurations: tuple[str, ...]
    settings: tuple[Setting, ...]
    cores_per_socket: str
    limits: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How a person knows it."""
        return self.name or f"item {self.instance or '?'}"


@dataclass(frozen=True)
class Deployment:
    """A size that the appliance comes in."""

    id: str
    label: str
    description: str
    default: bool


@dataclass(frozen=True)
class Eula:
    """The licence of a product."""

    text: str


@dataclass(frozen=True)
class Unread:
    """A part of the descriptor that means nothing here. ``required``: its author says that it must be understood."""

    name: str
    required: bool


@dataclass(frozen=True)
class KernelReference:
    """boxshift's own section: kernel and initrd as files of the bundle."""

    kernel: str
    initrd: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class VirtualSystem:
    """One machine. ``settings`` are VMware's; ``firmware`` is what VirtualBox says, empty where it does not."""

    id: str
    name: str
    info: str
    os: str
    types: tuple[str, ...]
    items: tuple[Item, ...]
    settings: tuple[Setting, ...]
    firmware: str
    boot_order: tuple[str, ...]
    properties: tuple[DeclaredProperty, ...]
    transports: tuple[str, ...]
    product: str
    eulas: tuple[Eula, ...]
    unread: tuple[Unread, ...]
    kernel: KernelReference | None = None


@dataclass(frozen=True)
class Envelope:
    """A whole descriptor."""

    files: tuple[FileReference, ...]
    disks: tuple[DiskDeclaration, ...]
    networks: tuple[str, ...]
    deployments: tuple[Deployment, ...]
    systems: tuple[VirtualSystem, ...]
    unread: tuple[Unread, ...]

    def find_file(self, id_: str) -> FileReference | None:
        return next((one for one in self.files if one.id == id_), None)

    def find_disk(self, id_: str) -> DiskDeclaration | None:
        return next((one for one in self.disks if one.id == id_), None)
