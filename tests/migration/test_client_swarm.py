"""A few Jump Clients and what can happen to them on the way to their update."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import wait_end, wait_until
from swarms import SwarmRun, count_most, read_slots
from theatre import find_net

from certs.served import read_pin
from images.local_appliance import LocalAppliance
from kit.secret import Secret
from migrate.appliances.bomgar.api import Api
from migrate.appliances.contract import ApiAccount, Endpoint
from migrate.appliances.http import BoxClient, Pin
from migrate.demo.authority import issue
from migrate.demo.journal import Entry, Kind
from migrate.demo.stage import SITE

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
VERSION, SECRET, API = "21.1.1", Secret("a!b@c$ 'd\"e\\;ñ"), Secret("f!g 'h\"\\;ñ")
CLIENTS = 250


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, vendor: Path, nets: Iterator[int]) -> Iterator[LocalAppliance]:
    folder, net, issued = tmp_path_factory.mktemp("swarm"), find_net(nets), issue(SITE)
    (folder / "root.pem").write_text(issued.root)
    with LocalAppliance(folder / "box", f"127.{net}.1.11", (f"127.{net}.0.11",), vendor=vendor) as made:
        made.seed(
            {
                "site_name": SITE,
                "jump_clients": CLIENTS,
                "jump_client_secret": SECRET.reveal(),
                "certificate_pem": issued.chain,
                "key_pem": issued.key,
                "api_client_id": "demo",
                "api_client_secret": API.reveal(),
            }
        )
        yield made


@pytest.fixture
def start(box: LocalAppliance, tmp_path: Path) -> Iterator[Callable[..., SwarmRun]]:
    """Clients that run an old version come to a box whose site is newer."""
    runs = []

    def begin(*clients: int, slots: int = 8, **settings: object) -> SwarmRun:
        box.seed({"upgrade_slots": slots})
        swarm = SwarmRun(tmp_path)
        runs.append(swarm)
        common = {"site": SITE, "port": box.port, "ca_file": str(box.folder.parent / "root.pem"), "address": box.service[0]}
        behind = {"version": "20.1.1", "until": VERSION, "seconds": 300, "update_takes": 0.1}
        swarm.start([f"jump-{number:04d}" for number in clients], SECRET, **(common | behind | settings))
        return swarm

    yield begin
    for swarm in runs:
        assert swarm.child is not None
        swarm.child.stop(grace=20)


def end(swarm: SwarmRun, code: int = 0) -> None:
    assert swarm.child is not None
    assert wait_end(swarm.child, 300) == code, swarm.child.said()


def until(swarm: SwarmRun, look: Callable[[list[Entry]], bool], kind: Kind = Kind.CHECKIN) -> None:
    assert swarm.child is not None
    assert wait_until(lambda: swarm.journal.exists() and look(swarm.entries(kind)), swarm.child), swarm.child.said()


def slots_since(box: LocalAppliance, begin: float) -> list[str]:
    return [slot.client for slot in read_slots(box.root) if slot.begin >= begin]


def test_with_a_limit_of_one_they_update_one_after_the_other(box: LocalAppliance, start: Callable[..., SwarmRun]) -> None:
    began = time.time()
    swarm = start(*range(1, 7), slots=1)
    end(swarm)
    assert swarm.told()["updates"] == 6
    assert swarm.told()["refused"] > 0, "nobody had to wait: the test proves nothing"
    assert swarm.told()["most_holding"] == 1
    assert count_most(swarm.spans(VERSION)) == 1
    assert sorted(slots_since(box, began)) == [f"jump-{number:04d}" for number in range(1, 7)]
    assert count_most([slot for slot in read_slots(box.root) if slot.begin >= began]) == 1


def test_a_download_that_is_cut_off_goes_on_where_it_was_when_the_box_is_back(box: LocalAppliance, start: Callable[..., SwarmRun]) -> None:
    box.fault("update-pace", "6000")
    began = time.time()
    swarm = start(7, 8)
    until(swarm, lambda entries: len({entry.client for entry in entries if entry.update}) == 2)
    time.sleep(1.5)  # so that some of it is there
    pid = box.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)  # as a power cut ends it
    until(swarm, lambda entries: len({entry.client for entry in entries if not entry.ok}) == 2, Kind.UPDATE)
    box.stop()
    box.start()
    box.fault("update-pace", "off")
    end(swarm)
    parts = [entry for entry in swarm.entries(Kind.UPDATE) if entry.client == "jump-0007" and entry.size]
    assert not parts[0].ok
    assert parts[0].size > 0
    assert (parts[-1].ok, parts[-1].status) == (True, 206)
    assert sum(part.size for part in parts) == 64 * 1024, "a part was fetched twice, or is missing"
    assert sorted(slots_since(box, began)) == ["jump-0007", "jump-0008"], "the slots were forgotten when the box went off"


def test_a_passive_client_is_there_only_while_it_checks_in(box: LocalAppliance, start: Callable[..., SwarmRun]) -> None:
    swarm = start(9, version=VERSION, until="", passive_every=1, passive_checkin_every=1.0)
    until(swarm, lambda entries: len(entries) >= 3)
    assert swarm.child is not None
    swarm.child.stop(grace=20)
    assert swarm.told()["failures"] == 0
    assert [slot for slot in read_slots(box.root) if slot.client == "jump-0009"] == []


def test_active_clients_come_at_once_after_an_installation(box: LocalAppliance, start: Callable[..., SwarmRun], vendor: Path) -> None:
    swarm = start(10, 11, version=VERSION, until="", checkin_every=3600)
    until(swarm, lambda entries: len({entry.client for entry in entries if entry.ok}) == 2)
    now = time.time()
    box.seed({"packages": ["base-5.2.0"], "package_folder": str(vendor / "packages")})
    until(swarm, lambda entries: len({entry.client for entry in entries if entry.ok and entry.at > now}) == 2)


def test_a_client_that_may_not_come_is_missed_and_the_swarm_says_so(start: Callable[..., SwarmRun]) -> None:
    swarm = start(12, CLIENTS + 5, seconds=4)  # the second is unknown to the site
    end(swarm, 4)
    assert swarm.told()["missing"] == 1
    assert {entry.status for entry in swarm.entries(Kind.CHECKIN) if entry.client == f"jump-{CLIENTS + 5:04d}"} == {401}


def test_a_wrong_root_is_not_trusted(box: LocalAppliance, start: Callable[..., SwarmRun], tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text(issue(SITE).root)
    swarm = start(13, ca_file=str(tmp_path / "other.pem"), seconds=2)
    end(swarm, 4)
    assert {entry.status for entry in swarm.entries(Kind.CHECKIN)} == {0}
    assert all(entry.error.startswith("tls: ") for entry in swarm.entries(Kind.CHECKIN))
    assert [slot for slot in read_slots(box.root) if slot.client == "jump-0013"] == []


def test_all_are_read_also_by_an_account_that_may_ask_only_twice_a_second(box: LocalAppliance) -> None:
    client = BoxClient(Endpoint(box.admin, box.port), Pin(read_pin(box.admin, box.port)))
    box.fault("api-limit", "2")
    try:
        clients = Api(client, ApiAccount("demo", API)).read_jump_clients()
    finally:
        box.fault("api-limit", "off")
        client.close()
    assert [client.number for client in clients] == list(range(1, CLIENTS + 1))
    assert not any(client.lost for client in clients)
