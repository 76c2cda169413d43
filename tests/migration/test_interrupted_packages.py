"""Packages that are cut off: by a box that restarts, by a boxshift that is killed, by a window that closes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from rig import Rig, installations, kill, wait_end, wait_until
from test_upgrade import change, installed, verify_ended_well
from zones import WINDOW, SiteZone

from migrate.demo.play import Scenario
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]


def test_an_upgrade_goes_on_after_each_of_them(make_rig: Callable[..., Rig], site_zone: SiteZone) -> None:
    rig = make_rig(scenario=Scenario.UPGRADE)
    change(rig, ("longest: 60s", 'longest: 60s, target: {base: "5.3.0", site: "21.1.1"}'))
    rig.plan.write_text(rig.plan.read_text() + WINDOW)
    assert rig.run("upgrade", str(rig.plan)) == 6, rig.said()[-3000:]
    verify_one_that_runs_is_waited_for(rig, site_zone)
    verify_a_closed_window_is_waited_for(rig, site_zone)
    verify_a_restart_stops_the_run(rig)
    assert rig.run("retry", str(rig.plan)) == 0, rig.said()[-3000:]
    assert installations(rig.stage.old_box) == ["finished", "failed", "finished"]
    verify_ended_well(rig, ("base-5.2.0", "base-5.3.0"))


def verify_one_that_runs_is_waited_for(rig: Rig, zone: SiteZone) -> None:
    """The window closes as well while nobody watches."""
    box = rig.stage.old_box
    box.fault("install-seconds", "8")
    with rig.start("approve", str(rig.plan)) as child:
        assert wait_until(lambda: installations(box) == ["running"], child), rig.said()[-3000:]
        kill(child)
    zone.close_window()
    assert rig.status().node("install-base-5.2.0").state is NodeState.INTERRUPTED


def verify_a_closed_window_is_waited_for(rig: Rig, zone: SiteZone) -> None:
    """The package that was begun is seen to its end; the next one is not begun."""
    box = rig.stage.old_box
    with rig.start() as child:
        waits = lambda: "the window opens" in rig.status().node("window-base-5.3.0").progress  # noqa: E731
        assert wait_until(waits, child), rig.said()[-3000:]
        os.kill(child.pid, signal.SIGTERM)
        assert wait_end(child, 60) == 130
    assert installed(rig) == ("base-5.2.0",)
    assert installations(box) == ["finished"], "it was pressed twice"
    assert rig.status().state is RunState.INTERRUPTED
    zone.open_window()


def verify_a_restart_stops_the_run(rig: Rig) -> None:
    """The box went down by itself in the middle of a package, and is up again: what is so is read from it, and a person is asked."""
    box = rig.stage.old_box
    box.fault("install-seconds", "600")
    with rig.start() as child:
        assert wait_until(lambda: installations(box)[1:] == ["running"], child), rig.said()[-3000:]
        box.stop()
        box.fault("install-seconds", "off")
        box.start()
        assert wait_end(child, 120) == 4, rig.said()[-3000:]
    status = rig.status()
    assert (status.state, status.waiting) == (RunState.DECISION, ("install-base-5.3.0",))
    error = status.node("install-base-5.3.0").error or {}
    assert error["code"] == "base-update-failed"
    assert "interrupted; nothing was changed" in str(error["sentence"])
    assert "`boxshift retry` looks again" in str(error["hint"])
