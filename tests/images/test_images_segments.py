"""Private segments and topologies: what is refused, what QEMU is told, and that a group is made whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, Killed, foreign_xml
from test_images_domain import DOMAIN
from typer.testing import CliRunner

import images.clone
import images.lab
import images.machine
import images.place
import images.template
from images import lab_group, reap
from images.domain import render_domain
from images.errors import AddressTakenError, NotOursError, SegmentError, SpecError, TopologyError
from images.hypervisor import Power
from images.lab import list_lab
from images.lab_cli import lab_app
from images.segment import MOST_CARDS, SPARE, SegmentCard, is_group_taken, segment_mac
from images.spec import MachineSpec
from images.topology import parse_topology
from kit.errors import UsageError

GOOD = """\
name: branch
segments:
  office: 10.123.40.0/24
  transfer:
boxes:
  gateway:
    image: tiny
    segments: {office: 10.123.40.7, transfer: }
  desk:
    image: tiny
    count: 2
    segments: [office]
"""


@pytest.fixture
def world(machines: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch) -> FakeMachines:
    """Machines whose cards answer for the addresses that they were given."""
    hypervisor.uri = "qemu:///fake"
    hypervisor.answers |= {"prepare": {"host_keys": []}, "renew": {"services": {}}, "reach": lambda asked: answer_for(machines, asked)}
    monkeypatch.setattr(images.template, "plan_key", lambda *_, spares=1, **__: f"0123456789abcdef{spares:016x}")
    monkeypatch.setattr(images.template, "read_leaf", lambda *_: "cd" * 32)
    monkeypatch.setattr(images.place, "create_overlay", lambda base, target, *, timeout: target.write_bytes(base.read_bytes()))
    monkeypatch.setattr(images.clone, "_wait_for_own_answer", lambda *_, **__: None)
    for module in (images.lab, images.template):
        monkeypatch.setattr(module, "wait_for_ready", lambda machines, name, **_: machines.read_machine(name))
    monkeypatch.setattr(images.lab, "is_taken", lambda _: False)
    return machines


def answer_for(machines: FakeMachines, asked: dict[str, object]) -> dict[str, object]:
    cards = {
        card.address.partition("/")[0]: segment_mac(facts.mac, number)
        for facts in machines.list_machines()
        for number, card in enumerate(facts.segments)
    }
    return {"found": {peer: cards[peer] for peer in asked["peers"]}}


def run(machines: FakeMachines, monkeypatch: pytest.MonkeyPatch, *argv: str) -> object:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[FakeMachines]:
        yield machines

    monkeypatch.setattr(images.machine, "open_machines", opened)
    return CliRunner().invoke(lab_app, argv)


# ---- cards


def test_a_card_is_told_to_qemu_as_a_cable_and_a_device() -> None:
    card = SegmentCard("pair-1", "10.123.7.1/24", "239.192.4.5", 20005)
    words = [one.get("value") for one in ET.fromstring(render_domain(replace(DOMAIN, segments=(card, SPARE)))).iter() if one.get("value")]
    assert "socket,id=boxcable0,mcast=239.192.4.5:20005,localaddr=127.0.0.1" in words
    assert "virtio-net-pci,netdev=boxcable0,id=boxport0,mac=52:54:01:12:34:56,bus=pci.0,addr=0x11,romfile=" in words
    assert "hubport,id=boxcable1,hubid=901" in words
    assert not any("10.123.7.1" in word for word in words), "the address is the machine's own matter"


@pytest.mark.parametrize(
    ("group", "port", "address"),
    [("127.0.0.1", 20000, ""), ("224.0.0.1", 20000, ""), ("239.255.0.1", 20000, ""), ("239.192.0.1,x=y", 20000, ""), ("", 20000, ""),
     ("239.192.0.1", 80, ""), ("239.192.0.1", 65536, ""), ("239.192.0.1", 20000, "10.1.1.0/24"), ("239.192.0.1", 20000, "10.1.1.255/24"),
     ("239.192.0.1", 20000, "here"), ("239.192.0.1", 20000, "::1/64")],
)  # fmt: skip
def test_a_card_that_would_leave_the_loopback_interface_or_means_nothing_is_refused(group: str, port: int, address: str) -> None:
    with pytest.raises(SpecError):
        SegmentCard("x", address, group, port)


def test_a_machine_has_no_more_cards_than_slots() -> None:
    with pytest.raises(SpecError, match="cannot have"):
        MachineSpec("x", "tiny", "r", segments=(SPARE,) * (MOST_CARDS + 1))


@pytest.mark.network
def test_a_group_that_someone_listens_on_is_seen() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))  # which address it is makes no difference here
        taken = other.getsockname()
        assert is_group_taken(*taken)
    assert not is_group_taken(*taken)


# ---- topology files


def test_a_topology_is_read() -> None:
    topology = parse_topology(GOOD.encode(), "x.yaml", usual_name="x")
    assert topology.name == "branch"
    assert [(box.name, box.count, [seat.segment for seat in box.seats]) for box in topology.boxes] == [
        ("gateway", 1, ["office", "transfer"]),
        ("desk", 2, ["office"]),
    ]
    assert parse_topology(GOOD.replace("name: branch\n", "").encode(), "x.yaml", usual_name="x").name == "x"


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [("name: branch", "name: Bränch", 1, "cannot be the topology's name"), ("name: branch", "nmae: branch", 1, "no such setting"),
     ("10.123.40.0/24", "10.123.40.1/24", 3, "no IPv4 network"), ("10.123.40.0/24", "10.0.2.0/24", 3, "leads out"),
     ("10.123.40.0/24", "127.0.0.0/8", 3, "cannot have"), ("transfer:\nb", "transfer: 10.123.40.128/25\nb", 4, "those of office"),
     ("40.7", "41.7", 8, "not one that"), ("40.7", "40.255", 8, "not one that"), ("transfer: }", "transfer: 10.9.9.9}", 8, "network"),
     ("[office]", "[offcie]", 12, "no segment of this name"), ("[office]", "[office, office]", 12, "twice"),
     ("count: 2", "count: 0", 11, "number"),
     ("count: 2", "count: lots", 11, "number"), ("[office]", "{office: 10.123.40.9}", 12, "cannot have one address"),
     ("  desk:", "  gateway:", 9, "stands twice"), ("image: tiny\n    count", "image: [tiny]\n    count", 10, "no name of an image"),
     ("boxes:", "boxes: 7\nrest:", 5, "names with values"), ("  desk:", "  gateway-1:", 9, None), ("\n  office:", "\n\toffice:", 3, "tab"),
     ("segments: [office]", "segmnts: [office]", 12, "no such setting")],
)  # fmt: skip
def test_every_fault_of_a_topology_is_told_with_its_line(old: str, new: str, line: int, why: str | None) -> None:
    assert old in GOOD
    raw = GOOD.replace(old, new, 1).encode()
    if why is None:
        parse_topology(raw, "x.yaml", usual_name="x")
        return
    with pytest.raises(TopologyError, match=rf"line {line}: .*{why}") as caught:
        parse_topology(raw, "x.yaml", usual_name="x")
    assert "x.yaml" in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"boxes: {}", b"x" * 70_000, b"[]", b"boxes: {a: {count: 40}, b: {count: 40}}"])
def test_what_is_no_topology_is_refused(raw: bytes) -> None:
    with pytest.raises(TopologyError):
        parse_topology(raw, "x.yaml", usual_name="x")


def test_the_documented_topology_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/labs.md").read_text()
    topology = parse_topology(page.split("```yaml\n")[1].split("```")[0].encode(), "labs.md", usual_name="x")
    assert [name for box in topology.boxes for name in box.machine_names] == ["gateway", "desk-1", "desk-2", "desk-3"]


def test_machines_of_two_boxes_do_not_share_a_name() -> None:
    raw = b"boxes: {a: {count: 2}, a-1: }"
    with pytest.raises(TopologyError, match="same name"):
        parse_topology(raw, "x.yaml", usual_name="x")


# ---- groups


def test_a_pair_stands_on_one_segment_and_each_is_asked_from_within(world: FakeMachines, hypervisor: FakeHypervisor) -> None:
    first, second = lab_group.ensure_pair(world, world.store.read_image("tiny"))
    assert (first.name, second.name, first.path, second.path) == ("pair-1-a", "pair-1-b", "warm", "warm")
    assert [box.segments[0].address for box in (first, second)] == ["10.123.1.1/24", "10.123.1.2/24"]
    cards = [world.read_machine(box.name).segments[0] for box in (first, second)]
    assert (cards[0].group, cards[0].port) == (cards[1].group, cards[1].port)
    ports = [one["ports"] for one in hypervisor.asked if one["ask"] == "renew"]
    assert sorted(port[0]["address"] for port in ports) == ["10.123.1.1/24", "10.123.1.2/24"]
    reached = [(one["mac"], one["peers"]) for one in hypervisor.asked if one["ask"] == "reach"]
    assert reached == [(first.segments[0].mac, ["10.123.1.2"]), (second.segments[0].mac, ["10.123.1.1"])]
    other = lab_group.ensure_pair(world, world.store.read_image("tiny"))
    assert other[0].group == "pair-2"
    theirs = world.read_machine("pair-2-a").segments[0]
    assert (theirs.group, theirs.port) != (cards[0].group, cards[0].port)
    assert other[0].segments[0].address == "10.123.2.1/24"


def test_a_machine_that_is_on_no_segment_is_a_clone_of_the_same_template(world: FakeMachines, hypervisor: FakeHypervisor) -> None:
    image = world.store.read_image("tiny")
    lab_group.ensure_pair(world, image)
    (plain,) = images.lab.ensure_lab(world, images.lab.reserve_lab(world, image, 1))
    assert (plain.path, plain.segments, plain.group) == ("warm", (), "")
    assert hypervisor.calls.count("save") == 1


def test_a_topology_is_made_with_the_addresses_that_it_names(world: FakeMachines) -> None:
    boxes = lab_group.ensure_topology(world, parse_topology(GOOD.encode(), "x.yaml", usual_name="x"))
    found = {box.name: {one.name: one.address for one in box.segments} for box in boxes}
    assert found["branch-gateway"] == {"branch-office": "10.123.40.7/24", "branch-transfer": "10.123.1.1/24"}
    assert sorted(found[f"branch-desk-{number}"]["branch-office"] for number in (1, 2)) == ["10.123.40.1/24", "10.123.40.2/24"]
    with pytest.raises(SpecError, match="stands already"):
        lab_group.ensure_topology(world, parse_topology(GOOD.encode(), "x.yaml", usual_name="x"))


@pytest.mark.parametrize("who", ["", "52:54:01:00:00:01"])
def test_where_one_does_not_reach_the_other_none_is_left(world: FakeMachines, hypervisor: FakeHypervisor, who: str) -> None:
    hypervisor.answers["reach"] = lambda asked: {"found": dict.fromkeys(asked["peers"], who)}
    with pytest.raises(SegmentError, match="does not reach"):
        lab_group.ensure_pair(world, world.store.read_image("tiny"))
    assert hypervisor.domains == {}
    assert world.ledger.list_lab() == {}
    assert list(world.home.machines.iterdir()) == []


def test_a_foreign_machine_of_one_of_the_names_is_left_alone_and_nothing_is_made(world: FakeMachines, hypervisor: FakeHypervisor) -> None:
    theirs = foreign_xml("branch-desk-2", "8e3a6c1e-7d0b-4f3e-9d0a-1f2e3d4c5b6b")
    hypervisor.domains["branch-desk-2"] = ["8e3a6c1e-7d0b-4f3e-9d0a-1f2e3d4c5b6b", Power.RUNNING, theirs]
    with pytest.raises(NotOursError, match="branch-desk-2"):
        lab_group.ensure_topology(world, parse_topology(GOOD.encode(), "x.yaml", usual_name="x"))
    assert list(hypervisor.domains) == ["branch-desk-2"]
    assert world.ledger.list_lab() == {}


def test_addresses_that_were_taken_meanwhile_are_chosen_anew(
    world: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [1], hypervisor.restore

    def restore(source: Path) -> None:
        if left:
            left.pop()
            raise AddressTakenError("taken")
        real(source)

    monkeypatch.setattr(hypervisor, "restore", restore)
    monkeypatch.setattr(images.machine, "is_taken", lambda _: False)
    boxes = lab_group.ensure_pair(world, world.store.read_image("tiny"))
    assert sorted(hypervisor.domains) == [box.name for box in boxes] == ["pair-1-a", "pair-1-b"]


@pytest.mark.parametrize("verb", ["define", "restore", "renew", "reach"])
def test_a_pair_whose_maker_was_killed_is_reaped_whole(
    world: FakeMachines, hypervisor: FakeHypervisor, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the one that was ready: half a pair is of no use."""
    images.lab.ensure_lab(world, images.lab.reserve_lab(world, world.store.read_image("tiny"), 1))  # the template
    monkeypatch.setattr(lab_group, "_remove", lambda *_: None)

    def kill(name: str) -> None:
        if name == verb:
            raise Killed

    hypervisor.after = kill
    with pytest.raises(Killed):
        lab_group.ensure_pair(world, world.store.read_image("tiny"))
    hypervisor.after = lambda _: None
    monkeypatch.setattr(reap, "is_alive", lambda _: False)
    for one in reap.plan_reap(world):
        reap.apply_reap(world, one)
    assert list(hypervisor.domains) == ["lab-31"]
    assert len(world.ledger.list_lab()) == 1
    assert len(list(world.home.machines.iterdir())) == 1


# ---- commands


def test_a_pair_is_planned_listed_and_removed_by_its_name(world: FakeMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = json.loads(run(world, monkeypatch, "pair", "tiny", "--dry-run", "--json").stdout)
    assert [row["name"] for row in planned] == ["pair-1-a", "pair-1-b"]
    assert [row["segments"][0]["address"] for row in planned] == ["10.123.1.1/24", "10.123.1.2/24"]
    assert list_lab(world) == ()
    rows = json.loads(run(world, monkeypatch, "pair", "tiny", "--json").stdout)
    assert rows == json.loads(run(world, monkeypatch, "list", "--json").stdout)
    assert {row["segments"][0]["name"] for row in rows} == {"pair-1"}
    assert "pair-1:10.123.1.1/24" in run(world, monkeypatch, "list").stdout
    assert isinstance(run(world, monkeypatch, "down", "pair-2", "--yes").exception, UsageError)
    assert "Removed pair-1-a.\nRemoved pair-1-b.\n" in run(world, monkeypatch, "down", "pair-1", "--yes").stdout
    assert list_lab(world) == ()


def test_a_topology_is_planned_made_and_removed_by_its_name(world: FakeMachines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(GOOD.replace("name: branch\n", ""))
    assert "small-desk-2" in run(world, monkeypatch, "topology", str(file), "--dry-run").stdout
    assert list_lab(world) == ()
    assert len(json.loads(run(world, monkeypatch, "topology", str(file), "--json").stdout)) == 3
    run(world, monkeypatch, "down", "small", "--yes")
    assert list_lab(world) == ()
    file.write_text("boxes: {a: {count: no}}")
    assert isinstance(run(world, monkeypatch, "topology", str(file)).exception, TopologyError)
