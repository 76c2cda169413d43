"""The address that both boxes have in turn: never on at both, and a way back from a new box that is gone."""

from __future__ import annotations

import socket

import pytest
from two_boxes import PLAN, SHARED, TwoBoxes

from kit.errors import FailedError
from migrate.cutover.contract import Side
from migrate.cutover.shared_ip import SharedAddressStateError, SharedIpCutover


def test_it_is_off_here_before_it_is_on_there() -> None:
    boxes = TwoBoxes()
    boxes.make().switch()
    boxes.make().switch_back()
    assert boxes.log == ["old off", "new on", "new off", "old on"]


def test_a_run_that_switched_it_off_and_was_killed_goes_on() -> None:
    boxes = TwoBoxes()
    boxes.put(boxes.old, enabled=False)
    assert boxes.make().read_state().side is Side.ELSEWHERE
    change = boxes.make().switch()
    assert (change.side, change.acted) == (Side.NEW, True)
    assert boxes.make().read_state().witnesses[0].shows == (PLAN.new,)


def test_before_the_new_box_has_it_only_the_old_one_is_asked() -> None:
    boxes = TwoBoxes()
    boxes.new.dead = True
    state = SharedIpCutover(PLAN, lambda: boxes.old, None).verify_ready()
    assert (state.side, state.witnesses[0].where) == (Side.OLD, "the IP configuration of the old box")


def test_a_new_box_without_the_address_is_told() -> None:
    boxes = TwoBoxes()
    boxes.new.rows.clear()
    with pytest.raises(FailedError, match=f"no address {SHARED} any more"):
        boxes.make().switch()


@pytest.mark.process
@pytest.mark.network
def test_a_new_box_that_is_gone_does_not_hinder_the_way_back() -> None:
    boxes = TwoBoxes()
    boxes.make().switch()
    boxes.new.dead = True
    change = boxes.make().switch_back()
    assert (change.side, change.acted, boxes.old.rows[SHARED].enabled) == (Side.OLD, True, True)


@pytest.mark.process
@pytest.mark.network
def test_one_that_only_we_cannot_reach_keeps_the_address() -> None:
    boxes = TwoBoxes()
    boxes.make().switch()
    boxes.new.dead = True
    with socket.create_server((SHARED, PLAN.port)), pytest.raises(SharedAddressStateError, match="something still answers"):
        boxes.make().switch_back()
    assert not boxes.old.rows[SHARED].enabled
