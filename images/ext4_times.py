"""One date for all of an ext4 file system, so that the same content makes the same bytes.

``mke2fs -d`` copies files' change times, which nobody can set, from the tree that it reads. Here every inode gets its times written anew in
the finished image: change, access and creation are the date, and no content is younger than it. The file system must have been made
without checksums of its inodes (``-O ^metadata_csum``).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.errors import UnexpectedError

SUPERBLOCK = 1024
MAGIC = 0xEF53
METADATA_CSUM, IS_64BIT = 0x400, 0x80
INODE_UNINIT = 0x1
# Offsets within an inode: access, change, content, deletion; then the finer parts of change, content and access, and the creation's two.
_ACCESS, _CHANGE, _CONTENT = 0x08, 0x0C, 0x10
_FINE, _CREATED = (0x84, 0x88, 0x8C), (0x90, 0x94)


@dataclass(frozen=True)
class _Layout:
    """Sizes in bytes."""

    block: int
    inodes_per_group: int
    inode: int
    descriptor: int
    groups: int
    first_block: int


def set_times(path: Path, moment: int) -> int:
    """Give all inodes of the file system in ``path`` the date ``moment`` (seconds since 1970); answers how many there are.

    Raises:
        UnexpectedError: it is no ext4 file system of the kind that is made here.

    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        layout = _read_layout(image)
        count = 0
        for at in _inodes(image, layout):
            _set(image, at, moment)
            count += 1
        image.flush()
    return count


def _read_layout(image: mmap.mmap) -> _Layout:
    magic = struct.unpack_from("<H", image, SUPERBLOCK + 0x38)[0]
    inodes, per_group, first, shift = (struct.unpack_from("<I", image, SUPERBLOCK + at)[0] for at in (0x00, 0x28, 0x14, 0x18))
    incompatible, readonly = (struct.unpack_from("<I", image, SUPERBLOCK + at)[0] for at in (0x60, 0x64))
    size, descriptor = (struct.unpack_from("<H", image, SUPERBLOCK + at)[0] for at in (0x58, 0xFE))
    if magic != MAGIC or readonly & METADATA_CSUM or size < 160 or not per_group:
        raise UnexpectedError("The file system is not of the kind that a build makes.")
    return _Layout(1024 << shift, per_group, size, descriptor if incompatible & IS_64BIT else 32, -(-inodes // per_group), first)


def _inodes(image: mmap.mmap, layout: _Layout) -> Iterator[int]:
    """Where every inode that is in use lies."""
    table = (layout.first_block + 1) * layout.block
    for group in range(layout.groups):
        at = table + group * layout.descriptor
        low = struct.unpack_from("<I", image, at + 0x08)[0]
        flags, unused = (struct.unpack_from("<H", image, at + one)[0] for one in (0x12, 0x1C))
        if flags & INODE_UNINIT:
            continue
        high = 0
        if layout.descriptor >= 64:
            high = struct.unpack_from("<I", image, at + 0x28)[0]
            unused += struct.unpack_from("<H", image, at + 0x32)[0] << 16
        start = (low | high << 32) * layout.block
        for number in range(layout.inodes_per_group - unused):
            place = start + number * layout.inode
            if image[place : place + 2] != b"\0\0" or image[place + _CHANGE : place + _CHANGE + 4] != b"\0\0\0\0":
                yield place


def _set(image: mmap.mmap, at: int, moment: int) -> None:
    content = struct.unpack_from("<I", image, at + _CONTENT)[0]
    struct.pack_into("<III", image, at + _ACCESS, moment, moment, min(content, moment))
    struct.pack_into("<III", image, at + _FINE[0], 0, 0, 0)
    struct.pack_into("<II", image, at + _CREATED[0], moment, 0)
