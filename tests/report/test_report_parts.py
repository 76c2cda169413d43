from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_report import T0, make_phases, node

from migrate.facts import (
    ApplianceFacts,
    BoxAddress,
    CertificateRow,
    ClockReading,
    FileItem,
    Identity,
    SiteContent,
    Version,
)
from migrate.report.compare import Rule, compare_facts, judge
from migrate.report.model import (
    Agreement,
    DecisionRow,
    FactRow,
    Measurements,
    NodeNature,
    NodeOutcome,
    NodeRow,
    OutageRow,
    PhaseRow,
)
from migrate.report.timeline import Scale, plan_picture
from migrate.report.words import render_bytes, render_clock, render_count, render_seconds, render_text, render_time


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "not measured"),
        (0, "0.00 s"),
        (0.416, "0.42 s"),
        (9.96, "10.0 s"),
        (12, "12 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3600, "1 h 00 min"),
        (7390, "2 h 03 min"),
        (273_600, "3 d 04 h"),
        (-3, "minus 3.0 s"),
    ],
)
def test_lengths_of_time_are_short_and_have_their_unit(seconds: float | None, words: str) -> None:
    assert render_seconds(seconds).replace("\u202f", " ") == words


def test_numbers_sizes_and_times_are_written_for_people() -> None:
    assert render_count(1_234_567) == "1\u202f234\u202f567"
    assert render_count(None) == "not measured"
    assert [render_bytes(size) for size in (None, 812, 1000, 41_300_000, 7_000_000_000_000)] == [
        "",
        "812\u202fB",
        "1.0\u202fkB",
        "41.3\u202fMB",
        "7000.0\u202fGB",
    ]
    assert render_time(T0) == "2026-11-22 19:35:00"
    assert (render_clock(T0), render_clock(None), render_time(None)) == ("19:35:00", "", "never")


@given(st.text(max_size=700))
def test_a_shown_text_holds_nothing_that_steers_the_eye_and_can_be_encoded(text: str) -> None:
    shown = render_text(text)
    shown.encode("utf-8")
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\x00\x1b\ufeff\u200b")


# the timeline


def test_a_run_that_has_not_begun_has_no_picture() -> None:
    assert plan_picture((PhaseRow("p", "P", (NodeRow("n", "N", NodeOutcome.PENDING),)),), Measurements(), (), T0) is None


def test_nodes_that_ran_side_by_side_stand_in_different_rows() -> None:
    phase = PhaseRow("p", "P", (node("a", "A", 0, 10), node("b", "B", 2, 3), node("c", "C", 6, 3), node("d", "D", 10, 1)))
    picture = plan_picture((phase,), Measurements(), (), T0)
    assert picture is not None
    assert [bar.row for bar in picture.lanes[0].bars] == [0, 1, 1, 0]
    assert picture.lanes[0].rows == 2


def test_a_long_wait_is_drawn_short_and_named() -> None:
    picture = plan_picture(make_phases(), Measurements(), (), T0)
    assert picture is not None
    assert [wait.label for wait in picture.breaks] == ["1 h"]
    assert picture.breaks[0].width == pytest.approx(100 * 0.06 / 1.06, abs=0.01)
    assert not [
        tick for tick in picture.ticks if picture.breaks[0].left < tick.left < picture.breaks[0].left + picture.breaks[0].width - 0.01
    ]


def test_what_still_runs_ends_now() -> None:
    phase = PhaseRow("p", "P", (node("a", "A", 0, 10), node("b", "B", 10, 0, ended=None, seconds=None, outcome=NodeOutcome.RUNNING)))
    picture = plan_picture((phase,), Measurements(), (), T0 + 20)
    assert picture is not None
    assert (picture.lanes[0].bars[1].left, picture.lanes[0].bars[1].width) == (50.0, 50.0)


def test_a_run_that_only_waited_has_a_picture_too() -> None:
    gate = node("g", "G", 0, 500, nature=NodeNature.GATE)
    picture = plan_picture((PhaseRow("p", "P", (gate,)),), Measurements(), (), T0)
    assert picture is not None
    assert picture.lanes[0].bars[0].width == 100.0
    assert picture.breaks == ()


def test_the_visitors_line_covers_the_time_of_its_watch() -> None:
    phases = (PhaseRow("p", "P", (node("a", "A", 0, 10),)),)
    watched = Measurements(requests_sent=5, watched_since=T0 - 50, watched_until=T0 + 5)
    picture = plan_picture(phases, watched, (), T0)
    assert picture is not None
    assert picture.watched is not None
    assert (picture.watched.left, picture.watched.width) == (0.0, 50.0)
    unwatched = plan_picture(phases, Measurements(), (), T0)
    assert unwatched is not None
    assert unwatched.watched is None


spans = st.tuples(st.floats(0, 1e6), st.floats(0, 1e5), st.sampled_from(list(NodeNature)))


@given(st.lists(spans, min_size=1, max_size=20), st.lists(st.tuples(st.floats(-10, 2e6), st.floats(0, 1e5)), max_size=3))
def test_nothing_is_ever_drawn_outside_the_picture(
    nodes: list[tuple[float, float, NodeNature]], outages: list[tuple[float, float]]
) -> None:
    phase = PhaseRow("p", "P", tuple(node(str(n), "N", start, took, nature=nature) for n, (start, took, nature) in enumerate(nodes)))
    rows = tuple(OutageRow(T0 + since, T0 + since + length, 1) for since, length in outages)
    decisions = (DecisionRow("approve", "x", "y", T0),)
    picture = plan_picture((phase,), Measurements(requests_sent=1, outages=rows), decisions, T0)
    assert picture is not None
    things = [*picture.lanes[0].bars, *picture.ticks, *picture.breaks, *picture.outages, *picture.decisions, picture.watched]
    for thing in things:
        assert thing is not None
        assert -0.001 <= thing.left <= 100.001
        assert thing.width >= -0.001
        assert thing.left + thing.width <= 100.01
    assert len(picture.ticks) <= 100


def test_a_scale_keeps_the_order_of_times() -> None:
    scale = Scale([(0, 10, 10), (10, 1000, 2), (1000, 1010, 10)])
    places = [scale.place(at) for at in (-5, 0, 5, 10, 500, 1000, 1005, 1010, 9999)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0.0, 100.0)


# facts


def make_facts() -> ApplianceFacts:
    return ApplianceFacts(
        identity=Identity("guid-old", "serial-old", "old", "aa"),
        site=Version("22.1.4", "95320"),
        base=Version("5.3.0", "7"),
        site_name="support.example.test",
        healthy=True,
        health_note="",
        failover_role="none",
        clock=ClockReading(0.1, 0.2),
        addresses=(BoxAddress("10.0.2.20", 24, enabled=True),),
        certificates=(CertificateRow("support.example.test", "CA", "2027", ("support.example.test",), True, ("10.0.2.20",), ()),),
        content=SiteContent(("a", "b"), ("s1",), ("s1",), (FileItem("f", 1000),), ()),
        read_at=T0,
    )


def by_label(rows: tuple[FactRow, ...]) -> dict[str, FactRow]:
    return {row.label: row for row in rows}


def test_a_box_that_took_everything_over_differs_only_where_it_should() -> None:
    old = make_facts()
    content = replace(old.content, recordings=())
    factory = replace(old.certificates[0], issued_to="appliance")
    new = replace(old, identity=Identity("guid-new", "serial-new", "new", "bb"), content=content, certificates=(*old.certificates, factory))
    rows = by_label(compare_facts(old, new))
    assert not [row for row in rows.values() if row.agreement in (Agreement.DIFFERENT, Agreement.UNTOLD)]
    assert rows["Appliance GUID"].agreement is Agreement.EXPECTED
    assert rows["Session recordings"].agreement is Agreement.EXPECTED
    assert rows["Certificates"].agreement is Agreement.EXPECTED


def test_missing_content_is_a_difference_and_unread_content_is_not_zero() -> None:
    old = make_facts()
    new = replace(old, content=replace(old.content, sessions=(), users=None))
    rows = by_label(compare_facts(old, new))
    assert rows["Finished sessions"].agreement is Agreement.DIFFERENT
    assert (rows["Users"].new, rows["Users"].agreement) == (None, Agreement.UNTOLD)
    assert rows["Appliance GUID"].agreement is Agreement.DIFFERENT


def test_a_box_that_was_never_read_can_be_told_apart_from_an_equal_one() -> None:
    assert {row.agreement for row in compare_facts(make_facts(), None)} == {Agreement.UNTOLD}


@pytest.mark.parametrize(
    ("old", "new", "rule", "expected"),
    [
        ("a", "a", Rule.EQUAL, Agreement.SAME),
        ("a", "b", Rule.EQUAL, Agreement.DIFFERENT),
        ("a", "a", Rule.OWN, Agreement.DIFFERENT),
        ("a", "b", Rule.FREE, Agreement.EXPECTED),
        ("a, b", "b, c, a", Rule.COVERS, Agreement.EXPECTED),
        ("a, b", "b", Rule.COVERS, Agreement.DIFFERENT),
        (None, None, Rule.FREE, Agreement.UNTOLD),
    ],
)
def test_each_rule_judges_as_it_says(old: str | None, new: str | None, rule: Rule, expected: Agreement) -> None:
    assert judge(old, new, rule) is expected
