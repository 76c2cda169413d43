"""A stream-optimised VMDK as qcow2, unpacked on all processors: what nearly every OVA holds, and what qemu-img unpacks on one.

Only the usual form is read here (grains of 64 KiB, deflate, markers); of any other :func:`find_grains` says so, and QEMU reads it.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from images.disk_headers import SECTOR
from images.import_errors import DamagedSourceError
from images.qcow2_write import CLUSTER, Qcow2Writer
from images.span import Span
from images.vmdk import FOOTER
from kit.progress import Progress

GRAIN = CLUSTER
GRAIN_SECTORS, PER_TABLE, DEFLATE = GRAIN // SECTOR, 512, 1
COMPRESSED, MARKERS = 1 << 16, 1 << 17
ABSENT = (0, 1)  # 1: a grain of zeros
LONGEST = 2 * GRAIN  # bytes of a packed grain
BATCH = 64  # grains that one thread unpacks at a time
_ZEROS = bytes(GRAIN)


@dataclass(frozen=True)
class Grains:
    """Where each grain's marker lies, in sectors from the file's beginning; 0 or 1 for one that holds nothing. ``size``: of the disk."""

    span: Span
    size: int
    places: array[int]


def find_grains(span: Span) -> Grains | None:
    """The tables of a stream-optimised VMDK; None for another form.

    Raises:
        DamagedSourceError: its tables lead out of the file.

    """
    raw = span.read(0, SECTOR)
    if len(raw) < SECTOR or struct.unpack_from("<Q", raw, 56)[0] == FOOTER:
        raw = span.read(max(0, span.length - 2 * SECTOR), SECTOR)
    if len(raw) < SECTOR or raw[:4] != b"KDMV":
        return None
    flags, capacity, grain = struct.unpack_from("<IQQ", raw, 8)
    entries, directory = struct.unpack_from("<I", raw, 44)[0], struct.unpack_from("<Q", raw, 56)[0]
    usual = flags & (COMPRESSED | MARKERS) == COMPRESSED | MARKERS and (grain, entries) == (GRAIN_SECTORS, PER_TABLE)
    if not usual or struct.unpack_from("<H", raw, 77)[0] != DEFLATE or directory == FOOTER:
        return None
    count = -(-capacity // GRAIN_SECTORS)
    places = array("I")
    for at in _numbers(span, directory, -(-count // PER_TABLE)):
        places.extend(_numbers(span, at, PER_TABLE) if at else bytes(PER_TABLE))
    return Grains(span, capacity * SECTOR, places[:count])


def convert_grains(grains: Grains, target: Path, *, label: str, progress: Progress) -> None:
    """Write the disk as qcow2 to ``target``, which must not exist.

    Raises:
        DamagedSourceError: a grain is not where it should be, or cannot be unpacked.
        SpaceError: no room left.

    """
    wanted = array("I", (number for number, place in enumerate(grains.places) if place not in ABSENT))
    batches = -(-len(wanted) // BATCH)
    handle = os.open(grains.span.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Qcow2Writer(target, grains.size) as disk:
            for number, unpacked in enumerate(_unpack_all(grains, handle, wanted), 1):
                for first, content in unpacked:
                    disk.write(first, content)
                progress.update(label, number, batches)
            disk.finish()
    finally:
        os.close(handle)


def _unpack_all(grains: Grains, handle: int, wanted: array[int]) -> Iterator[list[tuple[int, bytes]]]:
    """In their order; a few ahead of who writes them, not more."""
    workers = min(8, os.cpu_count() or 1)
    waiting: deque[Future[list[tuple[int, bytes]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="grains") as pool:
        try:
            for at in range(0, len(wanted), BATCH):
                waiting.append(pool.submit(_unpack, grains, handle, wanted[at : at + BATCH]))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _unpack(grains: Grains, handle: int, batch: Sequence[int]) -> list[tuple[int, bytes]]:
    """Runs of grains that lie side by side, each with the number of its first; grains of zeros are left out."""
    runs: list[tuple[int, list[bytes]]] = []
    first, packed = _read_region(grains, handle, batch)
    for number in batch:
        at = grains.places[number] * SECTOR
        content = _unpack_grain(grains, number, packed[at - first :] if packed else _read(grains, handle, at, 12 + LONGEST))
        if content == _ZEROS:
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == number:
            runs[-1][1].append(content)
        else:
            runs.append((number, [content]))
    return [(first, b"".join(parts)) for first, parts in runs]


def _read_region(grains: Grains, handle: int, batch: Sequence[int]) -> tuple[int, memoryview]:
    """Where the batch begins in the file, and all of it in one reading; nothing where its grains are scattered."""
    places = [grains.places[number] for number in batch]
    first, length = min(places) * SECTOR, (max(places) - min(places)) * SECTOR + 12 + LONGEST
    if length > BATCH * LONGEST:
        return first, memoryview(b"")
    return first, _read(grains, handle, first, length)


def _read(grains: Grains, handle: int, at: int, length: int) -> memoryview:
    span = grains.span
    return memoryview(os.pread(handle, max(0, min(length, span.length - at)), span.offset + at) if at < span.length else b"")


def _unpack_grain(grains: Grains, number: int, raw: memoryview) -> bytes:
    """``raw``: from the grain's marker on."""
    if len(raw) < 12:
        raise _damaged()
    sector, length = struct.unpack_from("<QI", raw)
    if sector != number * GRAIN_SECTORS or not 0 < length <= LONGEST or len(raw) < 12 + length:
        raise _damaged()
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(raw[12 : 12 + length], GRAIN + 1)
    except zlib.error as error:
        raise _damaged() from error
    whole = min(GRAIN, grains.size - number * GRAIN)
    if not whole <= len(content) <= GRAIN or not stream.eof:
        raise _damaged()
    return content.ljust(GRAIN, b"\0") if len(content) < GRAIN else content


def _numbers(span: Span, sector: int, count: int) -> array[int]:
    raw = span.read(sector * SECTOR, count * 4) if sector * SECTOR + count * 4 <= span.length else b""
    if len(raw) < count * 4:
        raise DamagedSourceError("The VMDK's tables lead out of the file.", hint="It was cut off; load it again.")
    return array("I", struct.unpack(f"<{count}I", raw))


def _damaged() -> DamagedSourceError:
    return DamagedSourceError("A part of the VMDK cannot be unpacked.", hint="It was damaged on its way; load it again.")
