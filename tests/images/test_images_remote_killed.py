"""Killed at any moment of its work on another computer's hypervisor, boxshift leaves what it finds and removes, and nothing else."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import libvirt
import pytest
from far_stand import Far, add_tiny, place_of
from other_computer import CHECKOUT, OtherComputer
from test_images_remote import make_nat

from images.home import Home, ensure_home
from images.hypervisor_storage import Storage
from images.machine import Machines, open_machines
from images.reap import reap

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]

KILLED = """
import os, signal, sys, threading
from pathlib import Path
import images.clone, images.hypervisor, images.hypervisor_storage, images.identity, images.lab, images.template
from images.home import Home
from images.lab import LabEntry, read_self
from images.machine import MachineFacts, MachineSpec, open_machines
from images.uplink import Uplink, UplinkKind

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
        if verb == "upload":
            settings["shown"] = lambda sent: die()
        else:
            threading.Timer(0.05, die).start()
    answer = plain(*args, **settings)
    if now:
        die()
    return answer

setattr(owner, verb, dying)
def clone(machines):
    # The tiny machine has no agent and no address: for what is killed here it does not matter.
    images.template.wait_for_ready = lambda machines, name, **_: machines.read_machine(name)
    images.template.read_leaf = MachineFacts.find_way = lambda *_: ("", 0)
    images.identity.find_agent = lambda *_, **__: True
    images.identity.prepare = lambda *_, **__: images.identity.Prepared(())
    images.identity.renew = lambda *_, **__: images.identity.Identity(())
    images.clone._wait_for_own_answer = lambda *_, **__: None
    uplink = Uplink(UplinkKind.NETWORK, "far-nat")
    images.lab.ensure_lab(machines, images.lab.reserve_lab(machines, machines.store.read_image("tiny"), 1, uplink=uplink))

with open_machines(Home(Path(root)), uri=uri) as machines:
    if verb in ("save", "copy_volume"):
        clone(machines)
    machines.ledger.note_lab(LabEntry("lab:77:killed", read_self()))
    machines.ensure_machine(MachineSpec("lab-77", "tiny", "lab:77:killed"))
    if verb in ("destroy", "delete_volume", "undefine"):
        machines.ensure_removed("lab-77")
"""
TEMPLATE = "template-" + "0" * 32 + "-00000000-0000-4000-8000-000000000000.json"
MOMENTS = (
    "storage define_pool 1 after", "storage create_volume 1 after", "storage upload 1 amid", "storage upload 2 amid",
    "storage upload 5 before", "storage create_volume 7 before", "hypervisor define 1 after", "hypervisor start 1 after",
    "hypervisor undefine 1 after", "storage delete_volume 8 after", "storage create_volume 2 after unproved",
    "hypervisor save 1 amid", "storage copy_volume 1 amid",
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
        make_nat(machines)
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


def make_foreign(link: libvirt.virConnect, other: OtherComputer) -> libvirt.virStoragePool:
    """Another's pool, with volumes that are named like ours, and another's machine with a name of a lab's."""
    pool = link.storagePoolDefineXML(
        "<pool type='dir'><name>boxshift</name><target><path>/var/lib/libvirt/images/someone's</path></target></pool>"
    )
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    for name in ("image-" + "0" * 64 + "-disk.qcow2", "machine-00000000-0000-4000-8000-000000000000-claim.json", "proof-1.img", TEMPLATE):
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
