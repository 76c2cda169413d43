"""A box that is upgraded where it stands, a virtual machine: from its update server, then from a folder as in a closed network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig, kill, open_machine_rig, wait_until
from test_upgrade import change, installed, verify_ended_well

from kit.progress import Silent
from migrate.demo.play import Scenario, fetch_packages
from migrate.demo.stage import TRANSFER
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(1200)]
TARGET = ', target: {site: "21.2.1"}'


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with (
        tempfile.TemporaryDirectory(prefix="boxshift-test-") as folder,
        open_machine_rig(Path(folder), 78, scenario=Scenario.UPGRADE) as made,
    ):
        yield made


def test_from_its_update_server_it_is_killed_in_the_middle_of_a_package_and_goes_on(rig: Rig) -> None:
    change(rig, ("longest: 60s", f"longest: 60s{TARGET}"))
    with rig.start() as child:
        assert wait_until(lambda: is_running(rig, "install-base-5.3.0"), child, 600.0), rig.said()[-3000:]
        kill(child)
    assert rig.run(timeout=900.0) == 0, rig.said()[-4000:]
    assert rig.status().state is RunState.DONE
    assert installed(rig) == ("base-5.2.0", "base-5.3.0", "site-21.2.1")


def test_the_rest_of_the_path_comes_from_a_folder_and_the_clients_follow(rig: Rig) -> None:
    fetch_packages(rig.plan, rig.stage.update_server, Silent())
    change(rig, ("source: box", f"source: folder, folder: {TRANSFER}"), (TARGET, ""))
    assert rig.run(timeout=900.0) == 0, rig.said()[-4000:]
    value = rig.status().node("clients-site-22.1.4").value
    assert isinstance(value, dict)
    assert value["sentence"] == "3 of 3 Jump Clients have taken 22.1.4."
    verify_ended_well(rig, ("site-21.3.2", "site-22.1.4"))


def is_running(rig: Rig, node: str) -> bool:
    try:
        return rig.status().node(node).state is NodeState.RUNNING
    except Exception:  # noqa: BLE001 - the database is being made right now
        return False
