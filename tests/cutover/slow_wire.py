"""A slow and lossy link between two network namespaces: two TUN devices, and this program between them.

Started in the one namespace, with the process id of the other: ``slow_wire.py PID HERE THERE DELAY LOSS`` (addresses, seconds each way,
share lost each way). It stands in for ``tc netem``, which not every kernel has.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000


def open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def lay(pid: str, here: str, there: str) -> tuple[int, int]:
    """Both ends, each with its address."""
    ends = open_tun("near"), open_tun("far")
    subprocess.run(["ip", "link", "set", "far", "netns", pid], check=True)
    for enter, name, own, other in (([], "near", here, there), (["nsenter", "-t", pid, "-n"], "far", there, here)):
        subprocess.run([*enter, "ip", "addr", "add", own, "peer", other, "dev", name], check=True)
        subprocess.run([*enter, "ip", "link", "set", name, "up"], check=True)
    return ends


async def main(ends: tuple[int, int], delay: float, loss: float) -> None:
    loop, chance = asyncio.get_running_loop(), random.Random(5)  # the same packets are lost each time, as far as the same are sent

    def carry(source: int, target: int) -> None:
        packet = os.read(source, 65536)
        if chance.random() >= loss:
            loop.call_later(delay, os.write, target, packet)

    for source, target in (ends, ends[::-1]):
        loop.add_reader(source, carry, source, target)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(lay(*sys.argv[1:4]), float(sys.argv[4]), float(sys.argv[5])))
