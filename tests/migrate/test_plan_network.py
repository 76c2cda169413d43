"""A provisioned machine with an address of its own: what a plan may say, what is made of it, and what is proved before a key is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from examples_of_plans import PLAN, make_plan

from images.hypervisor import Power
from images.ledger import EntryState
from images.spec import MachineFacts
from images.uplink import Uplink, UplinkKind
from kit.errors import FailedError
from migrate.plan_file import PlanError, parse_plan
from migrate.wiring.machines import plan_machine, verify_address

FACTS = MachineFacts(
    "new", "u", "52:54:00:00:00:09", Power.RUNNING, EntryState.BOOTED, "r", "i", 512, 1, (), Path("/d"), Path("/c"),
    uplink=Uplink(UplinkKind.NETWORK, "office"), address="127.0.1.12",
)  # fmt: skip


def on(words: str) -> tuple[str, str]:
    return "    image: reference\n", f"    image: reference\n{words}"


def test_without_a_network_it_is_behind_forwards() -> None:
    planned = plan_machine(make_plan(), "request", None)
    assert planned.uplink is None
    assert planned.forwards


def test_on_a_network_it_has_its_own_address_and_its_own_card() -> None:
    planned = plan_machine(make_plan(on("    network: office\n    mac: '52:54:00:00:00:09'\n")), "request", None)
    assert (planned.uplink, planned.mac, planned.forwards) == (FACTS.uplink, FACTS.mac, ())
    assert plan_machine(make_plan(on("    bridge: br0\n")), "request", None).uplink == Uplink(UplinkKind.BRIDGE, "br0")


@pytest.mark.parametrize("words", ["    network: a\n    bridge: b\n", "    mac: '52:54:00:00:00:09'\n", "    network: a\n    mac: x\n"])
def test_what_makes_no_sense_is_refused_at_its_line(words: str) -> None:
    with pytest.raises(PlanError):
        parse_plan(PLAN.replace(*on(words)).encode(), "plan.yaml")


def test_no_key_is_learned_from_an_address_that_is_not_this_machines() -> None:
    plan = make_plan(on("    network: office\n"))
    verify_address(plan, replace(FACTS, address=plan.new.address))
    with pytest.raises(FailedError, match="the plan says"):
        verify_address(plan, replace(FACTS, address="127.0.1.99"))
