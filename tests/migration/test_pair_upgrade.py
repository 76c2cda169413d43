"""Upgrades of failover pairs on local processes: both methods, with visitors all along, with faults, with kills."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rig import Rig, kill, wait_until
from test_upgrade import ask, change

from migrate.demo.play import Scenario, find_lost
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
SHORT = ('longest: 60s, target: {site: "21.2.1"}', 'longest: 60s, target: {base: "5.2.0", site: "21.1.1"}')


def verify_ended_well(rig: Rig, primary: str) -> None:
    """Done; the roles as they should be; no session that any box acknowledged is missing; one chain all along."""
    status = rig.status()
    assert status.state is RunState.DONE, rig.said()[-4000:]
    value = status.node("establish-pair").value
    assert isinstance(value, dict)
    assert value["sentence"].startswith(f"{primary} is the primary")
    summary = rig.scene.end_visits()
    assert summary.records_written, "the visitors wrote nothing: the test proves nothing"
    assert find_lost(rig.plan, status, summary) == ()
    assert len(summary.chains) == 1


def kill_after_the_break(rig: Rig) -> None:
    """Between the end of the pair and the first package."""
    with rig.start() as child:
        assert wait_until(lambda: "break-pair" in rig.finished_so_far(), child), rig.said()[-3000:]
        kill(child)
    if any("-install-" in name for name in rig.finished_so_far()):
        pytest.fail("the kill came too late to prove anything")


@pytest.mark.parametrize(("scenario", "primary"), [(Scenario.PAIR_SYNC, "a"), (Scenario.PAIR_ASYNC, "b")], ids=["sync", "async"])
def test_both_boxes_are_upgraded_and_no_session_is_lost(make_rig: Callable[..., Rig], scenario: Scenario, primary: str) -> None:
    rig = make_rig(scenario=scenario)
    assert rig.run("upgrade", str(rig.plan), "--yes") == 0, rig.said()[-4000:]
    status = rig.status()
    packages = [node.name for node in status.nodes if "-install-" in node.name]
    first = "b" if scenario is Scenario.PAIR_ASYNC else "a"
    assert [name[0] for name in packages] == [first] * 3 + ["a" if first == "b" else "b"] * 3
    assert all(node.state is NodeState.DONE for node in status.nodes)
    verify_papers(rig)
    verify_ended_well(rig, primary)


def verify_papers(rig: Rig) -> None:
    """What is left to do by hand is listed, and who has followed is told of the box that serves."""
    status = rig.status()
    assert "Integration clients" in (rig.plan.parent / ".boxshift" / "runs" / status.run / "clients-after-upgrade.md").read_text()
    code, said, _ = ask("clients", str(rig.plan))
    assert (code, said["followed"]["updated"], said["followed"]["missing"]) == (0, 3, []), said
    assert said["since"] is not None


def test_before_the_first_package_a_rollback_makes_them_a_pair_again(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.PAIR_ASYNC)
    change(rig, SHORT)
    kill_after_the_break(rig)
    assert rig.run("rollback", str(rig.plan)) == 0, rig.said()[-3000:]
    assert rig.status().state is RunState.ROLLED_BACK
    code, said, _ = ask("failover", "status", str(rig.plan))
    assert (code, said["state"]) == (0, "a primary, b backup")


def test_check_names_what_stands_against_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.PAIR_ASYNC)
    whole = rig.plan.read_text()
    assert [ask("upgrade", str(rig.plan), "--dry-run", f"--pair={method}")[0] for method in ("async", "sync")] == [0, 2]
    change(rig, (', target: {site: "21.2.1"}', ""))
    code, said, _ = ask("check", str(rig.plan))
    assert code == 3
    assert "clients-cannot-follow" in {finding["code"] for finding in said["findings"]}
    rig.plan.write_text(whole)
    assert ask("failover", "swap", str(rig.plan), "--yes")[0] == 0
    code, said, _ = ask("check", str(rig.plan))
    assert code == 3
    assert "pair-not-ready" in {finding["code"] for finding in said["findings"]}
    assert ask("failover", "break", str(rig.plan), "--yes")[0] == 0
    assert ask("check", str(rig.plan))[0] == 3
