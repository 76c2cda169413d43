"""What a step of each procedure is given: adapters made from the plan, every call of theirs on the stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import RefusedError, UnexpectedError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.contract import Appliance
from migrate.engine.model import Call
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import CommonPlan, OldPlan, Plan
from migrate.plan_file import LoadedPlan
from migrate.steps.context import Context, PairHands, UpgradeContext, Work
from migrate.upgrade_plan import UpgradePlan, UpgradingPlan
from migrate.wiring.boxes import PlannedBox, PlannedBoxes, Stopwatch, Timed, find_site_key

GO_ON = "Mend what the sentence names, then: boxshift retry. Or go back: boxshift rollback."


@dataclass(frozen=True)
class Tools:
    """What one attempt works with, whatever the procedure."""

    progress: Progress
    watch: Stopwatch
    reveal: Callable[[str, str], Secret]


def make_context(loaded: LoadedPlan[CommonPlan], call: Call, folder: Path, tools: Tools) -> Work[CommonPlan]:
    """The context of a node. ``folder``: the run's own."""
    match loaded.plan:
        case Plan() as plan:
            return _migration(plan, loaded, call, folder, tools)
        case UpgradingPlan() as plan:
            return _upgrade(plan, loaded, call, folder, tools)
        case other:
            raise UnexpectedError(f"No procedure belongs to {type(other).__name__}.")


def _migration(plan: Plan, loaded: LoadedPlan[CommonPlan], call: Call, folder: Path, tools: Tools) -> Context:
    from migrate.wiring.cutovers import make_cutover
    from migrate.wiring.machines import LibvirtMachines
    from migrate.wiring.outside import Visitor
    from migrate.wiring.pairs import find_joined_pair

    def nap(seconds: float) -> None:
        if call.stop_wanted():
            raise RefusedError("The wait for visitors' answers to run out was cut short: the run is to stop.", hint=GO_ON)
        time.sleep(seconds)

    machines = LibvirtMachines()
    patience = machines.patience(plan.new.machine or plan.old.machine)
    boxes = PlannedBoxes(plan, call.results, tools.reveal, tools.watch, patience)
    cutover = make_cutover(plan, loaded.folder, tools.reveal, boxes, nap)
    timed_machines: Any = Timed(machines, tools.watch)
    timed_cutover: Any = Timed(cutover, tools.watch)
    timed_outside: Any = Timed(Visitor(plan, loaded.folder, cutover), tools.watch)
    return Context(
        plan=plan,
        run=call.run,
        node=call.node,
        base=loaded.folder,
        folder=folder,
        results=call.results,
        progress=tools.progress,
        boxes=boxes,
        machines=timed_machines,
        cutover=timed_cutover,
        pair=find_joined_pair(plan, call.results, folder, tools.progress, tools.reveal, tools.watch),
        outside=timed_outside,
        reveal=tools.reveal,
        read_time=time.time,
        stop_wanted=call.stop_wanted,
    )


@dataclass(frozen=True)
class Subject:
    """The box that a node is about, and both where it is one of a pair."""

    box: OldPlan
    who: str
    open_box: Callable[[], Appliance]
    pair: PairHands | None = None


def _find_subject(plan: UpgradingPlan, loaded: LoadedPlan[CommonPlan], call: Call, tools: Tools) -> Subject:
    from migrate.wiring.machines import LibvirtMachines
    from migrate.wiring.pairs import Pair, find_memory

    match plan:
        case UpgradePlan():
            patience = LibvirtMachines().patience(plan.box.machine)
            return Subject(plan.box, "", PlannedBox(plan, call.results, tools.reveal, tools.watch, patience).open)
        case PairUpgradePlan():
            who = str(call.node.params.get("box", "a"))
            pair = Pair(plan, find_memory(loaded.path), tools.progress, tools.reveal, tools.watch, find_site_key(call.results))
            return Subject(plan.box(who), who, lambda: pair.open_box(who), pair)
        case other:
            raise UnexpectedError(f"No box belongs to {type(other).__name__}.")


def _upgrade(plan: UpgradingPlan, loaded: LoadedPlan[CommonPlan], call: Call, folder: Path, tools: Tools) -> UpgradeContext:
    from migrate.wiring.outside import Visitor

    timed_outside: Any = Timed(Visitor(plan, loaded.folder, None), tools.watch)
    subject = _find_subject(plan, loaded, call, tools)
    return UpgradeContext(
        plan=plan,
        run=call.run,
        node=call.node,
        base=loaded.folder,
        folder=folder,
        results=call.results,
        progress=tools.progress,
        outside=timed_outside,
        reveal=tools.reveal,
        read_time=time.time,
        stop_wanted=call.stop_wanted,
        box=subject.box,
        who=subject.who,
        open_box=subject.open_box,
        pair=subject.pair,
    )
