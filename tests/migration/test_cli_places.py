"""Beginning a plan, and plans in places that programs stumble over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from theatre import Theatre

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
STRANGE = "räum 'x' \"y\" $(z) ?#%20&;\\ñ"


@pytest.fixture(scope="module")
def fresh(theatre: Theatre) -> Theatre:
    theatre.at("fresh")
    return theatre


def test_init_reads_the_keys_and_writes_both_files_once(fresh: Theatre, tmp_path: Path) -> None:
    stage = fresh.rig.stage
    folder = tmp_path / STRANGE
    words = ("init", str(folder), "--site", "support.example.test", "--json")
    boxes = ("--old", f"{stage.old.admin}:{stage.port}", "--new", f"{stage.new.admin}:{stage.port}")
    shown = fresh.ask(*words, *boxes, "--dry-run")
    assert (shown.code, shown.json["written"]) == (0, False), shown.all
    assert not folder.exists()
    answer = fresh.ask(*words, *boxes)
    assert answer.code == 0, answer.all
    plan = fresh.read_plan()
    assert answer.json["pins"] == {stage.old.admin: plan.old.pin, stage.new.admin: plan.new.pin}
    assert [path.stat().st_mode & 0o777 for path in sorted(folder.iterdir())] == [0o600, 0o600]
    before = (folder / "secrets.yaml").read_bytes()
    again = fresh.ask(*words, *boxes)
    assert (again.code, again.error["code"]) == (2, "usage"), again.all
    assert (folder / "secrets.yaml").read_bytes() == before
    # What a person still has to say is told at its line.
    check = fresh.ask("check", str(folder / "plan.yaml"), "--json")
    assert (check.code, check.error["code"]) == (2, "plan"), check.all
    faults = check.error["facts"]["faults"].splitlines()
    lines = (folder / "plan.yaml").read_text().splitlines()
    asked = [number for number, line in enumerate(lines, 1) if "CHANGE-ME" in line and "address" in line]
    assert asked
    assert set(asked) <= {int(fault.split(":")[0].removeprefix("line ")) for fault in faults}


def test_init_says_which_box_did_not_answer(fresh: Theatre, tmp_path: Path) -> None:
    answer = fresh.ask("init", str(tmp_path), "--old", "127.0.0.1:9", "--json")
    assert answer.code == 0, answer.all
    assert "127.0.0.1:9" in answer.err
    assert answer.json["pins"] == {}
    assert "CHANGE-ME" in (tmp_path / "plan.yaml").read_text()


def move_in(theatre: Theatre, folder: Path, name: str) -> Path:
    """The same plan in another place."""
    folder.mkdir(parents=True, mode=0o700)
    for file in ("secrets.yaml", "root.pem"):
        shutil.copy2(theatre.folder / file, folder / file)
    shutil.copy2(theatre.plan, folder / name)
    return folder / name


@pytest.mark.parametrize("place", ["strange", "deep"])
def test_a_plan_works_wherever_it_lies(fresh: Theatre, tmp_path: Path, place: str) -> None:
    room = 430 - len(os.fsencode(tmp_path))
    folder = tmp_path / STRANGE if place == "strange" else tmp_path.joinpath(*["d" * 60] * (room // 61))
    plan = move_in(fresh, folder, "plän 'x' [bold].yaml")
    with fresh.fault(fresh.rig.stage.old_box, "unhealthy"):
        answer = fresh.say("run", str(plan), "--yes")
    assert answer.code == 3, answer.all
    status = fresh.ask("status", str(plan), "--json")
    assert status.json["waiting"] == ["preflight"], status.all
    report = fresh.ask("report", str(plan), "--json")
    assert Path(report.json["report"]).is_relative_to(folder), report.all
    back = fresh.say("rollback", str(plan), "--json")
    assert (back.code, back.json["state"]) == (0, "rolled back"), back.all
    assert fresh.ask("run", str(plan), "--dry-run").code == 0
    fresh.verify_old_in_service()


def test_a_path_that_is_too_long_is_told_before_anything_is_tried(fresh: Theatre, tmp_path: Path) -> None:
    plan = move_in(fresh, tmp_path.joinpath(*["e" * 200] * 3), "plan.yaml")
    answer = fresh.say("run", str(plan), "--yes", "--json")
    assert (answer.code, answer.error["code"]) == (2, "usage"), answer.all
    assert "shorter path" in answer.error["hint"]


def test_a_folder_that_cannot_be_used_is_told(fresh: Theatre, tmp_path: Path) -> None:
    plan = move_in(fresh, tmp_path / "taken", "plan.yaml")
    (plan.parent / ".boxshift").write_text("somebody else's")
    answer = fresh.ask("check", str(plan), "--json")
    assert answer.code == 4, answer.all
    assert "cannot be made" in answer.error["sentence"]
    assert answer.error["hint"]
