"""A plain qcow2 disk, written front to back: header, data in the order in which it comes, and at the end the tables that find it.

The same content makes the same file. The form is that of QEMU's docs/interop/qcow2.txt: version 3, clusters of 64 KiB, 16-bit refcounts.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

from images.store import no_space

CLUSTER = 1 << 16
ENTRIES = CLUSTER // 8  # of a second-level table
COUNTS = CLUSTER // 2  # of a refcount block
COPIED = 1 << 63
HEADER = 104
MAGIC = 0x514649FB


class Qcow2Writer:
    """The disk of ``size`` bytes at ``path``, which must not exist. :meth:`write` each cluster once, in any order; then :meth:`finish`."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._first_level = -(-size // (CLUSTER * ENTRIES))
        self._next = 1 + max(1, -(-self._first_level * 8 // CLUSTER))  # the next free cluster: after header and first-level table
        self._tables: dict[int, array[int]] = {}
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._handle)

    def write(self, first: int, content: bytes) -> None:
        """Whole clusters from number ``first`` of the disk on.

        Raises:
            SpaceError: no room left.

        """
        count = len(content) // CLUSTER
        for number in range(first, first + count):
            table = self._tables.setdefault(number // ENTRIES, array("Q", bytes(CLUSTER)))
            table[number % ENTRIES] = (self._next + number - first) * CLUSTER | COPIED
        self._put(self._next, content)
        self._next += count

    def finish(self) -> None:
        """Write the tables and the header.

        Raises:
            SpaceError: no room left.

        """
        first = array("Q", bytes(8 * max(1, self._first_level)))
        for index in sorted(self._tables):
            first[index] = self._next * CLUSTER | COPIED
            self._put(self._next, _big_endian(self._tables[index]))
            self._next += 1
        blocks, table = self._refcounts()
        starts = array("Q", [(self._next + number) * CLUSTER for number in range(len(blocks))])
        for block in blocks:
            self._put(self._next, block)
            self._next += 1
        refcounts_at = self._next
        self._put(refcounts_at, _big_endian(starts).ljust(table * CLUSTER, b"\0"))
        self._put(1, _big_endian(first).ljust(CLUSTER, b"\0"))
        header = struct.pack(
            ">IIQIIQIIQQIIQQQQII",
            MAGIC, 3, 0, 0, 16, self._size, 0, self._first_level, CLUSTER, refcounts_at * CLUSTER, table, 0, 0, 0, 0, 0, 4, HEADER,
        )  # fmt: skip
        self._put(0, header.ljust(CLUSTER, b"\0"))

    def _refcounts(self) -> tuple[list[bytes], int]:
        """The blocks, one use for every cluster, their own among them; and how many clusters their table takes."""
        blocks, table = 1, 1
        while True:
            total = self._next + blocks + table
            needed = -(-total // COUNTS)
            if (needed, -(-needed * 8 // CLUSTER)) == (blocks, table):
                break
            blocks, table = needed, -(-needed * 8 // CLUSTER)
        one = b"\0\1"
        counts = one * total
        return [counts[at : at + CLUSTER].ljust(CLUSTER, b"\0") for at in range(0, len(counts), CLUSTER)], table

    def _put(self, cluster: int, content: bytes) -> None:
        view, at = memoryview(content), cluster * CLUSTER
        try:
            while view:
                done = os.pwrite(self._handle, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            raise no_space(self._path, error) from error


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()
