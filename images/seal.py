"""Whether stored files are what they were: a digest of each, and a seal, by which one that was not touched need not be read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from kit.files import write_private


def read_stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file: its size, modification time, inode. Not its change time: libvirt changes its owner while it is used."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def hash_file(path: Path) -> str:
    """SHA-256 in hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def find_altered(folder: Path, digests: Mapping[str, str], seal: Path, *, thorough: bool = False) -> str:
    """The first file in ``folder`` that is not what its digest (by file name) says; empty: none, and ``seal`` is up to date.

    Files whose stamp is the one in ``seal`` are read only where it is to be ``thorough``.

    Raises:
        FileNotFoundError: one is missing; its ``filename`` tells which.

    """
    known = {} if thorough else _read_seal(seal)
    now: dict[str, list[int]] = {}
    for name, digest in digests.items():
        now[name] = list(read_stamp(folder / name))
        if known.get(name) != now[name] and hash_file(folder / name) != digest:
            return name
    if known != now:
        write_private(seal, json.dumps(now).encode())
    return ""


def _read_seal(path: Path) -> dict[str, list[int]]:
    try:
        seal = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return seal if isinstance(seal, dict) else {}
