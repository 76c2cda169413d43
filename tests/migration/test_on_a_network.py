"""Demos on virtual machines that are all on one network, in a namespace of their own; and what is left of them: nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rig import BOXSHIFT, wait_end, wait_until

from images.apart import NAME
from images.home import find_home
from kit.process import Child, run
from kit.waiting import wait_for
from migrate.demo.network_stage import NETWORK

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(1200)]
PLAYER = Path(__file__).with_name("apart_player.py")
STARTED = {"libvirtd", "dnsmasq", "qemu-system-x86"}


@pytest.fixture
def folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    with tempfile.TemporaryDirectory(prefix="boxshift-test-") as made:
        yield Path(made)


def play(scenario: str, folder: Path) -> dict[str, Any]:
    """To its end; the JSON object that it ends with, once it is seen that nothing is left."""
    done = run([sys.executable, PLAYER, scenario, folder], timeout=1100, env={"NO_COLOR": "1"}, accept=(0, 4))
    told: dict[str, Any] = json.loads(done.text)
    assert (told["state"], told["records_lost"], told["served_chain_equal"]) == ("done", 0, True), done.err.decode()[-4000:]
    assert told["records_written"] > 0, "the visitors wrote nothing: the test proves nothing"
    assert not (find_home().root / NAME).exists()
    assert find_in_networks_with(NETWORK) == {}
    assert [one.pid for one in psutil.process_iter() if "boxshift-apart" in " ".join(cmdline(one))] == []
    return told


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def namespace_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def find_in(namespace: str) -> dict[int, str]:
    """The processes in a network namespace, by pid."""
    found = {}
    for one in psutil.process_iter(["name"]):
        if namespace_of(one.pid) == namespace:
            found[one.pid] = str(one.info["name"])
    return found


def find_in_networks_with(interface: str) -> dict[int, str]:
    """The processes of every network that has this interface."""
    found = {}
    for one in psutil.process_iter(["name"]):
        try:
            seen = Path(f"/proc/{one.pid}/net/dev").read_text()
        except OSError:
            continue
        if f"{interface}:" in seen:
            found[one.pid] = str(one.info["name"])
    return found


def is_up() -> bool:
    """A machine boots on the network, and all that it needs is there."""
    return not STARTED - {name[:15] for name in find_in_networks_with(NETWORK).values()}


def test_killed_without_warning_it_leaves_no_process_and_no_network(folder: Path) -> None:
    """The whole command as a user types it, killed while a machine boots."""
    words = ["demo", "--scenario", "pair-async", "--folder", folder / "lab"]
    with Child([BOXSHIFT, *words], log=folder / "said", env={"NO_COLOR": "1"}) as demo:
        assert wait_until(is_up, demo, 300.0), demo.said()
        inside = find_in_networks_with(NETWORK)
        (namespace,) = {namespace_of(pid) for pid in inside}
        assert namespace != namespace_of(os.getpid())
        os.kill(demo.pid, signal.SIGKILL)
        wait_for(lambda: True if find_in(namespace) == {} else None, what="everything in its network to end", timeout=30, poll=0.1)
    assert f"{NETWORK}:" not in Path("/proc/net/dev").read_text()


def test_told_to_end_it_takes_everything_away(folder: Path) -> None:
    words = ["demo", "--scenario", "shared-ip", "--folder", folder / "lab"]
    with Child([BOXSHIFT, *words], log=folder / "said", env={"NO_COLOR": "1"}) as demo:
        assert wait_until(is_up, demo, 300.0), demo.said()
        os.kill(demo.pid, signal.SIGTERM)
        assert wait_end(demo, 120.0) == 130, demo.said()
    assert "interrupted" in (folder / "said").read_text()
    assert find_in_networks_with(NETWORK) == {}
    assert not (find_home().root / NAME).exists()


def test_both_boxes_of_a_pair_are_upgraded_and_visitors_hardly_notice(folder: Path) -> None:
    told = play("pair-async", folder)
    assert told["downtime_seconds"] < 20, "neighbours were not told where the shared address is"
    assert (told["old_reset"], told["old_power"]) == (False, "on")


def test_a_pair_upgraded_primary_first(folder: Path) -> None:
    play("pair-sync", folder)


@pytest.mark.parametrize("scenario", ["shared-ip", "nat"])
def test_a_migration_ends_with_the_old_machine_wiped_and_off(folder: Path, scenario: str) -> None:
    told = play(scenario, folder)
    assert (told["old_reset"], told["old_power"]) == (True, "off")
    assert told["downtime_seconds"] < 40
