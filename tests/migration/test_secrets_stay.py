"""No secret leaves where it belongs: a whole run with hostile passwords, and then a search in everything that it left or showed."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import stat
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
from leaks import Needles, forms_of, forms_of_key, lay_spy, watching_processes
from theatre import Theatre, edit

from images.local_appliance import LocalAppliance
from kit.progress import Silent
from migrate.appliances.bomgar.driver import credentials_after_reset
from migrate.appliances.contract import Account, Credentials
from migrate.demo.secrets_file import HOSTILE, DemoSecrets
from migrate.engine.model import Call, RunState
from migrate.plan_file import read_plan
from migrate.runbooks.migration import plan_migration
from migrate.steps.context import STEPS, Context, Done, Step
from migrate.wiring.executor import StepExecutor
from migrate.wiring.workspace import Workspace

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_search_finds_every_form() -> None:
    """A search that finds nothing proves something only if it would find it."""
    secret = HOSTILE + "0123abcd"
    needles = Needles()
    needles.add_text("the secret", secret)
    for form in forms_of(secret):
        assert needles.find(b"before" + form + b"after", "here") == ["the secret in here"]
    assert needles.find(json.dumps({"a": [secret]}).encode(), "here")
    assert needles.find(b"nothing to see", "here") == []


def make_needles(theatre: Theatre) -> Needles:
    """The plan's secrets, what is derived from them, and the site's private key."""
    needles = Needles()
    secrets: DemoSecrets = theatre.rig.scene.secrets
    for one in fields(secrets):
        needles.add_text(one.name, getattr(secrets, one.name).reveal())
    account = Account("admin", secrets.old_appliance)
    after = credentials_after_reset(Credentials(Account("admin", secrets.old_site), account))
    needles.add_text("site password after the reset", after.site.password.reveal())
    needles.add_text("appliance password after the reset", after.appliance.password.reveal())
    for path in (theatre.rig.stage.old_box.root / "data" / "keys").glob("*.key"):
        if b"BEGIN" in path.read_bytes() and path.stat().st_size > 1500:  # RSA: the site's; the box's own are small
            needles.add("the private key", forms_of_key(path.read_bytes()))
    assert "the private key" in needles.forms.values()
    return needles


def add_tokens(needles: Needles, box: LocalAppliance) -> None:
    """Cookies of logins and tokens of the API, as the box keeps them."""
    with closing(sqlite3.connect(f"file:{box.root}/data/box.db?mode=ro", uri=True, timeout=30)) as database:
        for table in ("visit", "api_token"):
            for number, (token,) in enumerate(database.execute(f"select token from {table}")):
                needles.add_text(f"{table} {number}", token)


def verify_nothing_leaked(theatre: Theatre, needles: Needles) -> None:
    """Not in the plan's folder (database, logs, reports, journal, frozen plan), and not on any screen."""
    exempt = [theatre.folder / name for name in ("secrets.yaml", "visitor.json", "stage", "names")]
    assert needles.search(theatre.folder, exempt) == []
    assert needles.search(theatre.folder, exempt[1:]), "the search does not even find them in secrets.yaml"
    assert needles.find("\n".join(theatre.heard).encode(), "the console") == []


def verify_private(folder: Path) -> None:
    """Nothing of ours can be read by others, nor entered."""
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_no_secret_is_found_after_a_whole_run(theatre: Theatre, tmp_path: Path) -> None:
    theatre.at("fresh")
    needles = make_needles(theatre)
    spy = lay_spy(tmp_path / "spy")
    with watching_processes() as watch:
        answer = theatre.say("run", str(theatre.plan), "--yes", "--json", env=spy)
    assert answer.code == 0, answer.all
    assert theatre.rig.status().state is RunState.DONE
    for word in ("status", "runs", "report", "plan"):
        assert theatre.ask_plan(word).code == 0
        assert theatre.ask_plan(word, "--json").code == 0
    theatre.ask_plan("rollback")
    made = (tmp_path / "spy" / "made").read_text().split()
    assert len(made) >= 3, "the export for the diagnosis, the one for the copy, the one on the way: none was seen"
    for number, passphrase in enumerate(made):
        needles.add_text(f"passphrase {number} made in flight", passphrase)
    add_tokens(needles, theatre.rig.stage.new_box)
    assert any(b"boxshift" in name for name in watch.names), "the watch did not see the run"
    assert needles.find(b"\n".join(watch.seen), "a process list") == []
    verify_nothing_leaked(theatre, needles)
    verify_private(theatre.runs)


def test_no_secret_is_found_after_refusals_and_a_rollback(theatre: Theatre) -> None:
    theatre.at("switched")
    needles = make_needles(theatre)
    secrets = theatre.rig.scene.secrets
    wrong = {}
    for name in ("old_site", "old_api", "backup", "tsig"):
        text = getattr(secrets, name).reveal()
        wrong[name] = f"{text}-wrong"
        kept = (theatre.folder / "secrets.yaml").read_text()
        edit(theatre.folder / "secrets.yaml", json.dumps(text), json.dumps(wrong[name]))
        answer = theatre.say("check", str(theatre.plan), env={"BOXSHIFT_DEBUG": "1"}) if name != "backup" else theatre.on_plan("run")
        (theatre.folder / "secrets.yaml").write_text(kept)
        assert answer.code != 0 or name == "backup", answer.all
        needles.add_text(f"a wrong {name}", wrong[name])
    assert theatre.on_plan("rollback").code == 0
    add_tokens(needles, theatre.rig.stage.old_box)
    verify_nothing_leaked(theatre, needles)
    verify_private(theatre.runs)


def test_a_fault_of_ours_repeats_no_secret(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    theatre.at("fresh")
    secret = theatre.rig.scene.secrets.backup.reveal()
    needles = Needles()
    needles.add_text("backup", secret)

    def break_down(ctx: Context) -> Done:
        raise RuntimeError(f"no good: {ctx.secret('file:secrets.yaml#backup', 'the backup password').reveal()}")

    loaded = read_plan(theatre.plan)
    workspace = Workspace.beside(theatre.plan)
    executor = StepExecutor(workspace, lambda _: theatre.plan)
    monkeypatch.setitem(STEPS, "read-old", Step("read-old", break_down, None))
    with caplog.at_level(logging.DEBUG, "boxshift"):
        outcome = executor.execute(Call(workspace.open_run(loaded), plan_migration(loaded).node("read-old"), 1, {}), Silent())
    assert outcome.error is not None
    assert outcome.error["code"] == "bug"
    assert "break_down" in caplog.text, "where it broke is told"
    assert needles.find(f"{outcome.error}{caplog.text}".encode(), "the log") == []


def test_a_secret_in_the_wrong_place_is_not_repeated(theatre: Theatre, tmp_path: Path) -> None:
    theatre.at("fresh")
    secret = theatre.rig.scene.secrets.backup.reveal()
    needles = Needles()
    needles.add_text("backup", secret)
    shutil.copy2(theatre.plan, tmp_path / "plan.yaml")
    edit(tmp_path / "plan.yaml", '"file:secrets.yaml#backup"', json.dumps(secret))
    for word in ("check", "plan", "run"):
        answer = theatre.ask(word, str(tmp_path / "plan.yaml"), "--json")
        assert answer.code == 2, answer.all
        assert needles.find(answer.all.encode(), "the console") == []
