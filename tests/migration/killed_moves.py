"""A migration killed at each node, to its end and back: what all ways of switching visitors have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from killer import EVER, MOMENTS, USUAL, Killer, acknowledged, open_killer
from rig import Rig, sessions_of, spoiled
from theatre import Theatre, open_theatre

from kit.waiting import wait_for
from migrate.demo.play import Scenario
from migrate.engine.model import NodeState, RunState, RunStatus

CUTOVER = ("approve-cutover", "blockers-live", "compare-last", "switch", "prove", "wait-for-swing")


@dataclass(frozen=True)
class Move:
    """``nodes``: where it is killed; empty: at all. ``acting``: which of them send something; ``undos``: whose undo does.

    ``retires``: from the last gate it is first brought to its end, then put back to the gate; without, it is led back at once.
    """

    scenario: Scenario
    nodes: tuple[str, ...]
    acting: tuple[str, ...]
    undos: tuple[str, ...]
    adapt: Callable[[Rig], None] = lambda _: None
    by_failover: bool = False
    retires: bool = True


def play_killed(folder: Path, net: int, vendor: Path | None, move: Move) -> list[str]:
    """To the last gate before the old box is wiped; from there to the end, and from there back. Answers where it was killed."""
    with open_theatre(folder, net, vendor, scenario=move.scenario) as theatre, open_killer(theatre, folder / "killer") as killer:  # type: ignore[arg-type]
        move.adapt(theatre.rig)
        killer.moments_met = USUAL if move.nodes else MOMENTS
        killer.between = lambda status: verify_gate_holds(theatre.rig, status)
        reach_last_gate(killer, move)
        spans = [(0.0, EVER)]
        if not move.retires:
            killer.verify_met(move.nodes, move.acting)
        else:
            kept, seen = time.time(), dict(killer.seen)
            theatre.keep("watched")
            verify_retired(killer, move)
            theatre.at("watched")
            spans, killer.seen = [(0.0, kept), (time.time(), EVER)], seen
        verify_led_back(killer, move, spans)
        assert len(theatre.rig.scene.end_visits().chains) == 1, "visitors were shown more than one chain"
        return [f"{death.place}: {death.moment} {death.what}" for death in killer.deaths()]


def reach_last_gate(killer: Killer, move: Move) -> None:
    plan = str(killer.rig.plan)
    assert killer.run("run", plan, places=move.nodes or None) == 6, killer.said()
    assert killer.rig.status().waiting == ("approve-cutover",), killer.said()
    assert killer.run("approve", plan, then=("run", plan), places=move.nodes or None) == 6, killer.said()
    assert killer.rig.status().waiting == ("approve-retire",), killer.said()
    killer.verify_nothing_ran_again()


def verify_gate_holds(rig: Rig, status: RunStatus) -> None:
    """Before the retire gate is done, the old box has its GUID and its site."""
    if status.node("retire-gate").state is not NodeState.DONE:
        assert rig.stage.old_box.answers(), "the old box does not answer although its gate is not open"


def verify_retired(killer: Killer, move: Move) -> None:
    """Done; the old box wiped after its gate alone, and off; every record on the new one; nothing is done twice."""
    rig, plan = killer.rig, str(killer.rig.plan)
    assert killer.run("approve", plan, then=("run", plan), places=move.nodes or None) == 0, killer.said()
    status = rig.status()
    assert status.state is RunState.DONE
    assert {node.state for node in status.nodes} == {NodeState.DONE}
    killer.verify_nothing_ran_again()
    killer.verify_met(move.nodes or [node.name for node in status.nodes], move.acting)
    reset, gate = status.node("factory-reset"), status.node("retire-gate")
    assert (gate.ended or EVER) <= (reset.started or 0.0)
    assert not rig.stage.old_box.is_running, "the old box should be off"
    kept = acknowledged(killer.theatre, (0.0, EVER))
    assert kept, "the visitors wrote nothing: the test proves nothing"
    assert kept - sessions_of(rig.stage.new_box) == set()
    before = rig.finished()
    assert rig.run() == 0, rig.said()[-4000:]  # who was killed in the last second types the same command again
    assert "has ended already" in rig.said()
    assert rig.finished() == before


def verify_led_back(killer: Killer, move: Move, spans: list[tuple[float, float]]) -> None:
    """Rolled back; the old box serves and has every record, or there is a list of those that only the new one has; that serves nobody."""
    theatre, rig = killer.theatre, killer.rig
    if move.by_failover and move.retires:
        part_in_vain(theatre)
    before = sessions_of(rig.stage.old_box)
    wait_for(lambda: sessions_of(rig.stage.new_box) - before or None, what="a record that the new box took", timeout=60, poll=0.1)
    killer.roll_back()
    killer.verify_nothing_ran_again()
    killer.verify_undos_met(move.undos)
    verify_old_serves(theatre)
    verify_new_stopped(theatre)
    listed = theatre.run_folder / "records-only-on-new.txt"
    only_new = set(listed.read_text().split()) if listed.exists() else set()
    assert bool(only_new) is not move.by_failover
    assert only_new <= sessions_of(rig.stage.new_box)
    kept = acknowledged(theatre, *spans)
    assert kept, "the visitors wrote nothing: the test proves nothing"
    assert kept - sessions_of(rig.stage.old_box) - only_new == set()


def part_in_vain(theatre: Theatre) -> None:
    """The pair is broken, and the gate after that does not open: a way back has to make it a pair again."""
    with spoiled(theatre.run_folder / "backup.nsb"):
        answer = theatre.on_plan("approve", "--json")
    assert answer.code == 3, answer.all
    assert theatre.rig.status().node("end-pair").state is NodeState.DONE


def verify_old_serves(theatre: Theatre) -> None:
    """A record that is acknowledged from now on is on the old box."""
    begin, old = time.time(), theatre.rig.stage.old_box

    def look() -> bool | None:
        return bool(acknowledged(theatre, (begin, EVER)) & sessions_of(old)) or None

    wait_for(look, what="a visitor's record on the old box", timeout=60, poll=0.1)


def verify_new_stopped(theatre: Theatre) -> None:
    """Nobody can be served by the new box: neither its own service address nor a shared one is on."""
    stage = theatre.rig.stage
    with theatre.open_new(restored=True) as new:
        on = {row.address for row in new.read_addresses() if row.enabled}
    assert not on & {stage.new.inside, stage.old.inside}, on
