"""The storage pool of ours on a hypervisor: its name and UUID come from the ledger's id, so that no other pool is taken for it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import PurePosixPath
from typing import BinaryIO

from images.errors import HypervisorError, NotOursError, SpaceError
from images.hypervisor import Hypervisor
from images.hypervisor_storage import Backing, PoolFacts, Storage, VolumeFacts
from kit.errors import FailedError
from kit.waiting import wait_for

SPACE = uuid.UUID("5d3f3e0c-0a5f-5d0e-9f4c-6f8b1f0f6b1d")
BUSY_SECONDS, SEEN_SECONDS = 30.0, 60.0
GIB = 1 << 30
SPARE_BYTES = GIB // 4  # what a hypervisor keeps free beside what is sent to it


class Pool:
    """Files of ours on one hypervisor. ``owner``: the ledger's id; ``folder``: the folder on the hypervisor in which the pool's is made."""

    def __init__(self, hypervisor: Hypervisor, owner: str, folder: PurePosixPath) -> None:
        self.name = f"boxshift-{owner[:8]}"
        self._uuid = str(uuid.uuid5(SPACE, owner))
        self.folder = folder / self.name
        self._storage = Storage(hypervisor)

    def find(self) -> PoolFacts | None:
        """The pool; None where it was never made.

        Raises:
            NotOursError: something else has its name.

        """
        found = self._storage.find_pool(self.name)
        if found is not None and found.uuid != self._uuid:
            raise NotOursError(
                f"A storage pool named {self.name} exists that boxshift did not make: its UUID is another. It is left alone.",
                hint="Rename or remove that pool by hand if it is yours.",
                pool_uuid=found.uuid,
            )
        return found

    def ensure(self) -> PoolFacts:
        """The pool, made and started where it is not.

        Raises:
            NotOursError: something else has its name.

        """
        if self.find() is None:
            self._storage.define_pool(self.name, self._uuid, self.folder)
        self._storage.start_pool(self.name)
        found = self.find()
        if found is None or found.free is None:
            raise HypervisorError(f"The storage pool {self.name} was made and is not there.", hint="`boxshift doctor` tells more.")
        return found

    def is_usable(self) -> bool:
        """Whether it is there, started where it was not."""
        if self.find() is None:
            return False
        self._storage.start_pool(self.name)
        return True

    def remove(self) -> None:
        """Forget it and delete its folder, which must be empty."""
        self._storage.delete_pool(self.name)

    def list_volumes(self) -> tuple[VolumeFacts, ...]:
        """All files in it; none where it was never made."""
        return self._storage.list_volumes(self.name) if self.is_usable() else ()

    def find_volume(self, name: str) -> VolumeFacts | None:
        """The file of that name."""
        return self._storage.find_volume(self.name, name)

    def wait_for_volumes(self, names: Sequence[str]) -> tuple[VolumeFacts, ...]:
        """The files of these names, of which libvirt wrote some past the pool: while that copies something it does not look anew."""

        def look() -> tuple[VolumeFacts, ...] | None:
            volumes = {one.name: one for one in self.list_volumes()}
            return tuple(volumes[name] for name in names) if volumes.keys() >= set(names) else None

        return wait_for(look, what=f"the pool to see {names[0]}", timeout=SEEN_SECONDS)

    def find_content(self, name: str) -> bytes:
        """What a file holds; nothing where it is not there."""
        return self.read(name) if self.find_volume(name) is not None else b""

    def path_of(self, name: str) -> PurePosixPath:
        """Where a file of that name is or would be, on the hypervisor."""
        return self.folder / name

    def ensure_overlay(self, name: str, backing: Backing) -> None:
        """A disk that holds what differs from ``backing``; one that is there must stand on it.

        Raises:
            FailedError: it stands on something else.

        """
        found = self._storage.find_volume(self.name, name) or self._storage.create_volume(self.name, name, 0, backing=backing)
        if found.backing != str(backing.path):
            raise FailedError(f"{found.path} stands on {found.backing or 'nothing'}, not on {backing.path}.", hint="Remove the machine.")

    def ensure_empty(self, name: str) -> None:
        """An empty file, for the hypervisor to write into."""
        if self._storage.find_volume(self.name, name) is None:
            self._storage.create_volume(self.name, name, 0)

    def write(
        self, name: str, source: BinaryIO, size: int, *, digest: str = "", shown: Callable[[int], None] = lambda _: None
    ) -> VolumeFacts:
        """Put ``size`` bytes into a file of that name, in place of what was there; read back and compared before this returns.

        ``digest``: SHA-256 in hex of what must be in it; empty: of what ``source`` held.

        Raises:
            SpaceError: the hypervisor has no room for it.
            HypervisorError: what came back differs.

        """
        self.delete(name)
        self._verify_space(size)
        self._storage.create_volume(self.name, name, size)
        sent = hashlib.sha256()

        def read(most: int) -> bytes:
            part = source.read(most)
            sent.update(part)
            return part

        self._storage.upload(self.name, name, read, size, shown=shown)
        if self.hash(name) != (digest or sent.hexdigest()):
            self.delete(name)
            raise HypervisorError(f"The volume {name} is not what was to be sent.", hint="Is a disk full or failing, here or there?")
        found = self.find_volume(name)
        if found is None:
            raise HypervisorError(f"The volume {name} was written and is not there.", hint="Does something else delete files there?")
        return found

    def copy(self, source: str, name: str) -> None:
        """A file with the bytes of another, copied by the hypervisor itself.

        Raises:
            SpaceError: it has no room for it.
            HypervisorError: the copy has another size.

        """
        found = self.find_volume(source)
        size = found.size if found is not None else 0
        self._verify_space(size)
        if self._storage.copy_volume(self.name, source, name).size != size:
            raise HypervisorError(f"The copy of the volume {source} is not as long as that is.", hint="Is a disk full or failing there?")

    def overwrite(self, name: str, content: bytes) -> None:
        """Put ``content`` in place of as many bytes at the beginning of a file; read back and compared.

        Raises:
            HypervisorError: what came back differs.

        """
        self._storage.upload(self.name, name, BytesIO(content).read, len(content), shown=lambda _: None)
        if self.read(name, length=len(content)) != content:
            raise HypervisorError(f"The volume {name} is not what was written into it.", hint="Is a disk failing there?")

    def read(self, name: str, *, offset: int = 0, length: int = 0) -> bytes:
        """What a file holds, from ``offset`` on; ``length``: so many bytes, 0: all."""
        parts: list[bytes] = []
        self._storage.download(self.name, name, parts.append, offset=offset, length=length)
        return b"".join(parts)

    def hash(self, name: str) -> str:
        """SHA-256 in hex of what a file holds, read over the wire."""
        digest = hashlib.sha256()
        self._storage.download(self.name, name, digest.update)
        return digest.hexdigest()

    def delete(self, name: str) -> None:
        """Delete a file, where it is there. One that a killed process was writing is busy until the hypervisor has noticed."""

        def attempt() -> bool:
            self._storage.delete_volume(self.name, name)
            return True

        wait_for(attempt, what=f"the volume {name} to be deleted", timeout=BUSY_SECONDS, poll=0.2)

    def _verify_space(self, size: int) -> None:
        found = self.ensure()
        if found.free is not None and found.free < size + SPARE_BYTES:
            raise SpaceError(
                f"The hypervisor has {found.free / GIB:.1f} GiB free at {found.path}, and {size / GIB:.1f} GiB are to be written.",
                hint="Free space there, or name another folder in BOXSHIFT_POOL_FOLDER.",
            )
