"""Against a real libvirt daemon: a private one of the test's own, and domains that never get far enough to need an image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest
from fake_hypervisor import spec, store_image
from typer.testing import CliRunner

from images import daemon
from images.daemon import ensure_private_daemon, find_pid, stop_private_daemon
from images.errors import HypervisorUnreachableError, NotOursError, UnknownMachineError
from images.home import Home, ensure_home
from images.hypervisor import Hypervisor, Power
from images.lab import reserve_lab
from images.lab_cli import lab_app
from images.machine import Machines, open_machines
from images.reap import reap
from images.store import Store
from kit.errors import UsageError
from kit.process import find_program, need_program, run
from kit.progress import Silent

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]
FOREIGN = "<domain type='qemu'><name>{}</name><memory unit='MiB'>16</memory><os><type arch='x86_64'>hvm</type></os></domain>"


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Home]:
    """A home with a daemon of its own for this file: the private one for root, the session's for anyone else."""
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="boxshift-d-", dir="/var/tmp"))
    root.chmod(0o711 if os.geteuid() == 0 else 0o700)
    home = ensure_home(Home(root / "home"))
    _real_image(home)
    try:
        yield home
    finally:
        with open_machines(home) as machines:
            for one in machines.list_machines():
                machines.ensure_removed(one.name)
        stop_private_daemon(home)
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def uri(shared_home: Home) -> str:
    return ensure_private_daemon(shared_home, progress=Silent()).uri if os.geteuid() == 0 else daemon.SESSION_URI


@pytest.fixture
def real(shared_home: Home, uri: str) -> Iterator[Machines]:
    with open_machines(shared_home, uri=uri) as machines:
        yield machines


def test_several_processes_start_one_private_daemon(shared_home: Home, uri: str) -> None:
    if os.geteuid() != 0:
        assert uri == daemon.SESSION_URI
        return
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ensure_private_daemon(shared_home, progress=Silent()), range(4)))
    assert len(set(found)) == 1
    assert find_pid(found[0]) is not None
    assert not Path("/run/libvirt/libvirt-sock").exists() or daemon.answers(daemon.SYSTEM_URI) in (True, False)


def test_a_pid_file_that_names_another_process_is_not_believed(tmp_path: Path) -> None:
    private = daemon.PrivateDaemon(tmp_path)
    private.pid_file.parent.mkdir()
    for content in (str(os.getpid()), "1", "no number", "999999999"):
        private.pid_file.write_text(content)
        assert find_pid(private) is None


def test_a_home_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        ensure_private_daemon(Home(tmp_path / ("x" * 60) / ("y" * 60)), progress=Silent())


def test_a_daemon_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with Hypervisor(f"qemu:///system?socket={tmp_path}/none") as hypervisor:
        with pytest.raises(HypervisorUnreachableError, match="does not answer"):
            hypervisor.list_domains()
        assert not daemon.answers(hypervisor.uri)


def test_a_machine_is_made_seen_stopped_and_removed(real: Machines) -> None:
    facts = real.ensure_machine(spec("one", "request-one"))
    assert facts.power is Power.RUNNING
    domain = real.hypervisor.find_domain("one")
    assert domain.uuid == facts.uuid
    assert domain.mark == real.ledger.mark_of(real.ledger.find_name("one"))
    assert real.ensure_stopped("one", grace=0.5).is_off
    assert real.ensure_undefined("one").power is Power.ABSENT
    assert facts.disk.exists()
    assert real.ensure_removed("one")
    assert not facts.disk.parent.exists()


def test_foreign_domains_of_the_same_name_stay_as_they_are(real: Machines, uri: str) -> None:
    link = libvirt.open(uri)
    domain = link.defineXML(FOREIGN.format("foreign"))
    try:
        before = domain.XMLDesc(0)
        with pytest.raises(NotOursError):
            real.ensure_machine(spec("foreign", "request-foreign"))
        with pytest.raises(NotOursError):
            real.ensure_removed("foreign")
        assert link.lookupByName("foreign").XMLDesc(0) == before
        assert real.ledger.find_name("foreign") is None
    finally:
        domain.undefine()
        link.close()


def test_a_domain_that_took_our_name_after_ours_was_lost_is_left_alone(real: Machines, uri: str) -> None:
    facts = real.ensure_machine(spec("taken", "request-taken"))
    real.hypervisor.destroy(facts.uuid)
    real.hypervisor.undefine(facts.uuid)
    link = libvirt.open(uri)
    domain = link.defineXML(FOREIGN.format("taken"))
    try:
        for verb in (real.ensure_removed, real.ensure_stopped, real.read_power):
            with pytest.raises(NotOursError):
                verb("taken")
        assert link.lookupByName("taken").UUIDString() == domain.UUIDString()
    finally:
        domain.undefine()
        link.close()
    assert real.ensure_removed("taken")


def test_a_domain_that_comes_and_goes_is_found_or_not_and_never_an_error(uri: str) -> None:
    """Between the list and the reading of one a domain may go: another command removes it just then."""
    comes, seen = libvirt.open(uri), Hypervisor(uri)

    def come_and_go() -> None:
        for _ in range(300):
            comes.defineXML(FOREIGN.format("boxshift-comes-and-goes")).undefine()

    with ThreadPoolExecutor(max_workers=1) as beside:
        gone = beside.submit(come_and_go)
        answers = set()
        while not gone.done():
            answers.add(seen.find_domain("boxshift-comes-and-goes") is None)
    gone.result()
    comes.close()
    assert answers == {True, False}, "it was never seen to come, or never to go: the test proves nothing"


def test_a_machine_that_libvirt_does_not_know_is_an_unknown_one(real: Machines) -> None:
    with pytest.raises(UnknownMachineError):
        real.hypervisor.start("11111111-1111-1111-1111-111111111111")


MAKE = """
import sys
from pathlib import Path
from images.home import Home
from images.machine import open_machines, MachineSpec
with open_machines(Home(Path(sys.argv[1])), uri=sys.argv[2]) as machines:
    machines.acceleration
    print("go", flush=True)
    machines.ensure_machine(MachineSpec("killed", "tiny", "request-killed"))
"""


@pytest.mark.parametrize("after", [0.005, 0.03, 0.08, 0.15, 0.4])
def test_killed_while_it_makes_a_machine_the_next_process_completes_that_one(real: Machines, uri: str, after: float) -> None:
    argv = [sys.executable, "-c", MAKE, str(real.home.root), uri]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        child.stdout.readline()
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
    planned = real.ledger.find_name("killed")
    facts = real.ensure_machine(spec_without_forwards())
    assert planned is None or planned.uuid == facts.uuid
    assert facts.power is Power.RUNNING
    assert [one.name for one in real.hypervisor.list_domains()].count("killed") == 1
    assert [one.name for one in facts.disk.parent.iterdir() if "half" in one.name] == []
    assert real.ensure_removed("killed")
    assert list(real.home.machines.iterdir()) == []


UP = """
import sys
from pathlib import Path
from images.home import Home
from images.lab import ensure_lab, reserve_lab
from images.machine import open_machines
with open_machines(Home(Path(sys.argv[1])), uri=sys.argv[2]) as machines:
    machines.acceleration
    image = machines.store.read_image("tiny")
    print("go", flush=True)
    ensure_lab(machines, reserve_lab(machines, image, 2, ttl=3600), cold=True)
"""


@pytest.mark.parametrize("after", [0.01, 0.06, 0.2, 1.0])
def test_what_a_killed_lab_up_leaves_is_reaped_and_a_foreign_domain_of_such_a_name_is_not(real: Machines, uri: str, after: float) -> None:
    link = libvirt.open(uri)
    foreign = link.defineXML(FOREIGN.format("lab-31"))
    try:
        before = foreign.XMLDesc(0)
        argv = [sys.executable, "-c", UP, str(real.home.root), uri]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
            child.stdout.readline()
            time.sleep(after)
            assert child.poll() is None, "it never becomes ready"
            child.send_signal(signal.SIGKILL)
        reap(real)
        assert [one.name for one in real.hypervisor.list_domains()] == ["lab-31"]
        assert list(real.home.machines.iterdir()) == []
        assert real.ledger.list_entries() == ()
        assert real.ledger.list_lab() == {}
        assert foreign.XMLDesc(0) == before
    finally:
        foreign.undefine()
        link.close()


NAMES = ("lab-31", "pair-1-a", "branch-desk", "kept-tiny")
COMMANDS = (
    ["list"], ["reap"], ["down", "lab-31", "--yes"], ["down", "pair-1", "--yes"], ["stop", "lab-31"], ["start", "lab-31"],
    ["extend", "lab-31", "--ttl", "1h"], ["snapshot", "lab-31", "x"], ["restore", "lab-31", "x", "--yes"], ["logs", "lab-31"],
    ["console", "lab-31"], ["up", "tiny", "--dry-run"], ["pair", "tiny", "--dry-run"], ["topology", "branch.yaml"],
    ["down", "--all", "--yes"],
)  # fmt: skip


def test_whatever_is_foreign_and_has_such_a_name_is_as_it_was_after_every_command(
    real: Machines, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Domains, networks, pools and volumes; with an appliance of ours beside them, which the last command removes."""
    monkeypatch.chdir(tmp_path)
    Path("branch.yaml").write_text("segments: {office: }\nboxes: {desk: {image: tiny, segments: [office]}}\n")
    monkeypatch.setattr("images.machine.open_machines", lambda *_, **__: nullcontext(real))
    link = libvirt.open(uri)
    foreign = [make_foreign(link, name, tmp_path) for name in NAMES]
    try:
        before = describe(link)
        (ours,) = reserve_lab(real, real.store.read_image("tiny"), 1)
        real.ensure_machine(ours)
        assert ours.name not in NAMES
        for argv in COMMANDS:
            CliRunner().invoke(lab_app, argv)
            assert {key: text for key, text in describe(link).items() if ours.name not in key} == before, argv
        assert describe(link) == before, "ours is gone"
    finally:
        for things in foreign:
            for one in things:
                one.undefine()
        link.close()


def make_foreign(link: libvirt.virConnect, name: str, folder: Path) -> tuple[libvirt.virDomain, libvirt.virNetwork, libvirt.virStoragePool]:
    place = folder / name
    place.mkdir()
    pool = link.storagePoolDefineXML(f"<pool type='dir'><name>{name}</name><target><path>{place}</path></target></pool>")
    pool.create()
    pool.createXML(f"<volume><name>{name}</name><capacity>4096</capacity><target><format type='raw'/></target></volume>")
    pool.destroy()
    (place / "disk.qcow2").write_bytes(b"someone else's")
    domain = link.defineXML(FOREIGN.format(name))
    return domain, link.networkDefineXML(f"<network><name>{name}</name></network>"), pool


def describe(link: libvirt.virConnect) -> dict[str, str]:
    """All that libvirt knows, with the content of the volumes."""
    kinds = (("domain", link.listAllDomains()), ("network", link.listAllNetworks()), ("pool", link.listAllStoragePools()))
    found = {f"{kind} {one.name()}": one.XMLDesc(0) for kind, things in kinds for one in things}
    for pool in link.listAllStoragePools():
        folder = Path(ET.fromstring(pool.XMLDesc(0)).findtext("target/path"))
        found |= {f"volume {path}": path.read_bytes().hex() for path in folder.iterdir()}
    return found


def spec_without_forwards():
    from images.machine import MachineSpec

    return MachineSpec("killed", "tiny", "request-killed")


def test_machines_survive_their_daemon_and_are_found_again(real: Machines, shared_home: Home) -> None:
    if os.geteuid() != 0:
        assert find_pid(daemon.PrivateDaemon(shared_home.daemon)) is None
        return
    facts = real.ensure_machine(spec("kept", "request-kept"))
    assert stop_private_daemon(shared_home)
    with pytest.raises(HypervisorUnreachableError):
        real.read_power("kept")
    ensure_private_daemon(shared_home, progress=Silent())
    assert real.read_machine("kept") == facts
    assert real.ensure_removed("kept")


def _real_image(home: Home) -> None:
    """An image whose guest does nothing: an empty disk, and a boot sector in a shell that QEMU takes for a kernel."""
    qemu = need_program("qemu-img", package="qemu-utils")
    assert find_program("qemu-system-x86_64")
    disk = home.cache / "base.qcow2"
    run([qemu, "create", "-q", "-f", "qcow2", disk, "16M"], timeout=30)
    store_image(Store(home), content=disk.read_bytes(), kernel=idle_kernel())


def idle_kernel() -> bytes:
    """A multiboot image that halts: ``cli; hlt; jmp $-1``."""
    import struct

    load, flags, magic = 0x100000, 0x10000, 0x1BADB002
    head = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, load, load, load + 4096, load + 4096, load + 32)
    return head + bytes.fromhex("fa f4 eb fd") + b"\0" * 4060
