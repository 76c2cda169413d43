"""Upgrades of one box, on local processes: with visitors and Jump Clients all along, with faults, with kills."""

from __future__ import annotations

import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rig import BOXSHIFT, Rig, wait_end, wait_until

from kit.process import run
from migrate.demo.play import Scenario, find_lost
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
PATH = ("base-5.2.0", "base-5.3.0", "site-21.2.1", "site-21.3.2", "site-22.1.4")


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(scenario=Scenario.UPGRADE)


def ask(*words: str) -> tuple[int, Any, str]:
    """``boxshift WORDS --json`` to its end: exit code, the JSON object, what was said."""
    done = run([BOXSHIFT, *words, "--json"], timeout=120, env={"NO_COLOR": "1"}, accept=range(256))
    assert "Traceback" not in done.err.decode(), done.err.decode()
    return done.status, json.loads(done.out), done.err.decode()


def change(rig: Rig, *pairs: tuple[str, str]) -> None:
    """Edit the plan; every passage must be there."""
    text = rig.plan.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    rig.plan.write_text(text)


@contextmanager
def fault(rig: Rig, name: str, value: str = "on") -> Iterator[None]:
    rig.stage.old_box.fault(name, value)
    try:
        yield
    finally:
        rig.stage.old_box.fault(name, "off")


def installed(rig: Rig) -> tuple[str, ...]:
    """The packages whose installation has finished, in order."""
    nodes = [node for node in rig.status().nodes if node.name.startswith("install-") and node.state is NodeState.DONE]
    return tuple(node.name.removeprefix("install-") for node in nodes)


def verify_ended_well(rig: Rig, path: tuple[str, ...] = PATH) -> None:
    status = rig.status()
    assert status.state is RunState.DONE, rig.said()[-4000:]
    assert installed(rig) == path
    summary = rig.scene.end_visits()
    assert summary.records_written, "the visitors wrote nothing: the test proves nothing"
    assert find_lost(rig.plan, status, summary) == ()
    assert len(summary.chains) == 1, "visitors were shown more than one chain"


def test_the_whole_path_is_installed_and_every_client_follows(rig: Rig) -> None:
    assert rig.run("upgrade", str(rig.plan), "--yes") == 0, rig.said()[-4000:]
    status = rig.status()
    for label in PATH:
        if label.startswith("site"):
            value = status.node(f"clients-{label}").value
            assert isinstance(value, dict)
            assert value["sentence"] == f"3 of 3 Jump Clients have taken {label.removeprefix('site-')}."
    folder = rig.plan.parent / ".boxshift" / "runs" / status.run
    assert "Integration clients" in (folder / "clients-after-upgrade.md").read_text()
    assert {path.name for path in folder.glob("*.nsb")} == {"backup.nsb", "backup-site-21.3.2.nsb", "backup-site-22.1.4.nsb"}
    assert "is upgraded as planned" in (folder / "report.html").read_text()
    verify_ended_well(rig)
    code, said, _ = ask("check", str(rig.plan))
    assert (code, [finding["code"] for finding in said["findings"]]) == (0, ["nothing-to-install"])


def test_a_base_package_that_fails_stops_everything_and_leaves_a_bundle_for_support(rig: Rig) -> None:
    change(rig, ("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.1.1"}'))
    with fault(rig, "install-fails"):
        assert rig.run() == 4, rig.said()[-4000:]
    status = rig.status()
    failed = next(node for node in status.nodes if node.state is NodeState.FAILED)
    assert failed.name == "install-base-5.2.0"
    assert failed.error is not None
    assert failed.error["code"] == "base-update-failed"
    assert "Do NOT restart" in str(failed.error["hint"])
    bundle = rig.plan.parent / ".boxshift" / "runs" / status.run / "support-bundle-install-base-5.2.0.zip"
    assert str(bundle) in str(failed.error["hint"])
    assert bundle.stat().st_mode & 0o077 == 0
    verify_bundle(bundle, rig)
    assert rig.run("retry", str(rig.plan)) == 0, rig.said()[-2000:]
    assert rig.run() == 0, rig.said()[-4000:]
    verify_ended_well(rig, ("base-5.2.0",))


def verify_bundle(bundle: Path, rig: Rig) -> None:
    """Everything is in it that support asks for, and no secret."""
    with zipfile.ZipFile(bundle) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert json.loads(parts["status-before.json"])["base"]["version"] == "5.1.0"
    assert json.loads(parts["status-now.json"])["base"]["version"] == "5.1.0"
    assert json.loads(parts["error.json"])["node"] == "install-base-5.2.0"
    assert "backup" in json.loads(parts["done.json"])
    assert "install-base-5.2.0 begins" in parts["run.log"]
    secrets = rig.scene.secrets
    for secret in (secrets.old_site, secrets.old_appliance, secrets.old_api, secrets.backup, secrets.safety_copy):
        assert all(secret.reveal() not in text for text in parts.values())


def test_clients_that_do_not_follow_are_named_and_a_person_decides(rig: Rig) -> None:
    change(rig, ("at_most: 24h", "at_most: 6s"))
    rig.scene.visitors.stop()  # nobody checks in any more
    assert rig.run() == 4, rig.said()[-4000:]
    status = rig.status()
    failed = next(node for node in status.nodes if node.state is NodeState.FAILED)
    assert failed.name == "clients-site-21.2.1"
    assert failed.error is not None
    assert "3 of 3 Jump Clients have not taken 21.2.1" in str(failed.error["sentence"])
    assert "'s computer" in str(failed.error["hint"])
    code, said, _ = ask("clients", str(rig.plan))
    assert (code, said["version"], said["followed"]["updated"], said["followed"]["expected"]) == (6, "21.2.1", 0, 3)
    assert len(said["followed"]["missing"]) == 3
    assert said["limit"] == 8
    code, said, _ = ask("rollback", str(rig.plan))
    assert (code, said["error"]["code"]) == (3, "no-return"), said


def test_a_window_is_waited_for_and_the_wait_goes_on_after_an_interruption(rig: Rig) -> None:
    window = '\nwindow: {zone: Pacific/Kiritimati, days: [mon], opens: "03:00", closes: "05:00", not_on: [2030-01-07]}\n'
    rig.plan.write_text(rig.plan.read_text() + window)
    code, said, _ = ask("check", str(rig.plan))
    assert code == 0
    assert "next-window" in {finding["code"] for finding in said["findings"]}
    with rig.start() as child:
        assert wait_until(lambda: "Wait for the maintenance window" in rig.log.read_text(), child), rig.said()[-3000:]
        os.kill(child.pid, signal.SIGTERM)
        assert wait_end(child, 60) == 130
    assert installed(rig) == ()
    assert rig.status().node("window-base-5.2.0").state is not NodeState.DONE


CHECKS: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "licence": ([("accept_eula: true, ", "")], 3, "licence-not-accepted"),
    "target": ([("longest: 60s", 'longest: 60s, target: {site: "23.1.1"}')], 3, "target-not-on-offer"),
    "a day and a night": ([("wait: updated, at_most: 24h}", 'wait: day}\nwindow: {zone: UTC, opens: "01:00", closes: "01:00"}')], 0, ""),
    "window": ([("longest: 60s}", 'longest: 2h}\nwindow: {zone: Europe/Madrid, opens: "01:00", closes: "02:30"}')], 3, "window-too-short"),
    "another procedure": ([("procedure: upgrade\n", "procedure: upgrad\n")], 2, "plan"),
    "a migration's setting": ([("boxshift: 1\n", "boxshift: 1\nold: {}\n")], 2, "plan"),
    "another box": ([("  pin: ", "  pin: 00")], 2, "plan"),
}


def test_check_says_what_is_wrong_before_anything_is_touched(rig: Rig) -> None:
    whole = rig.plan.read_text()
    for name, (edits, wanted, word) in CHECKS.items():
        rig.plan.write_text(whole)
        change(rig, *edits)
        code, said, _ = ask("check", str(rig.plan))
        assert code == wanted, (name, said)
        assert word in [finding["code"] for finding in said.get("findings", [])] + [said.get("error", {}).get("code", "")], name
    rig.plan.write_text(whole)
    for words, wanted, hint in (
        (("--offline",), "plan", "source: folder"),
        (("--pair", "async"), "plan", "method: async"),
        (("--pair", "b"), "usage", "sync"),
    ):
        code, said, _ = ask("upgrade", str(rig.plan), *words, "--dry-run")
        assert (code, said["error"]["code"]) == (2, wanted), said
        assert hint in said["error"]["hint"]
    rig.plan.write_text(re.sub(r"pin: [0-9a-f]{64}", f"pin: {'ab' * 32}", whole))
    code, said, _ = ask("check", str(rig.plan))
    assert (code, said["error"]["code"]) == (5, "changed"), said
