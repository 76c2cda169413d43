"""A machine that is wanted, and what is true of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from images.domain import Forward
from images.errors import SpecError
from images.hypervisor import Power
from images.ledger import EntryState
from images.ready_page import ReadyPage
from images.segment import MOST_CARDS, SegmentCard
from images.uplink import Uplink
from kit.errors import UnreachableError

_MAC = re.compile(r"52:54:00(:[0-9a-f]{2}){3}")  # QEMU's own range, where a virtual card belongs
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class MachineSpec:
    """A machine that is wanted. ``image``: a name or digest in the store; memory in MiB, None for what the image asks for.

    ``ready``: the page that shows that it is ready; None: in the way of its image. ``segments``: cards beside the one to the outside.
    ``uplink``: what its first card hangs on, None: QEMU's user networking, with ``forwards``; ``mac``: that card's address, empty: any.

    ``request_id`` makes asking twice the same as asking once: it finds the machine that was made for it, whole or half.
    """

    name: str
    image: str
    request_id: str
    forwards: tuple[Forward, ...] = ()
    memory_mib: int | None = None
    cpus: int | None = None
    ready: ReadyPage | None = None
    segments: tuple[SegmentCard, ...] = ()
    uplink: Uplink | None = None
    mac: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(f"{self.name!r} cannot be a machine's name.", hint="Use lower-case letters, digits and dashes, at most 63.")
        if len({(one.host, one.host_port) for one in self.forwards}) != len(self.forwards):
            raise SpecError(f"Two forwards of {self.name} share one port.", hint="Give each its own address or port.")
        if self.uplink is not None and self.forwards:
            raise SpecError(f"{self.name} is reached at an address of its own on the {self.uplink}; no forwards lead there.")
        if self.mac and not _MAC.fullmatch(self.mac):
            raise SpecError(f"{self.mac!r} cannot be the address of a virtual card.", hint="Write it as 52:54:00:12:34:56, in lower case.")
        if len(self.segments) > MOST_CARDS:
            raise SpecError(f"{self.name} cannot have {len(self.segments)} cards on segments.", hint=f"It can have {MOST_CARDS}.")


@dataclass(frozen=True)
class MachineFacts:
    """What is true of a machine now. ``image`` is a digest; ``disk`` and ``console_log`` are files on the hypervisor.

    ``ready``: the page by which it is found ready, None for one of ours, which is asked for its health. ``address``: what it has on its
    ``uplink``, as DHCP's leases, its agent or the hypervisor's neighbour table say; empty: none yet, or it is on user networking.
    """

    name: str
    uuid: str
    mac: str
    power: Power
    state: EntryState
    request_id: str
    image: str
    memory_mib: int
    cpus: int
    forwards: tuple[Forward, ...]
    disk: Path
    console_log: Path
    ready: ReadyPage | None = None
    segments: tuple[SegmentCard, ...] = ()
    uplink: Uplink | None = None
    address: str = ""

    def find_way(self, port: int, guest: str | None = None) -> tuple[str, int]:
        """Where the port inside is reached from this computer; ``guest``: the address inside, None: any that a forward leads to.

        Raises:
            UnreachableError: nothing leads there, or it has no address yet.

        """
        if self.uplink is not None and self.address:
            return self.address, port
        if self.uplink is not None:
            raise UnreachableError(f"{self.name} has no address on the {self.uplink} yet.", hint="Does a DHCP server answer there?")
        found = next((one for one in self.forwards if one.guest_port == port and guest in (None, one.guest)), None)
        if found is None:
            raise UnreachableError(f"No port of this computer leads to port {port} of {guest or self.name}.", hint="Add a forward to it.")
        return found.host, found.host_port
