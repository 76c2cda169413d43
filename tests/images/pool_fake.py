"""A hypervisor's storage as a folder of this computer, with the verbs of the real one, for tests of what comes before what."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fake_hypervisor import FakeHypervisor, FakeMachines

from images.home import Home
from images.hypervisor_storage import Backing, PoolFacts, VolumeFacts
from images.pool_place import PoolPlace
from images.pool_templates import PoolTemplates

ROOM, STANDS = 1 << 30, "stands on "


@dataclass
class FakeStorage:
    """One pool, whose files are in ``folder``; what a disk stands on is its first line. Verbs are told to the hypervisor."""

    hypervisor: FakeHypervisor
    folder: Path
    pools: dict[str, tuple[str, PurePosixPath]] = field(default_factory=dict)

    def find_pool(self, name: str) -> PoolFacts | None:
        return PoolFacts(name, *self.pools[name], ROOM) if name in self.pools else None

    def define_pool(self, name: str, uuid: str, path: PurePosixPath) -> None:
        self.pools[name] = (uuid, path)
        Path(path).mkdir(parents=True, exist_ok=True)

    def start_pool(self, name: str) -> None:
        assert name in self.pools

    def delete_pool(self, name: str) -> None:
        Path(self.pools.pop(name)[1]).rmdir()

    def list_volumes(self, pool: str) -> tuple[VolumeFacts, ...]:
        return tuple(_facts(path) for path in sorted(self._folder(pool).iterdir()))

    def find_volume(self, pool: str, name: str) -> VolumeFacts | None:
        path = self._folder(pool) / name
        return _facts(path) if path.exists() else None

    def create_volume(self, pool: str, name: str, size: int, *, backing: Backing | None = None) -> VolumeFacts:
        path = self._folder(pool) / name
        with self._acting("create_volume"):
            path.write_bytes(bytes(size) if backing is None else f"{STANDS}{backing.path}\n\n".encode())
        return _facts(path)

    def copy_volume(self, pool: str, source: str, name: str) -> VolumeFacts:
        path = self._folder(pool) / name
        with self._acting("copy_volume"):
            shutil.copyfile(path.with_name(source), path)
        return _facts(path)

    def delete_volume(self, pool: str, name: str) -> None:
        with self._acting("delete_volume"):
            (self._folder(pool) / name).unlink(missing_ok=True)

    def upload(self, pool: str, name: str, read: Callable[[int], bytes], size: int, *, shown: Callable[[int], None]) -> None:
        with self._acting("upload"), (self._folder(pool) / name).open("r+b") as sink:
            sink.write(read(size))
        shown(size)

    def download(self, pool: str, name: str, sink: Callable[[bytes], object], *, offset: int = 0, length: int = 0) -> None:
        content = (self._folder(pool) / name).read_bytes()[offset:]
        sink(content[:length] if length else content)

    def _folder(self, pool: str) -> Path:
        return Path(self.pools[pool][1])

    def _acting(self, verb: str) -> _Acting:
        return _Acting(self.hypervisor, verb)


@dataclass
class _Acting:
    """Before and after a verb the hypervisor's hooks are called, in which a test may let it die."""

    hypervisor: FakeHypervisor
    verb: str

    def __enter__(self) -> None:
        self.hypervisor.calls.append(self.verb)
        self.hypervisor.before(self.verb)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.hypervisor.after(self.verb)


class PooledMachines(FakeMachines):
    """Machines on a fake hypervisor that keeps its files itself."""

    def __init__(self, home: Home, hypervisor: FakeHypervisor, folder: Path) -> None:
        super().__init__(home, hypervisor)
        self._pool_folder = PurePosixPath(folder)
        place = self.place
        assert isinstance(place, PoolPlace)
        place.pool._storage = self.storage = FakeStorage(hypervisor, folder)
        place.find_acceleration = lambda **_: self.acceleration
        assert isinstance(place.templates, PoolTemplates)
        place.templates.read_fingerprint = lambda _: ("this one",)


def _facts(path: Path) -> VolumeFacts:
    found, content = path.stat(), path.read_bytes()
    backing = content.decode().splitlines()[0].removeprefix(STANDS) if content.startswith(STANDS.encode()) else ""
    return VolumeFacts(path.name, PurePosixPath(path), found.st_size, f"{found.st_mtime_ns / 1e9:.9f}", backing)
