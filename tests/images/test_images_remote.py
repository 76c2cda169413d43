"""The same verbs on a hypervisor that is another computer: a real sshd and libvirt daemon in namespaces of this test's own.

Its files are not where ours are, its network is not ours; all that goes there goes through SSH and libvirt's streams.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import bundles
import pytest
from far_stand import SAYS, Far, add_tiny, names_of, place_of, volumes_of
from other_computer import OtherComputer

from images import daemon
from images.doctor import Verdict
from images.doctor_pool import check_hypervisor
from images.domain import Forward
from images.errors import AlteredImageError, HypervisorError, HypervisorUnreachableError, NotOursError, SpecError
from images.home import Home, ensure_home
from images.hypervisor import Hypervisor, Power
from images.import_image import import_image
from images.import_request import ImportRequest
from images.leftovers import find_users
from images.machine import Machines, MachineSpec, open_machines
from images.pool_place import VARIABLE
from images.readiness import explain
from images.uplink import Uplink, UplinkKind
from kit.errors import FailedError
from kit.process import need_program
from kit.waiting import wait_for

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]
NAT = """
<network><name>far-nat</name><forward mode='nat'/><bridge name='far-nat' stp='off'/>
<ip address='10.77.0.1' netmask='255.255.255.0'><dhcp><range start='10.77.0.10' end='10.77.0.99'/></dhcp></ip></network>
"""


@pytest.fixture
def machines(far: Far) -> Iterator[Machines]:
    """Every test begins and ends with nothing of ours there but images."""
    with open_machines(far.home, uri=far.other.uri) as opened:
        yield opened
        for one in opened.list_machines():
            opened.ensure_removed(one.name)


def test_a_machine_lives_where_none_of_its_files_can_be_seen(far: Far, machines: Machines) -> None:
    facts = machines.ensure_machine(MachineSpec("one", "tiny", "request-one"))
    assert facts.power is Power.RUNNING
    assert not facts.disk.exists(), "a path of the other computer"
    assert list(far.home.machines.iterdir()) == []
    said = wait_for(lambda: machines.read_console("one") or None, what="its console", timeout=60)
    assert said == (SAYS.decode().strip(),)
    domain = machines.hypervisor.find_domain("one")
    assert domain is not None
    assert domain.mark == machines.ledger.mark_of(machines.ledger.find_name("one"))
    assert find_users(far.home, machines.store.read_image("tiny")) == ("one",)
    assert machines.ensure_stopped("one", grace=0.2).is_off
    assert machines.ensure_started("one").power is Power.RUNNING
    assert machines.ensure_removed("one")
    assert machines.hypervisor.find_domain("one") is None
    assert names_of(machines, "machine-") == []


def test_an_image_is_sent_once_and_an_altered_copy_is_refused(far: Far, machines: Machines) -> None:
    machines.ensure_machine(MachineSpec("first", "tiny", "request-first"))
    ours = f"image-{machines.store.read_image('tiny').digest}-"
    sent = {one.name: one.modified for one in volumes_of(machines) if one.name.startswith(ours)}
    machines.ensure_machine(MachineSpec("second", "tiny", "request-second"))
    assert {one.name: one.modified for one in volumes_of(machines) if one.name.startswith(ours)} == sent
    kernel = next(name for name in sent if name.endswith("-kernel"))
    copy = next(far.other.pools.glob(f"*/{kernel}"))
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] + b"x")
    with pytest.raises(AlteredImageError, match="altered"):
        machines.ensure_machine(MachineSpec("third", "tiny", "request-third"))
    copy.write_bytes(whole)
    assert machines.ensure_machine(MachineSpec("third", "tiny", "request-third")).power is Power.RUNNING


def test_a_disk_that_is_gone_is_told_and_not_made_again(machines: Machines) -> None:
    facts = machines.ensure_machine(MachineSpec("gone", "tiny", "request-gone"))
    machines.ensure_stopped("gone", grace=0)
    place_of(machines).pool.delete(facts.disk.name)
    with pytest.raises(FailedError, match="is gone"):
        machines.ensure_started("gone")


def test_an_imported_appliance_gets_its_disks_and_its_answers_there(
    far: Far, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile_password: str
) -> None:
    """The CD holds a password: only the hypervisor reads it, and it goes when the machine is taken out."""
    asks = '<Property ovf:key="pass" ovf:type="string" ovf:userConfigurable="true" ovf:password="true"/>'
    product = f"<ProductSection><Info>i</Info>{asks}</ProductSection>"
    ova = bundles.make_appliance(tmp_path, bundles.envelope(bundles.system(more=product, transport="iso")))
    (image,) = import_image(ImportRequest(str(ova), answers=(("pass", "env:BOX_PASS"),)), machines.store).images
    monkeypatch.setenv("BOX_PASS", hostile_password)
    facts = machines.ensure_machine(MachineSpec("box", image.digest, "request-box"))
    assert facts.power is Power.RUNNING
    copy = far.other.pools / facts.disk.parent.name / f"machine-{facts.uuid}-properties.iso"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert hostile_password.replace("&", "&amp;").replace('"', "&quot;").encode() in copy.read_bytes()
    assert machines.ensure_stopped("box", grace=0).is_off
    assert machines.ensure_undefined("box").power is Power.ABSENT
    assert not copy.exists()
    assert copy.with_name(facts.disk.name).exists(), "its disk is kept"
    assert machines.ensure_removed("box")
    machines.store.remove(image)


def test_ways_that_lead_to_the_other_computer_itself_are_refused_before_anything_is_made(far: Far, machines: Machines) -> None:
    with pytest.raises(SpecError, match="another computer"):
        machines.ensure_machine(MachineSpec("lost", "tiny", "request-lost", (Forward("127.0.3.9", 18443, "10.0.2.15", 443),)))
    with pytest.raises(SpecError, match="no network 'none-such'"):
        machines.ensure_machine(MachineSpec("lost", "tiny", "request-lost", uplink=Uplink(UplinkKind.NETWORK, "none-such")))
    assert machines.ledger.list_entries() == ()
    refused = far.other.run([command("boxshift"), "lab", "up", "tiny"], accept=[2], **environment(far))
    assert b"--network or --bridge" in refused.err
    with pytest.raises(HypervisorError, match="br-none"):
        machines.ensure_machine(MachineSpec("lost", "tiny", "request-lost", uplink=Uplink(UplinkKind.BRIDGE, "br-none")))
    assert machines.ensure_removed("lost")


def test_a_host_whose_key_is_not_known_is_not_talked_to(far: Far) -> None:
    stranger = far.other.root / "ssh-stranger"
    text = (far.other.root / "ssh").read_text()
    stranger.write_text(text.replace(" -F ", " -o UserKnownHostsFile=/dev/null -F "))
    stranger.chmod(0o755)
    with Hypervisor(far.other.uri.replace("/ssh&", "/ssh-stranger&")) as hypervisor:
        with pytest.raises(HypervisorUnreachableError) as caught:
            hypervisor.list_domains()
        assert "Host key verification failed" in str(caught.value.facts["said"])


def test_a_daemon_of_this_computer_may_keep_its_files_in_a_pool_too(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same daemon by its socket: its ports are then ours to lead somewhere, and its machines are in a ledger of their own."""
    monkeypatch.setenv(VARIABLE, "/var/lib/libvirt/images")
    with open_machines(far.home, uri=far.other.daemon.uri) as machines:
        asked = MachineSpec("near", "tiny", "request-near", (Forward("127.0.3.9", 18443, "10.0.2.15", 443),))
        facts = machines.ensure_machine(asked)
        assert (facts.power, facts.disk.exists(), facts.forwards) == (Power.RUNNING, False, asked.forwards)
        with open_machines(far.home, uri=far.other.uri) as others:
            assert others.find_machine("near") is None
            with pytest.raises(NotOursError):
                others.ensure_removed("near")
        assert machines.ensure_removed("near")
        assert names_of(machines, "machine-") == []


def test_a_pool_that_only_has_our_name_is_left_alone(far: Far, machines: Machines) -> None:
    fresh = Home(far.home.root.with_name("fresh"))
    with open_machines(fresh, uri=far.other.uri) as ours:
        pool = place_of(ours).pool
        link = machines.hypervisor.link()
        foreign = link.storagePoolDefineXML(f"<pool type='dir'><name>{pool.name}</name><target><path>/tmp</path></target></pool>")
        try:
            add_tiny(fresh)
            with pytest.raises(NotOursError, match="left alone"):
                ours.ensure_machine(MachineSpec("one", "tiny", "request-one"))
            with pytest.raises(NotOursError, match="left alone"):
                ours.ensure_removed("one")
            assert link.storagePoolLookupByName(pool.name).UUIDString() == foreign.UUIDString()
        finally:
            foreign.undefine()


@pytest.mark.parametrize("kind", ["network", "bridge"])
def test_an_appliance_on_a_network_or_a_bridge_has_an_address_and_is_ready_there(far: Far, machines: Machines, kind: str) -> None:
    """Nothing of ours runs inside; it gets its address by DHCP and greets. Asked from within that network, by the command itself."""
    name = make_nat(machines) if kind == "network" else make_bridge(far.other)
    count = 3 if kind == "network" else 1
    boxes = far_lab(far, "up", "greeter", "-n", str(count), f"--{kind}", name, "--ready", "ssh", "--ttl", "1h", "--json")
    for box in boxes:
        assert box["uplink"] == f"{kind} {name}"
        assert box["path"] == "cold"
        assert "show no certificate" in box["reason"], "none that --ready asks for"
        host = box["address"].removesuffix(":443")
        assert host.startswith("10.77.0." if kind == "network" else "10.78.0.")
        assert f"greeter: my address is {host}" in machines.read_console(box["name"])
    listed = far_lab(far, "list", "--json")
    assert [one["address"] for one in listed] == [box["address"] for box in boxes]
    assert len({one["address"] for one in listed}) == count
    far.other.run([command("boxshift"), "lab", "down", "--all", "--yes"], **environment(far))
    assert machines.list_machines() == ()


def test_the_doctor_tells_of_the_other_computer(far: Far, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(daemon.VARIABLE, far.other.uri)
    fresh = ensure_home(Home(far.home.root.with_name("patient")))
    before = {one.code: one for one in check_hypervisor(fresh)}
    assert before["pool"].verdict is Verdict.UNKNOWN, "nothing was made, and nothing is made to look"
    assert "proved when the first one is made" in before["hypervisor-speed"].sentence
    make_nat(machines)
    machines.ensure_machine(MachineSpec("seen", "tiny", "request-seen"))
    after = {one.code: one for one in check_hypervisor(far.home)}
    assert "free on the hypervisor at /var/lib/libvirt/images/boxshift-" in after["pool"].sentence
    assert after["networks"].sentence == "Networks there that machines can be on: far-nat."
    assert (after["rights"].verdict, after["rights"].sentence[-27:]) == (Verdict.OK, "there, ours and others': 1.")
    assert after["clones"].sentence.endswith("templates there: 0.")
    assert after["hypervisor-speed"].sentence.startswith(("KVM works there", "Machines are emulated there"))
    monkeypatch.setenv(daemon.VARIABLE, "qemu+ssh://root@127.0.0.1/session")
    (found,) = check_hypervisor(far.home)
    assert (found.verdict, found.do[:24]) == (Verdict.UNKNOWN, "Set BOXSHIFT_POOL_FOLDER")


def test_one_that_gets_no_address_is_told_so(machines: Machines) -> None:
    uplink = Uplink(UplinkKind.NETWORK, make_nat(machines))
    machines.ensure_machine(MachineSpec("mute", "tiny", "request-mute", uplink=uplink, mac="52:54:00:00:00:07"))
    facts = machines.read_machine("mute")
    assert (facts.mac, facts.address) == ("52:54:00:00:00:07", "")
    with pytest.raises(FailedError, match="no address on the network far-nat yet"):
        facts.find_way(443)
    wait_for(lambda: machines.read_console("mute") or None, what="its console", timeout=60)
    told = explain(machines, "mute", last_seen="")
    assert (told.facts["stage"], told.facts["console"]) == ("no_address", SAYS.decode().strip())


def command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def environment(far: Far) -> dict[str, str]:
    return {"BOXSHIFT_HOME": str(far.home.root), "BOXSHIFT_LIBVIRT_URI": far.other.uri}


def far_lab(far: Far, *words: str) -> list[dict[str, str]]:
    """``boxshift lab …`` in the other computer's network."""
    found: list[dict[str, str]] = json.loads(far.other.run([command("boxshift"), "lab", *words], timeout=400, **environment(far)).text)
    return found


def make_nat(machines: Machines) -> str:
    link = machines.hypervisor.link()
    if "far-nat" not in link.listNetworks():
        link.networkCreateXML(NAT)
    return "far-nat"


def make_bridge(other: OtherComputer) -> str:
    """A bridge that libvirt knows nothing of, with a DHCP server of somebody else's."""
    for words in (
        ("link", "add", "far-br", "type", "bridge"),
        ("addr", "add", "10.78.0.1/24", "dev", "far-br"),
        ("link", "set", "far-br", "up"),
    ):
        other.run(["ip", *words])
    files = [f"--dhcp-leasefile={other.root}/leases", f"--pid-file={other.root}/dnsmasq.pid", "--conf-file=/dev/null"]
    wires = ["--interface=far-br", "--except-interface=lo", "--bind-interfaces", "--port=0", "--dhcp-range=10.78.0.10,10.78.0.99"]
    other.run([need_program("dnsmasq", package="dnsmasq-base"), *wires, *files])
    return "far-br"
