"""The headers of qcow2, VHD and VHDX disks, read to the point where it is sure that the disk stands on no other file."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from images.import_errors import DamagedSourceError, HostileSourceError
from images.span import Span

SECTOR = 512
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """``disk``: the largest disk that is taken, in bytes as the machine sees it; also the most that a compressed file may unpack to."""

    disk: int = 2048 * GIB

    def verify(self, size: int) -> None:
        """Refuse a size that no disk of an appliance has.

        Raises:
            HostileSourceError: it is larger than allowed.
            DamagedSourceError: it is nothing.

        """
        if size > self.disk:
            raise HostileSourceError(
                f"The disk says that it is {size / GIB:,.0f} GiB large; at most {self.disk // GIB} GiB are taken.",
                hint="If that is right, allow more with --max-size.",
                bytes=size,
            )
        if size <= 0:
            raise DamagedSourceError("The disk says that it is empty.")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class DiskHeader:
    """``size`` in bytes as the machine sees it. ``content``: the disk's own bytes within the span, for QEMU's ``driver``."""

    size: int
    remarks: tuple[str, ...] = ()
    content: Span | None = None
    driver: str = ""


def refuse_parent(what: str) -> HostileSourceError:
    """The error for a disk that holds only the difference to another one."""
    return HostileSourceError(
        f"The disk stands on another file ({what}), which could be any file of this computer.",
        hint="Ask for the whole disk; whoever has both files can merge them with qemu-img convert.",
    )


def parse_qcow2(span: Span, limits: Limits = DEFAULT_LIMITS) -> DiskHeader:
    """A qcow2 header, version 2 or 3, and its extensions."""
    head = _exactly(span, 0, 72)
    version, backing, backing_length, bits, size, crypt, l1_size = struct.unpack(">4xIQIIQII", head[:40])
    snapshots = struct.unpack(">I", head[60:64])[0]
    features, length = 0, 72
    if version == 3:
        more = _exactly(span, 72, 32)
        features, length = struct.unpack(">Q", more[:8])[0], struct.unpack(">I", more[28:32])[0]
    if backing or backing_length:
        raise refuse_parent("a backing file")
    if features & 4:
        raise refuse_parent("an external data file")
    if features & 2 or features & ~0x1F:
        raise DamagedSourceError(
            "The qcow2 disk is marked as corrupt, or uses features that are not known.", hint="qemu-img check tells more."
        )
    if crypt:
        raise DamagedSourceError("The qcow2 disk is encrypted.", hint="Decrypt it where the key is, and import the result.")
    if not 9 <= bits <= 21 or l1_size > 1 << 25 or not 72 <= length <= 1 << bits:
        raise DamagedSourceError("The qcow2 header contradicts itself.", hint="Load it again.")
    limits.verify(size)
    for kind, _ in _qcow2_extensions(span, length, 1 << bits):
        if kind == 0x44415441:
            raise refuse_parent("an external data file")
    return DiskHeader(size, ("It holds snapshots; only its present state is taken.",) if snapshots else ())


def _qcow2_extensions(span: Span, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= min(end, span.length):
        kind, length = struct.unpack(">II", span.read(at, 8))
        if not kind:
            return
        if at + 8 + length > end:
            raise DamagedSourceError("An extension of the qcow2 header is longer than the header.", hint="Load it again.")
        yield kind, length
        at += 8 + -(-length // 8) * 8


def parse_vhd(span: Span, limits: Limits = DEFAULT_LIMITS) -> DiskHeader:
    """A VHD's footer: fixed and dynamic disks. A fixed one is plain bytes with a footer behind them."""
    end = next((at for at in (span.length - 512, span.length - 511) if span.read(at, 8) == b"conectix"), None)
    at = end if end is not None else 0
    footer = span.read(at, 512).ljust(512, b"\0")
    offset, size, kind, told = struct.unpack(">Q24xQ4xII", footer[16:68])
    blank = footer[:64] + bytes(4) + footer[68:]
    if told != ~sum(blank) & 0xFFFFFFFF:
        raise DamagedSourceError("The VHD's footer is damaged: its checksum is wrong.", hint="Load it again.")
    if kind == 4:
        raise refuse_parent("a parent VHD")
    if kind not in (2, 3):
        raise DamagedSourceError(f"The VHD is of kind {kind}, which is not known.")
    limits.verify(size)
    if size % SECTOR:
        raise DamagedSourceError("The VHD's size is no number of sectors.")
    if kind == 2:
        if size > at:
            raise DamagedSourceError("The VHD is shorter than the disk that it says it holds.", hint="Load it again.")
        return DiskHeader(size, content=Span(span.path, span.offset, size), driver="raw")
    if _exactly(span, min(span.length, offset), 8) != b"cxsparse":
        raise DamagedSourceError("The VHD's second header is not where its footer says.", hint="Load it again.")
    return DiskHeader(size)


_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le


def parse_vhdx(span: Span, limits: Limits = DEFAULT_LIMITS) -> DiskHeader:
    """A VHDX: both copies of its region table, its metadata, and whether it waits for its log to be played back."""
    found: set[tuple[int, bool]] = set()
    for table in (192 * 1024, 256 * 1024):
        region = _find_entry(span, table, b"regi", 16, 32, _METADATA)
        if region is None:
            continue
        offset = struct.unpack("<Q", region[16:24])[0]
        found.add(_read_vhdx_metadata(span, offset))
    if not found:
        raise DamagedSourceError("The VHDX has no table of its regions.", hint="Load it again.")
    if any(parent for _, parent in found):
        raise refuse_parent("a parent VHDX")
    if len(found) > 1:
        raise DamagedSourceError("The VHDX contradicts itself about its size.")
    size = next(iter(found))[0]
    limits.verify(size)
    _refuse_vhdx_log(span)
    return DiskHeader(size)


def _read_vhdx_metadata(span: Span, offset: int) -> tuple[int, bool]:
    """Size and whether it has a parent."""
    parameters = _find_entry(span, offset, b"metadata", 32, 32, _FILE_PARAMETERS)
    size = _find_entry(span, offset, b"metadata", 32, 32, _DISK_SIZE)
    if parameters is None or size is None:
        raise DamagedSourceError("The VHDX does not say how large its disk is.", hint="Load it again.")
    flags = struct.unpack("<II", _exactly(span, offset + _at(parameters), 8))[1]
    parent = bool(flags & 2) or _find_entry(span, offset, b"metadata", 32, 32, _PARENT) is not None
    return struct.unpack("<Q", _exactly(span, offset + _at(size), 8))[0], parent


def _at(entry: bytes) -> int:
    return int(struct.unpack("<I", entry[16:20])[0])


def _find_entry(span: Span, at: int, mark: bytes, first: int, width: int, wanted: bytes) -> bytes | None:
    """The row of a VHDX table that begins with ``wanted``; None where there is no such table or row."""
    head = span.read(at, first) if at < span.length else b""
    if len(head) < first or not head.startswith(mark):
        return None
    count = struct.unpack("<I", head[8:12])[0] if mark == b"regi" else struct.unpack("<H", head[10:12])[0]
    if count > 2047:
        raise DamagedSourceError("A table of the VHDX is absurdly long.")
    rows = span.read(at + first, count * width)
    return next((rows[row : row + width] for row in range(0, len(rows) - width + 1, width) if rows[row : row + 16] == wanted), None)


def _refuse_vhdx_log(span: Span) -> None:
    """Both headers; the one with the higher number counts. A log that was not played back means a copy of a running machine."""
    headers = [span.read(at, 80) for at in (64 * 1024, 128 * 1024)]
    whole = [head for head in headers if len(head) == 80 and head[:4] == b"head"]
    if not whole:
        raise DamagedSourceError("The VHDX has no header.", hint="Load it again.")
    current = max(whole, key=lambda head: struct.unpack("<Q", head[8:16])[0])
    if any(current[48:64]):
        raise DamagedSourceError(
            "The VHDX was copied while a machine ran on it: its log was not played back.", hint="Shut the machine down and copy it again."
        )


def _exactly(span: Span, at: int, count: int) -> bytes:
    raw = span.read(at, count) if at < span.length else b""
    if len(raw) < count:
        raise DamagedSourceError("The disk ends within its header.", hint="Load it again; compare its size with the origin's.")
    return raw
