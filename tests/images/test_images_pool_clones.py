"""Templates and clones in a pool, on a hypervisor in memory: what is decided, and what stays after a kill at any moment."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hypervisor import FakeHypervisor, Killed, store_image
from pool_fake import PooledMachines

import images.clone
import images.lab
import images.template
from images import pool_snapshot, reap
from images.errors import HypervisorError
from images.home import Home
from images.lab import LabBox, ensure_lab, reserve_lab
from images.snapshot import restore_snapshot, take_snapshot
from images.template import list_templates
from images.uplink import Uplink, UplinkKind

LEAF = "ab" * 32
NETWORK = Uplink(UplinkKind.NETWORK, "far-nat")
FOREIGN = ("template-notes.json", "machine-of-someone-disk.qcow2", "template-" + "0" * 32 + "-mine.json")


@pytest.fixture
def machines(home: Home, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch) -> PooledMachines:
    hypervisor.uri = "qemu+ssh://host/system"
    hypervisor.answers["renew"] = {"services": {"appliance": {"certificate": LEAF}}}
    monkeypatch.setattr(images.template, "read_leaf", lambda *_: "cd" * 32)
    monkeypatch.setattr(images.clone, "_wait_for_own_answer", lambda *_, **__: None)
    monkeypatch.setattr(images.lab, "is_taken", lambda _: False)
    monkeypatch.setattr(PooledMachines, "verify_way", lambda *_: None)
    for module in (images.lab, images.template):
        monkeypatch.setattr(module, "wait_for_ready", lambda machines, name, **_: machines.read_machine(name))
    made = PooledMachines(home, hypervisor, home.root.parent / "pools")
    store_image(made.store, content=b"QFI\xfb" + bytes(20) + struct.pack(">Q", 1 << 24))
    return made


def up(machines: PooledMachines, count: int = 1) -> tuple[LabBox, ...]:
    return ensure_lab(machines, reserve_lab(machines, machines.store.read_image("tiny"), count, uplink=NETWORK))


def files(machines: PooledMachines) -> Iterator[Path]:
    folder = Path(machines.place.pool.folder)
    return iter(sorted(folder.iterdir()) if folder.exists() else ())


def reap_all(machines: PooledMachines, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(reap, "is_alive", lambda _: False)
    removed = []
    for _ in range(reap.LOOKS):
        found = reap.plan_reap(machines)
        for one in found:
            reap.apply_reap(machines, one)
        removed += [one.key for one in found]
    assert reap.plan_reap(machines) == ()
    return removed


def test_the_first_use_makes_a_template_and_later_ones_are_clones_of_it(
    machines: PooledMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = up(machines)
    more = up(machines, 3)
    assert {box.path for box in (first, *more)} == {"warm"}
    assert (hypervisor.calls.count("save"), hypervisor.calls.count("restore")) == (1, 4)
    (kept,) = list_templates(machines)
    names = [path.name for path in files(machines) if kept.name in path.name]
    assert len(names) == 5, "claim, console, disk, state and record"
    assert [path.name for path in files(machines) if path.name.endswith("-state")] == [kept.state.name], "a clone's is deleted"
    assert {one.disk for one in machines.list_machines()}.isdisjoint({kept.disk})
    assert reap_all(machines, monkeypatch) == []


def test_what_only_is_named_like_ours_is_left_alone(machines: PooledMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    (box,) = up(machines)
    for name in FOREIGN:
        Path(machines.place.pool.path_of(name)).write_bytes(b"someone's")
    assert reap_all(machines, monkeypatch) == []
    assert up(machines)[0].path == "warm"
    for one in machines.list_machines():
        machines.ensure_removed(one.name)
    machines.store.remove(machines.store.read_image("tiny"))
    reap_all(machines, monkeypatch)
    assert sorted(path.name for path in files(machines)) == sorted(FOREIGN)
    assert box.uuid not in " ".join(FOREIGN)


@pytest.mark.parametrize(
    ("file", "damage"),
    [("state", "other bytes"), ("state", "gone"), ("disk", "shorter"), ("disk", "gone"), ("record", "shorter"), ("record", "gone")],
)
def test_a_damaged_template_is_removed_once_nothing_stands_on_it_and_made_anew(
    machines: PooledMachines, monkeypatch: pytest.MonkeyPatch, file: str, damage: str
) -> None:
    (clone,) = up(machines)
    (kept,) = list_templates(machines)
    path = next(path for path in files(machines) if path.name.startswith("template-")) if file == "record" else getattr(kept, file)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + (b"x" if damage == "other bytes" else b""))
    if file == "record" and damage == "gone":
        assert up(machines)[0].path == "warm", "there is no template any more, and another is made"
    else:
        (box,) = up(machines)
        assert (box.path, "damaged" in box.reason) == ("cold", True)
        assert not kept.state.exists()
        assert up(machines)[0].path == "warm"
    assert len(list_templates(machines)) == 1
    reap_all(machines, monkeypatch)
    assert kept.disk.exists() or (file, damage) == ("disk", "gone"), "a clone stands on it"
    machines.ensure_removed(clone.name)
    assert reap_all(machines, monkeypatch) == [kept.name]
    assert not left(machines, kept.name)


def left(machines: PooledMachines, machine: str) -> list[str]:
    return [path.name for path in files(machines) if machine in path.name]


def test_one_that_is_damaged_between_two_clones_is_not_copied(machines: PooledMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    up(machines)
    (kept,) = list_templates(machines)
    monkeypatch.setattr(images.template, "find_template", lambda *_: kept)
    os.utime(kept.state, ns=(1, 1))
    (box,) = up(machines)
    assert box.path == "cold"
    assert "is no longer what was saved" in box.reason


def test_a_state_that_qemu_refuses_is_booted_instead_and_said(machines: PooledMachines, hypervisor: FakeHypervisor) -> None:
    up(machines)

    def refuse(verb: str) -> None:
        if verb == "restore":
            raise HypervisorError("The hypervisor could not restore the machine: qemu unexpectedly closed the monitor.")

    hypervisor.before = refuse
    (box,) = up(machines)
    assert box.path == "cold"
    assert "qemu unexpectedly closed the monitor" in box.reason
    assert len([path for path in files(machines) if path.name.endswith("-state")]) == 1


def test_the_template_of_an_image_that_is_gone_goes_with_its_last_clone(machines: PooledMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    (box,) = up(machines)
    machines.store.remove(machines.store.read_image("tiny"))
    assert reap_all(machines, monkeypatch) == []
    machines.ensure_removed(box.name)
    assert len(reap_all(machines, monkeypatch)) == 3  # the template, the image, the pool
    assert list(files(machines)) == []


def test_killed_at_any_verb_of_up_all_that_is_left_is_found_and_removed(
    machines: PooledMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb of the hypervisor and of its storage, one run for each: a template or a clone is whole, or nothing is left of it."""
    acting = {"create_volume", "copy_volume", "delete_volume", "upload", "define", "save", "restore", "undefine", "start"}
    seen = number = 0

    def kill(verb: str) -> None:
        nonlocal seen
        seen += verb in acting
        if seen >= number:
            raise Killed

    for number in range(1, 200):
        seen = 0
        hypervisor.after = kill
        try:
            with monkeypatch.context() as patch:
                patch.setattr(PooledMachines, "ensure_removed", unless_killed(hypervisor))
                up(machines)
        except Killed:
            pass
        hypervisor.after = lambda _: None
        image = machines.store.read_image("tiny")
        whole = list_templates(machines)
        with monkeypatch.context() as patch:
            reap_all(machines, patch)
        # What is whole stays usable, and what is not is gone.
        assert [one.name for one in list_templates(machines)] in ([one.name for one in whole], [])
        known = {one.uuid for one in machines.list_machines()} | {one.name for one in list_templates(machines)}
        assert {path.name[8:44] for path in files(machines) if path.name.startswith("machine-")} == known
        for one in machines.list_machines():
            machines.ensure_removed(one.name)
        machines.store.remove(image)
        with monkeypatch.context() as patch:
            reap_all(machines, patch)
        assert (list(files(machines)), hypervisor.domains, machines.ledger.list_lab()) == ([], {}, {})
        store_image(machines.store, content=b"QFI\xfb" + bytes(20) + struct.pack(">Q", 1 << 24))
        if seen < number:
            break
    assert 30 < number < 199, "every moment was tried"


def test_killed_at_any_verb_of_a_snapshot_no_machine_ever_starts_on_what_the_snapshot_needs(
    machines: PooledMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_snapshot, "define_moved", lambda hypervisor, *_: hypervisor.after("define"))
    monkeypatch.setattr(pool_snapshot, "restore_moved", lambda hypervisor, state, _: hypervisor.restore(state))
    (box,) = up(machines)
    acting, seen, number = {"create_volume", "delete_volume", "upload", "define", "save", "restore", "destroy"}, 0, 0

    def kill(verb: str) -> None:
        nonlocal seen
        seen += verb in acting
        if seen >= number > 0:
            raise Killed

    def snapshot(label: str, count: int) -> None:
        nonlocal seen, number
        seen, number, hypervisor.after = 0, count, kill
        try:
            take_snapshot(machines, box.name, label)
            restore_snapshot(machines, box.name, label)
        except Killed:
            pass
        finally:
            hypervisor.after = lambda _: None

    snapshot("first", 0)
    kept = machines.place.pool.read(f"machine-{box.uuid}-snapshot-first.json")
    for count in range(1, 40):
        snapshot(f"label-{count}", count)
        facts = machines.ensure_started(box.name)
        needed = {name for path in files(machines) if "-snapshot-" in path.name and path.suffix == ".json" for name in needs(path)}
        assert facts.disk.name not in needed
        assert machines.place.pool.find_volume(facts.disk.name) is not None
        assert machines.place.pool.read(f"machine-{box.uuid}-snapshot-first.json") == kept
        assert restore_snapshot(machines, box.name, "first")
        if seen < count:
            break
    assert 8 < count < 39, "every moment was tried"
    machines.ensure_removed(box.name)
    assert left(machines, box.uuid) == []


def needs(record: Path) -> set[str]:
    """The disks of a snapshot; of a record that was cut off, none."""
    try:
        return set(json.loads(record.read_bytes())["disks"].values())
    except ValueError:
        return set()


def unless_killed(hypervisor: FakeHypervisor) -> Callable[[PooledMachines, str], bool]:
    """What is done in ``finally`` is not done by a process that is killed."""
    real = PooledMachines.ensure_removed

    def remove(machines: PooledMachines, name: str) -> bool:
        hypervisor.after("")
        return real(machines, name)

    return remove
