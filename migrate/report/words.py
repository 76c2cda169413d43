"""Values as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime

from kit.plain import spell_out

LONGEST = 600  # characters of one text that the page shows; report.json has all of them
NO_FIGURE = "not measured"
_THIN = "\u202f"  # narrow no-break space, between thousands and before units


def render_time(at: float | None) -> str:
    """``2026-11-22 19:24:30``, in UTC; the page says so once."""
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def render_clock(at: float | None) -> str:
    """``19:24:30``, in UTC."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def render_seconds(seconds: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``, ``3 d 04 h``."""
    if seconds is None:
        return NO_FIGURE
    if seconds < 0:
        return f"minus {render_seconds(-seconds)}"
    if seconds < 59.95:
        digits = 2 if seconds < 1 else 1 if seconds < 10 or seconds % 1 else 0
        return f"{seconds:.{digits}f}{_THIN}s"
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size}{_THIN}{unit} {whole % size // below:02d}{_THIN}{smaller}"
    return f"{whole}{_THIN}s"


def render_count(number: int | None) -> str:
    """``5 000``; "not measured" for None."""
    return NO_FIGURE if number is None else f"{number:,}".replace(",", _THIN)


def render_bytes(size: int | None) -> str:
    """``812 B``, ``1.4 MB``; empty for None."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f}{_THIN}{unit}" if unit == "B" else f"{value:.1f}{_THIN}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def render_text(text: str) -> str:
    """A foreign text made safe to stand in a page: what steers the reader's eye instead of being read is spelt out, and it is cut."""
    shown = spell_out(text[:LONGEST], keep="\n\t\u202f\u00a0")
    more = len(text) - LONGEST
    return shown if more <= 0 else f"{shown}… ({more:,} characters more in report.json)"
