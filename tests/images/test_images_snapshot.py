"""Snapshots of an appliance on a hypervisor in memory: what they keep, and that going back takes new randomness."""

from __future__ import annotations

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, spec

from images.errors import HypervisorError, SpecError
from images.hypervisor import Power
from images.snapshot import list_snapshots, restore_snapshot, take_snapshot

pytestmark = pytest.mark.process  # cp copies disks


def test_disk_and_memory_come_back_as_often_as_wanted(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(spec())
    facts.disk.write_bytes(b"as it was")
    taken = take_snapshot(machines, "old", "fresh")
    assert machines.read_power("old") is Power.RUNNING
    assert [one.label for one in list_snapshots(machines, "old")] == ["fresh"]
    for _ in range(2):
        facts.disk.write_bytes(b"changed")
        assert restore_snapshot(machines, "old", taken.label) is True
        assert facts.disk.read_bytes() == b"as it was"
        assert machines.read_power("old") is Power.RUNNING
    stirred = [one["entropy"] for one in hypervisor.asked if one["ask"] == "stir"]
    assert len(set(stirred)) == 2
    assert (facts.disk.parent / "snapshots" / "fresh" / "state").stat().st_mode & 0o777 == 0o600
    assert machines.ensure_removed("old")
    assert list(machines.home.machines.iterdir()) == []


def test_without_an_agent_it_is_said_that_nothing_is_fresh(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(spec())
    take_snapshot(machines, "old", "fresh")
    hypervisor.identity_agent = False
    assert restore_snapshot(machines, "old", "fresh") is False


@pytest.mark.parametrize("label", ["", "..", "../up", "A", "a b", "-a", "x" * 40])
def test_a_label_that_could_be_something_else_is_refused(machines: FakeMachines, label: str) -> None:
    machines.ensure_machine(spec())
    for verb in (take_snapshot, restore_snapshot):
        with pytest.raises(SpecError):
            verb(machines, "old", label)


def test_a_label_is_used_once_and_one_that_is_off_has_no_memory_to_keep(machines: FakeMachines) -> None:
    machines.ensure_machine(spec())
    take_snapshot(machines, "old", "fresh")
    with pytest.raises(SpecError, match="already"):
        take_snapshot(machines, "old", "fresh")
    machines.ensure_stopped("old")
    with pytest.raises(HypervisorError, match="does not run"):
        take_snapshot(machines, "old", "later")
    with pytest.raises(SpecError, match="has no snapshot"):
        restore_snapshot(machines, "old", "later")


def test_a_save_that_fails_leaves_no_half_of_a_snapshot(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(spec())

    def fail(verb: str) -> None:
        if verb == "save":
            raise HypervisorError("libvirt could not save the machine: no space.")

    hypervisor.before = fail
    with pytest.raises(HypervisorError):
        take_snapshot(machines, "old", "fresh")
    hypervisor.before = lambda _: None
    assert list_snapshots(machines, "old") == ()
    assert machines.read_power("old") is Power.RUNNING
