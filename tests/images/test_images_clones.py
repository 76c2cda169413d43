"""Real clones of the reference appliance: each is another machine, told right after it was called ready. Two of them are a pair.

The template is saved late: in its first half minute a kernel takes up new randomness so often that what is missing would not show.
It is kept in the user's home like the image, so only the first run on a computer boots it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from images import identity, reap, template
from images.errors import SegmentError
from images.home import find_home
from images.hypervisor import Hypervisor
from images.lab import LabBox, ensure_lab, list_lab, reserve_lab
from images.lab_group import ensure_pair, verify_reach
from images.ledger import LabEntry
from images.local_templates import MEMORY, find_backing
from images.locking import read_self
from images.machine import Machines, open_machines
from images.readiness import TLS_PORT, read_leaf
from images.reference_image import ensure_reference_image
from images.snapshot import restore_snapshot, take_snapshot

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]
CLONES = 10
AGE = 32.0  # seconds of uptime at which the template is saved
HELLOS = 8
SECRETS = "select value from setting where name in ('guid', 'page_secret')"
GENERATION = "/var/lib/appliance/run/generation"  # another one for each start of the application
TELL = f"""
for number in 1 2 3; do cat /proc/sys/kernel/random/uuid; done
cat /etc/machine-id; hostname; cat /sys/class/net/eth0/address; cat /etc/ssh/ssh_host_ed25519_key.pub; cat /var/lib/appliance/hardware.json
echo; cat /proc/sys/kernel/random/boot_id /sys/class/net/eth1/address; cat /etc/ssh/ssh_host_*_key.pub | sha256sum
python3 -c "import sqlite3; print(*sqlite3.connect('/var/lib/appliance/data/box.db').execute(\\"{SECRETS}\\"))"
systemctl --failed --plain --no-legend | wc -l
"""


@dataclass(frozen=True)
class Told:
    """What a clone says of itself; ``lines`` are of :data:`TELL`."""

    box: LabBox
    hellos: frozenset[bytes]
    leaf: str
    cookies: frozenset[str]
    fields: frozenset[str]
    clock_off: float
    lines: tuple[str, ...]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    home = find_home()
    ensure_reference_image(home)
    prepare = identity.prepare

    def prepare_late(hypervisor: Hypervisor, uuid: str, cards: tuple[str, ...], *, factor: float) -> identity.Prepared:
        sleep_until_old(hypervisor, uuid)
        return prepare(hypervisor, uuid, cards, factor=factor)

    with open_machines(home) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "LAYOUT", [template.LAYOUT, "saved late"])  # another template than the ordinary one
        patch.setattr(identity, "prepare", prepare_late)
        yield opened


def sleep_until_old(hypervisor: Hypervisor, uuid: str) -> None:
    while (uptime := float(hypervisor.run_in_guest(uuid, ["/usr/bin/cat", "/proc/uptime"], stdin=None, timeout=60).text.split()[0])) < AGE:
        time.sleep(AGE - uptime)


@pytest.fixture(scope="module")
def told(machines: Machines) -> Iterator[tuple[Told, ...]]:
    image = ensure_reference_image(machines.home)
    pair = ensure_pair(machines, image, ttl=3600)
    boxes = (*pair, *ensure_lab(machines, reserve_lab(machines, image, CLONES - len(pair), ttl=3600)))
    try:
        yield tuple(_ask(machines, box) for box in boxes)
    finally:
        for box in boxes:
            machines.ensure_removed(box.name)


def test_they_came_up_warm(told: tuple[Told, ...]) -> None:
    assert [one.box.path for one in told] == ["warm"] * CLONES, [one.box.reason for one in told]


def test_nothing_that_makes_a_machine_itself_is_the_same_twice(told: tuple[Told, ...]) -> None:
    random = [line for one in told for line in one.lines[:3]]
    assert len(set(random)) == 3 * CLONES
    kinds = (
        "machine id",
        "host name",
        "card",
        "host key",
        "serial",
        "boot id",
        "card on a segment",
        "all host keys",
        "guid and page secret",
    )
    for number, what in enumerate(kinds, 3):
        assert len({one.lines[number] for one in told}) == CLONES, what
    assert len({hello for one in told for hello in one.hellos}) == HELLOS * CLONES, "TLS goes on with the randomness of the template"
    assert len({one.leaf for one in told}) == CLONES
    cookies = [cookie for one in told for cookie in one.cookies]
    assert cookies
    assert len(set(cookies)) == len(cookies)
    fields = [field for one in told for field in one.fields]
    assert len(fields) >= CLONES
    assert len(set(fields)) == len(fields), "the application goes on with the names of the template"


def test_each_is_what_its_domain_says(machines: Machines, told: tuple[Told, ...]) -> None:
    for one in told:
        facts = machines.read_machine(one.box.name)
        assert one.lines[3] == facts.uuid.replace("-", "")
        assert one.lines[4] == one.box.name
        assert one.lines[5] == facts.mac
        assert facts.uuid.upper() in one.lines[7]
        assert one.lines[-1] == "0", "a unit failed"
        segments = tuple(card.address.partition("/")[0] for card in one.box.segments)
        assert machines.hypervisor.read_addresses(facts.uuid) == ("10.0.2.15", *segments)


def test_a_pair_has_addresses_on_a_segment_of_its_own_and_speaks_tcp_there(machines: Machines, told: tuple[Told, ...]) -> None:
    first, second = (one.box for one in told[:2])
    assert first.segments[0].name == second.segments[0].name == first.group == second.group
    there = second.segments[0].address.partition("/")[0]
    script = f"import socket; print(socket.create_connection(('{there}', 22), 20).recv(7))"
    assert "SSH-2.0" in machines.run_in_guest(first.name, ["/usr/bin/python3", "-c", script]).text
    assert all(one.box.segments == () for one in told[2:])


def test_what_is_not_reached_on_a_segment_is_told_and_not_taken_for_well(machines: Machines, told: tuple[Told, ...]) -> None:
    first, second = (one.box for one in told[:2])
    down = ["/usr/sbin/ip", "link", "set", "eth1", "down"]
    machines.run_in_guest(second.name, down)
    machines.run_in_guest(first.name, ["/usr/sbin/ip", "neigh", "flush", "all"])
    with pytest.raises(SegmentError, match=f"{first.name} does not reach {second.name}.*nothing answers"):
        verify_reach(machines, (first.name, second.name))


def test_their_clocks_are_right(told: tuple[Told, ...]) -> None:
    assert all(abs(one.clock_off) < 1.0 for one in told), [one.clock_off for one in told]


def test_the_application_of_a_clone_outlives_the_jump_of_its_clock(machines: Machines, told: tuple[Told, ...]) -> None:
    """A clone's clock is moved by the age of its template, and this one's is young."""
    jump = f"date -s '+1 day' > /dev/null; cat {GENERATION}; echo; sleep 3; cat {GENERATION}; date -s '-1 day' > /dev/null"
    before, after = machines.run_in_guest(told[-1].box.name, ["/bin/sh", "-c", jump]).text.split()
    assert before == after, "another one was started"


def test_one_that_its_maker_left_half_made_is_reaped_and_the_others_stay(machines: Machines, told: tuple[Told, ...]) -> None:
    lost = told[2].box
    request = machines.read_machine(lost.name).request_id
    *who, started = read_self().split()
    machines.ledger.note_lab(LabEntry(request, " ".join([*who, str(int(started) + 1)])))
    mine = [one for one in reap.plan_reap(machines) if one.key == lost.name]
    assert [one.kind for one in mine] == [reap.Kind.MACHINE]
    reap.apply_reap(machines, mine[0])
    assert machines.hypervisor.find_domain(lost.name) is None
    assert {one.box.name for one in told} - {lost.name} <= {box.name for box in list_lab(machines)}


def test_each_runs_on_the_memory_of_the_template_and_a_snapshot_of_one_holds_all_of_it(machines: Machines, told: tuple[Told, ...]) -> None:
    box, leaf = told[3].box, told[3].leaf
    (kept,) = (one for one in template.list_templates(machines) if find_backing(machines.read_machine(box.name).disk) == str(one.disk))
    assert str(kept.state.with_name(MEMORY)) in _read_maps(box)
    machines.run_in_guest(box.name, ["/usr/bin/touch", "/run/before"])
    assert take_snapshot(machines, box.name, "here").size > kept.state.stat().st_size * 10
    machines.run_in_guest(box.name, ["/usr/bin/touch", "/run/after"])
    assert restore_snapshot(machines, box.name, "here")
    assert machines.run_in_guest(box.name, ["/bin/sh", "-c", "ls /run/before /run/after; hostname"]).text.split() == [
        "/run/before",
        box.name,
    ]
    assert read_leaf(*machines.read_machine(box.name).find_way(TLS_PORT)) == leaf


def _read_maps(box: LabBox) -> str:
    """What files the machine's process has mapped."""
    processes = (path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if box.uuid.encode() in path.read_bytes())
    return "".join((process / "maps").read_text() for process in processes)


def _ask(machines: Machines, box: LabBox) -> Told:
    before = time.time()
    clock = float(machines.run_in_guest(box.name, ["/usr/bin/date", "+%s.%N"]).text)
    after = time.time()
    off = max(0.0, before - clock, clock - after)
    host, port = box.address.split(":")
    hellos = frozenset(_draw_server_random(host, int(port)) for _ in range(HELLOS))
    with httpx.Client(verify=False, timeout=60) as client:
        answers = [client.get(f"https://{box.address}/{console}") for console in ("appliance", "login")]
    cookies = frozenset(value for one in answers for value in one.cookies.values())
    fields = frozenset(name for one in answers for name in re.findall(r'<input[^>]* name="([^"]+)"', one.text))
    lines = machines.run_in_guest(box.name, ["/bin/sh", "-c", TELL], timeout=60).text.splitlines()
    return Told(box, hellos, read_leaf(host, int(port)), cookies, fields, off, tuple(lines))


def _draw_server_random(host: str, port: int) -> bytes:
    """The 32 random bytes of a TLS server's first message (RFC 8446, 4.1.3), which its process draws from a generator of its own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    with socket.create_connection((host, port), 60) as link, link.makefile("rb") as said:
        link.sendall(outgoing.read())
        record, handshake, version, drawn = said.read(5), said.read(4), said.read(2), said.read(32)
    assert (record[:1], handshake[:1], version, len(drawn)) == (b"\x16", b"\x02", b"\x03\x03", 32)
    return drawn
