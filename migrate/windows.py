"""Maintenance windows in local time: when the next one opens, and how long it is, daylight saving and no-go dates counted.

A rule says clock times of one zone; a window is two moments. A window that runs past midnight belongs to the day on which it opens, and
ends at midnight where the next day is a no-go date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

AHEAD = 400  # days that are looked at: more than a year, so that a rule that fits no day is known to fit none
MIDNIGHT = time(0, 0)


@dataclass(frozen=True)
class WindowRule:
    """``days`` as in :meth:`datetime.date.weekday` (Monday is 0); ``opens`` and ``closes`` are clock times in ``zone``."""

    zone: str
    days: frozenset[int]
    opens: time
    closes: time
    not_on: frozenset[date]


@dataclass(frozen=True)
class Window:
    """From ``opens`` to ``closes``, Unix seconds."""

    opens: float
    closes: float

    def left(self, now: float) -> float:
        """Seconds of it that are still to come."""
        return max(0.0, self.closes - max(now, self.opens))


def find_window(rule: WindowRule, now: float, needed: float) -> Window | None:
    """The first window with ``needed`` seconds in it that are still to come; the one that is open now counts. None: no day has one."""
    return next((window for window in list_windows(rule, now) if window.left(now) >= needed), None)


def find_longest(rule: WindowRule, now: float) -> float:
    """Seconds of the longest window to come; 0.0 where there is none."""
    return max((window.left(now) for window in list_windows(rule, now)), default=0.0)


def list_windows(rule: WindowRule, now: float) -> Iterator[Window]:
    """Windows that have not closed yet, in order, for a little more than a year."""
    zone = ZoneInfo(rule.zone)
    today = datetime.fromtimestamp(now, zone).date()
    for offset in range(-1, AHEAD):
        day = today + timedelta(days=offset)
        if day.weekday() not in rule.days or day in rule.not_on:
            continue
        window = _window_of(rule, day, zone)
        if window.closes > max(now, window.opens):
            yield window


def _window_of(rule: WindowRule, day: date, zone: ZoneInfo) -> Window:
    after = day + timedelta(days=1)
    if rule.closes > rule.opens:
        end = datetime.combine(day, rule.closes, zone)
    elif after in rule.not_on:
        end = datetime.combine(after, MIDNIGHT, zone)
    else:
        end = datetime.combine(after, rule.closes, zone)
    # By way of UTC: subtracting two times of one zone ignores that the clocks are put forward or back between them.
    return Window(datetime.combine(day, rule.opens, zone).astimezone(UTC).timestamp(), end.astimezone(UTC).timestamp())


def render_moment(at: float, zone: str) -> str:
    """``Sat 2027-02-27 22:00 CET``."""
    return f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"
