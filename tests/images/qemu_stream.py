"""QEMU's stream of a saved machine as tests write it: some pages of memory, another block, and devices."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

PAGE = 4096
OTHER = b"pc.bios"
DEVICES = b"\4and all that follows"
Record = tuple[bytes, int, bytes]  # the block, the page's offset in it, what is in it: one byte or all


def render_stream(parts: Sequence[Sequence[Record]], blocks: Iterable[tuple[bytes, int]], *, is_brief: bool = True) -> bytes:
    """The stream with these pages, part by part, the last part being the end. ``is_brief``: as QEMU, which names a block only once."""
    known = list(blocks)
    head = b"QEVM" + struct.pack(">IBI", 3, 7, 13) + b"pc-i440fx-7.2" + b"\1" + struct.pack(">I", 3) + b"\3ram" + struct.pack(">II", 0, 4)
    sizes = b"".join(bytes((len(name),)) + name + struct.pack(">Q", size) for name, size in known)
    end = struct.pack(">QBI", 0x10, 0x7E, 3)
    said, block = head + struct.pack(">Q", sum(size for _, size in known) | 4) + sizes + end, b""
    for number, part in enumerate(parts, start=1):
        said += struct.pack(">BI", 3 if number == len(parts) else 2, 3)
        for name, offset, content in part:
            is_same = is_brief and name == block
            flags = (8 if len(content) == PAGE else 2) | (0x20 if is_same else 0)
            said += struct.pack(">Q", offset | flags) + (b"" if is_same else bytes((len(name),)) + name) + content
            block = name
        said += end
    return said + DEVICES
