"""The initrd of an image, packed anew so that the same content makes the same bytes: sorted, numbered from one, everything dated alike.

An initrd is a cpio archive in its "newc" form, compressed with gzip (early-userspace/buffer-format.rst in the kernel's documentation).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

MAGIC, END = b"070701", b"TRAILER!!!"
HEADER, FIELDS = 110, 13
_INODE, _MODIFIED, _SIZE, _MAJOR, _MINOR, _NAME = 0, 5, 6, 7, 8, 11


@dataclass(frozen=True)
class _Entry:
    """``numbers``: the header's thirteen, by their place."""

    name: bytes
    content: bytes
    numbers: tuple[int, ...]


def find_repacked(initrd: bytes, moment: int) -> bytes | None:
    """The same initrd, everything in it dated ``moment`` (seconds since 1970); None for one in another form."""
    try:
        entries = sorted(_entries(gzip.decompress(initrd)), key=lambda entry: entry.name)
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    inodes: dict[tuple[int, ...], int] = {}
    packed = bytearray()
    for entry in entries:
        # Names that share an inode go on sharing one.
        place = tuple(entry.numbers[at] for at in (_INODE, _MAJOR, _MINOR))
        changes = {_INODE: inodes.setdefault(place, len(inodes) + 1), _MODIFIED: moment, _MAJOR: 0, _MINOR: 0}
        packed += _render(replace(entry, numbers=tuple(changes.get(at, number) for at, number in enumerate(entry.numbers))))
    packed += _render(_Entry(END, b"", (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(END) + 1, 0)))
    return gzip.compress(bytes(packed), 9, mtime=0)


def _entries(raw: bytes) -> Iterator[_Entry]:
    """All up to the end.

    Raises:
        ValueError: it is no such archive, or one archive after another.

    """
    at = 0
    while True:
        if raw[at : at + 6] != MAGIC:
            raise ValueError("no newc archive")
        numbers = tuple(int(raw[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in range(FIELDS))
        start = at + HEADER
        name = raw[start : start + numbers[_NAME] - 1]
        body = at + _padded(HEADER + numbers[_NAME])
        content = raw[body : body + numbers[_SIZE]]
        if len(content) != numbers[_SIZE]:
            raise ValueError("cut off")
        at = body + _padded(numbers[_SIZE])
        if name == END:
            if raw[at:].strip(b"\0"):
                raise ValueError("another archive follows")
            return
        yield _Entry(name, content, numbers)


def _render(entry: _Entry) -> bytes:
    head = MAGIC + b"".join(b"%08X" % number for number in entry.numbers) + entry.name + b"\0"
    return head.ljust(_padded(len(head)), b"\0") + entry.content.ljust(_padded(len(entry.content)), b"\0")


def _padded(length: int) -> int:
    return -(-length // 4) * 4
