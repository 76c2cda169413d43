from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import lxml.html
import pytest
from sample_report import T0, make_phases, make_report

from kit.findings import Finding, Severity
from kit.secret import Secret
from migrate.report.model import (
    Agreement,
    DecisionRow,
    EvidenceRow,
    FactRow,
    Fate,
    FigureRow,
    LeftOutRow,
    Measurements,
    NodeOutcome,
    NodeRow,
    OutageRow,
    PhaseRow,
    PlanRow,
    Problem,
    Report,
    ReturnLine,
    ReturnPapers,
    UndoRow,
    Verdict,
)
from migrate.report.render import parse_report, render_html, render_json

HOSTILE_PASSWORD = "a!b@c$ 'd\"e\\;ñ"
HOSTILE_TEXTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><link rel=stylesheet href=//evil.test/x.css>",
    "</title></desc></svg><iframe src=//evil.test></iframe>",
    "' onmouseover='x",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &#x3c;",
    "\u202egnp.exe\u2066\u200f\x00\x1b[31m\ud800\ufeff",
    "ה" * 50,
    "W" * 100_000,
    "a b " * 5000,
    "",
]


def parse(report: Report) -> lxml.html.HtmlElement:
    return lxml.html.document_fromstring(render_html(report))


def make_empty(**changes: object) -> Report:
    values: dict[str, object] = {
        "site": "s",
        "run": "r",
        "runbook": "migration",
        "verdict": Verdict.RUNNING,
        "headline": "It has just begun.",
        "tool_version": "0",
        "made_at": T0,
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def make_hostile(text: str) -> Report:
    """A report with ``text`` in every field that holds one."""
    row = NodeRow(
        text,
        text,
        NodeOutcome.FAILED,
        started=T0,
        ended=T0 + 1,
        sentence=text,
        problem=Problem(text, text, text),
        evidence=(EvidenceRow(text, text, text),),
    )
    return Report(
        site=text,
        run=text,
        runbook=text,
        verdict=Verdict.FAILED,
        headline=text,
        tool_version=text,
        made_at=T0 + 2,
        problem=Problem(text, text, text),
        plan=(PlanRow(text, text),),
        phases=(PhaseRow(text, text, (row,)),),
        findings=(Finding(text, Severity.BLOCKER, text, text, text),),
        facts=(FactRow(text, text, text, Agreement.DIFFERENT, text),),
        left_out=(LeftOutRow(text, Fate.LEFT, 1, 1, text, text),),
        decisions=(DecisionRow(text, text, text, T0, text),),
        undo=(UndoRow(text, text, text, text, 1.0),),
        rollback_note=text,
        measured=Measurements(requests_sent=1, requests_lost=1, downtime_seconds=0.5, outages=(OutageRow(T0, T0 + 0.5, 1),)),
        figures=(FigureRow(text, text, text),),
        papers=ReturnPapers(text, text, text, (ReturnLine(text, text),)),
    )


# nothing from outside, nothing that runs


@pytest.mark.parametrize("report", [make_report(), make_hostile("x"), make_empty()], ids=["whole", "every-field", "empty"])
def test_the_page_loads_nothing_and_runs_nothing(report: Report) -> None:
    page = parse(report)
    assert not page.xpath("//script | //link | //img | //iframe | //object | //embed | //form | //base")
    assert all(link.startswith("#") for link in page.xpath("//@href"))
    assert not page.xpath("//@src | //@*[starts-with(name(), 'on')]")
    style = "".join(page.xpath("//style/text()"))
    assert "url(" not in style
    assert "@import" not in style
    policy = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy
    assert policy[0].startswith("default-src 'none'")


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_texts_stay_texts(text: str) -> None:
    harmless, hostile = parse(make_hostile("x")), parse(make_hostile(text))
    tags = [element.tag for element in harmless.iter() if isinstance(element.tag, str)]
    optional = {"span", "p", "strong", "bdi"}  # parts that are left out where a text is empty
    assert [tag for tag in tags if tag not in optional] == [
        element.tag for element in hostile.iter() if isinstance(element.tag, str) and element.tag not in optional
    ]
    rendered = render_html(make_hostile(text))
    assert len(rendered) < 150_000
    rendered.encode("utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200f\x00\x1b\ufeff]", rendered)


def test_what_steers_the_eye_is_spelt_out() -> None:
    assert "\\u{202E}gnp.exe" in parse(make_empty(headline="\u202egnp.exe")).text_content()


def test_a_cut_text_says_so_and_the_data_has_all_of_it() -> None:
    report = make_empty(headline="W" * 2000)
    assert "1,400 characters more in report.json" in render_html(report)
    assert parse_report(render_json(report)).headline == "W" * 2000


# what it says


def test_every_part_of_a_finished_migration_is_on_the_page() -> None:
    text = " ".join(parse(make_report()).text_content().split())
    for wanted in (
        "support.example.test",
        "migration-20261122-1",
        "18.4 s",
        "71 of 15 312 sent",
        "0 of 3 811 written during the run",
        "3 min 04 s inside appliances, 1 h 00 min waiting, 10 s added by boxshift",
        "The certificate ends in 41 days.",
        "1 of 5 facts differ: Session recordings. Could not be told: Failover role.",
        "carried to the new box",
        "Called the helpdesk first.",
        "there is no way back from it",
        "sha256 9f86d081884c7d65…",
        "file:secrets.yaml#backup",
        "BX-1001-22",
        "Attach the return label",
        "boxshift 0.1.0",
        "attempt 2",
    ):
        assert wanted in text, wanted


def test_findings_stand_with_the_heaviest_first() -> None:
    table = parse(make_report()).xpath("//section[@aria-labelledby='findings']//tbody/tr/td[1]")
    assert [cell.text_content().strip() for cell in table] == ["unverified", "warning", "note"]


def test_what_was_not_measured_is_never_shown_as_zero() -> None:
    tiles = parse(make_empty()).xpath("//dl[@class='tiles']//dd[contains(@class, 'value')]")
    assert [tile.text_content().strip() for tile in tiles] == ["not measured"] * 5


def test_zero_is_shown_as_zero() -> None:
    report = make_empty(measured=Measurements(downtime_seconds=0.0, requests_sent=10, requests_lost=0))
    tiles = [tile.text_content().strip() for tile in parse(report).xpath("//dd[contains(@class, 'value')]")]
    assert tiles[:2] == ["0.00\u202fs", "0"]


def test_an_empty_report_says_of_each_part_that_it_is_empty() -> None:
    page = parse(make_empty())
    assert len(page.xpath("//p[@class='empty']")) == 8
    assert not page.xpath("//svg")


def test_an_outage_that_is_not_over_is_said_to_be_so() -> None:
    measured = Measurements(downtime_seconds=3.0, requests_sent=9, requests_lost=2, outages=(OutageRow(T0, T0 + 3, 2, over=False),))
    assert "the last is not over" in render_html(make_report(measured=measured))


def test_why_a_run_stopped_stands_at_the_top() -> None:
    page = parse(make_report(verdict=Verdict.FAILED, problem=Problem("dns-key-refused", "The key is refused.", "Compare the keys.")))
    box = page.xpath("//header//div[@class='problem']")[0].text_content()
    assert "The key is refused." in box
    assert "Compare the keys." in box
    assert "dns-key-refused" in box


@pytest.mark.parametrize(
    "report",
    [
        *(make_empty(verdict=one) for one in Verdict),
        *(make_empty(phases=(PhaseRow("p", "P", (NodeRow("n", "N", one, started=T0),)),)) for one in NodeOutcome),
        *(make_empty(findings=(Finding("c", one, "s"),)) for one in Severity),
        *(make_empty(facts=(FactRow("l", None, None, one),)) for one in Agreement),
        *(make_empty(left_out=(LeftOutRow("w", one),)) for one in Fate),
    ],
)
def test_every_choice_can_be_shown(report: Report) -> None:
    assert parse(report).xpath("//span[contains(@class, 'mark')]")


# for everybody


def headings(page: lxml.html.HtmlElement) -> Iterator[int]:
    for element in page.iter("h1", "h2", "h3"):
        yield int(element.tag[1])


def test_the_page_is_built_for_readers_who_cannot_see_it() -> None:
    page = parse(make_report())
    assert page.get("lang") == "en"
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.xpath("//nav//@href")} <= set(ids)
    levels = list(headings(page))
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in page.iter("table"):
        assert table.xpath("./caption")
        assert all(cell.get("scope") for cell in table.iter("th"))
    for region in page.xpath("//*[@role='region']"):
        assert region.get("aria-label")
    picture = page.xpath("//svg")[0]
    assert picture.get("role") == "img"
    described = page.xpath("//desc")[0].text_content()
    assert "cutover from 19:37:09, 8 of 8 nodes done." in described
    assert "Visitors were without service from" in described


def test_colour_is_never_the_only_sign() -> None:
    for mark in parse(make_report()).xpath("//span[contains(@class, 'mark')]"):
        assert mark.text_content().strip()


def test_light_dark_and_print_are_provided_for() -> None:
    style = "".join(parse(make_report()).xpath("//style/text()"))
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_the_picture_shows_every_node_the_outage_and_the_decisions() -> None:
    page = parse(make_report())
    bars = page.xpath("//rect[contains(@class, 'bar ')]")
    assert len(bars) == sum(len(phase.nodes) for phase in make_phases())
    assert len(page.xpath("//rect[@class='lost']")) == 1
    assert len(page.xpath("//path[@class='decision']")) == 2
    assert "1 h wait" in page.xpath("//svg")[0].text_content()


# data


def test_the_data_comes_back_as_the_same_report() -> None:
    report = make_report()
    text = render_json(report)
    assert parse_report(text) == report
    assert text.isascii()
    assert text.startswith('{\n "schema": "boxshift-report/1"')


@pytest.mark.parametrize("text", HOSTILE_TEXTS[:-1], ids=range(len(HOSTILE_TEXTS) - 1))
def test_hostile_texts_come_back_whole_from_the_data(text: str) -> None:
    kept = text.replace("\ud800", "?")  # a lone surrogate has no encoding
    assert parse_report(render_json(make_hostile(text))) == make_hostile(kept)
    assert render_html(make_hostile(text), (Secret(HOSTILE_PASSWORD),))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "boxshift-report/9"}', '{"schema": "boxshift-report/1"}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    from kit.errors import UsageError

    with pytest.raises(UsageError):
        parse_report(text)


def test_a_secret_that_a_foreign_text_brought_in_is_masked_in_both_forms() -> None:
    report = make_report(headline=f"The box said: wrong password {HOSTILE_PASSWORD}")
    hide = (Secret(HOSTILE_PASSWORD),)
    for text in (render_html(report, hide), render_json(report, hide)):
        assert "wrong password ***" in text
        assert "a!b@c$" not in text
