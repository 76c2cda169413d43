"""Clones on a hypervisor that is another computer: saved, copied and restored there, renewed over the same connection, unique."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_stand import Far, names_of, place_of
from test_images_remote import far_lab, make_nat

from images.clone import clone
from images.errors import HypervisorError, SavedStateError
from images.hypervisor import Power
from images.lab import reserve_lab
from images.machine import Machines, open_machines
from images.reap import plan_reap
from images.template import list_templates
from images.template_store import Template
from images.uplink import Uplink, UplinkKind

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(600)]
NETWORK = Uplink(UplinkKind.NETWORK, "far-nat")


@pytest.fixture(scope="module")
def machines(far: Far) -> Iterator[Machines]:
    """Afterwards there is neither machine nor template."""
    with open_machines(far.home, uri=far.other.uri) as opened:
        make_nat(opened)
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


def test_a_clone_outlives_a_start_from_its_own_disk(machines: Machines, first: dict[str, str]) -> None:
    assert machines.ensure_stopped(first["name"], grace=0).is_off
    assert machines.ensure_started(first["name"]).power is Power.RUNNING


def read_certificate(far: Far, address: str) -> tuple[str, str]:
    """Subject and fingerprint of what is served there, asked from within that network."""
    script = f"openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -subject -fingerprint -sha256"
    subject, fingerprint = far.other.run([Path("/bin/sh"), "-c", script]).text.splitlines()
    return subject, fingerprint
