from __future__ import annotations

import json
import os
import pickle
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.errors import BoxshiftError, DeadlineError, FailedError, RefusedError, UnreachableError, from_record
from kit.files import write_private
from kit.findings import Finding, Severity
from kit.progress import Silent
from kit.secret import Secret
from kit.waiting import wait_for


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def answers(*values: object):
    """A probe that answers these in turn, raising those that are exceptions; then None for ever."""
    rest: Iterator[object] = iter(values)

    def probe() -> object:
        value = next(rest, None)
        if isinstance(value, Exception):
            raise value
        return value

    return probe


class TestWaitFor:
    def test_the_first_answer_that_is_not_none_ends_it_also_a_false_one(self) -> None:
        assert wait_for(answers(None, None, 0, 1), what="it", timeout=10, poll=0.001) == 0

    def test_a_failure_counts_as_not_yet(self) -> None:
        assert wait_for(answers(UnreachableError("no answer"), "up"), what="it", timeout=10, poll=0.001) == "up"

    def test_another_error_ends_it(self) -> None:
        with pytest.raises(RefusedError):
            wait_for(answers(RefusedError("no")), what="it", timeout=10, poll=0.001)
        with pytest.raises(ZeroDivisionError):
            wait_for(lambda: 1 // 0, what="it", timeout=10, poll=0.001)

    def test_good_answers_count_only_in_a_row(self) -> None:
        probe = answers(1, 2, None, 3, 4, FailedError("flap"), 5, 6, 7)
        assert wait_for(probe, what="it", timeout=10, poll=0.001, in_a_row=3) == 7

    def test_the_deadline_tells_what_for_and_what_was_seen_last(self) -> None:
        with pytest.raises(DeadlineError) as caught:
            wait_for(answers(FailedError("first"), FailedError("still closed")), what="the port", timeout=0.05, poll=0.001)
        assert caught.value.facts == {"waited_for": "the port", "last_seen": "still closed"}
        assert "the port" in caught.value.sentence
        assert "still closed" in caught.value.sentence

    def test_it_looks_at_least_once(self) -> None:
        assert wait_for(answers("there"), what="it", timeout=0, poll=5) == "there"

    def test_giving_up_ends_it_at_once_with_the_reason(self) -> None:
        calls = []

        def dead() -> str | None:
            calls.append(1)
            return "the server ended" if len(calls) == 3 else None

        with pytest.raises(DeadlineError, match="Stopped waiting for the page: the server ended"):
            wait_for(answers(), what="the page", timeout=1e6, poll=0.001, give_up=dead)
        assert len(calls) == 3

    def test_a_good_answer_counts_even_when_there_would_be_reason_to_give_up(self) -> None:
        assert wait_for(answers("up"), what="it", timeout=10, give_up=lambda: "dead") == "up"


class TestWritePrivate:
    def test_the_file_is_private_from_its_first_byte(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        modes = []
        plain = os.write

        def write(handle: int, content: bytes) -> int:
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
            return plain(handle, content[:3])  # short writes are continued

        monkeypatch.setattr(os, "write", write)
        before = os.umask(0)
        try:
            write_private(tmp_path / "key", b"0123456789")
        finally:
            os.umask(before)
        monkeypatch.undo()
        assert modes == [0o600] * 4
        assert (tmp_path / "key").read_bytes() == b"0123456789"
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600

    def test_an_open_file_becomes_private(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(b"old")
        (tmp_path / "key").chmod(0o644)
        write_private(tmp_path / "key", b"new")
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600

    def test_when_the_disk_is_full_the_old_file_stays_and_nothing_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(b"old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(FailedError, match="could not be written") as caught:
                write_private(tmp_path / "key", b"x" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "Free space" in caught.value.hint
        assert names(tmp_path) == ["key"]
        assert (tmp_path / "key").read_bytes() == b"old"

    def test_an_interrupted_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_private(tmp_path / "key", b"new")
        assert names(tmp_path) == []

    def test_a_link_is_replaced_and_its_target_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"precious")
        (tmp_path / "key").symlink_to(tmp_path / "target")
        write_private(tmp_path / "key", b"new")
        assert (tmp_path / "target").read_bytes() == b"precious"
        assert not (tmp_path / "key").is_symlink()
        assert (tmp_path / "key").read_bytes() == b"new"

    def test_a_folder_that_is_missing_and_a_folder_in_the_way_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(FailedError, match="could not be written"):
            write_private(tmp_path / "missing" / "key", b"x")
        (tmp_path / "key").mkdir()
        with pytest.raises(FailedError, match="could not be written"):
            write_private(tmp_path / "key", b"x")
        assert names(tmp_path) == ["key"]

    def test_a_long_name_can_be_written(self, tmp_path: Path) -> None:
        write_private(tmp_path / ("ñ" * 127), b"x")
        assert names(tmp_path) == ["ñ" * 127]


class TestFindings:
    def test_heavier_ones_sort_first_and_not_knowing_weighs_more_than_a_warning(self) -> None:
        order = sorted(Severity, key=lambda severity: severity.rank)
        assert order == [Severity.BLOCKER, Severity.UNVERIFIED, Severity.WARNING, Severity.NOTE]

    def test_a_finding_is_a_value(self) -> None:
        assert Finding("code", Severity.NOTE, "It is so.") == Finding("code", Severity("note"), "It is so.", "", "")


class TestErrors:
    def test_an_error_shows_its_sentence_only(self, hostile_password: str) -> None:
        error = RefusedError("It is refused.", hint="Ask.", who=hostile_password)
        assert str(error) == "It is refused."

    def test_facts_that_are_no_plain_values_are_told_as_text(self, hostile_password: str) -> None:
        error = FailedError("No.", path=Path("/x"), secret=Secret(hostile_password), rows=[1], count=3)  # type: ignore[arg-type]
        assert error.facts == {"path": "/x", "secret": "***", "rows": "[1]", "count": 3}

    def test_an_error_of_a_class_not_loaded_here_comes_back_as_its_nearest_ancestor_and_keeps_its_code(self) -> None:
        record = {"code": "of-another-process", "kinds": ["unheard-of", "refused", "boxshift"], "sentence": "No.", "hint": "Ask."}
        error = from_record(record)
        assert type(error) is RefusedError
        assert error.to_record()["code"] == "of-another-process"
        assert RefusedError.code == "refused"

    @pytest.mark.parametrize(
        "record", [{}, {"code": None}, {"code": "failed", "facts": [1], "kinds": 5}, {"facts": {"hint": 1, "sentence": 2}}]
    )
    def test_a_damaged_record_still_gives_an_error(self, record: dict[str, object]) -> None:
        assert isinstance(from_record(record), BoxshiftError)

    def test_an_error_survives_json_and_pickling(self, hostile_password: str) -> None:
        error = DeadlineError("Ñ", hint=hostile_password, a=1, b=None, c=1.5, d=True)
        for again in (from_record(json.loads(json.dumps(error.to_record()))), pickle.loads(pickle.dumps(error))):
            assert type(again) is DeadlineError
            assert again.to_record() == error.to_record()


def test_silent_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Silent().update("x", 1, 2)
    assert capsys.readouterr() == ("", "")
