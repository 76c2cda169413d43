"""Gives a machine that was restored from a saved one an identity of its own. Runs inside the guest; only Python's standard library.

The hypervisor's side talks to it over the virtio port ``boxshift.identity.0``, one JSON object a line, one answer a line:

``hello``    who is there: the agent's version and the uptime in seconds.
``prepare``  just before the machine is saved: services let go of what they can make again, the cards named in ``cards`` go off line so
             that no copy is heard on a network before it has its own address, and free memory is emptied, so that it is not saved.
``renew``    in a copy: new randomness first, then clock, name, machine id, card addresses, the SSH host keys that were made for it
             (the hypervisor's side has good randomness and is much quicker than an emulated machine), and then every service that
             listens on ``/run/boxshift/identity.d/*.sock`` (asked in the same form) or has a program in ``/etc/boxshift/identity.d/``.

``plug``     the cards on private segments take their addresses, now and after every start.
``reach``    which of some addresses answer on a card's segment, and with which hardware address.
``stir``     in a machine that was taken back to an earlier state: new randomness, and the clock.
``clock``    what time it is, after moving the clock by some seconds.

An answer has ``ok``; where it is false, ``error`` says why, and the machine must not be used.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import ipaddress
import itertools
import json
import mmap
import os
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VERSION = 2
PORT, PORTS = "boxshift.identity.0", Path("/sys/class/virtio-ports")
SSH = Path("/etc/ssh")
NETWORKS = Path("/etc/systemd/network")
BOOT_ID, OWN_BOOT_ID = Path("/proc/sys/kernel/random/boot_id"), Path("/run/boxshift/boot_id")
SOCKETS, PROGRAMS = Path("/run/boxshift/identity.d"), Path("/etc/boxshift/identity.d")
SERVICE_SECONDS, ADDRESS_SECONDS = 60, 15
LONGEST_LINE = 65536
# From linux/random.h and linux/sockios.h.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8915, 0x8916, 0x891C, 0x8924
IFF_UP, ARPHRD_ETHER, ARP_WHOLE, DISCARD = 1, 1, 2, 9
MS_BIND = 4096
LIBC = ctypes.CDLL(None, use_errno=True)  # now: it takes a while, and a copy has no time
KEPT_FREE = 48 << 20  # bytes of memory that are not touched when the rest is emptied
IDLE, EAGER, EAGER_FOR = 0.5, 0.005, 120.0
JOURNAL_AFTER = 5.0


def hello(_: dict[str, Any]) -> dict[str, Any]:
    """Who is there."""
    return {"version": VERSION, "uptime": float(Path("/proc/uptime").read_text().split()[0])}


def prepare(asked: dict[str, Any]) -> dict[str, Any]:
    """Make ready to be saved."""
    with telling_services({"ask": "prepare"}) as hear:
        told = hear()
    for card in find_cards(asked["cards"]).values():
        switch(card, on=False)
    os.sync()
    return {"services": told, "emptied": empty_memory(), "host_keys": [path.name for path in sorted(SSH.glob("ssh_host_*_key"))]}


def renew(asked: dict[str, Any]) -> dict[str, Any]:
    """Become the machine that ``asked`` describes."""
    marks = [time.monotonic()]
    refresh(asked)
    # The services are other processes: what they do and what is done here go on side by side.
    with telling_services({key: asked[key] for key in ("ask", "name", "serial", "certificate")}) as hear:
        become(asked)
        marks.append(time.monotonic())
        told = hear()
    marks.append(time.monotonic())
    addresses = [wait_for_address(card) for card in find_cards(list(asked["cards"].values())).values()]
    plug(asked)  # what comes second is not taken for the way out
    marks.append(time.monotonic())
    took = [round(after - before, 3) for before, after in itertools.pairwise(marks)]
    return {"services": told, "addresses": addresses, "seconds": took, "time": time.time()}


def become(asked: dict[str, Any]) -> None:
    """What is the system's own: names, cards, keys of SSH."""
    take_name(asked["name"])
    write(Path("/etc/machine-id"), asked["machine_id"] + "\n", 0o444)
    renew_boot_id()
    cards = find_cards(list(asked["cards"]))
    for old, card in cards.items():
        set_address(card, asked["cards"][old])
        switch(card, on=True)
    for old, card in find_cards(list(asked["idle"])).items():
        set_address(card, asked["idle"][old])
    for name, key in asked["host_keys"].items():
        replace_key(SSH / name, key["private"], key["public"])


def refresh(asked: dict[str, Any]) -> dict[str, Any]:
    """New randomness and the present time, and nothing else."""
    stir(base64.b64decode(asked["entropy"]))
    time.clock_settime(time.CLOCK_REALTIME, asked["time"])
    return {"time": time.time()}


def clock(asked: dict[str, Any]) -> dict[str, Any]:
    """What time it is here, after moving the clock ``by`` seconds, which stays right however long the asking takes."""
    if asked["by"]:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + asked["by"])
    return {"time": time.time()}


def plug(asked: dict[str, Any]) -> dict[str, Any]:
    """The cards on private segments: ``ports`` has ``mac`` and ``address`` (``10.123.7.1/24``) of each."""
    for number, port in enumerate(asked["ports"]):
        (card,) = find_cards([port["mac"]]).values()
        address = ipaddress.IPv4Interface(port["address"])
        set_network(card, address)
        if NETWORKS.is_dir():
            lines = ("[Match]", f"MACAddress={port['mac']}", "[Network]", f"Address={address}", "LinkLocalAddressing=no", "IPv6AcceptRA=no")
            # Named so that it comes before what is told of spare cards. Addresses that others add are kept.
            write(NETWORKS / f"04-boxshift-segment{number}.network", "\n".join((*lines, "KeepConfiguration=static", "")), 0o644)
    return {}


def reach(asked: dict[str, Any]) -> dict[str, Any]:
    """Whose card answers for each of ``peers`` on the segment of the card ``mac``; empty where none does within ``seconds``."""
    (card,) = find_cards([asked["mac"]]).values()
    end = time.monotonic() + asked["seconds"]
    found = dict.fromkeys(asked["peers"], "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.encode())
        while not all(found.values()) and time.monotonic() < end:
            for peer in found:
                with contextlib.suppress(OSError):
                    out.sendto(b"", (peer, DISCARD))
            time.sleep(0.02)
            found.update((peer, read_neighbour(peer, card)) for peer in found)
    return {"found": found}


def read_neighbour(address: str, card: str) -> str:
    """The hardware address that answered for an IPv4 address on this card; empty: none."""
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        ip, _, flags, mac, _, device = line.split()
        if (ip, device) == (address, card) and int(flags, 16) & ARP_WHOLE:
            return mac
    return ""


ASKED = {"hello": hello, "prepare": prepare, "renew": renew, "stir": refresh, "plug": plug, "reach": reach, "clock": clock}


def stir(entropy: bytes) -> None:
    """Mix the host's randomness into the kernel's and make every processor take it up at once, not within the next minutes."""
    with Path("/dev/urandom").open("r+b", buffering=0) as pool:
        fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
        fcntl.ioctl(pool, RNDRESEEDCRNG)


def renew_boot_id() -> None:
    """Whoever asks from now on which start of the system this is gets an answer that no other copy gives.

    A process that asked before keeps what it heard.
    """
    OWN_BOOT_ID.unlink(missing_ok=True)
    write(OWN_BOOT_ID, f"{uuid.uuid4()}\n", 0o444)
    if LIBC.mount(bytes(OWN_BOOT_ID), bytes(BOOT_ID), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "the kernel did not take another boot id")


def restart_journal() -> None:
    """The journal has the boot id of before in its memory: with it, `systemctl status` would find no lines of this start."""
    subprocess.run(["/usr/bin/systemctl", "--no-block", "try-restart", "systemd-journald.service"], check=False)


def take_name(name: str) -> None:
    """The host name, now and after the next start."""
    old = socket.gethostname()
    socket.sethostname(name)
    write(Path("/etc/hostname"), name + "\n", 0o644)
    hosts = Path("/etc/hosts")
    lines = [" ".join(name if word == old else word for word in line.split()) for line in hosts.read_text().splitlines()]
    write(hosts, "\n".join(lines) + "\n", 0o644)


def find_cards(addresses: list[str]) -> dict[str, str]:
    """The names of the network cards that have these addresses (address -> name)."""
    found = {path.read_text().strip(): path.parent.name for path in Path("/sys/class/net").glob("*/address")}
    missing = [one for one in addresses if one not in found]
    if missing:
        raise LookupError(f"no network card has the address {', '.join(missing)}")
    return {one: found[one] for one in addresses}


def switch(card: str, *, on: bool) -> None:
    """Set a card on line or off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", card.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked), 16)
        flags = flags | IFF_UP if on else flags & ~IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", card.encode(), flags))


def set_address(card: str, address: str) -> None:
    """Give a card that is off line a hardware address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = bytes.fromhex(address.replace(":", ""))
        fcntl.ioctl(any_socket, SIOCSIFHWADDR, struct.pack("16sH6s8x", card.encode(), ARPHRD_ETHER, raw))


def set_network(card: str, address: ipaddress.IPv4Interface) -> None:
    """Give a card an IPv4 address and set it on line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for what, value in ((SIOCSIFADDR, address.ip), (SIOCSIFNETMASK, address.netmask)):
            fcntl.ioctl(any_socket, what, struct.pack("16sHH4s16x", card.encode(), socket.AF_INET, 0, value.packed))
    switch(card, on=True)


def wait_for_address(card: str) -> str:
    """The IPv4 address that the card has, or gets within some seconds; empty where it gets none (there may be no DHCP here)."""
    end = time.monotonic() + ADDRESS_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return socket.inet_ntoa(fcntl.ioctl(any_socket, SIOCGIFADDR, struct.pack("40s", card.encode()))[20:24])
            time.sleep(0.01)
    return ""


def replace_key(path: Path, private: str, public: str) -> None:
    """Put a new key in the old one's place, the public half first. sshd reads its keys anew for every connection."""
    if path.parent != SSH or not path.exists():
        raise LookupError(f"{path} is no SSH host key of this machine")
    write(path.with_name(path.name + ".pub"), public + "\n", 0o644)
    write(path, private, 0o600)


@contextlib.contextmanager
def telling_services(asked: dict[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Ask every service that has an identity of its own; the call answers what they said, by name. One that cannot fails the whole."""
    said = json.dumps(asked).encode()
    with contextlib.ExitStack() as stack:
        links = {}
        for path in sorted(SOCKETS.glob("*.sock")):
            links[path.stem] = out = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            out.settimeout(SERVICE_SECONDS)
            out.connect(str(path))
            out.sendall(said + b"\n")

        def hear() -> dict[str, Any]:
            told = {}
            for name, out in links.items():
                with out.makefile("rb") as answers:
                    told[name] = accept(name, answers.readline(LONGEST_LINE))
            for path in sorted(PROGRAMS.glob("*")):
                if os.access(path, os.X_OK):
                    done = subprocess.run([path], input=said, stdout=subprocess.PIPE, timeout=SERVICE_SECONDS, check=True)
                    told[path.name] = accept(path.name, done.stdout or b'{"ok": true}')
            return told

        yield hear


def accept(name: str, said: bytes) -> dict[str, Any]:
    """A service's answer, where it says that all is well."""
    answer: dict[str, Any] = json.loads(said or b"{}")
    if not answer.pop("ok", False):
        raise RuntimeError(f"{name}: {answer.get('error', 'it gave no answer')}")
    return answer


def empty_memory() -> int:
    """Fill free memory with zeros and free it again, so that a save leaves it out; answers how many bytes."""
    free = next(int(line.split()[1]) << 10 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemFree:"))
    size = max(0, free - KEPT_FREE) // mmap.PAGESIZE * mmap.PAGESIZE
    if size:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    return size


def write(path: Path, text: str, mode: int) -> None:
    """Write a file so that it is whole or as it was."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as sink:
        sink.write(text)
    temporary.replace(path)


def answer(line: bytes) -> dict[str, Any]:
    """The answer to one line."""
    try:
        asked = json.loads(line)
        return {"ok": True, **ASKED[asked["ask"]](asked)}
    except Exception as error:  # noqa: BLE001 - whatever went wrong is told, and the machine is then not used
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def serve(port: int) -> None:
    """Answer for ever. A port whose other end is not connected reads as empty: then it is looked at again after a while."""
    rest, eager_until = b"", 0.0
    while True:
        read = os.read(port, LONGEST_LINE)
        if not read:
            rest = b""
            time.sleep(EAGER if time.monotonic() < eager_until else IDLE)
            continue
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            said = answer(line)
            # A copy of a machine that was saved is waited for; this is the clock that goes on where the saved one stopped.
            eager_until = time.monotonic() + EAGER_FOR if b'"prepare"' in line else 0.0
            with contextlib.suppress(OSError):
                os.write(port, json.dumps(said).encode() + b"\n")
            if b'"renew"' in line:
                os.sync()
                # Not at once: whoever waits for this machine would wait for that as well.
                threading.Timer(JOURNAL_AFTER, restart_journal).start()


def main() -> None:
    """Serve the port, where this machine has it."""
    found = next((path.parent.name for path in PORTS.glob("*/name") if path.read_text().strip() == PORT), None)
    if found is not None:
        serve(os.open(f"/dev/{found}", os.O_RDWR | os.O_CLOEXEC))


if __name__ == "__main__":
    main()
