"""Snapshots of a machine whose files are in a pool: nothing but its memory is copied.

When it was saved, its disk holds what it held at that moment: it becomes the snapshot's, and the machine goes on with a new overlay on it,
its next *generation*. Going back is another overlay on the snapshot's disk and the same saved state. A record is written last.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from images.errors import SavedStateError, UnknownMachineError
from images.hypervisor_disks import define_moved, restore_moved
from images.hypervisor_storage import Backing
from images.ledger import Entry
from images.machine import MachineFacts, Machines
from images.pool_place import PoolPlace, disk_name
from images.pool_templates import find_machine, name_of

PREFIX, END = "snapshot-", ".json"


@dataclass(frozen=True)
class Snapshot:
    """``created`` in seconds since 1970; ``size`` in bytes on the disk."""

    machine: str
    label: str
    created: float
    size: int


def take(machines: Machines, place: PoolPlace, facts: MachineFacts, label: str) -> Snapshot:
    """Keep a machine that runs under a label that is free. Whoever calls works on it alone."""
    entry, pool = _read_entry(machines, facts), place.pool
    state = name_of(facts.uuid, f"{PREFIX}{label}-state")
    pool.list_volumes()
    pool.delete(state)  # of one that was killed before it came to a record
    disks = {file: disk_name(entry, file) for file, _ in place.list_disks(entry)}
    machines.hypervisor.save(facts.uuid, Path(pool.path_of(state)))
    try:
        volumes = pool.wait_for_volumes((state, *disks.values()))
        generation = _make_generation(place, entry, disks)
    except BaseException:
        machines.hypervisor.restore(Path(pool.path_of(state)))
        pool.delete(state)
        raise
    _go_on(machines, place, entry, generation, state, disks)
    record = {
        "created": time.time(), "state": state, "disks": disks, "files": {one.name: one.stamp for one in volumes},
    }  # fmt: skip
    content = json.dumps(record).encode()
    pool.write(name_of(facts.uuid, f"{PREFIX}{label}{END}"), BytesIO(content), len(content))
    return next(one for one in list_labels(place, facts) if one.label == label)


def restore(machines: Machines, place: PoolPlace, facts: MachineFacts, label: str) -> None:
    """Take a machine back to a label that it has.

    Raises:
        SavedStateError: a file of the snapshot is no longer what it was; the machine is left as it is.

    """
    entry, record = _read_entry(machines, facts), _read(place, name_of(facts.uuid, f"{PREFIX}{label}{END}"))
    if record is None:
        raise SavedStateError(f"What is written of the snapshot {label} cannot be read.", hint="Nothing was changed.")
    for name, then in record["files"].items():
        found = place.pool.find_volume(name)
        if found is None or found.stamp != then:
            raise SavedStateError(f"The snapshot's file {name} is no longer what was saved.", hint="Nothing was changed.")
    generation = _make_generation(place, entry, record["disks"])
    if not facts.power.is_off:
        machines.hypervisor.destroy(facts.uuid)
    entry = _go_on(machines, place, entry, generation, record["state"], record["disks"])
    _remove_unused(place, entry)


def list_labels(place: PoolPlace, facts: MachineFacts) -> tuple[Snapshot, ...]:
    """All of a machine, by label; what is damaged is left out."""
    volumes = {one.name: one for one in place.pool.list_volumes()}
    found = []
    for name in sorted(volumes):
        label = _label_of(name, facts.uuid)
        record = _read(place, name) if label else None
        if record is not None:
            size = sum(volumes[file].size for file in record["files"] if file in volumes)
            found.append(Snapshot(facts.name, label, float(record["created"]), size))
    return tuple(found)


def _make_generation(place: PoolPlace, entry: Entry, disks: Mapping[str, str]) -> int:
    """New overlays on ``disks`` (a file of the image -> the volume below), of a generation that the machine never had."""
    pattern = re.compile(re.escape(name_of(entry.uuid, "")) + r"([0-9]+)\..+")
    had = [int(found[1]) for one in place.pool.list_volumes() if (found := pattern.fullmatch(one.name))]
    generation = max(entry.generation, *had, 0) + 1
    for file, capacity in place.list_disks(entry):
        base = place.pool.path_of(disks[file])
        place.pool.ensure_overlay(disk_name(entry, file, generation), Backing(base, capacity))
    return generation


def _go_on(machines: Machines, place: PoolPlace, entry: Entry, generation: int, state: str, saved: Mapping[str, str]) -> Entry:
    """Nothing ever starts the machine on a disk that a snapshot needs: ledger and definition have the new ones before it runs."""
    path = place.pool.path_of
    new = {file: str(path(disk_name(entry, file, generation))) for file in saved}
    now = {str(path(disk_name(entry, file))): new[file] for file in saved}
    entry = machines.ledger.change_generation(entry, generation)
    define_moved(machines.hypervisor, entry.uuid, now)
    restore_moved(machines.hypervisor, Path(path(state)), {str(path(volume)): new[file] for file, volume in saved.items()})
    return entry


def _remove_unused(place: PoolPlace, entry: Entry) -> None:
    """Overlays that the machine left and that nothing stands on, a snapshot's record or another overlay."""
    volumes = place.pool.list_volumes()
    kept = {disk_name(entry, file) for file, _ in place.list_disks(entry)} | {PurePosixPath(one.backing).name for one in volumes}
    for one in volumes:
        record = _read(place, one.name) if _label_of(one.name, entry.uuid) else None
        kept |= set(record["disks"].values()) if record is not None else set()
    files = tuple(file for file, _ in place.list_disks(entry))
    for one in volumes:
        if find_machine(one.name) == entry.uuid and one.name.endswith(files) and one.name not in kept:
            place.pool.delete(one.name)


def _read(place: PoolPlace, name: str) -> dict[str, Any] | None:
    try:
        record = json.loads(place.pool.read(name)) if place.pool.find_volume(name) is not None else {}
        return record if {"created", "state", "disks", "files"} <= record.keys() else None
    except (ValueError, AttributeError):
        return None  # cut off while it was written


def _label_of(volume: str, machine: str) -> str:
    head = name_of(machine, PREFIX)
    return volume.removeprefix(head).removesuffix(END) if volume.startswith(head) and volume.endswith(END) else ""


def _read_entry(machines: Machines, facts: MachineFacts) -> Entry:
    entry = machines.ledger.find_name(facts.name)
    if entry is None:
        raise UnknownMachineError(f"There is no machine {facts.name!r} of boxshift's here.", hint="`boxshift lab list` shows them.")
    return entry
