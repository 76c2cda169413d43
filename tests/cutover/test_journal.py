from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import UnexpectedError
from migrate.demo.journal import Entry, Journal, Kind, digest_chain, read_entries, read_journal, summarise


def page(at: float, *, ok: bool = True, ms: float = 100, address: str = "a") -> Entry:
    return Entry(at, Kind.PAGE, ok, ms, address=address, error="" if ok else "timeout: no answer in time")


def session(at: float, lsid: str, status: int) -> Entry:
    return Entry(
        at, Kind.SESSION, status in (201, 409), 10, status=status, lsid=lsid, error="" if status in (201, 409) else f"http {status}"
    )


def test_downtime_goes_from_the_last_good_answer_to_the_first_good_one() -> None:
    seen = summarise([page(10), page(11), page(12, ok=False, ms=2500), page(13, ok=False, ms=50), page(14, ms=250), page(15)])
    assert [(one.since, one.until, one.failures, one.over) for one in seen.outages] == [(11.1, 14.25, 2, True)]
    assert seen.downtime_seconds == pytest.approx(3.15)
    assert (seen.requests_sent, seen.requests_lost) == (6, 2)


def test_outages_that_are_apart_are_counted_apart_and_summed() -> None:
    seen = summarise([page(1), page(2, ok=False), page(3), page(4, ok=False), page(5)])
    assert [one.failures for one in seen.outages] == [1, 1]
    assert seen.downtime_seconds == pytest.approx(4.0)


def test_an_outage_that_is_not_over_says_so() -> None:
    seen = summarise([page(1), page(2, ok=False, ms=2500)])
    assert not seen.outages[0].over
    assert seen.downtime_seconds == pytest.approx(4.5 - 1.1)


def test_a_site_that_never_answered_is_down_from_the_first_request_on() -> None:
    seen = summarise([page(5, ok=False, ms=1000), page(6, ok=False, ms=1000)])
    assert seen.downtime_seconds == pytest.approx(2.0)


def test_a_slow_good_answer_that_overlaps_failures_makes_no_negative_outage() -> None:
    seen = summarise([page(1, ms=5000), page(2, ok=False), page(3, ms=10)])
    assert seen.outages[0].seconds == 0.0


def test_lines_in_any_order_are_sorted_by_the_time_they_began() -> None:
    assert summarise([page(3), page(2, ok=False), page(1)]).outages[0].failures == 1


def test_only_acknowledged_sessions_count_as_written_and_each_once() -> None:
    seen = summarise([session(1, "x", 503), session(2, "x", 201), session(3, "y", 409), session(4, "x", 201), session(5, "z", 500)])
    assert seen.records_written == ("x",)
    assert seen.requests_lost == 2


def test_check_ins_and_lookups_are_counted_apart() -> None:
    seen = summarise(
        [page(1), Entry(2, Kind.CHECKIN, ok=False, client="c", error="x"), Entry(3, Kind.LOOKUP, ok=True), Entry(4, Kind.END, ok=True)]
    )
    assert (seen.requests_sent, seen.requests_lost, seen.checkins_sent, seen.checkins_lost, seen.lookups) == (1, 0, 1, 1, 1)
    assert seen.ended
    assert seen.clients_seen == ()


def test_an_empty_journal_is_a_summary_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "j").touch()
    seen = read_journal(tmp_path / "j")
    assert (seen.requests_sent, seen.ended, seen.began_at) == (0, False, None)


def test_the_line_that_a_killed_visitor_was_writing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.write(page(1))
        journal.write(page(2, ok=False))
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert [entry.at for entry in read_entries(path)] == [1]


def test_an_altered_line_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text('{"at": 1, "kind": "page", "ok": true}\n{"at": 1, "kind": "tea", "ok": true}\n')
    with pytest.raises(UnexpectedError, match="Line 2"):
        read_journal(path)


def test_entries_come_back_as_they_were_written(tmp_path: Path) -> None:
    entry = Entry(
        1.5, Kind.SESSION, ok=True, ms=2.25, address="127.0.0.11", leaf="aa", chain="bb", status=201, client="ñ<", lsid="00", error=""
    )
    with Journal(tmp_path / "j") as journal:
        journal.write(entry)
    assert list(read_entries(tmp_path / "j")) == [entry]


def test_the_order_of_a_chain_is_part_of_its_digest() -> None:
    assert digest_chain([b"a", b"b"]) != digest_chain([b"b", b"a"])
    assert digest_chain([]) == ""
