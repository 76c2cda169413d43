"""Snapshots of a disposable appliance: its memory and its disk at one moment, to go back to as often as wanted. Its identity stays."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

from images import identity, pool_snapshot
from images.errors import GuestSilentError, HypervisorError, IdentityError, SpecError
from images.machine import MachineFacts, Machines
from images.pool_place import PoolPlace
from images.pool_snapshot import Snapshot
from kit.process import need_program, run

FOLDER, STATE, DISKS = "snapshots", "state", "disk*.qcow2"  # an imported appliance may have several disks
COPY_SECONDS = 600.0
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def take_snapshot(machines: Machines, name: str, label: str) -> Snapshot:
    """Keep a running appliance as it is now under a new label. It stands still for the seconds that writing its memory takes.

    Raises:
        SpecError: the label is taken, or cannot be one.
        HypervisorError: the appliance does not run.

    """
    if not _LABEL.fullmatch(label):
        raise SpecError(f"{label!r} cannot be a snapshot's label.", hint="Use lower-case letters, digits and dashes, at most 32.")
    with machines.only(name):
        facts = machines.read_machine(name)
        if facts.power.is_off:
            raise HypervisorError(f"{name} does not run: there is no memory to keep.", hint="Start it first: boxshift lab start.")
        if isinstance(machines.place, PoolPlace):
            if label in (one.label for one in pool_snapshot.list_labels(machines.place, facts)):
                raise _taken(name, label)
            return pool_snapshot.take(machines, machines.place, facts, label)
        target = _folder(facts) / label
        if target.exists():
            raise _taken(name, label)
        _folder(facts).mkdir(mode=0o700, exist_ok=True)
        half = _folder(facts) / f".half-{secrets.token_hex(4)}"
        half.mkdir(mode=0o700)
        try:
            machines.hypervisor.save(facts.uuid, half / STATE)
            try:
                for disk in facts.disk.parent.glob(DISKS):
                    _copy(disk, half / disk.name)
            finally:
                machines.hypervisor.restore(half / STATE)
            (half / STATE).chmod(0o600)
            half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return _read(facts, target)


def restore_snapshot(machines: Machines, name: str, label: str) -> bool:
    """Take an appliance back. True where it also took new randomness and the present time; an image without our agent cannot.

    Raises:
        SpecError: there is no such snapshot.

    """
    with machines.only(name):
        facts = machines.read_machine(name)
        known = [one.label for one in list_snapshots(machines, name)]
        if label not in known:
            raise SpecError(f"{name} has no snapshot {label!r}.", hint=f"It has: {', '.join(known) or 'none'}.")
        if isinstance(machines.place, PoolPlace):
            pool_snapshot.restore(machines, machines.place, facts, label)
        else:
            _restore(machines, facts, _folder(facts) / label)
    try:
        identity.stir(machines.hypervisor, facts.uuid, factor=machines.acceleration.factor)
    except (GuestSilentError, IdentityError, HypervisorError):  # a machine of an imported image has not even the port
        return False
    return True


def list_snapshots(machines: Machines, name: str) -> tuple[Snapshot, ...]:
    """All of an appliance, by label."""
    facts = machines.read_machine(name)
    if isinstance(machines.place, PoolPlace):
        return pool_snapshot.list_labels(machines.place, facts)
    return tuple(_read(facts, folder) for folder in sorted(_folder(facts).glob("[a-z0-9]*")))


def _restore(machines: Machines, facts: MachineFacts, source: Path) -> None:
    if not facts.power.is_off:
        machines.hypervisor.destroy(facts.uuid)
    for disk in source.glob(DISKS):
        half = facts.disk.with_name(f".{disk.name}.half-{secrets.token_hex(4)}")
        _copy(disk, half)
        half.rename(facts.disk.with_name(disk.name))
    machines.hypervisor.restore(source / STATE)


def _taken(name: str, label: str) -> SpecError:
    return SpecError(f"{name} has a snapshot {label!r} already.", hint="Choose another label.")


def _folder(facts: MachineFacts) -> Path:
    return facts.disk.parent / FOLDER


def _read(facts: MachineFacts, folder: Path) -> Snapshot:
    size = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    return Snapshot(facts.name, folder.name, (folder / STATE).stat().st_mtime, size)


def _copy(source: Path, target: Path) -> None:
    run([need_program("cp", package="coreutils"), "--reflink=auto", "--sparse=always", source, target], timeout=COPY_SECONDS)
