"""The cutover by commands of the operator's own, with real programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit.errors import BoxshiftError, DeadlineError, FailedError, ToolError
from kit.secret import Secret
from migrate.cutover.command import (
    CommandAnswerError,
    CommandChangedError,
    CommandCutover,
    CommandCutoverPlan,
    CommandStateError,
)
from migrate.cutover.contract import Side

pytestmark = pytest.mark.process

OLD, NEW = "10.0.0.11", "fd00::12"


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def make_plan(folder: Path, /, **changes: object) -> CommandCutoverPlan:
    plan = CommandCutoverPlan(OLD, NEW, ("cat", "state"), sh("echo new > state"), sh("echo old > state"), folder, timeout=20.0, spread=20.0)
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").write_text("old\n")
    return tmp_path


@pytest.mark.parametrize(
    ("printed", "side", "shows"),
    [
        ("old", Side.OLD, OLD),
        (" new \n\n", Side.NEW, NEW),
        (OLD, Side.OLD, OLD),
        ("FD00:0:0::0012", Side.NEW, NEW),
        ("10.0.0.99", Side.ELSEWHERE, "10.0.0.99"),
    ],
)
def test_the_check_prints_a_word_or_an_address(folder: Path, printed: str, side: Side, shows: str) -> None:
    (folder / "state").write_text(printed)
    state = CommandCutover(make_plan(folder)).read_state()
    assert (state.side, state.witnesses[0].shows, state.ttl) == (side, (shows,), 0)


@pytest.mark.parametrize("printed", ["", "yes", "OLD", f"{OLD} {NEW}", f"{OLD}\n{NEW}\n", "old\nnew\n", "443", "\x1b[31mold"])
def test_whatever_else_it_prints_is_not_taken_for_an_answer(folder: Path, printed: str) -> None:
    (folder / "state").write_text(printed)
    with pytest.raises(CommandAnswerError, match="no address and no word that is known") as caught:
        CommandCutover(make_plan(folder)).read_state()
    assert "\x1b" not in caught.value.sentence


def test_a_switch_that_the_check_does_not_show_is_no_switch(folder: Path) -> None:
    with pytest.raises(DeadlineError, match=r"the check to say the new box; seen last: the check cat says 10\.0\.0\.11"):
        CommandCutover(make_plan(folder, switch=("true",), spread=0.5)).switch()


def test_a_switch_that_takes_its_time_is_waited_for(folder: Path) -> None:
    late = sh("(sleep 1; echo new > state) > /dev/null 2>&1 &")
    # The child is in the group of a program that has ended well; nobody ends it.
    assert CommandCutover(make_plan(folder, switch=late)).switch().acted


def test_a_switch_that_leads_elsewhere_ends_at_once(folder: Path) -> None:
    with pytest.raises(CommandChangedError, match=r"says 10\.0\.0\.99"):
        CommandCutover(make_plan(folder, switch=sh("echo 10.0.0.99 > state"))).switch()


def test_a_failed_switch_that_was_done_all_the_same_is_found_done(folder: Path) -> None:
    plan = make_plan(folder, switch=sh("echo new > state; echo broken >&2; exit 3"))
    with pytest.raises(ToolError, match="ended with status 3: broken"):
        CommandCutover(plan).switch()
    assert CommandCutover(plan).switch().acted is False


def test_a_command_that_hangs_is_ended(folder: Path) -> None:
    with pytest.raises(DeadlineError, match="did not end within"):
        CommandCutover(make_plan(folder, switch=("sleep", "60"), timeout=0.5)).switch()


def test_being_ready_runs_nothing_that_changes(folder: Path) -> None:
    cutover = CommandCutover(make_plan(folder, ready=sh("touch asked")))
    assert cutover.verify_ready().side is Side.OLD
    assert (folder / "state").read_text() == "old\n"
    assert (folder / "asked").exists()


def test_what_stands_against_a_switch_is_said(folder: Path) -> None:
    with pytest.raises(CommandStateError, match="not allowed: sh ended with status 1: no licence"):
        CommandCutover(make_plan(folder, ready=sh("echo no licence >&2; exit 1"))).verify_ready()
    with pytest.raises(ToolError, match=r"\./missing of the plan's cutover commands is not there"):
        CommandCutover(make_plan(folder, switch_back=("./missing",))).verify_ready()


def test_a_program_of_the_plan_s_own_folder_is_found_there(folder: Path) -> None:
    program = folder / "tell"
    program.write_text("#!/bin/sh\necho new\n")
    program.chmod(0o755)
    assert CommandCutover(make_plan(folder, check=("./tell",))).read_state().side is Side.NEW


def test_words_reach_the_program_as_they_are(folder: Path) -> None:
    odd = "a b'c\"d$(touch hit);\\"
    check = ("sh", "-c", '[ "$1" = "$(cat odd)" ] && cat state', "sh", odd)
    (folder / "odd").write_text(odd)
    assert CommandCutover(make_plan(folder, check=check)).read_state().side is Side.OLD
    assert not (folder / "hit").exists()


def test_a_secret_goes_to_standard_input_and_comes_back_masked(folder: Path, hostile_password: str) -> None:
    (folder / "secret").write_text(hostile_password)
    plan = make_plan(folder, secret=Secret(hostile_password), switch=sh("cat > given; cmp given secret && cat given >&2; exit 9"))
    with pytest.raises(FailedError, match="status 9") as caught:
        CommandCutover(plan).switch()
    assert_masked(caught.value, hostile_password)
    with pytest.raises(CommandAnswerError) as answered:
        CommandCutover(replace(plan, check=("cat",))).read_state()
    assert_masked(answered.value, hostile_password)


def assert_masked(error: BoxshiftError, secret: str) -> None:
    told = f"{error!r} {error} {error.to_record()}"
    assert "***" in told
    assert secret not in told
    assert "b@c" not in told
