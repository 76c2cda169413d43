"""What a file is, told by its content and never by its name; and a disk whose header was read and found to name no other file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from images.disk_headers import DEFAULT_LIMITS, DiskHeader, Limits, parse_qcow2, parse_vhd, parse_vhdx
from images.import_errors import UnknownFormatError
from images.span import Span
from images.vmdk import parse_vmdk

SECTOR = 512


class Compression(StrEnum):
    """How a whole file is compressed."""

    GZIP = "gz"
    XZ = "xz"
    ZSTD = "zst"


class DiskFormat(StrEnum):
    """The formats of disks that are read."""

    RAW = "raw"
    ISO = "iso"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"


@dataclass(frozen=True)
class DiskSource:
    """A disk that may be given to qemu-img. ``size``: what the machine sees, in bytes. ``driver``: QEMU's word, always said to it."""

    span: Span
    format: DiskFormat
    driver: str
    size: int
    remarks: tuple[str, ...] = ()


# What is told apart although it is not read, so that the refusal can say what to do instead.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a ZIP archive", "Unpack it and import what is in it."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and import what is in it."),
    (0, b"BZh", "compressed with bzip2", "Unpack it first (bunzip2), or get it as xz, gz or zst."),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox VDI", "Convert it first: qemu-img convert -f vdi -O qcow2 IN OUT."),
    (0, b"QED\0", "a QED disk", "Convert it first: qemu-img convert -f qed -O qcow2 IN OUT."),
    (0, b"QFI\xfb\0\0\0\x01", "a qcow disk of version 1", "Convert it first: qemu-img convert -f qcow -O qcow2 IN OUT."),
    (0, b"WithoutFreeSpace", "a Parallels disk", "Convert it first: qemu-img convert -f parallels -O qcow2 IN OUT."),
    (0, b"WithouFreSpacExt", "a Parallels disk", "Convert it first: qemu-img convert -f parallels -O qcow2 IN OUT."),
    (0, b"LUKS\xba\xbe", "an encrypted disk (LUKS)", "Open it first, and import what is in it."),
    (0, b"MSWIM\0\0\0", "a Windows image archive (WIM)", "It is not a disk; install it into a machine."),
)


def find_compression(span: Span) -> Compression | None:
    """How the whole file is compressed; None where it is not."""
    head = span.read(0, 6)
    if head[:3] == b"\x1f\x8b\x08":
        return Compression.GZIP
    if head == b"\xfd7zXZ\0":
        return Compression.XZ
    return Compression.ZSTD if head[:4] == b"\x28\xb5\x2f\xfd" else None


def is_archive(span: Span) -> bool:
    """True for a tar archive: a POSIX or GNU mark, or a first header with a right checksum."""
    header = span.read(0, SECTOR)
    if len(header) < SECTOR:
        return False
    if header[257:262] == b"ustar":
        return True
    digits = header[148:156].strip(b" \0")
    blank = header[:148] + b" " * 8 + header[156:]
    return bool(digits) and not digits.strip(b"01234567") and int(digits, 8) == sum(blank) and any(header[:100])


def is_ovf(span: Span) -> bool:
    """True for text that may be an OVF descriptor: XML with an Envelope near its beginning."""
    head = span.read(0, 64 * 1024)
    for encoding in ("utf-8-sig", "utf-16"):
        text = head.decode(encoding, errors="ignore").lstrip()
        if text.startswith("<") and "Envelope" in text:
            return True
    return False


def read_disk(span: Span, *, raw: bool = False, limits: Limits = DEFAULT_LIMITS) -> DiskSource:
    """The disk that the span holds; its header was read whole and names no other file.

    ``raw``: the caller knows that a file without any mark is a raw disk.

    Raises:
        UnknownFormatError: it is no disk of a known kind.
        HostileSourceError: it stands on another file, or says that it is absurdly large.
        DamagedSourceError: its header contradicts itself, or the file ends too early.

    """
    for format_, driver, matches, parse in _READERS:
        if matches(span):
            header = parse(span, limits)
            return DiskSource(header.content or span, format_, header.driver or driver, header.size, header.remarks)
    _refuse_foreign(span)
    if span.length == 0:
        raise UnknownFormatError("The file is empty.", hint="Load it again.")
    if span.read(0x8001, 5) == b"CD001":
        return DiskSource(span, DiskFormat.ISO, "raw", _whole(span, limits))
    if raw or looks_like_raw(span):
        return DiskSource(span, DiskFormat.RAW, "raw", _whole(span, limits))
    raise UnknownFormatError(
        "The content is of no kind that is known: no disk image, no archive, no ISO.",
        hint="If it is a raw disk, say --raw. A page that a browser saved instead of the image looks like this too.",
    )


def looks_like_raw(span: Span) -> bool:
    """True where a partition table or a file system begins the way they do on a raw disk."""
    marks = ((510, b"\x55\xaa"), (512, b"EFI PART"), (4096, b"EFI PART"), (1080, b"\x53\xef"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"))
    lvm = span.read(SECTOR, 8) == b"LABELONE"
    return lvm or any(span.read(at, len(mark)) == mark for at, mark in marks)


def _whole(span: Span, limits: Limits) -> int:
    size = -(-span.length // SECTOR) * SECTOR
    limits.verify(size)
    return size


def _refuse_foreign(span: Span) -> None:
    for at, mark, what, hint in _FOREIGN:
        if span.read(at, len(mark)) == mark:
            raise UnknownFormatError(f"The file is {what}, which is not imported.", hint=hint)
    head = span.read(0, 512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        raise UnknownFormatError("The file is a web page, not an image.", hint="The download probably needs a login or another address.")


def _starts(at: int, *marks: bytes) -> Callable[[Span], bool]:
    return lambda span: any(span.read(at, len(mark)) == mark for mark in marks)


def _is_vhd(span: Span) -> bool:
    # A fixed disk has its mark at the end only; old ones end a byte earlier.
    return span.read(0, 8) == b"conectix" or b"conectix" in (span.read(span.length - 512, 8), span.read(span.length - 511, 8))


_READERS: tuple[tuple[DiskFormat, str, Callable[[Span], bool], Callable[[Span, Limits], DiskHeader]], ...] = (
    (DiskFormat.QCOW2, "qcow2", _starts(0, b"QFI\xfb\0\0\0\x02", b"QFI\xfb\0\0\0\x03"), parse_qcow2),
    (DiskFormat.VMDK, "vmdk", _starts(0, b"KDMV", b"COWD", b"# Disk Descriptor", b"# Disk descriptor"), parse_vmdk),
    (DiskFormat.VHDX, "vhdx", _starts(0, b"vhdxfile"), parse_vhdx),
    (DiskFormat.VHD, "vpc", _is_vhd, parse_vhd),
)
