"""What holds for every cutover: one suite over a real BIND, a real gateway, commands of one's own, and two boxes' rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from conftest_cutover import Serve, make_cutover
from gateway_stand import ELSE, GatewayStand
from pydantic import TypeAdapter
from test_dns_cutover import RECORD, change_as_somebody_else, shown
from two_boxes import TwoBoxes

from kit.errors import ChangedError, FailedError, RefusedError
from migrate.cutover.command import CommandCutover, CommandCutoverPlan
from migrate.cutover.contract import Change, CutoverState, Preparation, Side

pytestmark = [
    pytest.mark.process,
    pytest.mark.network,
]


class Stand(Protocol):
    """One way to switch, the real thing behind it, and what tests do to that."""

    def make(self) -> Any:
        """A fresh cutover, as each attempt of a run has one."""
        ...

    def read(self) -> str:
        """All there is to see of it, by another way than the cutover's own."""
        ...

    def lead_elsewhere(self) -> None: ...

    def make_dead(self) -> Any:
        """A cutover whose witness does not answer."""
        ...


@dataclass
class DnsStand:
    server: Any

    def make(self) -> Any:
        return make_cutover(self.server)

    def read(self) -> str:
        return str(shown(self.server)[0])

    def lead_elsewhere(self) -> None:
        change_as_somebody_else(self.server, "127.0.0.99")

    def make_dead(self) -> Any:
        self.server.stop()
        return make_cutover(self.server, timeout=0.3)


@dataclass
class NatStand:
    gateway: GatewayStand

    def make(self) -> Any:
        return self.gateway.cutover()

    def read(self) -> str:
        return self.gateway.rules()

    def lead_elsewhere(self) -> None:
        rules = re.sub(r"dnat to \S+ comment", f"dnat to {ELSE} comment", self.gateway.nft("list", "ruleset"))
        self.gateway.nft("-f", "-", stdin=f"flush ruleset\n{rules}")

    def make_dead(self) -> Any:
        return self.gateway.cutover(replace(self.gateway.place(), port=23))


@dataclass
class CommandStand:
    folder: Path

    def make(self) -> Any:
        return CommandCutover(self.plan())

    def plan(self) -> CommandCutoverPlan:
        say = ("sh", "-c", 'printf "%s\\n" "$1" > state', "sh")
        return CommandCutoverPlan("10.0.0.11", "10.0.0.12", ("cat", "state"), (*say, "10.0.0.12"), (*say, "old"), self.folder, spread=20.0)

    def read(self) -> str:
        return (self.folder / "state").read_text()

    def lead_elsewhere(self) -> None:
        (self.folder / "state").write_text("10.0.0.99\n")

    def make_dead(self) -> Any:
        (self.folder / "state").unlink()
        return self.make()


@pytest.fixture(params=["dns", "nat", "command", "shared-ip"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    if request.param == "dns":
        serve: Serve = request.getfixturevalue("serve")
        return DnsStand(serve(RECORD.replace("300", "1")))
    if request.param == "shared-ip":
        return TwoBoxes()
    if request.param == "nat":
        gateway: GatewayStand = request.getfixturevalue("gateway")
        return NatStand(gateway)
    (tmp_path / "state").write_text("old\n")
    return CommandStand(tmp_path)


def test_a_whole_cutover_and_the_way_back(stand: Stand) -> None:
    cutover = stand.make()
    before = cutover.verify_ready()
    assert before.side is Side.OLD
    preparation = cutover.prepare(before)
    cutover.wait_until_settled(preparation)
    change = cutover.switch()
    assert (change.side, change.acted) == (Side.NEW, True)
    assert before.read_at <= change.asked_at <= change.at
    assert cutover.wait_until_settled(change).side is Side.NEW
    assert cutover.restore(preparation).side is Side.NEW
    back = cutover.switch_back()
    assert (back.side, back.acted) == (Side.OLD, True)
    assert stand.make().verify_ready().side is Side.OLD


def test_looking_and_trying_changes_nothing(stand: Stand) -> None:
    before = stand.read()
    stand.make().verify_ready()
    stand.make().read_state()
    assert stand.read() == before


def test_another_attempt_after_a_crash_finds_it_done(stand: Stand) -> None:
    stand.make().switch()
    after = stand.read()
    again = stand.make().switch()
    assert (again.side, again.acted) == (Side.NEW, False)
    assert stand.read() == after


def test_what_is_switched_already_is_no_start(stand: Stand) -> None:
    stand.make().switch()
    with pytest.raises(RefusedError) as caught:
        stand.make().verify_ready()
    assert "nothing to switch" in caught.value.hint


@pytest.mark.parametrize("verb", ["switch", "switch_back", "prepare"])
def test_nothing_is_overwritten_that_leads_elsewhere(stand: Stand, verb: str) -> None:
    stand.lead_elsewhere()
    before = stand.read()
    with pytest.raises(ChangedError) as caught:
        getattr(stand.make(), verb)()
    assert caught.value.hint
    assert stand.read() == before
    with pytest.raises(RefusedError):
        stand.make().verify_ready()


def test_a_switch_that_somebody_else_undoes_is_noticed(stand: Stand) -> None:
    change = stand.make().switch()
    stand.lead_elsewhere()
    with pytest.raises(ChangedError):
        stand.make().wait_until_settled(change)


@pytest.mark.parametrize("verb", ["read_state", "verify_ready", "switch", "switch_back"])
def test_a_witness_that_does_not_answer_is_no_state(stand: Stand, verb: str) -> None:
    with pytest.raises(FailedError) as caught:
        getattr(stand.make_dead(), verb)()
    assert not isinstance(caught.value, RefusedError)


def test_how_long_it_takes_is_said_without_asking_anybody(stand: Stand) -> None:
    dead = stand.make_dead()
    assert dead.outage_estimate() > 0
    assert dead.seconds_to_recover() > 0


def test_what_it_leaves_can_be_stored(stand: Stand) -> None:
    cutover = stand.make()
    for value in (cutover.read_state(), cutover.prepare(), cutover.switch()):
        kept = json.loads(json.dumps(TypeAdapter(type(value)).dump_python(value, mode="json")))
        assert TypeAdapter(type(value)).validate_python(kept) == value
        assert isinstance(value, CutoverState | Preparation | Change)
