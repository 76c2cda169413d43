"""Images in the pool: sent once, named by their digest, sealed when whole, looked at before a machine boots from them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from images.errors import AlteredImageError
from images.home import Home
from images.hypervisor_storage import Backing, VolumeFacts
from images.locking import hold, is_held
from images.pool import Pool
from images.store import Image, Store
from kit.progress import Progress

PREFIX, SEAL = "image-", "seal.json"
SEND_SECONDS = 3600.0
MIB = 1 << 20


@dataclass(frozen=True)
class _Sealed:
    """One file as it was when it had been read back: its digest, its size and when it was changed, as the hypervisor writes it."""

    digest: str
    size: int
    modified: str


class PoolImages:
    """The images of one pool."""

    def __init__(self, home: Home, store: Store, pool: Pool, progress: Progress) -> None:
        self._home = home
        self._store = store
        self._pool = pool
        self._progress = progress

    def ensure(self, image: Image) -> None:
        """See to it that all files of the image are in the pool, as they are in the store.

        Raises:
            AlteredImageError: a file in the store or in the pool is not what it was.
            SpaceError, HypervisorError: one could not be sent.

        """
        digests = self._store.read_digests(image)
        with hold(self._lock(image.digest), what=f"sending {image.name} to the hypervisor", timeout=SEND_SECONDS):
            sealed = self._find_seal(image)
            if sealed is None or {name: one.digest for name, one in sealed.items()} != digests:
                self._store.verify(image)
                sealed = {name: self._send(image, name) for name in digests}
            elif self._changed(image, sealed):
                sealed = {name: self._look_again(image, name, one) for name, one in sealed.items()}
            else:
                return
            content = json.dumps({name: asdict(one) for name, one in sealed.items()}).encode()
            self._pool.write(self.name_of(image.digest, SEAL), BytesIO(content), len(content))

    def backing(self, image: Image, file: str) -> Backing:
        """What an overlay on one of its disks stands on."""
        with (image.folder / file).open("rb") as disk:
            capacity = struct.unpack(">Q", disk.read(32)[24:32])[0]  # of a qcow2 header; the store has no other disks
        return Backing(self._pool.path_of(self.name_of(image.digest, file)), capacity)

    def path_of(self, image: Image, file: str) -> Path:
        """Where a file of the image is, on the hypervisor."""
        return Path(self._pool.path_of(self.name_of(image.digest, file)))

    def list_over(self, volumes: tuple[VolumeFacts, ...], used: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Digests of images in the pool that can be deleted, and why; ``used``: those that a machine was made from."""
        for digest in sorted({one.name.removeprefix(PREFIX)[:64] for one in volumes if one.name.startswith(PREFIX)}):
            if not is_held(self._lock(digest)) and (reason := self._find_reason(digest, volumes, used)):
                yield digest, reason

    def remove(self, digest: str) -> None:
        """Delete an image from the pool, what says that it is whole first, where nothing has come to need it meanwhile."""
        with hold(self._lock(digest), what="sending an image to the hypervisor", timeout=SEND_SECONDS):
            volumes = self._pool.list_volumes()
            if self._find_reason(digest, volumes, frozenset()):
                self._pool.delete(self.name_of(digest, SEAL))
                for one in volumes:
                    if one.name.startswith(f"{PREFIX}{digest}-"):
                        self._pool.delete(one.name)

    def _find_reason(self, digest: str, volumes: tuple[VolumeFacts, ...], used: frozenset[str]) -> str:
        """Why an image can be deleted; empty: it cannot."""
        if any(f"/{PREFIX}{digest}-" in one.backing for one in volumes):
            return ""
        if digest not in used and digest not in {image.digest for image in self._store.list_images()}:
            return "its image is gone from the store"
        return "" if any(one.name == self.name_of(digest, SEAL) for one in volumes) else "it was never sent in full"

    @staticmethod
    def name_of(digest: str, file: str) -> str:
        """The volume of an image's file."""
        return f"{PREFIX}{digest}-{file}"

    def _lock(self, digest: str) -> Path:
        return self._home.locks / f"send-{self._pool.name}-{digest[:32]}"

    def _find_seal(self, image: Image) -> Mapping[str, _Sealed] | None:
        name = self.name_of(image.digest, SEAL)
        if self._pool.find_volume(name) is None:
            return None
        try:
            return {file: _Sealed(**told) for file, told in json.loads(self._pool.read(name)).items()}
        except (ValueError, TypeError, AttributeError):
            return None  # cut off while it was written: the image is sent again

    def _send(self, image: Image, file: str) -> _Sealed:
        path = image.folder / file
        size = path.stat().st_size
        digest = self._store.read_digests(image)[file]
        label = f"sending {image.name}: {file}, MiB"
        with path.open("rb") as source:
            found = self._pool.write(
                self.name_of(image.digest, file),
                source,
                size,
                digest=digest,
                shown=lambda sent: self._progress.update(label, sent // MIB, size // MIB),
            )
        return _Sealed(digest, found.size, found.modified)

    def _changed(self, image: Image, sealed: Mapping[str, _Sealed]) -> bool:
        found = {name: self._pool.find_volume(self.name_of(image.digest, name)) for name in sealed}
        return any(one is None or (one.size, one.modified) != (sealed[name].size, sealed[name].modified) for name, one in found.items())

    def _look_again(self, image: Image, file: str, sealed: _Sealed) -> _Sealed:
        name = self.name_of(image.digest, file)
        found = self._pool.find_volume(name)
        if found is None or self._pool.hash(name) != sealed.digest:
            raise AlteredImageError(
                f"The copy of the image {image.name} on the hypervisor was altered: {file} is no longer what was sent.",
                hint="Do not boot from it. Remove the machines that stand on it, then its volumes, and do it again.",
                image=image.digest,
                file=name,
            )
        return _Sealed(sealed.digest, found.size, found.modified)
