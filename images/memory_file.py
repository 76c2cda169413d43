"""A template's memory in a file that each clone maps for itself: a clone starts at once, and reads of it what it needs when it needs it.

QEMU's stream of a saved machine has its memory page by page, and whoever goes on from it waits until all is read. So the pages are taken
out of it, once, into a file of the memory's size, and clones are started on that file with what is left of the stream. The stream is
internal to QEMU; up to the devices, this is what its releases since 2015 write for a machine that stands still (numbers big-endian)::

    QEVM, version 3; 7, the machine type
    1, section, "ram", instance, version 4; 4 with the length of all memory; name and length of each block; 16; 0x7e, section
    2 (3 for the last), section; pages: offset with flags, the block's name where it is another, what is in it; 16; 0x7e, section
    4, … the devices

Whatever is not exactly so is left as it is, and clones of it read all of their memory first.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree as ET

from images.domain import MEMORY_BACKEND
from images.errors import SavedStateError
from images.hypervisor import Hypervisor
from images.saved import STREAM_MAGIC, read_saved

USUAL = b"pc.ram"  # QEMU's name for the memory of a machine that was not started on a file
PAGE, MOST_MEMORY = 4096, 1 << 40
START, PART, END, DEVICES, CONFIGURATION, FOOTER = 1, 2, 3, 4, 7, 0x7E
IS_ZERO, IS_LENGTH, IS_PAGE, IS_END, IS_SAME_BLOCK = 0x02, 0x04, 0x08, 0x10, 0x20
OWNERSHIP, NONE = "dac", "none"  # libvirt's security models that know users only
_LABEL = re.compile(r"\+?(\d+):\+?(\d+)")


def take_memory(hypervisor: Hypervisor, state: Path, memory: Path) -> bool:
    """Move the memory out of a saved state into a file that only QEMU's user may read. False: it stays in the state, which is as it was.

    Raises:
        HypervisorError: the hypervisor does not say as whom it runs QEMU.

    """
    owner = _find_owner(hypervisor)
    if owner is None:
        return False
    rest = state.with_name(f".{state.name}.rest")
    try:
        with state.open("rb") as source, _private(rest) as sink, _private(memory) as pages:
            start = read_saved(source).start
            source.seek(0)
            sink.write(source.read(start))
            split_stream(source, sink, pages)
            os.fchown(pages.fileno(), *owner)
            # Later only sizes and times are looked at, and these a power cut leaves right over pages that are lost.
            for one in (sink, pages):
                one.flush()
                os.fsync(one.fileno())
        rest.replace(state)
    except (SavedStateError, OSError):  # of another form; no space for both, or no right to give a file away
        memory.unlink(missing_ok=True)
        rest.unlink(missing_ok=True)
        return False
    return True


def split_stream(source: BinaryIO, rest: BinaryIO, memory: BinaryIO) -> None:
    """Copy QEMU's stream to ``rest`` without the pages of its memory, for a machine whose memory is the file ``memory``.

    Raises:
        SavedStateError: it is of a form that is not known; what was written is of no use.

    """
    stream = _Stream(source, rest.write)
    stream.expect(STREAM_MAGIC + struct.pack(">IB", 3, CONFIGURATION))
    stream.copy(stream.number(">I"))  # the machine type
    stream.expect(bytes((START,)))
    section = stream.copy(4)
    stream.expect(b"\3ram" + struct.pack(">II", 0, 4))
    size = stream.rename_block()
    stream.expect(struct.pack(">QB", IS_END, FOOTER) + section)
    memory.truncate(size)
    pages = _Pages(memory, size)
    while (kind := stream.number("B")) in (PART, END):
        stream.expect(section)
        stream.take_pages(pages)
        stream.expect(bytes((FOOTER,)) + section)
        if kind == END:
            break
    if kind != END or not all(pages.seen):
        raise _unknown("it does not hold all of the memory")
    stream.expect(bytes((DEVICES,)))
    shutil.copyfileobj(source, rest)


class _Pages:
    """The file that the pages go to, each at its place, and which of them came."""

    def __init__(self, sink: BinaryIO, size: int) -> None:
        self._sink = sink
        self.seen = bytearray(size // PAGE)

    def put(self, offset: int, content: bytes) -> None:
        """Take a page, or the one byte that fills it; zeros are what the file has already."""
        if offset // PAGE >= len(self.seen) or self.seen[offset // PAGE]:
            raise _unknown("a page stands outside of the memory, or comes twice")
        self.seen[offset // PAGE] = 1
        if len(content) == PAGE:
            self._sink.seek(offset)
            self._sink.write(content)
        elif content != b"\0":
            raise _unknown("a page is filled with something else than zeros")


class _Stream:
    """Reads the stream; what is not memory goes to ``write``."""

    def __init__(self, source: BinaryIO, write: Callable[[bytes], object]) -> None:
        self._source = source
        self._write = write
        self._block = b""

    def copy(self, length: int) -> bytes:
        """The next bytes, which stay in the stream."""
        found = self._take(length)
        self._write(found)
        return found

    def number(self, form: str) -> int:
        """The next number, which stays in the stream."""
        (found,) = struct.unpack(form, self.copy(struct.calcsize(form)))
        return int(found)

    def expect(self, wanted: bytes) -> None:
        """These bytes come next, and stay."""
        if self.copy(len(wanted)) != wanted:
            raise _unknown("its parts do not follow each other as they should")

    def rename_block(self) -> int:
        """Call the memory in the list of blocks what it is called where it is a file; its length in bytes."""
        word = self.number(">Q")
        left, sizes = word & -PAGE, {}
        if word % PAGE != IS_LENGTH or left > MOST_MEMORY:
            raise _unknown("it does not begin with the length of the memory")
        while left > 0:
            name = self._take_name()
            self._write(_with_length(MEMORY_BACKEND.encode() if name == USUAL else name))
            sizes[name] = self.number(">Q")
            left -= sizes[name]
        size = sizes.get(USUAL, 0)
        if left != 0 or not size or size % PAGE:
            raise _unknown("its blocks of memory are others")
        return size

    def take_pages(self, pages: _Pages) -> None:
        """The pages of a part: those of the memory leave the stream."""
        while (word := struct.unpack(">Q", self._take(8))[0]) != IS_END:
            offset, flags = word & -PAGE, word % PAGE
            named = b""
            if not flags & IS_SAME_BLOCK:
                self._block = self._take_name()
                named = _with_length(self._block)
            kind = flags & ~IS_SAME_BLOCK
            if kind not in (IS_ZERO, IS_PAGE):
                raise _unknown(f"a page has the flags {flags:#x}")
            content = self._take(PAGE if kind == IS_PAGE else 1)
            if self._block == USUAL:
                pages.put(offset, content)
            else:
                self._write(struct.pack(">Q", word) + named + content)
        self._write(struct.pack(">Q", word))

    def _take_name(self) -> bytes:
        return self._take(self._take(1)[0])

    def _take(self, length: int) -> bytes:
        found = self._source.read(length)
        if len(found) != length:
            raise _unknown("it ends too early")
        return found


def _with_length(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")


def _find_owner(hypervisor: Hypervisor) -> tuple[int, int] | None:
    """The user and group that QEMU runs as; None where more than users and groups decides what it may open."""
    host = ET.fromstring(hypervisor.read_capabilities())  # noqa: S314 - libvirt's own output
    models = {model.findtext("model", ""): model.findtext("baselabel", "") for model in host.findall("host/secmodel")}
    if models.keys() - {OWNERSHIP, NONE}:
        return None
    if OWNERSHIP not in models:
        return os.geteuid(), os.getegid()
    label = _LABEL.fullmatch(models[OWNERSHIP])
    return label and (int(label[1]), int(label[2]))


def _unknown(fault: str) -> SavedStateError:
    return SavedStateError(f"The stream of the saved state is of a form that is not known: {fault}.")
