"""Who stands on an image, and what killed processes left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from images.build_packages import list_halves
from images.build_work import list_abandoned, work_base
from images.errors import ImageInUseError
from images.home import Home
from images.ledger import Ledger
from images.store import Image, Store
from kit.files import explain_refusal

_MAGIC = b"QFI\xfb"


@dataclass(frozen=True)
class Leftover:
    """Something that no process needs any more. ``size``: bytes on the disk."""

    path: Path
    what: str
    size: int


def find_users(home: Home, image: Image) -> tuple[str, ...]:
    """What stands on the image: machines in a ledger, and every disk below the state folder whose backing file is one of its disks."""
    ledgers = [path for path in (home.ledger, *home.ledger_of("any").parent.glob("*.sqlite")) if path.exists()]
    names = [entry.name for path in ledgers for entry in Ledger(path).list_entries() if entry.image == image.digest]
    overlays = [str(path) for path in _walk_disks(home) if (backing := _read_backing(path)) is not None and _lies_in(backing, image.folder)]
    return tuple(sorted(names) or sorted(overlays))


def remove_unused(home: Home, store: Store, image: Image, *, dry_run: bool = False) -> None:
    """Delete an image.

    Raises:
        ImageInUseError: a machine, a template or another overlay stands on it.

    """
    users = find_users(home, image)
    if users:
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        raise ImageInUseError(f"The image {image.name} is in use: {shown}.", hint="Remove these first.", users=len(users))
    if not dry_run:
        store.remove(image)


def list_leftovers(home: Home) -> tuple[Leftover, ...]:
    """What is there and belongs to nothing: half imports and removals, half layers and the work folders of builds."""
    if not home.images.is_dir():
        return ()
    words = {".half-": "an import that was cut off", ".gone-": "a removal that was cut off"}
    found = [
        Leftover(
            path, next((text for mark, text in words.items() if path.name.startswith(mark)), "an image that lost its facts"), _measure(path)
        )
        for path in Store(home).list_leftovers()
    ]
    found += [Leftover(path, "a layer of a build that was cut off", _measure(path)) for path in list_halves(home)]
    found += [Leftover(path, "what a build that was cut off worked in", _measure(path)) for path in list_abandoned(work_base())]
    return tuple(found)


def remove_leftovers(leftovers: tuple[Leftover, ...]) -> None:
    """Delete them.

    Raises:
        ThisMachineError: one cannot be deleted.

    """
    for one in leftovers:
        try:
            shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError as error:
            raise explain_refusal(error) from error


def _walk_disks(home: Home) -> Iterator[Path]:
    skip = {home.images.resolve(), home.layers.resolve()}
    for folder, below, names in os.walk(home.root):
        below[:] = [name for name in below if (Path(folder) / name).resolve() not in skip]
        yield from (Path(folder) / name for name in names)


def _read_backing(path: Path) -> Path | None:
    """The backing file that a qcow2 header names."""
    try:
        with path.open("rb") as source:
            head = source.read(20)
            if head[:4] != _MAGIC or len(head) < 20:
                return None
            at, length = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
            source.seek(at)
            name = source.read(min(length, 4096)) if at else b""
    except (OSError, OverflowError):
        return None
    return path.parent / os.fsdecode(name) if name else None


def _lies_in(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _measure(folder: Path) -> int:
    total = 0 if folder.is_dir() else folder.stat().st_blocks * 512
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
