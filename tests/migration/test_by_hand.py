"""The demo without its run: the stage of the tutorial. It stands until it is told to go, and leaves nothing behind."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from rig import BOXSHIFT, wait_end, wait_until

from kit import process
from kit.process import Child
from migrate.cli import running
from migrate.engine.model import NothingToDecideError, RunState
from migrate.plan_file import read_plan


def ends(said: Path) -> bool:
    return said.exists() and "Ctrl-C here" in said.read_text()


@pytest.mark.process
@pytest.mark.network
@pytest.mark.slow
def test_the_stage_stands_until_it_is_told_to_go(tmp_path: Path) -> None:
    folder, said = tmp_path / "lab", tmp_path / "said.txt"
    with Child([BOXSHIFT, "demo", "--local", "--by-hand", "--folder", folder], log=said, env={"NO_COLOR": "1"}) as stage:
        assert wait_until(lambda: ends(said), stage), said.read_text()
        plan = read_plan(folder / "plan.yaml").plan
        shown = process.run([BOXSHIFT, "plan", folder / "plan.yaml"], timeout=60).text
        assert "approve-cutover" in shown
        for box in (plan.old, plan.new):
            socket.create_connection((box.address, box.port), timeout=5).close()
        stage.stop(grace=30)
        assert wait_end(stage, 30) == 0
    assert "The visitors saw" in said.read_text()
    for box in (plan.old, plan.new):
        with pytest.raises(OSError):
            socket.create_connection((box.address, box.port), timeout=5).close()


def waiting(state: RunState, *names: str) -> SimpleNamespace:
    return SimpleNamespace(state=state, waiting=names)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the person at the terminal answers: a truth value, or an error that comes of it."""
    answers: list[object] = []

    def answer(*_: object, **__: object) -> object:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(running, "_ask", answer)
    return answers


@pytest.mark.parametrize(
    ("answer", "now", "goes_on"),
    [
        (True, waiting(RunState.RUNNING), True),
        (False, waiting(RunState.APPROVAL, "approve-cutover"), False),
        (False, waiting(RunState.RUNNING), True),
        (False, waiting(RunState.ROLLING_BACK, "approve-cutover"), True),
        (NothingToDecideError("It is done."), waiting(RunState.RUNNING), True),
    ],
    ids=["yes", "no", "no, but it was approved elsewhere", "no, but it is rolled back elsewhere", "yes, after it was approved elsewhere"],
)
def test_who_decides_at_another_terminal_decides(asked: list[object], answer: object, now: object, goes_on: bool) -> None:
    asked.append(answer)
    desk = SimpleNamespace(status=lambda: now)
    before = waiting(RunState.APPROVAL, "approve-cutover")
    assert running._decide(SimpleNamespace(desk=desk), None, before, yes=False) == goes_on  # type: ignore[arg-type]


def test_an_interrupted_run_is_left_and_not_asked_about_for_ever(asked: list[object]) -> None:
    asked.append(False)
    gone = waiting(RunState.INTERRUPTED)
    desk = SimpleNamespace(status=lambda: gone)
    assert not running._decide(SimpleNamespace(desk=desk), None, gone, yes=False)  # type: ignore[arg-type]
