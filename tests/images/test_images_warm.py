"""Templates and clones on a hypervisor in memory: what is decided, and what stays after a kill at any moment."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, Killed
from qemu_stream import PAGE, render_stream

import images.clone
import images.lab
import images.local_templates
import images.place
import images.template
from images import reap
from images.domain import MEMORY_BACKEND
from images.lab import LabBox, ensure_lab, list_lab, reserve_lab
from images.memory_file import USUAL
from images.template import list_templates
from images.template_store import Template

LEAF = "ab" * 32


@pytest.fixture(autouse=True)
def _without_programs(machines: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    hypervisor.uri = "qemu:///fake"
    hypervisor.answers["prepare"] = {"host_keys": ["ssh_host_ed25519_key"]}
    hypervisor.answers["renew"] = {"services": {"appliance": {"certificate": LEAF}}}
    monkeypatch.setattr(images.template, "plan_key", lambda *_, **__: "0123456789abcdef0123456789abcdef")
    monkeypatch.setattr(images.template, "read_leaf", lambda *_: "cd" * 32)
    monkeypatch.setattr(images.place, "create_overlay", lambda base, target, *, timeout: target.write_bytes(base.read_bytes()))
    monkeypatch.setattr(images.clone, "_wait_for_own_answer", lambda *_, **__: None)
    for module in (images.lab, images.template):
        monkeypatch.setattr(module, "wait_for_ready", lambda machines, name, **_: machines.read_machine(name))
    monkeypatch.setattr(images.lab, "is_taken", lambda _: False)


def up(machines: FakeMachines, count: int = 1, *, cold: bool = False, ttl: float | None = None) -> tuple[LabBox, ...]:
    return ensure_lab(machines, reserve_lab(machines, machines.store.read_image("tiny"), count, ttl=ttl), cold=cold)


def test_the_first_use_makes_a_template_and_later_ones_are_clones_of_it(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    (first,) = up(machines)
    more = up(machines, 3)
    assert {box.path for box in (first, *more)} == {"warm"}
    assert hypervisor.calls.count("save") == 1
    assert hypervisor.calls.count("restore") == 4
    assert sorted(hypervisor.domains) == ["lab-31", "lab-32", "lab-33", "lab-34"]
    (kept,) = list_templates(machines)
    assert kept.state.stat().st_mode & 0o777 == 0o600
    assert list(machines.home.templates.iterdir()) == [kept.state.parent]


def test_each_clone_is_asked_to_take_an_identity_of_its_own(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    boxes = up(machines, 4)
    asked = [one for one in hypervisor.asked if one["ask"] == "renew"]
    assert {one["name"] for one in asked} == {box.name for box in boxes}
    assert {one["machine_id"] for one in asked} == {box.uuid.replace("-", "") for box in boxes}
    assert len({one["entropy"] for one in asked}) == 4
    assert len({one["host_keys"]["ssh_host_ed25519_key"]["private"] for one in asked}) == 4
    macs = [new for one in asked for new in one["cards"].values()]
    assert len(set(macs)) == 4
    assert {old for one in asked for old in one["cards"]}.isdisjoint(macs)
    assert len({facts.disk for facts in machines.list_machines()}) == 4


def test_what_one_process_has_reserved_no_other_plans(machines: FakeMachines) -> None:
    image = machines.store.read_image("tiny")
    first, second = reserve_lab(machines, image, 2), reserve_lab(machines, image, 2)
    assert len({one.name for one in (*first, *second)}) == 4


def test_cold_is_done_when_asked_for_and_said(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    (box,) = up(machines, cold=True)
    assert (box.path, box.reason) == ("cold", "asked for with --cold")
    assert "save" not in hypervisor.calls


def test_an_image_without_an_agent_is_booted_and_not_tried_again(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.identity_agent = False
    first, second = up(machines)[0], up(machines)[0]
    assert first.path == second.path == "cold"
    assert "no identity agent" in first.reason
    assert hypervisor.calls.count("hello") == 1


@pytest.mark.parametrize("uri", ["qemu+ssh://host/system", "test:///default", "qemu://host/system", "xen:///system"])
def test_a_hypervisor_that_cannot_clone_boots(machines: FakeMachines, hypervisor: FakeHypervisor, uri: str) -> None:
    hypervisor.uri = uri
    (box,) = up(machines)
    assert box.path == "cold"
    assert "reached" in box.reason


def with_memory_in_a_file(hypervisor: FakeHypervisor) -> None:
    hypervisor.capabilities = "<capabilities><host/></capabilities>"
    memory = [(USUAL, 0, b"\0"), (USUAL, PAGE, b"x" * PAGE)]
    hypervisor.stream = render_stream([memory], [(USUAL, 2 * PAGE)])
    hypervisor.stream_without_memory = render_stream([[]], [(MEMORY_BACKEND.encode(), 2 * PAGE)])


def test_a_clone_starts_on_the_memory_of_its_template_and_boots_without_it(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    with_memory_in_a_file(hypervisor)
    (box,) = up(machines)
    (kept,) = list_templates(machines)
    memory = kept.state.with_name("memory")
    assert memory.read_bytes() == bytes(PAGE) + b"x" * PAGE
    assert memory.stat().st_mode & 0o777 == 0o600
    assert f"share=off,mem-path={memory}" in hypervisor.restored[-1]
    assert "memory-backend" not in str(hypervisor.domains[box.name][2])


@pytest.mark.parametrize("file", ["state", "disk.qcow2", "template.json", "memory"])
def test_a_damaged_template_is_removed_and_this_time_it_boots(machines: FakeMachines, hypervisor: FakeHypervisor, file: str) -> None:
    with_memory_in_a_file(hypervisor)
    up(machines)
    (kept,) = list_templates(machines)
    (kept.state.parent / file).chmod(0o600)
    (kept.state.parent / file).write_bytes(b"damage")
    (box,) = up(machines)
    assert box.path == "cold"
    assert "damaged" in box.reason
    assert not kept.state.exists()
    assert up(machines)[0].path == "warm"


@pytest.mark.parametrize("answer", [{"ok": False, "error": "no entropy"}, {"ok": "yes"}, {"ok": None}])
def test_a_clone_that_did_not_take_an_identity_is_removed_and_booted_instead(
    machines: FakeMachines, hypervisor: FakeHypervisor, answer: dict[str, object]
) -> None:
    hypervisor.answers["renew"] = answer
    (box,) = up(machines)
    assert box.path == "cold"
    assert "did not succeed" in box.reason
    assert hypervisor.calls.count("undefine") == 2  # the template's machine, and the clone
    assert list(hypervisor.domains) == [box.name]


def test_time_to_live_is_kept_extended_and_ended(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    kept, short = *up(machines), *up(machines, ttl=60)
    assert kept.expires is None
    assert short.expires is not None
    assert reap.plan_reap(machines) == ()
    late = reap.time.time() + 61
    assert [one.key for one in reap.plan_reap(machines, now=late)] == [short.name]
    images.lab.extend_lab(machines, short.name, 3600)
    assert reap.plan_reap(machines, now=late) == ()
    for one in reap.plan_reap(machines, now=late + 7200):
        reap.apply_reap(machines, one)
    assert [box.name for box in list_lab(machines)] == [kept.name]
    assert list(hypervisor.domains) == [kept.name]


VERBS = ["define", "start", "save", "restore", "hello", "prepare", "renew", "undefine"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_verb_of_up_all_that_is_left_is_found_and_removed(
    machines: FakeMachines, hypervisor: FakeHypervisor, verb: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(name: str) -> None:
        if name == verb:
            raise Killed

    # What is done in `finally` is not done by a process that is killed.
    monkeypatch.setattr(images.local_templates.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(FakeMachines, "ensure_removed", _remove_only_before(FakeMachines.ensure_removed, hypervisor, verb))
    setattr(hypervisor, moment, kill)
    try:
        with pytest.raises(Killed):
            up(machines)
    finally:
        hypervisor.before = hypervisor.after = lambda _: None
        monkeypatch.undo()
    hypervisor.uri = "qemu:///fake"
    monkeypatch.setattr(reap, "is_alive", lambda _: False)
    for one in reap.plan_reap(machines):
        reap.apply_reap(machines, one)
    assert reap.plan_reap(machines) == ()
    assert hypervisor.domains == {}
    assert list(machines.home.machines.iterdir()) == []
    assert list(machines.home.templates.glob(".*")) == []
    assert machines.ledger.list_lab() == {}


def _remove_only_before(real: Callable[[FakeMachines, str], bool], hypervisor: FakeHypervisor, verb: str) -> Callable[..., bool]:
    """Removing works until the verb that kills was called."""

    def remove(machines: FakeMachines, name: str) -> bool:
        if verb in hypervisor.calls and verb != "undefine":
            raise Killed
        return real(machines, name)

    return remove


def test_a_template_that_is_whole_survives_the_reaper(machines: FakeMachines) -> None:
    up(machines)
    assert reap.plan_reap(machines) == ()
    (kept,) = list_templates(machines)
    assert isinstance(kept, Template)
    assert kept.state.exists()


def test_the_template_of_an_image_that_is_gone_is_over(machines: FakeMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    (box,) = up(machines)
    image = machines.store.read_image("tiny")
    machines.ensure_removed(box.name)
    machines.store.remove(image)
    (one,) = reap.plan_reap(machines)
    assert one.kind is reap.Kind.TEMPLATE
    reap.apply_reap(machines, one)
    assert list(machines.home.templates.iterdir()) == []


def test_the_process_that_makes_something_is_known_again() -> None:
    from images.locking import is_alive, read_self

    me = read_self()
    boot, namespace, pid, started = me.split()
    assert is_alive(me)
    assert int(pid) == os.getpid()
    assert not is_alive(f"{boot} {namespace} {pid} {int(started) + 1}")
    assert not is_alive(f"{boot} {namespace} 999999999 {started}")
    assert not is_alive(f"another-boot {namespace} {pid} {started}")
    assert is_alive(f"{boot} pid:[1] 999999999 {started}"), "it cannot be seen from here, and is left alone"


def test_a_damaged_template_is_deleted_only_when_no_disk_stands_on_it(machines: FakeMachines) -> None:
    (box,) = up(machines)
    (kept,) = list_templates(machines)
    disk = machines.read_machine(box.name).disk
    backing = str(kept.disk).encode()
    disk.write_bytes(b"QFI\xfb" + struct.pack(">IQI", 3, 20, len(backing)) + backing)
    kept.state.write_bytes(b"damage")
    up(machines)
    assert reap.plan_reap(machines) == ()
    assert kept.disk.exists()
    machines.ensure_removed(box.name)
    (one,) = reap.plan_reap(machines)
    reap.apply_reap(machines, one)
    assert not kept.state.parent.exists()
