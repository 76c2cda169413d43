"""A CD with a few files: ISO 9660 with Joliet names, which Linux, BSD and Windows read. Written by hand: it is forty fields."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from images.import_errors import SourceError

SECTOR = 2048
MOST_FILES = 20
_DATE = b"1980010100000000\0"
_NO_DATE = b"0000000000000000\0"
_RECORDED = bytes((80, 1, 1, 0, 0, 0, 0))
# Sectors: 16 and 17 describe the volume, 18 ends the descriptions, 19 to 22 are path tables, 23 and 24 the folders, then the files.
_PATHS, _JOLIET_PATHS, _ROOT, _JOLIET_ROOT, _FILES = 19, 21, 23, 24, 25


def render_iso(files: Sequence[tuple[str, bytes]], *, label: str) -> bytes:
    """The whole CD. ``files``: names (ASCII, at most 30 characters) and contents, all in the root folder.

    Raises:
        SourceError: a name that no such CD can have.

    """
    if len(files) > MOST_FILES or any(not name.isascii() or not 0 < len(name) <= 30 or "/" in name for name, _ in files):
        raise SourceError("A file cannot be put on a CD under that name.", hint="Use plain names of at most 30 characters.")
    at, places = _FILES, []
    for name, content in sorted(files):
        places.append((name, at, content))
        at += max(1, -(-len(content) // SECTOR))
    plain = b"".join(_record(_plain(name), where, len(content)) for name, where, content in places)
    wide = b"".join(_record(name.encode("utf-16-be"), where, len(content)) for name, where, content in places)
    parts = [
        bytes(16 * SECTOR),
        _volume(1, label.upper().encode().ljust(32), at, _PATHS, _ROOT, b" "),
        _volume(2, label.encode("utf-16-be").ljust(32, b"\0"), at, _JOLIET_PATHS, _JOLIET_ROOT, b"\0"),
        _sector(b"\xffCD001\x01"),
        *(_sector(_path_table(root, order)) for root in (_ROOT, _JOLIET_ROOT) for order in ("<", ">")),
        *(_sector(_record(b"\0", root, SECTOR, folder=True) + _record(b"\1", root, SECTOR, folder=True) + rest)
          for root, rest in ((_ROOT, plain), (_JOLIET_ROOT, wide))),
        *(content.ljust(max(1, -(-len(content) // SECTOR)) * SECTOR, b"\0") for _, _, content in places),
    ]  # fmt: skip
    return b"".join(parts)


def _volume(kind: int, label: bytes, sectors: int, paths: int, root: int, blank: bytes) -> bytes:
    escape = b"%/E".ljust(32, b"\0") if kind == 2 else bytes(32)
    text = blank * 128 if kind == 1 else b"\0 " * 64
    parts = (
        bytes((kind,)), b"CD001\x01\0", text[:32], label[:32], bytes(8), _both(sectors, "I"), escape, _both(1, "H"), _both(1, "H"),
        _both(SECTOR, "H"), _both(10, "I"), struct.pack("<II", paths, 0), struct.pack(">II", paths + 1, 0),
        _record(b"\0", root, SECTOR, folder=True), text * 4, text[:37], text[:37], text[:37], _DATE, _DATE, _NO_DATE, _NO_DATE, b"\x01",
    )  # fmt: skip
    return _sector(b"".join(parts))


def _record(name: bytes, at: int, length: int, *, folder: bool = False) -> bytes:
    body = b"".join((b"\0", _both(at, "I"), _both(length, "I"), _RECORDED, bytes((2 if folder else 0,)), b"\0\0", _both(1, "H")))
    body += bytes((len(name),)) + name
    body += b"\0" * (len(body) % 2 == 0)
    return bytes((len(body) + 1,)) + body


def _path_table(root: int, order: str) -> bytes:
    return b"\x01\0" + struct.pack(f"{order}IH", root, 1) + b"\0\0"


def _plain(name: str) -> bytes:
    """As ISO 9660 writes it: Linux shows it in lower case and without the version."""
    return f"{name.upper()};1".encode()


def _both(number: int, size: str) -> bytes:
    """In both byte orders, as this format has its numbers."""
    return struct.pack(f"<{size}", number) + struct.pack(f">{size}", number)


def _sector(content: bytes) -> bytes:
    return content.ljust(SECTOR, b"\0")
