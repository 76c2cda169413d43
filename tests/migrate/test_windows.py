from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.windows import WindowRule, find_longest, find_window, list_windows, render_moment

ZONES = ("Europe/Madrid", "America/New_York", "Pacific/Kiritimati", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
EVERY_DAY = frozenset(range(7))
RULES = st.builds(
    WindowRule,
    zone=st.sampled_from(ZONES),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    opens=st.times().map(lambda moment: moment.replace(second=0, microsecond=0, tzinfo=None)),
    closes=st.times().map(lambda moment: moment.replace(second=0, microsecond=0, tzinfo=None)),
    not_on=st.frozensets(st.dates(date(2026, 1, 1), date(2027, 12, 31)), max_size=5),
)
MOMENTS = st.floats(datetime(2026, 1, 1, tzinfo=UTC).timestamp(), datetime(2027, 12, 31, tzinfo=UTC).timestamp())


def at(text: str, zone: str = "Europe/Madrid") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def night(**changes: object) -> WindowRule:
    values: dict[str, object] = {"zone": "Europe/Madrid", "days": EVERY_DAY, "opens": time(22), "closes": time(4), "not_on": frozenset()}
    return WindowRule(**(values | changes))  # type: ignore[arg-type]


def test_the_one_that_is_open_counts() -> None:
    window = find_window(night(), at("2026-11-23T01:00"), 3600)
    assert window is not None
    assert (window.opens, window.closes) == (at("2026-11-22T22:00"), at("2026-11-23T04:00"))


def test_one_with_too_little_left_is_passed_over() -> None:
    window = find_window(night(), at("2026-11-23T03:30"), 3600)
    assert window is not None
    assert window.opens == at("2026-11-23T22:00")


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 5), ("2026-10-24", 7), ("2026-06-01", 6)], ids=["spring", "autumn", "summer"])
def test_daylight_saving_makes_a_night_shorter_or_longer(day: str, hours: int) -> None:
    window = find_window(night(), at(f"{day}T12:00"), 0)
    assert window is not None
    assert window.left(0) == hours * 3600


def test_a_night_before_a_no_go_date_ends_at_midnight() -> None:
    window = find_window(night(not_on=frozenset({date(2026, 12, 25)})), at("2026-12-24T12:00"), 0)
    assert window is not None
    assert window.closes == at("2026-12-25T00:00")


def test_a_rule_that_fits_no_day_is_known_to_fit_none() -> None:
    everything = frozenset(date(2026, 1, 1) + timedelta(days=day) for day in range(1200))
    assert find_window(night(not_on=everything), at("2026-11-23T12:00"), 0) is None
    assert find_longest(night(not_on=everything), at("2026-11-23T12:00")) == 0.0


def test_equal_times_are_a_whole_day() -> None:
    window = find_window(night(opens=time(1), closes=time(1)), at("2026-11-23T12:00"), 0)
    assert window is not None
    assert window.closes - window.opens == 24 * 3600


def test_a_moment_is_told_with_its_zone() -> None:
    assert render_moment(at("2027-02-27T22:00"), "Europe/Madrid") == "Sat 2027-02-27 22:00 CET"


@given(rule=RULES, now=MOMENTS)
def test_windows_come_in_order_on_allowed_days_and_are_not_over(rule: WindowRule, now: float) -> None:
    zone = ZoneInfo(rule.zone)
    last = 0.0
    for window in islice(list_windows(rule, now), 20):
        opens = datetime.fromtimestamp(window.opens, zone)
        assert window.closes > now
        assert window.closes > window.opens
        assert window.opens > last
        last = window.opens
        # A clock time that daylight saving leaves out is reckoned an hour later, which may be the next day for one at midnight.
        days = {opens.date(), (opens - timedelta(hours=2)).date()}
        assert any(day.weekday() in rule.days and day not in rule.not_on for day in days)


@given(rule=RULES, now=MOMENTS, needed=st.floats(0, 6 * 3600))
def test_what_is_found_has_room(rule: WindowRule, now: float, needed: float) -> None:
    found = find_window(rule, now, needed)
    if found is None:
        assert find_longest(rule, now) < needed or not any(True for _ in list_windows(rule, now))
    else:
        assert found.left(now) >= needed
