"""The same verbs on a hypervisor that is another computer: a real sshd and libvirt daemon in namespaces of this test's own.

Its files are not where ours are, its network is not ours; all that goes there goes through SSH and libvirt's streams.
"""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bundles
import libvirt
import pytest
from other_computer import CHECKOUT, OtherComputer, open_other_computer

from images import daemon
from images.doctor import Verdict
from images.doctor_pool import check_hypervisor
from images.domain import Forward
from images.errors import AlteredImageError, HypervisorError, HypervisorUnreachableError, NotOursError, SpecError
from images.home import Home, ensure_home, find_home
from images.hypervisor import Hypervisor, Power
from images.hypervisor_storage import Storage
from images.import_image import import_image
from images.import_request import ImportRequest
from images.leftovers import find_users
from images.machine import Machines, MachineSpec, open_machines
from images.pool_place import VARIABLE, PoolPlace
from images.readiness import explain
from images.reap import reap
from images.reference_image import ensure_reference_image
from images.snapshot import take_snapshot
from images.store import Image, Imported, Store
from images.uplink import Uplink, UplinkKind
from kit.errors import FailedError
from kit.process import need_program, run
from kit.waiting import wait_for

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]
SAYS = b"the tiny machine speaks\r\n"
NAT = """
<network><name>far-nat</name><forward mode='nat'/><bridge name='far-nat'/>
<ip address='10.77.0.1' netmask='255.255.255.0'><dhcp><range start='10.77.0.10' end='10.77.0.99'/></dhcp></ip></network>
"""


@dataclass(frozen=True)
class Far:
    """The other computer, and the home on this one."""

    other: OtherComputer
    home: Home


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    root = Path(tempfile.mkdtemp(prefix="bx-near-", dir="/var/tmp"))
    try:
        with open_other_computer() as other:
            home = ensure_home(Home(root / "home"))
            add_tiny(home)
            add_greeter(home, root)
            yield Far(other, home)
    finally:
        shutil.rmtree(root)


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
    with pytest.raises(SpecError, match="no snapshots"):
        take_snapshot(machines, "one", "label")
    assert machines.ensure_removed("one")
    assert machines.hypervisor.find_domain("one") is None
    assert names_of(machines, "machine-") == []


def test_an_image_is_sent_once_and_an_altered_copy_is_refused(far: Far, machines: Machines) -> None:
    machines.ensure_machine(MachineSpec("first", "tiny", "request-first"))
    sent = {one.name: one.modified for one in volumes_of(machines) if one.name.startswith("image-")}
    machines.ensure_machine(MachineSpec("second", "tiny", "request-second"))
    assert {one.name: one.modified for one in volumes_of(machines) if one.name.startswith("image-")} == sent
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


KILLED = """
import os, signal, sys
from pathlib import Path
import images.hypervisor, images.hypervisor_storage
from images.home import Home
from images.lab import LabEntry, read_self
from images.machine import MachineSpec, open_machines

_, root, uri, kind, verb, count, when = sys.argv
owner = {"storage": images.hypervisor_storage.Storage, "hypervisor": images.hypervisor.Hypervisor}[kind]
plain, seen = getattr(owner, verb), []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(*args, **settings):
    seen.append(verb)
    now = len(seen) == int(count)
    if now and when == "before":
        die()
    if now and when == "amid":
        settings["shown"] = lambda sent: die()
    answer = plain(*args, **settings)
    if now:
        die()
    return answer

setattr(owner, verb, dying)
with open_machines(Home(Path(root)), uri=uri) as machines:
    machines.ledger.note_lab(LabEntry("lab:77:killed", read_self()))
    machines.ensure_machine(MachineSpec("lab-77", "tiny", "lab:77:killed"))
    if verb in ("destroy", "delete_volume", "undefine"):
        machines.ensure_removed("lab-77")
"""
MOMENTS = (
    "storage define_pool 1 after", "storage create_volume 1 after", "storage upload 1 amid", "storage upload 2 amid",
    "storage upload 5 before", "storage create_volume 7 before", "hypervisor define 1 after", "hypervisor start 1 after",
    "hypervisor undefine 1 after", "storage delete_volume 8 after", "storage create_volume 2 after unproved",
)  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_it_leaves_only_what_reap_removes(far: Far, moment: str) -> None:
    """From a hypervisor that has nothing of ours to one that has nothing of ours; what is foreign there stays as it was."""
    fresh = Home(far.home.root.with_name("fresh"))
    shutil.rmtree(fresh.root, ignore_errors=True)
    ensure_home(fresh)
    add_tiny(fresh)
    if not moment.endswith("unproved"):
        for proved in far.home.cache.glob("acceleration-*.json"):
            shutil.copy(proved, fresh.cache)
    with open_machines(fresh, uri=far.other.uri) as machines:
        link = machines.hypervisor.link()
        foreign = make_foreign(link, far.other)
        try:
            before = describe(machines)
            argv = [sys.executable, "-c", KILLED, str(fresh.root), far.other.uri, *moment.split()[:4]]
            with subprocess.Popen(argv, cwd=CHECKOUT) as child:
                assert child.wait(timeout=120) == -signal.SIGKILL, "it never came to that moment"
            machines.store.remove(machines.store.read_image("tiny"))
            reap(machines)
            assert describe(machines) == before
            assert machines.ledger.list_entries() == ()
            assert machines.ledger.list_lab() == {}
        finally:
            foreign.destroy()
            foreign.undefine()
            link.lookupByName("lab-31").undefine()
            shutil.rmtree(far.other.pools / "someone's")


@pytest.mark.parametrize("kind", ["network", "bridge"])
def test_an_appliance_on_a_network_or_a_bridge_has_an_address_and_is_ready_there(far: Far, machines: Machines, kind: str) -> None:
    """Nothing of ours runs inside; it gets its address by DHCP and greets. Asked from within that network, by the command itself."""
    name = make_nat(machines) if kind == "network" else make_bridge(far.other)
    (box,) = far_lab(far, "up", "greeter", f"--{kind}", name, "--ready", "ssh", "--ttl", "1h", "--json")
    assert box["uplink"] == f"{kind} {name}"
    assert box["path"] == "cold"
    assert box["reason"].startswith(f"it is on the {kind} {name}")
    host = box["address"].removesuffix(":443")
    assert host.startswith("10.77.0." if kind == "network" else "10.78.0.")
    assert f"greeter: my address is {host}" in machines.read_console(box["name"])
    assert [one["address"] for one in far_lab(far, "list", "--json")] == [box["address"]]
    far.other.run([command("boxshift"), "lab", "down", box["name"], "--yes"], **environment(far))
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
    told = explain(machines, "mute", last_seen="")
    assert (told.facts["stage"], told.facts["console"]) == ("no_address", SAYS.decode().strip())


# ---- what the tests stand on


def place_of(machines: Machines) -> PoolPlace:
    assert isinstance(machines.place, PoolPlace)
    return machines.place


def volumes_of(machines: Machines):
    return place_of(machines).pool.list_volumes()


def names_of(machines: Machines, prefix: str) -> list[str]:
    return [one.name for one in volumes_of(machines) if one.name.startswith(prefix)]


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


def make_foreign(link: libvirt.virConnect, other: OtherComputer) -> libvirt.virStoragePool:
    """Another's pool, with volumes that are named like ours, and another's machine with a name of a lab's."""
    pool = link.storagePoolDefineXML(
        "<pool type='dir'><name>boxshift</name><target><path>/var/lib/libvirt/images/someone's</path></target></pool>"
    )
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    for name in ("image-" + "0" * 64 + "-disk.qcow2", "machine-00000000-0000-4000-8000-000000000000-claim.json", "proof-1.img"):
        pool.createXML(f"<volume><name>{name}</name><capacity>4096</capacity><target><format type='raw'/></target></volume>")
    link.defineXML("<domain type='qemu'><name>lab-31</name><memory unit='MiB'>16</memory><os><type arch='x86_64'>hvm</type></os></domain>")
    assert (other.pools / "someone's").is_dir()
    return pool


def describe(machines: Machines) -> dict[str, object]:
    """All that the hypervisor has: machines, pools and their files."""
    link, storage = machines.hypervisor.link(), Storage(machines.hypervisor)
    found: dict[str, object] = {f"domain {one.name()}": one.XMLDesc(0) for one in link.listAllDomains()}
    for pool in link.listAllStoragePools():
        if pool.isActive() and not pool.name().startswith("boxshift-"):
            found |= {f"volume {one.path}": one for one in storage.list_volumes(pool.name())}
    ours = place_of(machines).pool
    found["our pool"] = ours.find()
    return found


def add_tiny(home: Home) -> Image:
    """An image whose guest says one line on its serial port and halts."""
    with Store(home).importing() as folder:
        run([need_program("qemu-img", package="qemu-utils"), "create", "-q", "-f", "qcow2", folder / "disk.qcow2", "16M"], timeout=60)
        (folder / "kernel").write_bytes(speaking_kernel())
        (folder / "initrd").write_bytes(b"initrd")
        return Store(home).add(folder, Imported("tiny", "the test", ("quiet",), 32, 1))


def speaking_kernel() -> bytes:
    """A multiboot image: ``mov edx,0x3f8; mov esi,text; lodsb; test al,al; jz end; out dx,al; jmp; end: hlt; jmp end``."""
    load, flags, magic = 0x100000, 0x10000, 0x1BADB002
    head = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, load, load, load + 4096, load + 4096, load + 32)
    code = bytes.fromhex("baf8030000 be") + struct.pack("<I", load + 32 + 21) + bytes.fromhex("ac 84c0 7403 ee ebf8 f4 ebfd")
    return (head + code + SAYS + b"\0").ljust(4096, b"\0")


def add_greeter(home: Home, work: Path) -> Image:
    """The kernel of the reference appliance, and one program of a hundred lines that is the whole system (greeter.c)."""
    reference = ensure_reference_image(find_home())
    tree = work / "tree"
    for name in ("sbin", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    source = Path(__file__).with_name("greeter.c")
    run([need_program("gcc", package="gcc"), "-static", "-O1", "-o", tree / "sbin" / "init", source], timeout=120)
    disk = work / "greeter.img"
    run([need_program("mke2fs", package="e2fsprogs"), "-q", "-t", "ext4", "-d", tree, disk, "16M"], timeout=60)
    with Store(home).importing() as folder:
        convert = [need_program("qemu-img", package="qemu-utils"), "convert", "-f", "raw", "-O", "qcow2"]
        run([*convert, disk, folder / "disk.qcow2"], timeout=60)
        shutil.copy(reference.kernel, folder / "kernel")
        shutil.copy(reference.initrd, folder / "initrd")
        return Store(home).add(folder, Imported("greeter", "the test", reference.kernel_arguments, 128, 1))
