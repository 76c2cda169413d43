"""The files of a bundle: an OVA (a tar archive) or a folder, read where they lie. Whatever points out of the bundle is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from images.import_errors import DamagedSourceError, HostileSourceError, SourceError
from images.span import Span

BLOCK = 512
MOST_MEMBERS = 4096
LONGEST_NAME = 1024
LONGEST_EXTENSION = 64 * 1024
# Written by other systems beside what is meant; they mean nothing here.
CLUTTER = ("._", ".DS_Store")


class Bundle(Protocol):
    """Named files. ``names`` lists what can be listed: of a folder that an .ovf file lies in, nothing."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def find(self, name: str) -> Span | None: ...


def parse_member_name(raw: str) -> str:
    """A name inside a bundle, without ``./``.

    Raises:
        HostileSourceError: it is absolute, climbs out, or holds characters that no file of a bundle has.

    """
    path = PurePosixPath(raw)
    parts = [part for part in path.parts if part != "."]
    odd = any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in raw) or not raw.isprintable()
    if path.is_absolute() or ".." in parts or not parts or odd or len(raw) > LONGEST_NAME or (len(raw) > 1 and raw[1] == ":"):
        raise HostileSourceError(
            f"The bundle names a file that does not lie in it: {raw[:200]!r}.",
            hint="Do not use this bundle; ask who made it.",
            member=raw[:200],
        )
    return "/".join(parts)


@dataclass(frozen=True)
class Archive:
    """A tar archive whose headers were all read and found harmless."""

    spans: tuple[tuple[str, Span], ...]
    clutter: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.spans)

    def find(self, name: str) -> Span | None:
        return next((span for known, span in self.spans if known == name), None)


@dataclass(frozen=True)
class Folder:
    """A folder; ``listed`` where all of it belongs to the bundle."""

    root: Path
    listed: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        return self.listed

    def find(self, name: str) -> Span | None:
        """The file of that name below the folder.

        Raises:
            HostileSourceError: the name, a link or something that is no regular file leads elsewhere.

        """
        path = self.root
        for part in PurePosixPath(parse_member_name(name)).parts:
            path /= part
            try:
                found = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise HostileSourceError(f"{name!r} in the bundle is a link or a device, not a file.", hint="Put the file itself there.")
        return Span(path, 0, found.st_size) if stat.S_ISREG(found.st_mode) else None


def read_folder(root: Path) -> Folder:
    """All files of a folder and the folders in it.

    Raises:
        HostileSourceError: a link, a device, or more files than any bundle has.
        SourceError: it cannot be read.

    """
    names = []
    for name in _walk(root, ""):
        names.append(name)
        if len(names) > MOST_MEMBERS:
            raise HostileSourceError(f"{root} holds more than {MOST_MEMBERS} files.", hint="Give the folder of the OVF, or the .ovf file.")
    return Folder(root, tuple(sorted(names)))


def _walk(root: Path, below: str, depth: int = 0) -> Iterator[str]:
    try:
        found = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"The folder {root} cannot be read: {error.strerror}.") from error
    for entry in found:
        name = f"{below}{entry.name}"
        if entry.name.startswith(CLUTTER):
            continue
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise HostileSourceError(f"{name!r} in the bundle is a link or a device, not a file.", hint="Put the file itself there.")
        if entry.is_dir() and depth < 4:
            yield from _walk(root, f"{name}/", depth + 1)
        elif entry.is_file():
            yield parse_member_name(name)


def read_archive(span: Span) -> Archive:
    """The members of a tar archive: POSIX, GNU or with extended headers.

    Raises:
        HostileSourceError: a link, a device, a sparse file, a name twice, a name that leads out, or too many members.
        DamagedSourceError: a header is wrong, or the archive ends within a member.

    """
    spans: dict[str, Span] = {}
    clutter = []
    for name, member in _members(span):
        if PurePosixPath(name).name.startswith(CLUTTER) or name.startswith("__MACOSX/"):
            clutter.append(name)
            continue
        if name in spans:
            raise HostileSourceError(f"The archive holds {name!r} twice: which one is meant cannot be told.", member=name)
        spans[name] = member
        if len(spans) > MOST_MEMBERS:
            raise HostileSourceError(f"The archive holds more than {MOST_MEMBERS} files.")
    return Archive(tuple(spans.items()), tuple(clutter))


def _members(span: Span) -> Iterator[tuple[str, Span]]:
    """Name and content of every regular file, in the archive's order."""
    at, longer, seen = 0, _Longer(), 0
    while at + BLOCK <= span.length:
        header = span.read(at, BLOCK)
        if not header.strip(b"\0"):
            return
        seen += 1
        if seen > 4 * MOST_MEMBERS:
            raise HostileSourceError(f"The archive holds more than {MOST_MEMBERS} files.")
        kind, size = header[156:157], longer.size if longer.size is not None else _number(header[124:136])
        _verify_header(header)
        at += BLOCK
        if at + size > span.length:
            raise DamagedSourceError("The archive ends in the middle of a file.", hint="Load it again; compare its size with the origin's.")
        if kind in b"xgLK" and kind:
            longer = _read_longer(kind, Span(span.path, span.offset + at, size), longer)
        else:
            name = longer.name or _header_name(header)
            longer = _Longer()
            if kind in (b"0", b"\0", b"7"):
                yield parse_member_name(name), Span(span.path, span.offset + at, size)
            elif kind != b"5":
                raise HostileSourceError(
                    f"{name[:200]!r} in the archive is a link, a device or something else that is no file.",
                    hint="Do not use this bundle; ask who made it.",
                )
            else:
                parse_member_name(name)
        at += -(-size // BLOCK) * BLOCK


@dataclass(frozen=True)
class _Longer:
    """What an extended header says about the member that follows it."""

    name: str = ""
    size: int | None = None


def _read_longer(kind: bytes, content: Span, before: _Longer) -> _Longer:
    if content.length > LONGEST_EXTENSION:
        raise HostileSourceError("The archive has an extended header that is absurdly long.")
    raw = content.read(0, content.length)
    if kind == b"L":
        return _Longer(_text(raw.rstrip(b"\0")), before.size)
    if kind != b"x":  # settings for all members, or the target of a link, which is refused anyway
        return before
    name, size = before.name, before.size
    for key, value in _records(raw):
        if key.startswith("GNU.sparse"):
            raise HostileSourceError("The archive holds a sparse file, which bundles never do.")
        if key == "path":
            name = value
        if key == "size":
            if not (value.isascii() and value.isdigit() and len(value) < 20):
                raise DamagedSourceError("An extended header of the archive has a size that is no number.")
            size = int(value)
    return _Longer(name, size)


def _records(raw: bytes) -> Iterator[tuple[str, str]]:
    while raw:
        length, _, _ = raw.partition(b" ")
        count = int(length) if length.isdigit() and len(length) < 8 else 0
        if not 5 <= count <= len(raw):
            raise DamagedSourceError("An extended header of the archive is damaged.")
        key, _, value = raw[len(length) + 1 : count].rstrip(b"\n").partition(b"=")
        yield _text(key), _text(value)
        raw = raw[count:]


def _verify_header(header: bytes) -> None:
    told = _number(header[148:156])
    blank = header[:148] + b" " * 8 + header[156:]
    if told not in (sum(blank), sum(byte - 256 if byte > 127 else byte for byte in blank)):
        raise DamagedSourceError("A header of the archive is damaged: its checksum is wrong.", hint="Load it again.")


def _number(field_: bytes) -> int:
    if field_[:1] == b"\x80":  # base-256, for files of 8 GiB and more
        return int.from_bytes(field_[1:], "big")
    digits = field_.split(b"\0")[0].strip()
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise DamagedSourceError("A header of the archive holds something that is no number.", hint="Load it again.")
    return int(digits, 8)


def _header_name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:262] == b"ustar" and header[257:265] != b"ustar  \0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")
