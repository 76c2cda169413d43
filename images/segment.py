"""Private segments: cables between machines of ours, without a change to this computer's network.

A segment is a multicast group on this computer's loopback interface: QEMU puts every frame of a card on it, and every machine on the
segment hears it. No frame leaves this computer, no right of root is needed, machines may come and go in any order, and a saved machine
goes on under another segment. Other users of this computer can join a group as well: what is told on a segment is not secret from them.
"""

from __future__ import annotations

import ipaddress
import secrets
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from images.errors import SpecError

# Multicast addresses for use inside one organisation.
GROUPS = ipaddress.IPv4Network("239.192.0.0/14")
FIRST_PORT, LAST_PORT = 20000, 29999
# Inside the machines only: this computer has no route there.
NETWORKS = ipaddress.IPv4Network("10.123.0.0/16")
LOOPBACK = "127.0.0.1"
UDP = Path("/proc/net/udp")
# PCI slots of the cards, above the one for user networking (:data:`images.domain.NETWORK_SLOT`).
FIRST_SLOT, MOST_CARDS = 0x11, 4
NO_HOST = 900  # QEMU's number of a hub that nothing else is on: a cable that ends nowhere


@dataclass(frozen=True)
class SegmentCard:
    """A network card for a private segment; without ``segment``: one whose cable ends nowhere.

    ``address``: inside the machine, with its prefix (``10.123.7.1/24``); empty: none. ``group`` and ``port``: where this computer's
    loopback interface carries the segment.
    """

    segment: str = ""
    address: str = ""
    group: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if not self.segment:
            return
        if not _is_address(self.group) or ipaddress.IPv4Address(self.group) not in GROUPS:
            raise SpecError(f"{self.group!r} cannot carry a segment.", hint=f"Use a multicast address of {GROUPS}.")
        if not 1024 <= self.port < 65536:
            raise SpecError(f"{self.port} is no port for a segment.", hint="Ports are 1024 to 65535.")
        if self.address:
            parse_address(self.address)

    def render_netdev(self, number: int) -> str:
        """QEMU's option for the cable of card ``number``, 0 the first."""
        if not self.segment:
            return f"hubport,id=boxcable{number},hubid={NO_HOST + number}"
        return f"socket,id=boxcable{number},mcast={self.group}:{self.port},localaddr={LOOPBACK}"


SPARE = SegmentCard()


def segment_mac(first: str, number: int) -> str:
    """The hardware address of segment card ``number`` of the machine whose card to the outside has ``first``."""
    return f"52:54:{number + 1:02x}:{first[9:]}"


def render_card(number: int, first: str) -> str:
    """QEMU's option for segment card ``number`` of that machine."""
    return (
        f"virtio-net-pci,netdev=boxcable{number},id=boxport{number},mac={segment_mac(first, number)},"
        f"bus=pci.0,addr={FIRST_SLOT + number:#x},romfile="
    )


def plan_segment(name: str, network: ipaddress.IPv4Network, addresses: Iterable[str]) -> tuple[SegmentCard, ...]:
    """The cards of a new segment, one for each address (empty: none), on a group of loopback that nothing uses now."""
    group, port = _free_group()
    return tuple(SegmentCard(name, f"{one}/{network.prefixlen}" if one else "", group, port) for one in addresses)


def free_network(used: Collection[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """A network of 254 addresses that no segment has.

    Raises:
        SpecError: none is left.

    """
    for network in NETWORKS.subnets(new_prefix=24):
        if int(network.network_address) & 0xFF00 and not any(network.overlaps(one) for one in used):
            return network
    raise SpecError("No network is left for another segment.", hint="Remove some: boxshift lab down.")


def parse_address(text: str) -> ipaddress.IPv4Interface:
    """An address with its prefix that a machine can have.

    Raises:
        SpecError: it is none.

    """
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError:
        raise SpecError(f"{text!r} is no IPv4 address with a prefix.", hint="Write it as 10.123.7.1/24.") from None
    if found.network.prefixlen < 31 and found.ip in (found.network.network_address, found.network.broadcast_address):
        raise SpecError(f"{text!r} is the first or last address of its network, which no machine can have.", hint="Use one between.")
    return found


def _free_group() -> tuple[str, int]:
    """Random, so that two homes on one computer do not meet; and nobody listens there."""
    while True:
        group = str(GROUPS[secrets.randbelow(GROUPS.num_addresses - 2) + 1])
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if not is_group_taken(group, port):
            return group, port


def is_group_taken(group: str, port: int) -> bool:
    """Whether some process of this computer listens on the group."""
    wanted = f"{int.from_bytes(ipaddress.IPv4Address(group).packed, sys.byteorder):08X}:{port:04X}"
    return any(line.split()[1] == wanted for line in UDP.read_text().splitlines()[1:])


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
