"""Clones on a hypervisor that is another computer: saved, copied and restored there, renewed over the same connection, unique."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_stand import Far, names_of, place_of, volumes_of
from test_images_remote import command, environment, far_lab, make_nat

from images import identity
from images.clone import clone
from images.errors import HypervisorError, SavedStateError, SpecError
from images.hypervisor import Power
from images.lab import reserve_lab
from images.machine import MachineFacts, Machines, open_machines
from images.reap import apply_reap, plan_reap
from images.snapshot import list_snapshots, restore_snapshot, take_snapshot
from images.template import list_templates
from images.template_store import Template
from images.uplink import Uplink, UplinkKind
from kit.waiting import wait_for

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]
NETWORK = Uplink(UplinkKind.NETWORK, "far-nat")


@pytest.fixture(scope="module")
def machines(far: Far) -> Iterator[Machines]:
    """Nothing is there to reap; afterwards there is neither machine nor template."""
    with open_machines(far.home, uri=far.other.uri) as opened:
        make_nat(opened)
        for left in plan_reap(opened):  # by the tests of another file
            apply_reap(opened, left)
        yield opened
        for one in opened.list_machines():
            opened.ensure_removed(one.name)
        for template in list_templates(opened):
            place_of(opened).remove(template.name)
        assert names_of(opened, "machine-") == names_of(opened, "template-") == []


@pytest.fixture(scope="module")
def first(far: Far, machines: Machines) -> dict[str, str]:
    (box,) = far_lab(far, "up", "greeter", "--network", "far-nat", "--ttl", "1h", "--json")
    return box


@pytest.fixture
def template(machines: Machines, first: dict[str, str]) -> Template:
    (kept,) = list_templates(machines)
    assert kept.image == first["image"]
    return kept


def test_the_first_use_saves_a_template_and_each_clone_of_it_is_another_machine(
    far: Far, machines: Machines, first: dict[str, str], template: Template
) -> None:
    boxes = [first, *far_lab(far, "up", "greeter", "--network", "far-nat", "-n", "2", "--ttl", "1h", "--json")]
    assert [box["path"] for box in boxes] == ["warm"] * 3, [box["reason"] for box in boxes]
    assert all(re.fullmatch(r"cloned from the template saved at [0-9: -]+ UTC", box["reason"]) for box in boxes)
    assert far_lab(far, "list", "--json") == boxes
    facts = [machines.read_machine(box["name"]) for box in boxes]
    assert len({one.mac for one in facts} | {template.mac}) == 4
    assert len({one.uuid for one in facts} | {template.name}) == 4
    assert len({box["address"] for box in boxes}) == 3
    # The address is a lease of the clone's own card, and who answers there shows the certificate that was made for it.
    shown = [read_certificate(far, box["address"]) for box in boxes]
    assert [subject for subject, _ in shown] == [f"subject=CN = {box['name']}" for box in boxes]
    assert len({fingerprint for _, fingerprint in shown}) == 3
    assert [name for name in names_of(machines, "machine-") if name.endswith("-state")] == [template.state.name]
    assert plan_reap(machines) == ()


def test_a_pair_there_has_a_segment_of_its_own_and_a_way_out(far: Far, machines: Machines, template: Template) -> None:
    boxes = far_lab(far, "pair", "greeter", "--network", "far-nat", "--json")
    assert [(box["path"], box["group"], box["uplink"]) for box in boxes] == [("warm", "pair-1", "network far-nat")] * 2
    assert [read_certificate(far, box["address"])[0] for box in boxes] == ["subject=CN = pair-1-a", "subject=CN = pair-1-b"]
    (first,), (second,) = (box["segments"] for box in boxes)
    assert (first["name"], first["address"][-5:], second["address"][-5:]) == (second["name"], ".1/24", ".2/24")
    assert [one.key for one in list_templates(machines)] == [template.key], "pairs are clones of the same template"
    far.other.run([command("boxshift"), "lab", "down", "pair-1", "--yes"], **environment(far))


def test_a_state_that_is_shorter_or_was_written_to_is_not_copied(far: Far, machines: Machines, template: Template) -> None:
    state = far.other.pools / template.state.parent.name / template.state.name
    whole, times = state.read_bytes(), (state.stat().st_atime_ns, state.stat().st_mtime_ns)
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"x"):
        state.write_bytes(damaged)
        with pytest.raises(SavedStateError, match="is no longer what was saved"):
            place_of(machines).templates.find(template.key)
        refused(machines, template, SavedStateError, "is no longer what was saved")
    # What neither size nor time of change tells QEMU finds out, and what was made until then is removed.
    state.write_bytes(whole[:200_000] + bytes(4096) + whole[204_096:])

    os.utime(state, ns=times)
    refused(machines, template, HypervisorError, "could not restore")
    state.write_bytes(whole)
    os.utime(state, ns=times)
    assert place_of(machines).templates.find(template.key) == template


def refused(machines: Machines, template: Template, kind: type[Exception], why: str) -> None:
    (spec,) = reserve_lab(machines, machines.store.read_image(template.image), 1, uplink=NETWORK)
    with pytest.raises(kind, match=why):
        clone(machines, template, spec)
    assert machines.find_machine(spec.name) is None
    assert machines.hypervisor.find_domain(spec.name) is None
    assert [name for name in names_of(machines, "machine-") if name.endswith("-state")] == [template.state.name]


def test_a_snapshot_takes_memory_and_disk_back_and_copies_neither(far: Far, machines: Machines, first: dict[str, str]) -> None:
    """The greeter keeps its certificate in memory: another one is given to it, and is gone when it is taken back."""
    name = first["name"]
    before = machines.read_machine(name)
    shown = read_certificate(far, f"{before.address}:443")
    take_snapshot(machines, name, "fresh")
    facts = machines.read_machine(name)
    assert (facts.power, facts.uuid, facts.disk != before.disk) == (Power.RUNNING, before.uuid, True)
    chain = {str(one.path): one.backing for one in volumes_of(machines)}
    assert chain[str(facts.disk)] == str(before.disk)
    identity.renew(machines.hypervisor, identity.Wish("another", facts.uuid, {facts.mac: facts.mac}, ()), factor=1)
    seen = wait_for(lambda: find_certificate(far, machines.read_machine(name)), what="another certificate", timeout=60)
    assert seen[0] == "subject=CN = another"
    with pytest.raises(SpecError, match="has no snapshot 'none'"):
        restore_snapshot(machines, name, "none")
    assert restore_snapshot(machines, name, "fresh"), "its clock is right"
    assert wait_for(lambda: find_certificate(far, machines.read_machine(name)), what="its certificate", timeout=60) == shown
    again = machines.read_machine(name).disk
    chain = {str(one.path): one.backing for one in volumes_of(machines)}
    assert chain[str(again)] == str(before.disk)
    assert str(facts.disk) not in chain, "what it left is deleted"
    assert [one.label for one in list_snapshots(machines, name)] == ["fresh"]
    assert machines.ensure_stopped(name, grace=0).is_off
    assert machines.ensure_started(name).disk == again


def find_certificate(far: Far, facts: MachineFacts) -> tuple[str, str] | None:
    try:
        return read_certificate(far, f"{facts.address}:443")
    except ValueError:
        return None


def read_certificate(far: Far, address: str) -> tuple[str, str]:
    """Subject and fingerprint of what is served there, asked from within that network."""
    script = f"openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -subject -fingerprint -sha256"
    subject, fingerprint = far.other.run([Path("/bin/sh"), "-c", script]).text.splitlines()
    return subject, fingerprint
