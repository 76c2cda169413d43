"""Demos that need a network of their own: what is refused before anything is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images import apart
from kit.errors import RefusedError, UsageError
from migrate.cli.demonstration import go_apart
from migrate.demo.local_gateway import LocalGateway
from migrate.demo.network_stage import NetworkStage
from migrate.demo.play import PLANS, Scenario

APART = [scenario for scenario in Scenario if scenario.needs_network]


def test_every_scenario_has_a_plan() -> None:
    assert set(PLANS) == set(Scenario)
    assert [one.value for one in APART] == ["pair-sync", "pair-async", "nat", "shared-ip"]


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("scenario", APART)
def test_who_is_not_root_is_told_in_one_sentence(scenario: Scenario, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RefusedError, match=r"^A network of its own needs root\.$"):
        go_apart(scenario, by_hand=False, keep=False, local=local)
    with pytest.raises(RefusedError):
        apart.enter()


@pytest.mark.parametrize(("by_hand", "keep"), [(True, False), (False, True)])
def test_what_would_outlive_the_network_is_refused(by_hand: bool, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="goes with the demo"):
        go_apart(Scenario.NAT, by_hand=by_hand, keep=keep)


def test_a_gateway_is_put_up_in_a_network_of_its_own_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sshd, its rule and its address would otherwise be this computer's."""
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    with pytest.raises(RefusedError, match="it has eth0, lo"):
        LocalGateway(tmp_path / "gateway", "127.0.0.11", 8443).start()
    assert not (tmp_path / "gateway").exists()


def test_nothing_is_put_up_in_a_network_that_is_somebody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    with pytest.raises(RefusedError, match="it has eth0, lo"):
        apart.verify_apart()
    assert NetworkStage(tmp_path).entrance == "10.0.2.20"
