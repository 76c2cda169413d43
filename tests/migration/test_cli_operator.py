"""The operator's commands around a run: looking, deciding, interrupting, from the same terminal or another."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rig import wait_until
from terminal import open_terminal
from theatre import Theatre, wait_end_quietly

from kit.process import Child
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
READERS = ("status", "runs", "report", "plan", "check")
WRITERS = ("approve", "retry", "skip", "shorten", "abort", "rollback")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


@pytest.fixture(scope="module")
def verified(theatre: Theatre) -> Theatre:
    """The run waits for the word to switch; tests that use this leave it waiting."""
    theatre.at("verified")
    return theatre


def state_of(theatre: Theatre) -> dict[str, Any]:
    """Everything that a decision could change."""
    status = theatre.rig.status()
    return {
        "run": status.run,
        "state": status.state,
        "decisions": status.decisions,
        "nodes": [(node.name, node.state, node.attempt, node.undo) for node in status.nodes],
        "runs": sorted(path.name for path in (theatre.runs / "runs").iterdir()),
        "plan": theatre.plan.read_bytes(),
        "record": theatre.record(),
    }


# ---- looking


@pytest.mark.parametrize("word", READERS)
def test_every_reader_gives_one_json_object(verified: Theatre, word: str) -> None:
    before = state_of(verified)
    answer = verified.ask_plan(word, "--json")
    assert answer.code == 0, answer.all
    assert isinstance(answer.json, dict)
    assert state_of(verified) == before
    for old in ("old_site", "old_appliance", "backup", "tsig"):
        assert getattr(verified.rig.scene.secrets, old).reveal() not in answer.all


def test_status_tells_where_it_is_and_what_the_way_back_costs(verified: Theatre) -> None:
    told = verified.ask_plan("status", "--json").json
    assert told["state"] == "waiting for approval"
    assert told["waiting"] == ["approve-cutover"]
    # They were done side by side, and what ended last is undone first.
    assert re.search(r"undoes (lower-ttl, provision|provision, lower-ttl), in about \d+ s", told["rollback"])
    text = verified.ask_plan("status").out
    assert "approve-cutover" in text
    assert "\x1b" not in text


def test_the_report_can_be_had_at_any_time(verified: Theatre) -> None:
    answer = verified.ask_plan("report", "--json")
    html, data = Path(answer.json["report"]), Path(answer.json["json"])
    assert "waiting" in html.read_text()
    assert json.loads(data.read_text())["run"] == verified.rig.status().run
    assert html.stat().st_mode & 0o777 == 0o600


def test_the_folder_stands_for_its_plan(verified: Theatre) -> None:
    answer = verified.say("status", "--json", cwd=verified.folder)
    assert answer.json["waiting"] == ["approve-cutover"]
    assert verified.ask("status", str(verified.folder), "--json").json["run"] == answer.json["run"]


# ---- what makes no sense


def test_an_unknown_run_is_named(verified: Theatre) -> None:
    for word in ("status", "report", "rollback"):
        answer = verified.ask_plan(word, "--run", "no-such-run", "--json")
        assert (answer.code, answer.error["code"]) == (3, "unknown-run"), answer.all
        assert "no-such-run" in answer.error["sentence"]
        assert answer.error["hint"]


@pytest.mark.parametrize("word", ["status", "runs", "report", "approve", "rollback"])
def test_a_place_without_runs_is_told(verified: Theatre, tmp_path: Path, word: str) -> None:
    answer = verified.ask(word, str(tmp_path), "--json")
    assert (answer.code, answer.error["code"]) == (2, "usage"), answer.all
    assert answer.error["hint"]
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_a_plan_that_is_not_there_is_told(verified: Theatre, tmp_path: Path) -> None:
    for word in ("run", "check", "plan"):
        answer = verified.ask(word, str(tmp_path / "none.yaml"), "--json")
        assert (answer.code, answer.error["code"]) == (2, "plan"), answer.all


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("approve", "--node", "no-such-node"), "usage"),
        (("approve", "--node", "read-old"), "nothing-to-decide"),
        (("retry",), "nothing-to-decide"),
        (("retry", "--node", "compare"), "nothing-to-decide"),
        (("skip",), "refused"),
        (("skip", "--node", "compare"), "nothing-to-decide"),
        (("shorten", "--node", "hold"), "refused"),
        (("shorten", "--node", "soak"), "nothing-to-decide"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_decision_that_nobody_asked_for_is_refused(verified: Theatre, words: tuple[str, ...], code: str) -> None:
    before = state_of(verified)
    answer = verified.ask_plan(*words, "--json")
    assert (answer.code, answer.error["code"]) == (2 if code == "usage" else 3, code), answer.all
    assert state_of(verified) == before


def test_a_plan_that_was_changed_since_its_run_began_is_refused(verified: Theatre) -> None:
    before = verified.plan.read_text()
    verified.plan.write_text(before + "# somebody was here\n")
    try:
        answer = verified.ask_plan("run", "--yes", "--json")
        assert (answer.code, answer.error["code"]) == (3, "refused"), answer.all
        assert "was changed since its run" in answer.error["sentence"]
        assert verified.ask_plan("status").code == 0
    finally:
        verified.plan.write_text(before)
    assert verified.rig.status().state is RunState.APPROVAL


@pytest.mark.parametrize("word", WRITERS)
def test_a_dry_run_decides_nothing(verified: Theatre, word: str) -> None:
    before = state_of(verified)
    answer = verified.ask_plan(word, "--dry-run", "--json")
    assert (answer.code, answer.json["done"]) == (0, False), answer.all
    assert answer.json["sentence"]
    assert state_of(verified) == before


def test_a_dry_run_of_run_shows_the_runbook(verified: Theatre) -> None:
    before = state_of(verified)
    shown = verified.ask_plan("run", "--dry-run", "--json").json
    names = [node["name"] for phase in shown["runbook"]["phases"] for node in phase["nodes"]]
    assert names == [node.name for node in verified.rig.status().nodes], "what is shown is what runs"
    assert state_of(verified) == before


# ---- while it runs


def wait_until_finished(theatre: Theatre, node: str, child: Child) -> None:
    end = time.monotonic() + 120
    while node not in theatre.finished():
        assert child.status is None, theatre.rig.said()
        assert time.monotonic() < end, theatre.rig.said()
        time.sleep(0.05)


def test_nobody_at_the_terminal_and_no_word_in_advance_ends_with_6(theatre: Theatre) -> None:
    theatre.at("verified")
    answer = theatre.on_plan("run", "--json")
    assert answer.code == 6, answer.all
    assert answer.json["waiting"] == ["approve-cutover"]


def test_a_run_is_watched_and_guarded_from_another_terminal_and_ends_in_order(theatre: Theatre) -> None:
    theatre.at("verified")
    with theatre.start() as child:
        wait_until_finished(theatre, "wait-for-old-ttl", child)
        told = theatre.on_plan("status", "--json").json
        assert told["state"] in {"running", "soaking"}
        assert str(child.pid) in told["worker"], told["worker"]
        assert theatre.on_plan("report").code == 0
        assert theatre.on_plan("runs", "--json").json["runs"][0]["state"] == told["state"]
        second = theatre.on_plan("run", "--yes", "--json")
        assert (second.code, second.error["code"]) == (3, "worker-busy"), second.all
        assert second.error["facts"]["pid"] == child.pid
        assert str(child.pid) in second.error["sentence"]
        os.kill(child.pid, signal.SIGINT)
        assert wait_end_quietly(child) == 130, theatre.rig.said()
    assert theatre.rig.status().state is RunState.INTERRUPTED
    assert "Nothing is lost" in theatre.rig.log.read_text()
    # An interrupted run goes on with what it was at; nothing that had finished runs again.
    done = theatre.rig.finished()
    with theatre.start("run", str(theatre.plan)) as child:
        wait_until(lambda: str(child.pid) in (theatre.rig.status().worker or ""), child, 60)  # before that, SIGTERM has its plain meaning
        os.kill(child.pid, signal.SIGTERM)
        assert wait_end_quietly(child) == 130, theatre.rig.said()
    assert theatre.rig.status().state is RunState.INTERRUPTED
    answer = theatre.on_plan("run")
    assert answer.code == 6, answer.all
    assert done.items() <= theatre.rig.finished().items()
    assert theatre.rig.status().waiting == ("approve-retire",)


def test_the_prompt_and_another_terminal_can_both_open_the_gate(theatre: Theatre) -> None:
    theatre.at("verified")
    with open_terminal("run", theatre.plan, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for(r"Approve the switch\?")
        assert re.search(r"A rollback undoes .* in about \d+ s", terminal.said)
        approved = theatre.on_plan("approve", "--note", "from next door", "--json")
        assert approved.code == 0, approved.all
        terminal.type("n\n")  # too late to say no: it was decided
        terminal.wait_for(r"Approve the end of the old box\?")
        terminal.type("n\n")
        assert terminal.wait_end() == 6, terminal.said
        assert not COLOUR.search(terminal.said), "NO_COLOR"
    gate = theatre.rig.status().node("approve-cutover")
    assert isinstance(gate.value, dict)
    assert gate.value["note"] == "from next door"
    assert theatre.rig.status().node("approve-retire").state is NodeState.WAITING


def test_only_what_the_runbook_lets_be_skipped_is_skipped(theatre: Theatre) -> None:
    theatre.at("built")
    frozen = theatre.run_folder / "plan.yaml"
    frozen.write_text(frozen.read_text() + 'verify: {commands: [["sh", "-c", "echo not good; exit 7"]]}\n')
    theatre.rig.stage.new_box.fault("clock", "600")
    answer = theatre.on_plan("run")
    assert answer.code == 4, answer.all
    assert set(theatre.rig.status().waiting) == {"health", "own-checks"}
    refused = theatre.on_plan("skip", "--node", "health", "--json")
    assert (refused.code, refused.error["code"]) == (3, "nothing-to-decide"), refused.all
    assert "cannot be skipped" in refused.error["sentence"]
    assert theatre.on_plan("skip", "--node", "own-checks", "--note", "known").code == 0
    assert theatre.rig.status().waiting == ("health",)
    theatre.rig.stage.new_box.fault("clock", "off")
    answer = theatre.on_plan("retry")
    assert answer.code == 6, answer.all
    assert theatre.rig.status().node("own-checks").state is NodeState.SKIPPED
    assert theatre.rig.status().waiting == ("approve-cutover",)
