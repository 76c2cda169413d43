"""A slow and lossy link in user space, for kernels without ``tc netem``: TUN devices, and this program between them.

``slow_wire.py between PID HERE THERE DELAY``: two network namespaces, each with one end; started in the one, with the process id of the
other. ``slow_wire.py mirror DELAY NEAR=FAR…``: one namespace; who connects to the address FAR reaches what listens at NEAR. DELAY in
seconds each way. Of twenty packets one is lost on average, and never two within ten: TCP has to send again, and no stream of it
is so unlucky that a test of something else fails once in a thousand times.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
GAPS = (10, 30)  # packets from one that is lost to the next


def open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def set_up(name: str, own: str, other: str, *enter: str) -> None:
    subprocess.run([*enter, "ip", "addr", "add", own, "peer", other, "dev", name], check=True)
    subprocess.run([*enter, "ip", "link", "set", name, "up"], check=True)


def lay_between(pid: str, here: str, there: str) -> tuple[int, int]:
    """Both ends, each with its address."""
    ends = open_tun("near"), open_tun("far")
    subprocess.run(["ip", "link", "set", "far", "netns", pid], check=True)
    set_up("near", here, there)
    set_up("far", there, here, "nsenter", "-t", pid, "-n")
    return ends


def lay_mirror(number: int, near: str, far: str) -> int:
    """What is sent to ``far`` comes back to ``near`` with the two exchanged. No checksum changes by that."""
    name = f"slow{number}"
    device = open_tun(name)
    Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")  # addresses of the loopback network are meant
    set_up(name, near, far)
    return device


def exchange(packet: bytes) -> bytes:
    """The same packet (IPv4) with its two addresses exchanged."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


class Wire:
    """Carries packets from one device to another."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._chance = random.Random(5)

    def carry(self, source: int, target: int, *, mirrored: bool = False) -> None:
        """From now on, all that comes out of ``source``."""
        loop, left = asyncio.get_running_loop(), self._chance.randint(*GAPS)

        def come() -> None:
            nonlocal left
            packet = os.read(source, 65536)
            if mirrored and packet[0] >> 4 != 4:
                return  # the kernel greets its neighbours by IPv6
            left -= 1
            if left > 0:
                loop.call_later(self._delay, os.write, target, exchange(packet) if mirrored else packet)
            else:
                left = self._chance.randint(*GAPS)

        loop.add_reader(source, come)


async def main(words: list[str]) -> None:
    if words[0] == "between":
        ends = lay_between(*words[1:4])
        wire = Wire(float(words[4]))
        wire.carry(*ends)
        wire.carry(*ends[::-1])
    else:
        wire = Wire(float(words[1]))
        for number, pair in enumerate(words[2:]):
            device = lay_mirror(number, *pair.split("="))
            wire.carry(device, device, mirrored=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
