"""A Linux kernel for direct boot: taken out of its compressed shell, since unpacking it costs seconds under emulation."""

from __future__ import annotations

import gzip
import lzma
import struct

PVH_NOTE = b"Xen\0"


def find_uncompressed(image: bytes) -> bytes | None:
    """The ELF kernel inside a bzImage, where QEMU can start it directly (it carries the PVH entry note); None where it cannot.

    The layout is in the kernel's Documentation/arch/x86/boot.rst: ``setup_sects`` at 0x1f1, ``HdrS`` at 0x202, ``payload_offset`` at
    0x248 and ``payload_length`` at 0x24c, counted from the protected-mode code.
    """
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        return None
    start = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset : start + offset + length]
    elf = _unpack(payload)
    return elf if elf is not None and elf[:4] == b"\x7fELF" and PVH_NOTE in elf else None


def _unpack(payload: bytes) -> bytes | None:
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return gzip.decompress(payload[:-4])  # the last four bytes are the unpacked size, not part of the stream
    except (lzma.LZMAError, OSError, EOFError):
        return None
    return None
