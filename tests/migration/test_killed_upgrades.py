"""Upgrades killed with kill -9 in each node, of one box and of pairs, with packages from the box and from a folder; and the way back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from killer import EVER, Killer, acknowledged, open_killer
from test_upgrade import PATH, ask, change
from theatre import find_net, open_theatre

from migrate.demo.play import Scenario, find_lost
from migrate.demo.stage import TRANSFER
from migrate.engine.model import NodeState, RunState, UndoState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def opened(folder: Path, vendor: Path, scenario: Scenario) -> Iterator[Killer]:
    net = find_net(iter(range(141, 170)))
    with open_theatre(folder, net, vendor, scenario=scenario) as theatre, open_killer(theatre, folder / "killer") as killer:
        yield killer


def verify_ended_well(killer: Killer, *acting: str, nodes: Collection[str] = (), since: float = 0.0) -> None:
    """Done; nothing ran twice; killed in these ``nodes`` (empty: in all); no record missing of those ``since``; one chain all along."""
    rig = killer.rig
    status = rig.status()
    assert status.state is RunState.DONE, killer.said()
    assert {node.state for node in status.nodes} == {NodeState.DONE}
    killer.verify_nothing_ran_again()
    killer.verify_met(nodes or [node.name for node in status.nodes], acting)
    summary = rig.scene.end_visits()
    kept = acknowledged(killer.theatre, (since, EVER))
    assert kept, "the visitors wrote nothing: the test proves nothing"
    assert kept & set(find_lost(rig.plan, status, summary)) == set()
    assert len(summary.chains) == 1


def test_an_upgrade_with_several_packages(tmp_path: Path, vendor: Path) -> None:
    with opened(tmp_path / "scene", vendor, Scenario.UPGRADE) as killer:
        change(killer.rig, ("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.3.2"}'))
        assert killer.run("upgrade", str(killer.rig.plan), "--yes", then=("run", str(killer.rig.plan), "--yes")) == 0, killer.said()
        packages = ("install-base-5.2.0", "install-site-21.2.1", "install-site-21.3.2")
        verify_ended_well(killer, *packages)


def test_an_upgrade_from_a_folder_that_is_fetched(tmp_path: Path, vendor: Path) -> None:
    with opened(tmp_path / "scene", vendor, Scenario.OFFLINE) as killer:
        fetch_killed(killer)
        change(killer.rig, ("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.2.1"}'))
        nodes = ("read-path", "look-base-5.2.0", "install-base-5.2.0", "install-site-21.2.1", "prove-site-21.2.1")
        assert killer.run("run", str(killer.rig.plan), "--yes", places=nodes) == 0, killer.said()
        verify_ended_well(killer, "install-base-5.2.0", "install-site-21.2.1", nodes=nodes)


def fetch_killed(killer: Killer) -> None:
    """Everything on offer comes into the folder, and is listed, however often it is cut off: nothing is offered twice."""
    rig = killer.rig
    folder, updates = rig.plan.parent / TRANSFER, rig.stage.updates
    shutil.rmtree(folder)
    (updates.folder / "sold.json").unlink()
    words = ("packages", "fetch", str(folder), "--server", updates.url, "--key", f"file:{rig.plan.parent / 'download.key'}")
    assert killer.run(*words) == 0, killer.said()
    assert len([death for death in killer.deaths() if death.place == "packages fetch"]) > len(PATH)
    code, said, _ = ask("packages", "verify", str(folder))
    assert (code, [entry["file"] for entry in said["packages"]]) == (0, [f"{name}.pkg" for name in PATH])


@dataclass(frozen=True)
class Method:
    scenario: Scenario
    primary: str
    acting: tuple[str, ...]
    nodes: tuple[str, ...] = ()  # where it is killed; empty: in all


INSTALLS = ("a-install-base-5.2.0", "b-install-base-5.2.0", "a-install-site-21.2.1", "b-install-site-21.2.1")
METHODS = {
    "sync": Method(Scenario.PAIR_SYNC, "a", ("sync-pair", "break-pair", *INSTALLS, "establish-pair")),
    # Up to the break, and in what is done with each box, it is the same as the other one.
    "async": Method(
        Scenario.PAIR_ASYNC,
        "b",
        ("break-pair", "swing-shared", "establish-pair"),
        (
            *("approve-upgrade", "break-pair", "b-install-site-21.2.1", "probe-as-site", "approve-second", "swing-shared"),
            *("b-clients-site-21.2.1", "a-install-site-21.2.1", "establish-pair", "compare", "clients-papers"),
        ),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_upgrade_of_a_pair(tmp_path: Path, vendor: Path, method: str) -> None:
    chosen = METHODS[method]
    with opened(tmp_path / "scene", vendor, chosen.scenario) as killer:
        rig, plan = killer.rig, str(killer.rig.plan)
        change(rig, ('longest: 60s, target: {site: "21.2.1"}', 'longest: 60s, target: {base: "5.2.0", site: "21.2.1"}'))
        places = chosen.nodes or None
        assert killer.run("run", plan, places=places) == 6, killer.said()
        assert rig.status().waiting == ("approve-upgrade",), killer.said()
        since, seen = 0.0, dict(killer.seen)
        if method == "sync":
            killer.theatre.keep("ready")
            verify_the_way_back(killer)
            killer.theatre.at("ready")
            since, killer.seen = time.time(), seen
        assert killer.run("run", plan, "--yes", places=places) == 0, killer.said()
        value = rig.status().node("establish-pair").value
        assert isinstance(value, dict)
        assert value["sentence"].startswith(f"{chosen.primary} is the primary")
        verify_ended_well(killer, *chosen.acting, nodes=chosen.nodes, since=since)


def verify_the_way_back(killer: Killer) -> None:
    """Killed between the two boxes, when only one of them knows that the relationship has ended; then killed on the way back."""
    rig, plan = killer.rig, str(killer.rig.plan)
    rig.stage.new_box.fault("peer-silent")  # a cannot tell b
    killer.die_once("approve", plan, place="break-pair", moment="sent")
    rig.stage.new_box.fault("peer-silent", "off")
    assert ask("failover", "status", plan)[1]["state"].startswith("one-sided")
    killer.roll_back()
    assert rig.status().node("break-pair").undo is UndoState.UNDONE
    killer.verify_nothing_ran_again()
    killer.verify_undos_met(["break-pair"])
    code, said, _ = ask("failover", "status", plan)
    assert (code, said["state"], said["b"]["failover"]["sync"]) == (0, "a primary, b backup", "finished")
