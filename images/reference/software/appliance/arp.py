"""Whether somebody else has an address, and telling the neighbours that it is here now (IPv4 on Ethernet)."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
EVERYBODY = b"\xff" * 6
NOBODY = b"\0" * 6
PROBES, PROBE_WAIT = 3, 0.15
ANNOUNCEMENTS, ANNOUNCE_WAIT = 3, 0.05


def render_frame(kind: int, sender: tuple[bytes, str], target: tuple[bytes, str]) -> bytes:
    """An ARP message to everybody; ``sender`` and ``target`` are hardware and IP address each."""
    head = EVERYBODY + sender[0] + struct.pack("!H", ETH_P_ARP)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind)
    return head + body + sender[0] + socket.inet_aton(sender[1]) + target[0] + socket.inet_aton(target[1])


@contextlib.contextmanager
def open_wire(interface: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A socket for ARP on this interface, and the interface's own hardware address."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as wire:
        wire.bind((interface, ETH_P_ARP))
        yield wire, wire.getsockname()[4]


def is_taken(interface: str, address: str) -> bool:
    """Whether another machine on this segment answers for the address."""
    wanted = socket.inet_aton(address)
    with open_wire(interface) as (wire, own):
        for _ in range(PROBES):
            wire.send(render_frame(REQUEST, (own, "0.0.0.0"), (NOBODY, address)))  # noqa: S104 - a probe has no sender address
            end = time.monotonic() + PROBE_WAIT
            while select.select([wire], [], [], max(0.0, end - time.monotonic()))[0]:
                frame = wire.recv(2048)
                if len(frame) >= 42 and frame[28:32] == wanted and frame[22:28] != own:
                    return True
    return False


def announce(interface: str, address: str) -> None:
    """Gratuitous ARP, as request and as reply: neighbours that knew the address elsewhere learn where it is now."""
    with open_wire(interface) as (wire, own):
        for at in range(ANNOUNCEMENTS):
            if at:
                time.sleep(ANNOUNCE_WAIT)
            wire.send(render_frame(REQUEST, (own, address), (NOBODY, address)))
            wire.send(render_frame(REPLY, (own, address), (EVERYBODY, address)))
