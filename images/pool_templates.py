"""Templates in a storage pool of the hypervisor's: the files of the machine that was saved, and a record that makes a template of them.

All stay named after that machine, so that what a killed process leaves belongs to somebody at any moment. The record is written last and
deleted first. A copy's state is made by the hypervisor and gets its new header where it lies, since libvirt restores from a file there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath

from images.domain import Accelerator, Domain
from images.errors import SavedStateError
from images.home import Home
from images.hypervisor import Hypervisor
from images.hypervisor_host import read_host
from images.hypervisor_storage import VolumeFacts
from images.locking import hold, is_held
from images.pool import Pool
from images.saved import read_saved, render_copy, render_saved
from images.spec import MachineFacts
from images.store import DISK
from images.template_store import Template, lock_of, parse_record, render_record

PREFIX, CLAIM, STATE = "machine-", "claim.json", "state"
RECORD, END = "template-", ".json"
HEAD_BYTES = 1 << 18  # more than libvirt writes in front of the stream of a machine of ours
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_RECORD, _FILE = re.compile(f"{RECORD}[0-9a-f]{{32}}-{_UUID}{re.escape(END)}"), re.compile(f"{PREFIX}({_UUID})-.+")
REMOVE_SECONDS = 900.0


class PoolTemplates:
    """The templates of one pool."""

    def __init__(self, home: Home, hypervisor: Hypervisor, pool: Pool) -> None:
        self._home = home
        self._hypervisor = hypervisor
        self._pool = pool

    def find_obstacle(self) -> str:
        """Saved machines of other drivers have another form."""
        driver = self._hypervisor.uri.partition("://")[0].partition("+")[0]
        return "" if driver == "qemu" else f"only libvirt's QEMU driver can clone, and the hypervisor's is {driver}"

    def read_fingerprint(self, accelerator: Accelerator) -> tuple[object, ...]:
        """As far as libvirt tells it."""
        return read_host(self._hypervisor, accelerator)

    def find(self, key: str) -> Template | None:
        """By its record; size and time of change of its files must be as written there."""
        record = next(_records(self._pool.list_volumes(), key), None)
        if record is None:
            return None
        found, files = self._read(record)
        self._verify(files)
        return found

    def keep(self, key: str, machine: MachineFacts, record: Mapping[str, object], leave: Callable[[], None]) -> None:
        """Its files keep their names; when the record is there, nobody else needs to know of them."""
        state = name_of(machine.uuid, STATE)
        self._hypervisor.save(machine.uuid, Path(self._pool.path_of(state)))
        volumes = self._pool.wait_for_volumes((state, machine.disk.name))
        read_saved(BytesIO(self._pool.read(state, length=HEAD_BYTES)))
        content = render_record(record, files={one.name: one.stamp for one in volumes})
        self._pool.write(f"{RECORD}{key}-{machine.uuid}{END}", BytesIO(content), len(content))
        leave()

    def forget(self, key: str) -> None:
        """Without its record it is a machine's files again, which go when nothing stands on them any more."""
        for record in _records(self._pool.list_volumes(), key):
            self._pool.delete(record)
            self._pool.delete(name_of(_machine_of(record), STATE))

    def list_all(self) -> tuple[Template, ...]:
        """By their records."""
        found = []
        for record in _records(self._pool.list_volumes()):
            with suppress(SavedStateError):
                found.append(self._read(record)[0])
        return tuple(found)

    def list_over(self, images: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Damaged or half written, or of an image that is gone, and no disk stands on it."""
        volumes = self._pool.list_volumes()
        bases = find_bases(volumes)
        for name in _records(volumes):
            if _machine_of(name) in bases or is_held(lock_of(self._home, _key_of(name))):
                continue
            try:
                template, _ = self._read(name)
            except SavedStateError:
                yield name, "it is damaged, and no disk stands on it any more"
            else:
                if template.image not in images:
                    yield name, "its image is gone"

    def remove(self, name: str) -> None:
        """Where nothing has come to stand on it meanwhile."""
        machine = _machine_of(name)
        with hold(lock_of(self._home, _key_of(name)), what="making a template", timeout=REMOVE_SECONDS):
            if machine not in find_bases(self._pool.list_volumes()):
                self.remove_files(machine)

    def remove_files(self, machine: str) -> None:
        """All of the machine with this UUID: its record first, where it is a template, then what was in its memory, its claim last."""
        volumes, order = self._pool.list_volumes(), {name_of(machine, STATE): 0, name_of(machine, CLAIM): 2}
        records = [name for name in _records(volumes) if _machine_of(name) == machine]
        ours = [one.name for one in volumes if find_machine(one.name) == machine]
        for name in (*records, *sorted(ours, key=lambda name: order.get(name, 1))):
            self._pool.delete(name)

    def restore(self, template: Template, domain: Domain) -> None:
        """From a copy of the state in the pool, which is deleted when the machine runs."""
        _, files = self._read(f"{RECORD}{template.key}-{template.name}{END}")
        self._verify(files)
        state = name_of(domain.uuid, STATE)
        self._pool.copy(template.state.name, state)
        saved = read_saved(BytesIO(self._pool.read(state, length=HEAD_BYTES)))
        self._pool.overwrite(state, render_saved(replace(saved, xml=render_copy(saved.xml, domain)), room=saved.start))
        self._hypervisor.restore(Path(self._pool.path_of(state)))
        self._pool.delete(state)

    def _read(self, record: str) -> tuple[Template, Mapping[str, list[object]]]:
        machine = _machine_of(record)
        paths = {"state": name_of(machine, STATE), "disk": name_of(machine, DISK)}
        place = {what: Path(self._pool.path_of(name)) for what, name in paths.items()}
        return parse_record(self._pool.find_content(record), "files", key=_key_of(record), name=machine, **place)

    def _verify(self, files: Mapping[str, list[object]]) -> None:
        for name, then in files.items():
            found = self._pool.find_volume(name)
            if found is None:
                raise SavedStateError(f"The template has lost its file {name}.", hint="It is made anew.")
            if found.stamp != then:
                raise SavedStateError(f"The template's file {name} is no longer what was saved.", hint="It is made anew.")


def name_of(machine: str, file: str) -> str:
    """The volume of a file of the machine with this UUID."""
    return f"{PREFIX}{uuid.UUID(machine)}-{file}"


def find_machine(volume: str) -> str:
    """The UUID of the machine whose file a volume of this name is; empty: of none of ours."""
    found = _FILE.fullmatch(volume)
    return found[1] if found else ""


def find_templates(volumes: Iterable[VolumeFacts]) -> frozenset[str]:
    """The machines that are templates, by UUID."""
    return frozenset(_machine_of(name) for name in _records(volumes))


def find_bases(volumes: Iterable[VolumeFacts]) -> frozenset[str]:
    """The machines, by UUID, on whose disks others' stand."""
    pairs = ((find_machine(one.name), find_machine(PurePosixPath(one.backing).name)) for one in volumes if one.backing)
    return frozenset(base for owner, base in pairs if base not in ("", owner))


def _records(volumes: Iterable[VolumeFacts], key: str = "") -> Iterator[str]:
    """The names of records; ``key``: only of this template."""
    return (one.name for one in volumes if _RECORD.fullmatch(one.name) and one.name.startswith(f"{RECORD}{key}"))


def _machine_of(record: str) -> str:
    return record.removesuffix(END)[-36:]


def _key_of(record: str) -> str:
    return record.removeprefix(RECORD)[:32]
