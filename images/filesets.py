"""The recipe's own files as one tar archive: sorted, owned by root, one date. Its digest is the digest of their contents and modes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from images.recipe import FileSet

LEFT_OUT = ("__pycache__",)


def pack(files: Sequence[FileSet], target: Path, *, mtime: int) -> None:
    """Write all files to the archive ``target`` (mode 0600); where two share a path the later wins. ``mtime`` in seconds since 1970."""
    entries: dict[PurePosixPath, Path] = {}
    for one in files:
        entries.update(_walk(one))
    target.touch(mode=0o600)
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(entries):
            _add(archive, path, entries[path], mtime)


def _walk(one: FileSet) -> Iterator[tuple[PurePosixPath, Path]]:
    if not one.source.is_dir():
        yield one.target.relative_to("/"), one.source
        return
    for path in sorted(one.source.rglob("*")):
        inside = path.relative_to(one.source)
        if not any(part in LEFT_OUT for part in inside.parts) and path.suffix != ".pyc":
            yield (one.target / inside).relative_to("/"), path


def _add(archive: tarfile.TarFile, path: PurePosixPath, source: Path, mtime: int) -> None:
    info = archive.gettarinfo(source, arcname=str(path))
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = mtime
    if info.isdir():
        info.mode = 0o755
    elif info.isreg():
        # Only whether it may be run and whether others may read it counts, not this machine's umask.
        info.mode = (0o755 if info.mode & 0o100 else 0o644) if info.mode & 0o044 else info.mode & 0o700
    if info.isreg():
        with source.open("rb") as content:
            archive.addfile(info, content)
    else:
        archive.addfile(info)
