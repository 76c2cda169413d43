"""Machines with an address of their own: on what they hang, how they are reached, and which hypervisor keeps its files itself."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import PurePosixPath

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, spec
from typer.testing import CliRunner

from images.errors import RequestChangedError, SpecError
from images.home import Home, render_slug
from images.hypervisor_networks import NewNetwork, parse_neighbours, render_network
from images.lab import describe, plan_lab
from images.lab_cli import lab_app
from images.lab_group import plan_pair, plan_topology
from images.machine import MachineSpec
from images.pool_place import VARIABLE, find_pool_folder, is_remote
from images.segment import SPARE
from images.topology import parse_topology
from images.uplink import Uplink, UplinkKind, find_uplink
from kit.errors import UnreachableError

BRIDGE = Uplink(UplinkKind.BRIDGE, "br0")
NEIGHBOURS = """\
IP address       HW type     Flags       HW address            Mask     Device
10.78.0.35       0x1         0x2         52:54:00:a0:4c:ad     *        br0
10.78.0.36       0x1         0x0         00:00:00:00:00:00     *        br0
"""


def bridged(name: str = "one", request: str = "request-1", **more: object) -> MachineSpec:
    return MachineSpec(name, "tiny", request, uplink=BRIDGE, **more)


def test_a_network_of_our_own_keeps_an_address_for_each_card_and_leads_nowhere() -> None:
    network = NewNetwork("lan", IPv4Interface("10.0.2.2/24"), (("52:54:00:00:00:01", "10.0.2.11"),))
    assert render_network(network) == (
        '<network><name>lan</name><bridge name="lan" stp="off" delay="0" /><dns enable="no" />'
        '<ip address="10.0.2.2" netmask="255.255.255.0"><dhcp><host mac="52:54:00:00:00:01" ip="10.0.2.11" /></dhcp></ip></network>'
    )


def test_network_and_bridge_are_one_choice() -> None:
    assert find_uplink("", "") is None
    assert find_uplink("default", "") == Uplink(UplinkKind.NETWORK, "default")
    assert str(find_uplink("", "br0")) == "bridge br0"
    with pytest.raises(SpecError, match="not on both"):
        find_uplink("default", "br0")
    for name in ("", "-x", "a b", "a'b", "a" * 16):
        with pytest.raises(SpecError):
            Uplink(UplinkKind.BRIDGE, name)


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(SpecError, match="no forwards lead there"):
        replace(spec(), uplink=BRIDGE)
    for mac in ("52:54:00:AA:bb:cc", "01:00:5e:00:00:01", "52:54:00:00:00", "x"):
        with pytest.raises(SpecError, match="virtual card"):
            bridged(mac=mac)


def test_the_ledger_remembers_what_a_machine_hangs_on(machines: FakeMachines) -> None:
    machines.ensure_machine(bridged(mac="52:54:00:00:00:09"))
    facts = machines.read_machine("one")
    assert (facts.uplink, facts.mac) == (BRIDGE, "52:54:00:00:00:09")
    assert machines.ensure_machine(bridged(mac="52:54:00:00:00:09")) == facts
    for other in (bridged(mac="52:54:00:00:00:10"), replace(bridged(), uplink=Uplink(UplinkKind.BRIDGE, "br1"))):
        with pytest.raises(RequestChangedError):
            machines.ensure_machine(other)


def test_it_is_reached_at_the_address_that_it_has_there(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.addresses = ("10.78.0.35",)
    facts = machines.ensure_machine(bridged())
    assert facts.find_way(443) == ("10.78.0.35", 443)
    assert describe(facts).address == "10.78.0.35:443"
    assert describe(facts).uplink == "bridge br0"
    hypervisor.addresses = ()
    mute = machines.read_machine("one")
    assert describe(mute).address == ""
    with pytest.raises(UnreachableError, match="no address on the bridge br0 yet"):
        mute.find_way(443)


def test_a_machine_behind_forwards_is_reached_through_them(machines: FakeMachines) -> None:
    facts = machines.ensure_machine(spec())
    assert facts.find_way(443) == ("127.0.3.11", 18443)
    assert facts.find_way(443, "10.0.2.15") == ("127.0.3.11", 18443)
    for port, guest in ((22, None), (443, "10.0.2.20")):
        with pytest.raises(UnreachableError, match="No port of this computer"):
            facts.find_way(port, guest)


@pytest.mark.network
def test_a_lab_on_a_bridge_has_no_forwards_and_the_spare_card_of_all(machines: FakeMachines) -> None:
    (planned,) = plan_lab(machines, machines.store.read_image("tiny"), 1, uplink=BRIDGE)
    assert (planned.forwards, planned.segments, planned.uplink) == ((), (SPARE,), BRIDGE)


@pytest.mark.network
def test_a_pair_and_a_topology_on_a_bridge_have_their_segments_beside_it(machines: FakeMachines) -> None:
    tiny = machines.store.read_image("tiny")
    wanted = parse_topology(
        b"segments: {lan: }\nboxes: {desk: {image: tiny, segments: [lan]}, alone: {image: tiny}}", "a", usual_name="net"
    )
    pair, topology = plan_pair(machines, tiny, uplink=BRIDGE), plan_topology(machines, wanted, {"tiny": tiny}, uplink=BRIDGE)
    assert {(one.forwards, one.uplink) for one in (*pair, *topology)} == {((), BRIDGE)}
    assert [[card.segment for card in one.segments] for one in (*pair, *topology)] == [["pair-1"], ["pair-1"], ["net-lan"], [""]]


def test_the_command_refuses_both() -> None:
    done = CliRunner().invoke(lab_app, ["up", "tiny", "--network", "default", "--bridge", "br0"])
    assert isinstance(done.exception, SpecError)


def test_only_neighbours_that_answered_count() -> None:
    assert parse_neighbours(NEIGHBOURS) == {"52:54:00:a0:4c:ad": "10.78.0.35"}
    assert parse_neighbours("") == {}


@pytest.mark.parametrize(
    ("uri", "remote", "folder"),
    [
        ("qemu:///system", False, None),
        ("qemu:///session", False, None),
        ("qemu:///system?socket=/x/y", False, None),
        ("qemu+ssh://host/system", True, "/var/lib/libvirt/images"),
        ("qemu+ssh://root@host:2022/system?keyfile=/k", True, "/var/lib/libvirt/images"),
    ],
)
def test_a_remote_hypervisor_keeps_its_files_itself(uri: str, remote: bool, folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert is_remote(uri) is remote
    assert find_pool_folder(uri) == (PurePosixPath(folder) if folder else None)
    monkeypatch.setenv(VARIABLE, "/srv/machines")
    assert find_pool_folder(uri) == PurePosixPath("/srv/machines")
    monkeypatch.setenv(VARIABLE, "machines")
    with pytest.raises(SpecError, match="absolute path"):
        find_pool_folder(uri)


def test_where_a_remote_session_keeps_files_has_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(SpecError, match="not known"):
        find_pool_folder("qemu+ssh://host/session")


def test_a_hypervisor_has_one_ledger_whichever_key_leads_to_it(home: Home) -> None:
    plain = home.ledger_of("qemu+ssh://host/system")
    assert plain == home.ledger_of("qemu+ssh://root@host/system?keyfile=/k")
    others = ("ssh://host/session", "ssh://host:2022/system", "ssh://other/system", "ssh://host/system?socket=/s")
    assert len({plain, home.ledger_of("qemu:///system"), *(home.ledger_of(f"qemu+{uri}") for uri in others)}) == 6
    assert render_slug("qemu+ssh://../../etc/system").count("/") == 0
