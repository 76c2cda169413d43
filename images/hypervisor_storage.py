"""libvirt's storage pools, volumes and streams: how files come to a hypervisor, and from it, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

import libvirt

from images.hypervisor import Hypervisor, translated

CHUNK = 1 << 18
_GONE = {libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL}


@dataclass(frozen=True)
class PoolFacts:
    """A storage pool. ``path``: its folder on the hypervisor; ``free``: bytes, None while it is not active."""

    name: str
    uuid: str
    path: PurePosixPath
    free: int | None


@dataclass(frozen=True)
class VolumeFacts:
    """A file in a pool. ``size`` in bytes; ``modified``: when, as its hypervisor writes it; ``backing``: what a qcow2 file stands on."""

    name: str
    path: PurePosixPath
    size: int
    modified: str
    backing: str

    @property
    def stamp(self) -> list[object]:
        """What changes with its content, as JSON has it."""
        return [self.size, self.modified]


@dataclass(frozen=True)
class Backing:
    """The qcow2 file below an overlay, and how many bytes a machine sees of it."""

    path: PurePosixPath
    capacity: int


class Storage:
    """The storage of one hypervisor."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def find_pool(self, name: str) -> PoolFacts | None:
        """The pool of that name, whoever made it."""
        with translated(f"look for the storage pool {name}"):
            with _ignoring_gone():
                pool = self._pool(name)
                path = ET.fromstring(pool.XMLDesc(0)).findtext("target/path", "/")  # noqa: S314 - libvirt's own output
                free = int(pool.info()[3]) if pool.isActive() else None
                return PoolFacts(name, pool.UUIDString(), PurePosixPath(path), free)
            return None

    def define_pool(self, name: str, uuid: str, path: PurePosixPath) -> None:
        """Make a pool that is a folder, which others may pass through and not list."""
        root = ET.Element("pool", {"type": "dir"})
        ET.SubElement(root, "name").text = name
        ET.SubElement(root, "uuid").text = uuid
        target = ET.SubElement(root, "target")
        ET.SubElement(target, "path").text = str(path)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0711"
        with translated(f"make the storage pool {path}"):
            self._hypervisor.link().storagePoolDefineXML(ET.tostring(root, encoding="unicode")).setAutostart(1)

    def start_pool(self, name: str) -> None:
        """See to it that the pool can be used, its folder made where it is missing."""
        with translated(f"start the storage pool {name}"):
            pool = self._pool(name)
            if not pool.isActive():
                pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)

    def delete_pool(self, name: str) -> None:
        """Forget a pool and delete its folder, which must be empty."""
        with translated(f"delete the storage pool {name}"):
            pool = self._pool(name)
            if pool.isActive():
                pool.destroy()
            pool.delete()
            pool.undefine()

    def list_volumes(self, pool: str) -> tuple[VolumeFacts, ...]:
        """All files in a pool as they are now, by name."""
        with translated(f"list what is in the storage pool {pool}"):
            found = self._pool(pool)
            with _ignoring_work():
                found.refresh()
            facts = []
            for one in found.listAllVolumes():
                with _ignoring_gone():
                    facts.append(_facts(one))
            return tuple(sorted(facts, key=lambda volume: volume.name))

    def find_volume(self, pool: str, name: str) -> VolumeFacts | None:
        """The volume of that name; None where the pool does not know it."""
        with translated(f"look for the volume {name}"):
            with _ignoring_gone():
                return _facts(self._pool(pool).storageVolLookupByName(name))
            return None

    def create_volume(self, pool: str, name: str, size: int, *, backing: Backing | None = None) -> VolumeFacts:
        """An empty file of ``size`` bytes, or an overlay on ``backing``. Only the hypervisor and its QEMU may read it."""
        with translated(f"make the volume {name}"):
            return _facts(self._pool(pool).createXML(_render(name, size, backing)))

    def copy_volume(self, pool: str, source: str, name: str) -> VolumeFacts:
        """A file with the same bytes as the volume ``source``, copied where they are."""
        with translated(f"copy the volume {source}"):
            found = self._pool(pool).storageVolLookupByName(source)
            return _facts(self._pool(pool).createXMLFrom(_render(name, _facts(found).size, None), found, 0))

    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume, where it is there."""
        with translated(f"delete the volume {name}"), _ignoring_gone():
            self._pool(pool).storageVolLookupByName(name).delete()

    def upload(self, pool: str, name: str, read: Callable[[int], bytes], size: int, *, shown: Callable[[int], None]) -> None:
        """Write ``size`` bytes into a volume from its beginning on, as ``read`` gives them; ``shown`` is told how many went so far."""
        with translated(f"write the volume {name}"):
            volume = self._pool(pool).storageVolLookupByName(name)
            stream = self._hypervisor.link().newStream(0)
            volume.upload(stream, 0, size)
            try:
                sent = 0
                while part := read(CHUNK):
                    _send(stream, part)
                    sent += len(part)
                    shown(sent)
                stream.finish()
            except BaseException:
                with suppress(libvirt.libvirtError):
                    stream.abort()
                raise

    def download(self, pool: str, name: str, sink: Callable[[bytes], object], *, offset: int = 0, length: int = 0) -> None:
        """Give a volume's bytes from ``offset`` on to ``sink``, part by part; ``length``: so many of them, 0: all."""
        with translated(f"read the volume {name}"):
            volume = self._pool(pool).storageVolLookupByName(name)
            stream = self._hypervisor.link().newStream(0)
            volume.download(stream, offset, length)
            try:
                while part := stream.recv(CHUNK):
                    sink(part)
                stream.finish()
            except BaseException:
                with suppress(libvirt.libvirtError):
                    stream.abort()
                raise

    def _pool(self, name: str) -> libvirt.virStoragePool:
        return self._hypervisor.link().storagePoolLookupByName(name)


def _facts(volume: libvirt.virStorageVol) -> VolumeFacts:
    told = ET.fromstring(volume.XMLDesc(0))  # noqa: S314 - libvirt's own output
    physical = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
    return VolumeFacts(
        volume.name(),
        PurePosixPath(volume.path()),
        int(physical),
        told.findtext("target/timestamps/mtime", ""),
        told.findtext("backingStore/path", ""),
    )


def _render(name: str, size: int, backing: Backing | None) -> str:
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "capacity").text = str(backing.capacity if backing else size)
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "format", {"type": "qcow2" if backing else "raw"})
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0600"
    if backing is None:
        ET.SubElement(root, "allocation").text = "0"
    else:
        below = ET.SubElement(root, "backingStore")
        ET.SubElement(below, "path").text = str(backing.path)
        ET.SubElement(below, "format", {"type": "qcow2"})
    return ET.tostring(root, encoding="unicode")


def _send(stream: libvirt.virStream, part: bytes) -> None:
    at = 0
    while at < len(part):
        at += stream.send(part[at:])


@contextmanager
def _ignoring_work() -> Iterator[None]:
    """While another process has a volume made libvirt does not look anew; it then knows all that went through it."""
    try:
        yield
    except libvirt.libvirtError as error:
        if "asynchronous jobs running" not in (error.get_error_message() or ""):
            raise


@contextmanager
def _ignoring_gone() -> Iterator[None]:
    """What somebody else deleted meanwhile is as good as not there."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise
