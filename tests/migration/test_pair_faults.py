"""Faults of a pair around its upgrade: each is named, and what is printed then leads out of it. Visitors write all along."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig import Rig, installations, is_at, kill, role_of, seen_by, set_key, wait_end, wait_until
from test_pair_upgrade import SHORT, kill_after_the_break, verify_ended_well
from test_upgrade import ask, change
from zones import WINDOW, SiteZone

from images.local_appliance import LocalAppliance
from kit.process import Child
from kit.progress import Silent
from kit.waiting import wait_for
from migrate.demo.play import Scenario
from migrate.engine.model import NodeState, RunState
from migrate.facts import FailoverRole
from migrate.plan_file import read_any_plan
from migrate.wiring.pairs import make_pair

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def slow_link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child | None]:
    """What is done over a slow link is mostly waiting: it is begun first, and looked at by the last test."""
    if os.geteuid() != 0:
        yield None
        return
    folder = tmp_path_factory.mktemp("slow")
    with Child([sys.executable, Path(__file__).with_name("slow_player.py"), folder], log=folder / "said", env={"NO_COLOR": "1"}) as player:
        yield player


def test_what_stands_against_it_is_found_with_nothing_changed_and_what_comes_later_leads_on(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.PAIR_SYNC)
    change(rig, SHORT)
    verify_a_dead_box_is_told(rig)
    verify_keys_that_differ_block(rig)
    verify_a_conflict_blocks(rig, FailoverRole.PRIMARY)
    verify_a_conflict_blocks(rig, FailoverRole.BACKUP)
    verify_a_restart_is_a_retry_away(rig)
    verify_a_primary_that_dies_while_the_roles_change(rig)
    verify_ended_well(rig, "a")


def roles(rig: Rig) -> tuple[str, str]:
    return role_of(rig.stage.old_box), role_of(rig.stage.new_box)


def said_of_pair(rig: Rig) -> tuple[str, dict[str, str]]:
    """The state, and the hint of each finding by its code."""
    _, said, _ = ask("failover", "status", str(rig.plan))
    return said["state"], {finding["code"]: finding["hint"] for finding in said["findings"]}


def act(rig: Rig, *words: str) -> str:
    """``boxshift failover WORDS``; the state afterwards."""
    code, said, _ = ask("failover", words[0], str(rig.plan), *words[1:], "--yes")
    assert code == 0, said
    return str(said["state"])


def verify_blocked(rig: Rig, node: str, code: str) -> str:
    """The upgrade stops at that node and has changed nothing; a rollback ends it. Answers the hint."""
    before = roles(rig)
    assert rig.run("upgrade", str(rig.plan), "--yes") == 3, rig.said()[-3000:]
    status = rig.status()
    assert (status.state, status.waiting) == (RunState.DECISION, (node,))
    error = status.node(node).error
    assert error is not None
    assert code in str(error["facts"]), error
    assert "boxshift rollback" in str(error["hint"])
    assert "boxshift rollback" in ask("status", str(rig.plan))[1]["next"]
    assert status.node("backup").state is NodeState.PENDING
    assert roles(rig) == before
    assert rig.run("rollback", str(rig.plan)) == 0, rig.said()[-3000:]
    return str(error["hint"])


def force_role(rig: Rig, role: FailoverRole, name: str) -> None:
    """Both boxes have this role: the box of that name takes it while nothing goes between the two."""
    other = rig.stage.old_box if name == "b" else rig.stage.new_box
    other.fault("peer-silent")
    with make_pair(read_any_plan(rig.plan), Silent()).open(name) as driver:
        driver.set_failover_role(role, data_sync_first=False, force=role is FailoverRole.BACKUP, progress=Silent())
    other.fault("peer-silent", "off")
    assert roles(rig) == (role.value, role.value)
    for box in (rig.stage.old_box, rig.stage.new_box):
        sees = lambda: seen_by(box).get("role") == role.value or None  # noqa: B023, E731 - called at once
        wait_for(sees, what="both boxes to see that", timeout=60, poll=0.1)


def verify_a_dead_box_is_told(rig: Rig) -> None:
    rig.stage.new_box.stop()
    code, said, _ = ask("upgrade", str(rig.plan), "--yes")
    assert (code, said["error"]["code"]) == (4, "unreachable")
    assert rig.stage.new.admin in said["error"]["sentence"]
    assert "Is the box on" in said["error"]["hint"]
    rig.stage.new_box.start()


def verify_keys_that_differ_block(rig: Rig) -> None:
    set_key(rig.stage.new_box, "another")
    wait_for(lambda: seen_by(rig.stage.old_box).get("problem"), what="box a to see that", timeout=60, poll=0.1)
    code, said, _ = ask("check", str(rig.plan))
    blockers = {one["code"]: one["hint"] for one in said["findings"] if one["severity"] == "blocker"}
    assert (code, list(blockers)) == (3, ["peer-unknown"]), said
    assert "boxshift failover break, then establish" in blockers["peer-unknown"]
    assert act(rig, "break") == "no relationship"
    assert act(rig, "establish") == "a primary, b backup"


def verify_a_conflict_blocks(rig: Rig, role: FailoverRole) -> None:
    """Both have this role: nothing goes between the boxes while the other one takes it as well."""
    force_role(rig, role, "b" if role is FailoverRole.PRIMARY else "a")
    state, hints = said_of_pair(rig)
    assert state == f"conflict: both {role.value}"
    assert "boxshift failover resolve" in hints["conflict"]
    if role is FailoverRole.BACKUP:  # nobody serves: that is seen first, and its reason told
        assert "boxshift failover resolve" in verify_blocked(rig, "read-service", "conflict")
    if act(rig, "resolve") == "b primary, a backup":  # the boxes decide
        act(rig, "swap")
    assert roles(rig) == ("primary", "backup")


def verify_a_primary_that_dies_while_the_roles_change(rig: Rig) -> None:
    """The backup does not take the role by guess; what failed is named, and the same command does it once the box is back."""
    old, new = rig.stage.old_box, rig.stage.new_box
    with amid(rig, new, "sync-seconds", lambda: is_at(new, "role"), "failover", "swap", str(rig.plan), "--yes"):
        old.stop()
    old.start()
    state, hints = said_of_pair(rig)
    assert state == "a primary, b backup"
    assert "failover swap --primary" in hints["role-change-failed"]
    assert act(rig, "swap", "--primary", "b") == "b primary, a backup"


def verify_a_restart_is_a_retry_away(rig: Rig) -> None:
    """Of the primary in its package, and while it gives the other box its data in the end."""
    old, new, plan = rig.stage.old_box, rig.stage.new_box, str(rig.plan)
    with amid(rig, old, "install-seconds", lambda: installations(old) == ["running"], "upgrade", plan, "--yes"):
        old.stop()
        old.start()
    verify_waits_for(rig, "a-install-base-5.2.0")
    assert rig.run("retry", plan) == 6, rig.said()[-3000:]
    with amid(rig, new, "sync-seconds", lambda: is_at(new, "pull"), "approve", plan):
        old.stop()
        old.start()
    verify_waits_for(rig, "establish-pair")
    assert rig.run("retry", plan) == 0, rig.said()[-3000:]


def verify_waits_for(rig: Rig, node: str) -> dict[str, object]:
    """The run waits for a decision on this node; answers the error."""
    status = rig.status()
    assert (status.state, status.waiting) == (RunState.DECISION, (node,))
    error = status.node(node).error
    assert error is not None
    assert error["hint"]
    return error


@contextmanager
def amid(rig: Rig, box: LocalAppliance, delay: str, is_there: Callable[[], bool], *words: str) -> Iterator[None]:
    """The command's work takes for ever at a box, and something befalls it in the middle; the command ends with 4."""
    box.fault(delay, "600")
    with rig.start(*words) as child:
        assert wait_until(is_there, child), rig.said()[-3000:]
        box.fault(delay, "off")
        yield
        assert wait_end(child, 120) == 4, rig.said()[-3000:]


def test_what_befalls_a_pair_between_break_and_establish_leads_on(make_rig: Callable[..., Rig], site_zone: SiteZone) -> None:
    rig = make_rig(scenario=Scenario.PAIR_ASYNC, profile="auto-select")  # one package leads to the target, and it is the site's
    rig.plan.write_text(rig.plan.read_text() + WINDOW)
    kill_after_the_break(rig)
    verify_a_pair_that_somebody_made_meanwhile_is_broken_first(rig)
    verify_a_dead_box_is_waited_for(rig)
    site_zone.close_window()
    verify_the_next_box_waits_for_its_window(rig)
    verify_boxes_that_differ_are_no_pair(rig)
    site_zone.open_window()
    verify_a_box_that_is_dead_at_the_end_is_waited_for(rig)
    verify_ended_well(rig, "b")


def verify_a_pair_that_somebody_made_meanwhile_is_broken_first(rig: Rig) -> None:
    """Made in good faith, of boxes whose keys differed, and in a conflict at last: nothing is installed on half of a pair."""
    set_key(rig.stage.old_box, "another")
    assert act(rig, "establish") == "a primary, b backup"
    force_role(rig, FailoverRole.PRIMARY, "b")
    assert rig.run("upgrade", str(rig.plan)) == 3, rig.said()[-3000:]
    error = verify_waits_for(rig, "b-look-site-21.2.1")
    assert "primary of a failover pair by now" in str(error["sentence"])
    assert "boxshift failover break, then boxshift retry" in str(error["hint"])
    assert act(rig, "break") == "no relationship"


def verify_a_dead_box_is_waited_for(rig: Rig) -> None:
    rig.stage.new_box.stop()
    assert rig.run("retry", str(rig.plan)) == 4, rig.said()[-3000:]
    assert "Is the box on" in str(verify_waits_for(rig, "b-look-site-21.2.1")["hint"])
    rig.stage.new_box.start()
    assert rig.run("retry", str(rig.plan)) == 6, rig.said()[-3000:]
    assert rig.status().waiting == ("approve-second",)


def verify_the_next_box_waits_for_its_window(rig: Rig) -> None:
    """Visitors are at b, there is no failover, and that is told."""
    waits = lambda: "the window opens" in rig.status().node("a-window-site-21.2.1").progress  # noqa: E731
    with rig.start("approve", str(rig.plan)) as child:
        assert wait_until(waits, child), rig.said()[-3000:]
        os.kill(child.pid, signal.SIGTERM)
        assert wait_end(child, 60) == 130
    assert rig.status().state is RunState.INTERRUPTED
    assert installations(rig.stage.old_box) == []


def verify_boxes_that_differ_are_no_pair(rig: Rig) -> None:
    """Who is tired of waiting is told why not; the way out is to go on."""
    code, said, _ = ask("failover", "establish", str(rig.plan), "--primary", "b", "--yes")
    assert (code, said["error"]["code"]) == (3, "blocked")
    assert "a 21.1.1" in said["error"]["sentence"]
    assert "b 21.2.1" in said["error"]["sentence"]
    assert "Both need the same package" in said["error"]["hint"]
    code, said, _ = ask("check", str(rig.plan))
    assert code == 3
    assert "versions-differ" in {one["code"] for one in said["findings"] if one["severity"] == "blocker"}


def verify_a_box_that_is_dead_at_the_end_is_waited_for(rig: Rig) -> None:
    plan = str(rig.plan)
    with rig.start("upgrade", plan) as child:
        assert wait_until(lambda: "a-prove-site-21.2.1" in rig.finished_so_far(), child), rig.said()[-3000:]
        kill(child)
    rig.stage.old_box.stop()
    assert rig.run("upgrade", plan) == 3, rig.said()[-3000:]
    error = verify_waits_for(rig, "establish-pair")
    assert error["code"] == "blocked"
    assert "box-unread" in str(error["facts"])
    rig.stage.old_box.start()
    assert rig.run("retry", plan) == 0, rig.said()[-3000:]


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_over_a_slow_and_lossy_link_it_takes_longer_and_does_the_same(slow_link: Child, capsys: pytest.CaptureFixture[str]) -> None:
    """200 ms there and back and one of twenty packets lost: a data sync with a change of roles, and the upgrade of a box."""
    assert wait_end(slow_link, 400) == 0, slow_link.said()
    told = json.loads(slow_link.log.read_text().splitlines()[-1])
    assert (told["roles"], told["failed"], told["lost"]) == (["backup", "primary"], [], [])
    assert all(told["written"]), "the visitors wrote nothing: the test proves nothing"
    with capsys.disabled():
        sys.stdout.write(f"\n200 ms and 5 % loss: seconds {told['took']}\n")
