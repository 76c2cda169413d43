"""What the verbs decide, on a hypervisor in memory: idempotence, ownership, and being killed at any point."""

from __future__ import annotations

import shutil

import pytest
from fake_hypervisor import FORWARDS, FakeHypervisor, FakeMachines, Killed, foreign_xml, spec

from images import machine
from images.domain import Forward, Mark
from images.errors import (
    AddressTakenError,
    AlteredImageError,
    HypervisorError,
    NotOursError,
    RequestChangedError,
    RetiredError,
    SpecError,
    UnknownImageError,
    UnknownMachineError,
)
from images.hypervisor import Power
from images.ledger import EntryState, Ledger
from images.machine import MachineSpec
from kit.errors import FailedError


def test_asking_twice_for_one_request_finds_the_same_machine(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    first = machines.ensure_machine(spec())
    again = machines.ensure_machine(spec())
    assert again == first
    assert first.power is Power.RUNNING
    assert hypervisor.calls.count("start") == 1
    assert first.disk.exists()


def test_each_machine_has_its_own_identity(machines: FakeMachines) -> None:
    one = machines.ensure_machine(spec("old", "a"))
    two = machines.ensure_machine(MachineSpec("new", "tiny", "b"))
    assert len({one.uuid, two.uuid}) == len({one.mac, two.mac}) == len({one.disk, two.disk}) == 2


def test_a_request_for_another_machine_than_before_is_refused(machines: FakeMachines) -> None:
    machines.ensure_machine(spec())
    with pytest.raises(RequestChangedError):
        machines.ensure_machine(MachineSpec("old", "tiny", "request-1", FORWARDS, memory_mib=1024))
    with pytest.raises(RequestChangedError):
        machines.ensure_machine(MachineSpec("other", "tiny", "request-1", FORWARDS))


def test_a_name_that_another_request_has_is_refused(machines: FakeMachines) -> None:
    machines.ensure_machine(spec())
    with pytest.raises((SpecError, NotOursError)):
        machines.ensure_machine(spec(request="request-2"))
    assert [one.request_id for one in machines.list_machines()] == ["request-1"]


@pytest.mark.parametrize(
    ("moment", "verb"), [("before", "find_domain"), ("before", "define"), ("after", "define"), ("before", "start"), ("after", "start")]
)
def test_killed_at_any_verb_of_making_the_next_call_completes_one_machine(
    machines: FakeMachines, hypervisor: FakeHypervisor, verb: str, moment: str
) -> None:
    _kill_at(hypervisor, moment, verb)
    with pytest.raises(Killed):
        machines.ensure_machine(spec())
    _let_live(hypervisor)
    facts = machines.ensure_machine(spec())
    assert facts.power is Power.RUNNING
    assert list(hypervisor.domains) == ["old"]
    assert [path.name for path in machines.home.machines.iterdir()] == [facts.uuid]


@pytest.mark.parametrize("step", ["add", "change_state"])
def test_killed_while_the_ledger_is_written_the_next_call_completes_one_machine(
    machines: FakeMachines, hypervisor: FakeHypervisor, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, step, _die)
        with pytest.raises(Killed):
            machines.ensure_machine(spec())
    facts = machines.ensure_machine(spec())
    assert facts.power is Power.RUNNING
    assert list(hypervisor.domains) == ["old"]


def test_killed_while_its_disk_is_made_the_next_call_makes_it_anew(
    machines: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(machines.store), "make_overlay", _die)
        with pytest.raises(Killed):
            machines.ensure_machine(spec())
    assert machines.ensure_machine(spec()).disk.read_bytes() == b"overlay"


@pytest.mark.parametrize(
    ("moment", "verb"),
    [("before", "find_domain"), ("before", "destroy"), ("after", "destroy"), ("before", "undefine"), ("after", "undefine")],
)
def test_killed_at_any_verb_of_removing_the_next_call_leaves_nothing(
    machines: FakeMachines, hypervisor: FakeHypervisor, verb: str, moment: str
) -> None:
    machines.ensure_machine(spec())
    _kill_at(hypervisor, moment, verb)
    with pytest.raises(Killed):
        machines.ensure_removed("old")
    _let_live(hypervisor)
    machines.ensure_removed("old")
    assert hypervisor.domains == {}
    assert list(machines.home.machines.iterdir()) == []
    assert machines.list_machines() == ()
    assert machines.ensure_removed("old") is False


def test_a_machine_that_is_half_removed_is_not_started_again(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(spec())
    _kill_at(hypervisor, "after", "undefine")
    with pytest.raises(Killed):
        machines.ensure_removed("old")
    _let_live(hypervisor)
    with pytest.raises(RetiredError):
        machines.ensure_machine(spec())


def test_a_disk_that_vanished_is_not_replaced_by_an_empty_one(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(spec())
    machines.ensure_stopped("old")
    facts.disk.unlink()
    with pytest.raises(FailedError, match="is gone"):
        machines.ensure_machine(spec())


def test_a_foreign_domain_of_the_same_name_is_left_alone(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    before = ["11111111-1111-1111-1111-111111111111", Power.RUNNING, foreign_xml("old", "11111111-1111-1111-1111-111111111111")]
    hypervisor.domains["old"] = list(before)
    with pytest.raises(NotOursError):
        machines.ensure_machine(spec())
    with pytest.raises(NotOursError):
        machines.ensure_removed("old")
    assert hypervisor.domains == {"old": before}
    assert machines.ledger.list_entries() == ()


@pytest.mark.parametrize("wrong", ["uuid", "mark", "owner", "no mark"])
def test_nothing_is_deleted_where_ledger_and_mark_disagree(machines: FakeMachines, hypervisor: FakeHypervisor, wrong: str) -> None:
    facts = machines.ensure_machine(spec())
    right = machines.ledger.mark_of(machines.ledger.find_name("old"))
    uuid = "22222222-2222-2222-2222-222222222222" if wrong == "uuid" else facts.uuid
    marks = {"mark": Mark(right.owner, "else", right.request), "owner": Mark("else", right.mark, right.request), "no mark": None}
    before = [uuid, Power.RUNNING, foreign_xml("old", uuid, marks.get(wrong, right))]
    hypervisor.domains["old"] = list(before)
    for verb in (machines.ensure_removed, machines.ensure_stopped, machines.ensure_undefined, machines.read_power):
        with pytest.raises(NotOursError):
            verb("old")
    assert hypervisor.domains == {"old": before}
    assert facts.disk.exists()


def test_a_domain_is_not_ours_by_its_mark_alone(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(spec())
    entry = machines.ledger.find_name("old")
    machines.ledger.delete(entry)
    with pytest.raises(NotOursError):
        machines.ensure_removed("old")
    assert hypervisor.domains["old"][1] is Power.RUNNING
    assert facts.disk.exists()


def test_undefined_it_keeps_its_disk_and_is_not_started_again(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(spec())
    with pytest.raises(HypervisorError, match="still runs"):
        machines.ensure_undefined("old")
    machines.ensure_stopped("old")
    facts = machines.ensure_undefined("old")
    assert machines.ensure_undefined("old") == facts
    assert facts.power is Power.ABSENT
    assert facts.state is EntryState.RETIRED
    assert facts.disk.exists()
    assert hypervisor.domains == {}
    for verb in (lambda: machines.ensure_machine(spec()), lambda: machines.ensure_started("old")):
        with pytest.raises(RetiredError):
            verb()
    assert machines.ensure_removed("old")
    assert not facts.disk.exists()


def test_one_that_ignores_the_shutdown_request_loses_its_power(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.obeys_shutdown = False
    machines.ensure_machine(spec())
    assert machines.ensure_stopped("old", grace=0.1) is Power.OFF
    assert "destroy" in hypervisor.calls


def test_one_that_obeys_is_not_cut_off(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    machines.ensure_machine(spec())
    assert machines.ensure_stopped("old") is Power.OFF
    assert machines.ensure_stopped("old") is Power.OFF
    assert "destroy" not in hypervisor.calls
    assert machines.ensure_started("old").power is Power.RUNNING


def test_an_altered_image_is_noticed_before_anything_boots(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    image = machines.store.read_image("tiny")
    image.disk.chmod(0o644)
    image.disk.write_bytes(b"hack")
    with pytest.raises(AlteredImageError, match=r"disk\.qcow2"):
        machines.ensure_machine(spec())
    assert hypervisor.domains == {}


def test_an_altered_image_is_noticed_before_a_machine_on_it_starts_again(machines: FakeMachines) -> None:
    machines.ensure_machine(spec())
    machines.ensure_stopped("old")
    image = machines.store.read_image("tiny")
    image.kernel.chmod(0o644)
    image.kernel.write_bytes(b"another")
    with pytest.raises(AlteredImageError, match="kernel"):
        machines.ensure_started("old")


def test_a_machine_that_stays_paused_is_an_error(
    machines: FakeMachines, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.ensure_machine(spec())
    hypervisor.domains["old"][1] = Power.PAUSED
    monkeypatch.setattr(machine, "START_SECONDS", 0.2)
    with pytest.raises(HypervisorError, match="is paused"):
        machines.ensure_machine(spec())


@pytest.mark.network
def test_a_port_in_use_is_named(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    import socket

    hypervisor.address_taken = True
    with socket.create_server((FORWARDS[0].host, FORWARDS[0].host_port)), pytest.raises(AddressTakenError, match=r"127\.0\.3\.11:18443"):
        machines.ensure_machine(spec())


def test_unknown_names_are_refused_in_a_sentence(machines: FakeMachines) -> None:
    with pytest.raises(UnknownMachineError, match="nobody"):
        machines.read_power("nobody")
    with pytest.raises(UnknownImageError, match=r"no image"):
        machines.ensure_machine(MachineSpec("old", "nothing", "r"))
    assert machines.find_machine("nobody") is None


@pytest.mark.parametrize("name", ["", "../up", "a b", "UPPER", "-x", "x" * 64, "a;b", "ñ", "a\n"])
def test_a_name_that_could_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(SpecError):
        MachineSpec(name, "tiny", "r")


def test_two_forwards_on_one_port_are_refused() -> None:
    with pytest.raises(SpecError, match="share one port"):
        MachineSpec("old", "tiny", "r", (Forward("127.0.3.1", 1, "10.0.2.15", 443), Forward("127.0.3.1", 1, "10.0.2.20", 443)))


def test_a_lost_machine_folder_does_not_stop_its_removal(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(spec())
    shutil.rmtree(facts.disk.parent)
    assert machines.ensure_removed("old")
    assert hypervisor.domains == {}


def _kill_at(hypervisor: FakeHypervisor, moment: str, verb: str) -> None:
    def kill(name: str) -> None:
        if name == verb:
            raise Killed

    setattr(hypervisor, moment, kill)


def _let_live(hypervisor: FakeHypervisor) -> None:
    hypervisor.before = hypervisor.after = lambda _: None


def _die(*_: object, **__: object) -> None:
    raise Killed
