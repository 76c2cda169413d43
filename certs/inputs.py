"""What a person names on the command line: files, folders, ``-`` for standard input, and references to passphrases."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from certs.errors import CertsError, TooCostlyError
from certs.files import read_file, unreadable
from certs.limits import MAX_BYTES, MAX_BYTES_IN_ALL, MAX_FILES
from kit.errors import UsageError
from kit.plain import spell_out
from kit.references import FORMS, resolve_secret
from kit.secret import Secret

if TYPE_CHECKING:
    from certs.read import Source


def read_sources(paths: Sequence[Path]) -> tuple[list[Source], list[CertsError]]:
    """The files, every file of a folder in the order of their names, and standard input for ``-``.

    Second: what in a folder could not be read. What a person named cannot be passed over, so that is raised.

    Raises:
        CertsError: a file or folder that was named cannot be read, or there is too much of it.

    """
    from certs.read import Source

    found: list[Source] = []
    failures: list[CertsError] = []
    left = MAX_BYTES_IN_ALL
    for path, named in _expand(paths):
        try:
            data = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == "-" else read_file(path)
        except CertsError as error:
            if named:
                raise
            failures.append(error)
            continue
        left -= len(data)
        if left < 0:
            raise TooCostlyError(f"The files together have more than {MAX_BYTES_IN_ALL:,} bytes.", hint="Give fewer at a time.")
        found.append(Source(data, "standard input" if str(path) == "-" else spell_out(str(path))))
    return found, failures


def _expand(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Each file, and whether it was named itself rather than found in a folder."""
    for path in paths:
        if str(path) != "-" and os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a folder above is closed
            yield from ((each, False) for each in _files_in(path))
        else:
            yield path, True


def _files_in(folder: Path) -> Iterator[Path]:
    """Its plain files: what else lies there (pipes, devices, folders) is no certificate."""
    try:
        files = sorted(each for each in folder.iterdir() if each.is_file())
    except OSError as error:
        raise unreadable(folder, error) from error
    if len(files) > MAX_FILES:
        raise TooCostlyError(f"The folder {folder} has {len(files):,} files; more than {MAX_FILES:,} are not read.", hint="Name the files.")
    yield from files


def read_passphrases(references: Sequence[str], *, what: str = "the passphrase") -> tuple[Secret, ...]:
    """The passphrases that references name; never given as they are. An empty one is a passphrase too.

    Raises:
        UsageError: a reference has no form that is known, or there is nothing behind it.

    """
    return tuple(resolve_secret(each, base=Path(), what=what, may_be_empty=True) for each in references)


def ask_passphrase(failures: Sequence[CertsError]) -> tuple[Secret, ...]:
    """Ask for the passphrase that is missing, where somebody sits at the terminal; nothing where nobody does."""
    from certs.errors import PassphraseNeededError

    missing = [error for error in failures if isinstance(error, PassphraseNeededError)]
    if not missing or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return ()
    return read_passphrases(["prompt"], what=f"Passphrase of {missing[0].facts.get('where', 'the file')}")


_SPAN = re.compile(r"([+-]?\d{1,5})\s*(s|m|h|d|w)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_span(text: str) -> timedelta:
    """``30d``, ``12h``, ``90s``, ``-5m``; a bare number is days.

    Raises:
        UsageError: it is none of these.

    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no length of time.", hint="Write 30d, 12h, 10m or 90s.")
    return timedelta(**{_UNITS[found[2] or "d"]: int(found[1])})


def parse_place(text: str, *, port: int = 443) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        UsageError: the port is none.

    """
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text)
    if bracketed:
        host, number = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    else:
        host, number = text, None
    if not host or (number is not None and not (number.isdigit() and 0 < int(number) < 65536)):
        raise UsageError(f"{text!r} names no host and port.", hint="Write HOST, HOST:PORT or [ADDRESS]:PORT.")
    return host, int(number) if number else port


__all__ = ["FORMS", "ask_passphrase", "parse_place", "parse_span", "read_passphrases", "read_sources"]
