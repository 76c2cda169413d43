"""The tool is killed with SIGKILL while it brings an appliance up or takes it down: the reaper finds what is left, and takes it away.

What each single step leaves is told by the tests with a hypervisor in memory (test_images_warm.py); here the moments are real.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from images import reap
from images.home import find_home
from images.lab import ensure_lab, reserve_lab
from images.machine import Machines, open_machines
from images.reference_image import ensure_reference_image

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(900)]
COMMAND = [sys.executable, "-c", "from images.cli import lab_app; lab_app()"]


@dataclass(frozen=True)
class World:
    """All that a lab leaves anywhere."""

    domains: frozenset[str]
    entries: frozenset[str]
    folders: frozenset[str]
    templates: frozenset[str]

    def __sub__(self, other: World) -> frozenset[str]:
        pairs = (
            (self.domains, other.domains),
            (self.entries, other.entries),
            (self.folders, other.folders),
            (self.templates, other.templates),
        )
        return frozenset(one for mine, theirs in pairs for one in mine - theirs)


def look(machines: Machines) -> World:
    # With names: after the last but one step of a removal nothing but the entry is left, and the reaper calls it by the machine's name.
    entries = {word for entry in machines.ledger.list_entries() for word in (entry.request, entry.name)}
    return World(
        frozenset(domain.name for domain in machines.hypervisor.list_domains()),
        frozenset(entries | set(machines.ledger.list_lab())),
        frozenset(path.name for path in machines.home.machines.iterdir()),
        frozenset(path.name for path in machines.home.templates.iterdir()),
    )


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with open_machines(find_home()) as opened:
        image = ensure_reference_image(opened.home)
        (first,) = ensure_lab(opened, reserve_lab(opened, image, 1))  # from here on there is a template
        opened.ensure_removed(first.name)
        yield opened


def kill_after(argv: list[str], line: str, seconds: float) -> None:
    """Start the command, and kill it some seconds after it has said the line."""
    with subprocess.Popen([*COMMAND, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        for said in child.stderr:
            if line in said:
                break
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(("command", "seconds"), [("up", 0.0), ("up", 0.5), ("pair", 2.0)])
def test_killed_while_it_brings_up(machines: Machines, command: str, seconds: float) -> None:
    before = look(machines)
    kill_after([command, "--ttl", "30m"], "cloning", seconds)
    left = look(machines) - before
    assert left, "it wrote down what it would make before it was killed"
    # Where it was quicker than the kill, its time has to be over first.
    for one in reap.plan_reap(machines, now=time.time() + 1801):
        if one.key in left or one.uuid in left:
            reap.apply_reap(machines, one)
    assert look(machines) - before == frozenset()


def test_killed_while_it_takes_down(machines: Machines) -> None:
    before = look(machines)
    (box,) = ensure_lab(machines, reserve_lab(machines, ensure_reference_image(machines.home), 1, ttl=1800))
    with subprocess.Popen([*COMMAND, "down", box.name, "--yes"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and (facts := machines.hypervisor.find_domain(box.name)) is not None and not facts.power.is_off:
            time.sleep(0.005)
        child.kill()
    left = look(machines) - before
    for one in reap.plan_reap(machines, now=time.time() + 1801):
        if one.key in left or one.uuid in left:
            reap.apply_reap(machines, one)
    assert look(machines) - before == frozenset()
