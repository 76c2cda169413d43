"""VMDK: sparse and stream-optimised files, and descriptors with one flat extent beside them.

QEMU opens every file that a descriptor names, also files of this computer. So a descriptor is read here, never by QEMU: of a sparse file
only what QEMU does not follow is let through, of a flat disk the bytes are read as a raw disk.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from images.archive import Folder, parse_member_name
from images.disk_headers import DEFAULT_LIMITS, SECTOR, DiskHeader, Limits, refuse_parent
from images.import_errors import DamagedSourceError, HostileSourceError
from images.span import Span

DESCRIPTOR_LIMIT = 64 * 1024
QEMU_DESCRIPTOR = (0x200, 20 * SECTOR)  # where QEMU looks for a parent's name in a sparse file, whatever the header says
FOOTER = 0xFFFFFFFFFFFFFFFF
_EXTENT = re.compile(
    r"(?P<access>RW|RDONLY|NOACCESS)\s+(?P<sectors>\d{1,18})\s+(?P<kind>\w+)(\s+\"(?P<name>[^\"]*)\")?(\s+(?P<at>\d{1,18}))?\s*"
)
_SETTING = re.compile(r"\s*([\w.]+)\s*=\s*\"?([^\"]*?)\"?\s*")


@dataclass(frozen=True)
class _Sparse:
    version: int
    capacity: int
    descriptor_at: int
    descriptor_length: int
    directory_at: int


@dataclass(frozen=True)
class _Extent:
    sectors: int
    kind: str
    name: str
    at: int


def parse_vmdk(span: Span, limits: Limits = DEFAULT_LIMITS) -> DiskHeader:
    """A VMDK file: sparse (with its descriptor inside), or a text descriptor.

    Raises:
        HostileSourceError: it has a parent, or names files that do not lie beside it.
        DamagedSourceError: its header contradicts itself, or it ends too early.

    """
    mark = span.read(0, 4)
    if mark == b"COWD":
        raise DamagedSourceError("The VMDK is of an old ESX kind (COWD) that is not read.", hint="Export the machine as OVA.")
    return _parse_sparse(span, limits) if mark == b"KDMV" else _parse_descriptor_file(span, limits)


def _parse_sparse(span: Span, limits: Limits) -> DiskHeader:
    header = _sparse_header(span.read(0, SECTOR))
    if header.capacity == 0:
        # QEMU would take such a file for a descriptor and open what it names.
        raise HostileSourceError("The VMDK says that its disk is empty and that others hold its content.", hint="Ask for the whole disk.")
    if header.directory_at == FOOTER:
        footer = _sparse_header(span.read(span.length - 2 * SECTOR, SECTOR))
        if footer.capacity != header.capacity or footer.directory_at == FOOTER:
            raise DamagedSourceError("The VMDK's end does not fit its beginning.", hint="It may have been cut off; load it again.")
        directory = footer.directory_at
    else:
        directory = header.directory_at
    size = header.capacity * SECTOR
    limits.verify(size)
    if directory * SECTOR >= span.length:
        raise DamagedSourceError("The VMDK ends before the table of its content.", hint="It was cut off; load it again.")
    _refuse_parents(span.read(*QEMU_DESCRIPTOR))
    if header.descriptor_at:
        length = min(header.descriptor_length * SECTOR, DESCRIPTOR_LIMIT)
        _verify_embedded(span.read(header.descriptor_at * SECTOR, length), size)
    return DiskHeader(size)


def _sparse_header(raw: bytes) -> _Sparse:
    if len(raw) < SECTOR or raw[:4] != b"KDMV":
        raise DamagedSourceError("The VMDK ends within its header, or has lost its end.", hint="It was cut off; load it again.")
    version, _flags, capacity, _grain, at, length = struct.unpack("<IIQQQQ", raw[4:44])
    directory = struct.unpack("<Q", raw[56:64])[0]
    if version not in (1, 2, 3):
        raise DamagedSourceError(f"The VMDK is of version {version}, which is not known.")
    return _Sparse(version, capacity, at, length, directory)


def _verify_embedded(raw: bytes, size: int) -> None:
    """The descriptor inside a sparse file: QEMU takes nothing from its extents, but they must not say something else."""
    _refuse_parents(raw)
    extents = _extents(_text(raw))
    if len(extents) > 1:
        raise HostileSourceError("The VMDK's content is spread over several files.", hint="Export the machine as OVA.")
    if extents and extents[0].kind not in ("SPARSE", "VMFSSPARSE"):
        raise HostileSourceError("The VMDK's descriptor says that another file holds its content.", hint="Ask for the whole disk.")
    if extents and extents[0].sectors * SECTOR != size:
        raise DamagedSourceError("The VMDK contradicts itself about its size.", hint="Load it again.")


def _refuse_parents(raw: bytes) -> None:
    if b"parentFileNameHint" in raw:
        raise refuse_parent("a parent VMDK")
    for line in _text(raw).splitlines():
        setting = _SETTING.fullmatch(line)
        if setting and setting[1].lower() == "parentcid" and setting[2].lower() != "ffffffff":
            raise refuse_parent("a parent VMDK")


def _parse_descriptor_file(span: Span, limits: Limits) -> DiskHeader:
    if span.length > DESCRIPTOR_LIMIT:
        raise DamagedSourceError("The VMDK's descriptor is absurdly long.")
    raw = span.read(0, span.length)
    _refuse_parents(raw)
    extents = _extents(_text(raw))
    if len(extents) != 1 or extents[0].kind not in ("FLAT", "VMFS"):
        raise HostileSourceError(
            "The VMDK is a descriptor whose content lies in several or sparse files.",
            hint="Export the machine as OVA, or make one file of it: vmware-vdiskmanager -r IN.vmdk -t 0 OUT.vmdk.",
        )
    extent = extents[0]
    size = extent.sectors * SECTOR
    limits.verify(size)
    content = _find_beside(span, extent.name)
    if extent.at * SECTOR + size > content.length:
        raise DamagedSourceError(f"{extent.name!r} is shorter than the VMDK's descriptor says.", hint="Load it again.")
    return DiskHeader(size, content=Span(content.path, content.offset + extent.at * SECTOR, size), driver="raw")


def _find_beside(span: Span, name: str) -> Span:
    """The file with the content: beside the descriptor, nowhere else."""
    if span.offset or "/" in parse_member_name(name) or parse_member_name(name) == span.path.name:
        raise HostileSourceError(f"The VMDK's descriptor names {name[:200]!r}, which is no file beside it.", hint="Ask for the whole disk.")
    found = Folder(span.path.parent).find(name)
    if found is None:
        raise DamagedSourceError(f"{name!r}, which holds the VMDK's content, is not there.", hint="Put it beside the descriptor.")
    return found


def _extents(text: str) -> tuple[_Extent, ...]:
    found = []
    for line in text.splitlines():
        if re.match(r"\s*(RW|RDONLY|NOACCESS)\b", line):
            match = _EXTENT.fullmatch(line.strip())
            if match is None:
                raise DamagedSourceError("An extent of the VMDK's descriptor cannot be read.")
            found.append(_Extent(int(match["sectors"]), match["kind"].upper(), match["name"] or "", int(match["at"] or 0)))
    return tuple(found)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", errors="replace")
