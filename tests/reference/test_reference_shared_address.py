"""A shared address of a pair in the machine skin: really on the interface of the primary alone, and the neighbours are told by ARP."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Browser
from reference_boxes import PASSWORD
from reference_machines import ADMIN, Machine, start_machine
from reference_pairs import KEY, PAGE, PULL_FIRST, tick_shared, wait_until

from kit.process import Child, find_program, run

pytestmark = [
    pytest.mark.process,
    pytest.mark.network,
    pytest.mark.skipif(os.getuid() != 0 or find_program("unshare") is None, reason="network namespaces need root"),
]
SEGMENT = ("10.9.2.1", "10.9.2.2")
SHARED = "10.9.2.100"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines on one segment, with the same key; the first has the shared address."""
    with contextlib.ExitStack() as stack:
        boxes = []
        for name in "ab":
            (tmp_path / name).mkdir()
            boxes.append(stack.enter_context(start_machine(tmp_path / name)))
        plug(*boxes)
        for box, own in zip(boxes, SEGMENT, strict=True):
            wish: dict[str, object] = {"site_password": PASSWORD, "appliance_password": PASSWORD, "preshared_key": KEY}
            on, off = ([own, SHARED], []) if own == SEGMENT[0] else ([own], [SHARED])
            wish |= {"service_addresses": [f"{one}/24" for one in on], "spare_addresses": [f"{one}/24" for one in off]}
            box.command("seed", stdin=json.dumps(wish).encode())
        yield boxes[0], boxes[1]


def plug(a: Machine, b: Machine) -> None:
    """A cable between their second interfaces."""
    run(
        ["ip", "link", "add", "eth1", "netns", str(a.child.pid), "type", "veth", "peer", "name", "eth1", "netns", str(b.child.pid)],
        timeout=10,
    )
    for box, own in ((a, SEGMENT[0]), (b, SEGMENT[1])):
        enter = ["nsenter", "-t", str(box.child.pid), "-n", "ip"]
        run([*enter, "link", "set", "eth1", "up"], timeout=10)
        run([*enter, "addr", "add", f"{own}/24", "dev", "eth1"], timeout=10)


def failover_page(box: Machine) -> Browser:
    def look() -> Browser:
        return Browser(f"https://{ADMIN}", "login").log_in(PASSWORD).follow(*PAGE)

    page = box.inside(look)
    assert isinstance(page, Browser)
    return page


# Writes a line for everybody who announces an address of its own on the segment. A process: the tests themselves may not open such sockets.
LISTENER = """
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
wire.bind(("eth1", 0x0806))
print("listening", flush=True)
while True:
    frame = wire.recv(2048)
    if frame[28:32] == frame[38:42]:
        print(frame[22:28].hex(), socket.inet_ntoa(frame[28:32]), flush=True)
"""


@contextlib.contextmanager
def listening(box: Machine, log: Path) -> Iterator[Callable[[], set[str]]]:
    """What was announced on the segment since, as lines of a hardware and an IP address."""
    child = Child(["nsenter", "-t", str(box.child.pid), "-n", sys.executable, "-c", LISTENER], log=log)
    try:
        wait_until(lambda: "listening" in log.read_text(), "the listener")
        yield lambda: set(log.read_text().splitlines()[1:])
    finally:
        child.stop()


def hardware_address(box: Machine) -> str:
    shown = run(["nsenter", "-t", str(box.child.pid), "-n", "ip", "-json", "link", "show", "dev", "eth1"], timeout=10).text
    return str(json.loads(shown)[0]["address"]).replace(":", "")


def tick(box: Machine) -> None:
    page = failover_page(box)
    box.inside(lambda: tick_shared(page, SHARED))


def establish(box: Machine, own: str, peer: str) -> None:
    page = failover_page(box)
    hosts = {("Host Name or IP Address", 0): peer, ("Host Name or IP Address", 1): own}
    box.inside(lambda: page.fill("Establish Relationship", hosts | {("TLS Port", 0): "443", ("TLS Port", 1): "443"}))
    assert page.notice == "The relationship was established.", page.error


def press(box: Machine, button: str, values: dict[str, bool]) -> None:
    page = failover_page(box)
    box.inside(lambda: page.fill(button, values))


def test_a_shared_address_is_at_the_primary_alone_which_tells_its_neighbours_and_takes_it_from_nobody(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    a, b = machines
    assert (a.addresses("eth1"), b.addresses("eth1")) == ([SEGMENT[0], SHARED], [SEGMENT[1]])

    # As long as the other box has it as an address of its own (it is not ticked there), the primary goes without.
    tick(b)
    establish(b, SEGMENT[1], SEGMENT[0])
    wait_until(lambda: f"The shared address {SHARED} is held by another appliance." in failover_page(b).text, "the word about it")
    assert (a.addresses("eth1"), b.addresses("eth1")) == ([SEGMENT[0], SHARED], [SEGMENT[1]])
    press(b, "Break Failover Relationships", {})

    tick(a)
    establish(a, SEGMENT[0], SEGMENT[1])
    assert (a.addresses("eth1"), b.addresses("eth1")) == ([SEGMENT[0], SHARED], [SEGMENT[1]])
    announced = f"{hardware_address(b)} {SHARED}"
    with listening(a, tmp_path / "heard") as heard:
        press(b, "Become Primary", {PULL_FIRST.format(role="primary"): True})
        wait_until(lambda: b.addresses("eth1") == [SEGMENT[1], SHARED], "the shared address at the new primary")
        wait_until(lambda: announced in heard(), "the announcement")
        assert {line for line in heard() if line.endswith(f" {SHARED}")} == {announced}
    assert a.addresses("eth1") == [SEGMENT[0]]


def switch_by_hand(box: Machine, address: str, *, enabled: bool) -> None:
    """On its IP configuration page."""

    def press() -> str:
        page = Browser(f"https://{ADMIN}", "appliance").log_in(PASSWORD).follow("Networking", "IP Configuration")
        row = next(row for row in page.rows("Networking :: IP Addresses") if row["IP Address"].text_content() == address)
        page.open(row["Actions"].xpath(".//a/@href")[0]).fill("Save Changes", {"Enabled": enabled})
        return page.error

    assert box.inside(press) == ""


def test_neighbours_are_told_of_an_address_that_is_switched_on_by_hand(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """Or they would go on sending to the box that had it, until their tables forget it."""
    a, b = machines
    announced = f"{hardware_address(b)} {SHARED}"
    switch_by_hand(a, SHARED, enabled=False)
    with listening(a, tmp_path / "heard") as heard:
        switch_by_hand(b, SHARED, enabled=True)
        wait_until(lambda: announced in heard(), "the announcement")
    assert (a.addresses("eth1"), b.addresses("eth1")) == ([SEGMENT[0]], [SEGMENT[1], SHARED])
