"""The demo at the terminal: which stage, what is said, what it ends with."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kit.errors import FailedError, UsageError
from migrate.cli.plans import render_runbook
from migrate.cli.running import run_loaded
from migrate.cli.say import console
from migrate.demo.journal import VisitorSummary
from migrate.demo.play import Curtain, Play, Scenario, Scene, open_scene, perform
from migrate.demo.stage import Stage
from migrate.engine.model import RunStatus
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan
from migrate.report.model import Measurements, OutageRow
from migrate.wiring.procedures import make_runbook
from migrate.wiring.reporting import write_report
from migrate.wiring.workspace import Workspace


@dataclass(frozen=True)
class Ended:
    """What the demo came to."""

    good: bool
    json: dict[str, object]
    sentence: str


class Lines:
    """Progress as plain lines, one for each new label."""

    def __init__(self, who: str = "demo") -> None:
        self._who, self._last = who, ""

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        """Say a label once, however far it is."""
        del done, total
        if label != self._last:
            console().print(f"{self._who}: {label}", markup=False)
            self._last = label


def go_apart(scenario: Scenario, *, by_hand: bool, keep: bool, local: bool = False) -> int | None:
    """Into a network of its own, with the images at hand, which cannot be built there. As :func:`images.apart.enter` answers.

    Raises:
        UsageError: what is asked for cannot be there.

    """
    from images import apart
    from images.home import find_home
    from images.reference_image import ensure_reference_image

    apart.verify_allowed()
    if by_hand or keep:
        raise UsageError(
            "This scenario plays in a network of its own, which no other terminal is in and which goes with the demo.",
            hint="Leave out --by-hand and --keep." if local else "Leave out --by-hand and --keep, or add --local.",
        )
    if local:
        return apart.enter()
    ensure_reference_image(find_home(), progress=Lines())
    if scenario is Scenario.NAT:
        from migrate.demo.gateway import ensure_gateway_image

        ensure_gateway_image(Lines())
    return apart.enter()


@contextmanager
def surroundings(*, apart: bool) -> Iterator[None]:
    """What a demo works with: this computer's own hypervisor, or one in the network of its own that the process is in."""
    from images.apart import open_apart
    from images.home import find_home

    with open_apart(find_home(), progress=Lines()) if apart else nullcontext():
        yield


def demonstrate(play: Play, *, local: bool, yes: bool, keep: bool) -> Ended:
    """Play it and say what came of it."""
    folder, scenario = play.folder, play.scenario
    console().print(f"demo: everything is kept in {folder}", markup=False)
    stage = _make_stage(folder, scenario, local=local, keep=keep)

    def run(loaded: LoadedPlan[CommonPlan]) -> RunStatus:
        console().print(render_runbook(make_runbook(loaded)), markup=False)
        return run_loaded(loaded, yes=yes)

    curtain = perform(play, stage, run, Lines())
    report = write_report(Workspace.beside(folder / "plan.yaml"), curtain.status, to_measurements(curtain)).html
    words = curtain.to_json(report)
    sentence = (
        f"{words['state']}: {words['records_written']} records written, {words['records_lost']} lost; "
        f"{words['requests_lost']} of {words['requests_sent']} requests lost, {words['downtime_seconds']} s without service; "
        f"{'old box' if scenario.is_move else 'box'} {words['old_power']}. Report: {report}"
    )
    return Ended(curtain.good, words, sentence)


def to_measurements(curtain: Curtain) -> Measurements:
    """What the visitors saw, as the report shows it."""
    seen = curtain.visitors
    return Measurements(
        downtime_seconds=seen.downtime_seconds,
        requests_sent=seen.requests_sent,
        requests_lost=seen.requests_lost,
        records_written=len(seen.records_written),
        records_lost=len(curtain.records_lost),
        served_chain_equal=curtain.served_chain_equal,
        outages=tuple(OutageRow(one.since, one.until, one.failures, one.over) for one in seen.outages),
        watched_since=seen.began_at,
        watched_until=seen.ended_at,
    )


def leave_to_operator(play: Play, *, local: bool, keep: bool) -> Ended:
    """The demo without its run: boxes, name server, visitors and a plan are there until Ctrl-C. Then: what the visitors saw."""
    console().print(f"demo: everything is kept in {play.folder}", markup=False)
    with open_scene(play, _make_stage(play.folder, play.scenario, local=local, keep=keep), Lines()) as scene:
        console().print(render_scene(scene), markup=False)
        _wait_for_interrupt(scene)
        return _ended_by_hand(scene.end_visits())


def render_scene(scene: Scene) -> str:
    """What stands there now, and what to type in another terminal."""
    stage = scene.stage
    return f"""\
demo: the old box    https://{stage.old.admin}:{stage.port}/appliance, visitors at {stage.old.visible}
demo: the new box    https://{stage.new.admin}:{stage.port}/appliance, visitors at {stage.new.visible}
demo: name server    {scene.names.primary.address} port {scene.names.primary.port}, key {scene.names.key.name}
demo: plan           {scene.plan}
demo: Now it is yours. In another terminal: boxshift check {scene.plan}
demo: Ctrl-C here takes everything away again."""


def _wait_for_interrupt(scene: Scene) -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        while scene.visitors.status is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    raise FailedError(f"The visitors' program ended by itself: {scene.visitors.said()}", hint=f"Look at {scene.journal}.")


def _ended_by_hand(seen: VisitorSummary) -> Ended:
    words: dict[str, object] = {
        "records_written": len(seen.records_written),
        "requests_sent": seen.requests_sent,
        "requests_lost": seen.requests_lost,
        "downtime_seconds": round(seen.downtime_seconds, 2),
        "chains_served": len(seen.chains),
    }
    sentence = (
        f"The visitors saw {seen.requests_sent} requests, {seen.requests_lost} of them lost, "
        f"{words['downtime_seconds']} s without service; they wrote {len(seen.records_written)} records "
        f"and were shown {len(seen.chains)} certificate chain(s)."
    )
    return Ended(good=True, json=words, sentence=sentence)


def _make_stage(folder: Path, scenario: Scenario, *, local: bool, keep: bool) -> Stage:
    from migrate.demo.stage import find_free_net

    if local:
        from migrate.demo.local_stage import LocalStage

        return LocalStage(folder / "stage", net=find_free_net(), pair=scenario.is_pair, nat=scenario is Scenario.NAT)
    if scenario.needs_network:
        from migrate.demo.network_stage import NetworkStage

        return NetworkStage(folder / "stage", pair=scenario.is_pair, nat=scenario is Scenario.NAT)
    from migrate.demo.machine_stage import MachineStage

    return MachineStage(folder / "stage", net=find_free_net(), keep=keep, meet=scenario is Scenario.MIGRATE_BY_FAILOVER)
