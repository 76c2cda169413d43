"""Time to a ready appliance: a warm clone against cold boots and against a bare restore, same image, same computer, one run.

    python benchmarks/lab_clone.py [--turns 5] [--at-once 8] [--unique 10]

Prints, in seconds: a cold boot by boxshift until its HTTPS answers, and by other tools on the same disk (or why they cannot here);
libvirt's own save and restore of that machine until the first HTTPS answer (what ``virsh restore`` does, with no identity of its own);
clones one after the other, each until its HTTPS answers with its own certificate (targets: a tenth of the cold boot at most, 1.5 times the
bare restore at most); several at once, and the memory that each further one takes; and what of ten clones differs right after they were
called ready.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import lab_peers
import lab_unique

from images.errors import UnknownMachineError
from images.lab import LabBox, ensure_lab, reserve_lab
from images.machine import Machines, open_machines
from images.reference_image import ensure_reference_image
from images.store import Image
from kit.errors import FailedError

ANSWER_SECONDS = 120.0


def measure_restore(machines: Machines, box: LabBox) -> float:
    """Restore the machine, off and saved, as it is; seconds to its first answer. It is saved again then."""
    state = state_of(machines, box)
    os.sync()  # what the turn before wrote shall not weigh on this one
    begun = time.monotonic()
    machines.hypervisor.restore(state)
    host, port = box.address.split(":")
    lab_peers.wait_for_answer(host, int(port), timeout=ANSWER_SECONDS)
    took = time.monotonic() - begun
    machines.hypervisor.save(box.uuid, state)
    return took


def measure_clone(machines: Machines, image: Image, made: list[LabBox]) -> float:
    """One clone, from being asked for to an answer of its own."""
    os.sync()
    boxes, seconds = clone(machines, image, 1)
    made += boxes
    machines.ensure_removed(boxes[0].name)
    return seconds


def state_of(machines: Machines, box: LabBox) -> Path:
    """Where the benchmark saves the machine."""
    return machines.read_machine(box.name).disk.with_name("bench.state")


def clone(machines: Machines, image: Image, count: int) -> tuple[tuple[LabBox, ...], float]:
    """That many clones in one call, and the seconds until all were ready."""
    begun = time.monotonic()
    boxes = ensure_lab(machines, reserve_lab(machines, image, count))
    return boxes, time.monotonic() - begun


def read_memory(box: LabBox) -> int:
    """MiB of this computer's memory that the machine's process takes, its part of shared pages counted."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if box.uuid.encode() in path.read_bytes() and b"qemu" in path.read_bytes().split(b"\0")[0]:
                lines = (path.parent / "smaps_rollup").read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) >> 10
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise UnknownMachineError(f"No process runs {box.name}.")


def measure_one_by_one(machines: Machines, image: Image, turns: int, made: list[LabBox]) -> None:
    """Cold boots by us and by others, then bare restores and clones in turns, so that whatever else this computer does weighs on both."""
    (cold,) = ensure_lab(machines, reserve_lab(machines, image, 1), cold=True)
    made.append(cold)
    show("cold boot to the first answer", cold.ready_seconds or 0)
    booted = {"boxshift": cold.ready_seconds or 0} | measure_peers(machines, image)
    first, _ = clone(machines, image, 1)  # makes the template, where there is none yet
    made += first
    machines.ensure_removed(first[0].name)
    show(f"first use ({first[0].path}: the template is made where missing)", first[0].ready_seconds or 0)
    machines.hypervisor.save(cold.uuid, state_of(machines, cold))
    both = [(measure_restore(machines, cold), measure_clone(machines, image, made)) for _ in range(turns)]
    machines.ensure_removed(cold.name)
    bare, warm = (statistics.median(turn[which] for turn in both) for which in (0, 1))
    show("bare restore to the first answer", *(turn[0] for turn in both))
    show("warm clone to an answer of its own", *(turn[1] for turn in both))
    fastest = min(booted, key=lambda name: booted[name])
    print(f"cold / warm   {booted[fastest] / warm:5.1f}   target 10 or more (the fastest cold boot is that by {fastest})")
    print(f"warm / bare   {warm / bare:5.2f}   target 1.5 or less (turn by turn: {', '.join(f'{one[1] / one[0]:.2f}' for one in both)})")


def measure_peers(machines: Machines, image: Image) -> dict[str, float]:
    """Seconds of a cold boot by each tool that can."""
    found = {}
    for peer in lab_peers.PEERS:
        try:
            found[peer.name] = peer.measure(machines, image)
        except FailedError as error:
            print(f"cold boot by {peer.name}: not measured: {error.sentence}")
        else:
            show(f"cold boot by {peer.name} to the first answer", found[peer.name])
    return found


def measure_together(machines: Machines, image: Image, count: int, made: list[LabBox]) -> None:
    """Several at once, and what each takes of this computer's memory."""
    boxes, seconds = clone(machines, image, count)
    made += boxes
    show(f"{count} clones at once ({', '.join(sorted({box.path for box in boxes}))})", seconds)
    memory = [read_memory(box) for box in boxes]
    print(f"memory of each further clone: {statistics.median(memory):.0f} MiB ({min(memory)} to {max(memory)})")
    for box in boxes:
        machines.ensure_removed(box.name)


def measure_unique(machines: Machines, image: Image, count: int, made: list[LabBox]) -> None:
    """What of that many clones differs, asked one by one right after each was ready."""
    told = []
    for _ in range(count):
        (box,), _ = clone(machines, image, 1)
        made.append(box)
        told.append(lab_unique.ask(machines, box))
    print(lab_unique.render(told))


def show(what: str, *values: float) -> None:
    """One line: the median, and the spread where it was measured several times."""
    spread = f"   ({min(values):.2f} to {max(values):.2f}, {len(values)} times)" if len(values) > 1 else ""
    print(f"{what:<58} {statistics.median(values):6.2f} s{spread}", flush=True)


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--turns", type=int, default=5)
    asked.add_argument("--at-once", type=int, default=8)
    asked.add_argument("--unique", type=int, default=10)
    wish = asked.parse_args()
    with open_machines() as machines:
        made: list[LabBox] = []
        try:
            image = ensure_reference_image(machines.home)
            print(f"accelerator: {machines.acceleration.accelerator.value}")
            measure_one_by_one(machines, image, wish.turns, made)
            measure_together(machines, image, wish.at_once, made)
            measure_unique(machines, image, wish.unique, made)
        finally:
            for box in made:
                machines.ensure_removed(box.name)


if __name__ == "__main__":
    main()
