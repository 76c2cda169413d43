"""What the reaper takes, and above all what it leaves: nothing goes where mark and claim or ledger do not agree."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, Killed, foreign_xml
from typer.testing import CliRunner

import images.machine
from images import reap
from images.claim import FILE, find_claim, write_claim
from images.domain import Mark
from images.errors import NotOursError
from images.hypervisor import Power
from images.lab_cli import lab_app
from images.ledger import LabEntry
from images.locking import read_self
from images.machine import MachineSpec

GONE = "00000000-0000-4000-8000-000000000000 pid:[1] 1 1"


def make_lost(machines: FakeMachines, name: str = "lab-31", request: str = "lab:1") -> str:
    """A machine whose ledger was lost; answers its UUID."""
    facts = machines.ensure_machine(MachineSpec(name, "tiny", request))
    with closing(sqlite3.connect(machines.home.ledger)) as base, base:
        base.execute("DELETE FROM machine WHERE uuid = ?", (facts.uuid,))
    return facts.uuid


def sweep(machines: FakeMachines) -> list[reap.Kind]:
    return [one.kind for one in reap.reap(machines)]


def test_a_machine_that_the_ledger_forgot_is_ours_by_its_mark_and_its_folders_claim(
    machines: FakeMachines, hypervisor: FakeHypervisor
) -> None:
    make_lost(machines)
    assert sweep(machines) == [reap.Kind.LOST]
    assert hypervisor.domains == {}
    assert list(machines.home.machines.iterdir()) == []


@pytest.mark.parametrize("damage", ["no claim", "another claim", "garbage", "a folder of another name", "no mark"])
def test_where_mark_and_claim_do_not_agree_it_is_left_alone(machines: FakeMachines, hypervisor: FakeHypervisor, damage: str) -> None:
    lost = make_lost(machines)
    folder = machines.home.machines / lost
    claim = find_claim(folder)
    if damage == "no claim":
        (folder / FILE).unlink()
    elif damage == "another claim":
        write_claim(folder, Mark(claim.owner, "else", claim.request))
    elif damage == "garbage":
        (folder / FILE).write_text("{")
    elif damage == "a folder of another name":
        folder.rename(folder.with_name(str(uuid.uuid4())))
    else:
        hypervisor.domains["lab-31"][2] = foreign_xml("lab-31", lost)
    before = dict(hypervisor.domains)
    assert reap.Kind.LOST not in sweep(machines)
    assert hypervisor.domains == before
    assert hypervisor.domains["lab-31"][1] is Power.RUNNING


def test_machines_of_migrations_are_never_taken(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(MachineSpec("new", "tiny", "run 7"))
    make_lost(machines, "old", "run 7 as well")
    assert sweep(machines) == []
    assert sorted(hypervisor.domains) == ["new", "old"]


def test_foreign_domains_are_never_taken_whatever_they_are_called(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    for name in ("lab-31", "boxshift-template-0123", "win10"):
        own = str(uuid.uuid4())
        hypervisor.domains[name] = [own, Power.RUNNING, foreign_xml(name, own)]
    theirs = str(uuid.uuid4())
    hypervisor.domains["lab-32"] = [theirs, Power.OFF, foreign_xml("lab-32", theirs, Mark("another home", "m", "lab:9"))]
    before = dict(hypervisor.domains)
    assert sweep(machines) == []
    assert hypervisor.domains == before


@pytest.mark.parametrize("request_id", ["lab:1", "run 7"])
def test_a_domain_that_comes_to_be_after_its_machine_was_removed_is_taken(
    machines: FakeMachines, hypervisor: FakeHypervisor, request_id: str
) -> None:
    """Its maker was killed while the daemon was still reading what it asked for."""
    machines.ensure_machine(MachineSpec("lab-31", "tiny", request_id))
    late = hypervisor.domains["lab-31"]
    assert machines.ensure_removed("lab-31")
    assert sweep(machines) == []
    hypervisor.domains["lab-31"] = [*late]
    assert sweep(machines) == [reap.Kind.LOST]
    assert hypervisor.domains == {}


def test_a_domain_with_the_uuid_of_a_removed_one_and_another_mark_is_left_alone(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(MachineSpec("lab-31", "tiny", "lab:1"))
    machines.ensure_removed("lab-31")
    hypervisor.domains["lab-31"] = [facts.uuid, Power.RUNNING, foreign_xml("lab-31", facts.uuid)]
    assert sweep(machines) == []
    assert sorted(hypervisor.domains) == ["lab-31"]


def test_one_that_changed_between_the_look_and_the_act_is_left_alone(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    make_lost(machines)
    (found,) = reap.plan_reap(machines)
    own = str(uuid.uuid4())
    hypervisor.domains["lab-31"] = [own, Power.RUNNING, foreign_xml("lab-31", own)]
    with pytest.raises(NotOursError):
        reap.apply_reap(machines, found)
    assert hypervisor.domains["lab-31"][0] == own


def test_what_a_dead_process_left_is_taken_and_what_a_living_one_makes_is_not(machines: FakeMachines) -> None:
    from images.locking import read_self

    for name, maker in (("lab-31", GONE), ("lab-32", read_self())):
        machines.ledger.note_lab(LabEntry(f"lab:{name}", maker))
        machines.ensure_machine(MachineSpec(name, "tiny", f"lab:{name}"))
    machines.ledger.note_lab(LabEntry("lab:never made", GONE))
    assert sweep(machines) == [reap.Kind.MACHINE, reap.Kind.RECORD]
    assert [facts.name for facts in machines.list_machines()] == ["lab-32"]


@pytest.mark.parametrize("verb", ["destroy", "undefine"])
def test_a_removal_that_was_cut_off_is_ended_whatever_time_the_machine_had_left(
    machines: FakeMachines, hypervisor: FakeHypervisor, verb: str
) -> None:
    for name, request in (("lab-31", "lab:31:kept"), ("new", "run 7")):
        machines.ensure_machine(MachineSpec(name, "tiny", request))
    machines.ledger.note_lab(LabEntry("lab:31:kept", read_self(), "warm", "cloned", ready_seconds=1.0))
    assert sweep(machines) == []

    def kill(name: str) -> None:
        if name == verb:
            raise Killed

    hypervisor.before = kill
    for name in ("lab-31", "new"):
        with pytest.raises(Killed):
            machines.ensure_removed(name)
    hypervisor.before = lambda _: None
    assert sweep(machines) == [reap.Kind.MACHINE]
    assert list(hypervisor.domains) == ["new"], "what a migration removes is its own to end"
    assert machines.ledger.list_lab() == {}


def test_a_folder_without_a_machine_is_taken_unless_a_migration_claims_it(machines: FakeMachines) -> None:
    for request in ("lab:1", "run 7"):
        folder = machines.home.machines / str(uuid.uuid4())
        folder.mkdir()
        write_claim(folder, Mark("owner", "mark", request))
    (machines.home.machines / "someone's").mkdir()
    assert sweep(machines) == [reap.Kind.FOLDER]
    assert len(list(machines.home.machines.iterdir())) == 2


def test_the_command_tells_first_and_removes_then(
    machines: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[FakeMachines]:
        yield machines

    monkeypatch.setattr(images.machine, "open_machines", opened)
    make_lost(machines)
    told = CliRunner().invoke(lab_app, ["reap", "--dry-run"]).stdout
    assert "Would remove the lost machine lab-31" in told
    assert "lab-31" in hypervisor.domains
    (row,) = json.loads(CliRunner().invoke(lab_app, ["reap", "--json"]).stdout)
    assert (row["kind"], row["key"]) == ("lost machine", "lab-31")
    assert "Nothing is over" in CliRunner().invoke(lab_app, ["reap"]).stdout
    assert hypervisor.domains == {}
