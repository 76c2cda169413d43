"""Numbers with units as OVF writes them."""

from __future__ import annotations

import re

from images.import_errors import OvfError

LARGEST = 1 << 62
_WORDS = {"": 1, "byte": 1, "bytes": 1, "b": 1}
_WORDS |= dict.fromkeys(("kilobyte", "kilobytes", "kb", "kib", "k"), 1 << 10)
_WORDS |= dict.fromkeys(("megabyte", "megabytes", "mb", "mib", "m"), 1 << 20)
_WORDS |= dict.fromkeys(("gigabyte", "gigabytes", "gb", "gib", "g"), 1 << 30)
_WORDS |= dict.fromkeys(("terabyte", "terabytes", "tb", "tib", "t"), 1 << 40)
_FORMULA = re.compile(r"(?:(?P<word>[a-z]*)\s*\*\s*)?(?:(?P<base>2|10)\s*\^\s*(?P<power>\d{1,2})|(?P<plain>\d{1,18}))")


def parse_units(text: str) -> int:
    """How many bytes one unit is: ``byte * 2^20``, ``MegaBytes``, ``GB``, ``byte*10^6``.

    The short words mean powers of two, as every writer of OVF means them.

    Raises:
        OvfError: it is no unit of memory.

    """
    plain = text.strip().lower()
    if plain in _WORDS:
        return _WORDS[plain]
    match = _FORMULA.fullmatch(plain)
    if match is None or (match["word"] or "") not in _WORDS:
        raise OvfError(f"The descriptor counts memory in {text[:60]!r}, which is no unit that is known.")
    factor = int(match["plain"]) if match["plain"] else int(match["base"]) ** int(match["power"])
    return _bounded(_WORDS[match["word"] or ""] * factor, text)


def parse_count(text: str, what: str) -> int:
    """A number that counts something: plain digits, at most 18.

    Raises:
        OvfError: it is none.

    """
    plain = text.strip()
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 18):
        raise OvfError(f"The descriptor gives {text[:60]!r} as {what}, which is no number.")
    return int(plain)


def parse_bytes(count: str, units: str, what: str) -> int:
    """A count of units, in bytes."""
    return _bounded(parse_count(count, what) * parse_units(units), count)


def _bounded(value: int, text: str) -> int:
    if value > LARGEST:
        raise OvfError(f"The descriptor gives {text[:60]!r} as a size, which is absurd.")
    return value
