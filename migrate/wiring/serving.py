"""Which box serves visitors after a run, whatever kind of run it was."""

from __future__ import annotations

from kit.errors import UnexpectedError
from kit.progress import Silent
from migrate.appliances.contract import Appliance
from migrate.engine.model import NodeState, RunStatus, UndoState
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import CommonPlan, Plan
from migrate.plan_file import LoadedPlan
from migrate.upgrade_plan import UpgradePlan
from migrate.wiring.boxes import PlannedBox, PlannedBoxes, Stopwatch, find_site_key, make_reveal
from migrate.wiring.pairs import make_pair


def open_box_of_run(loaded: LoadedPlan[CommonPlan], status: RunStatus) -> Appliance:
    """The box that serves visitors after a run: of a migration the new one, once the switch was made and not undone."""
    results = {node.name: node.value for node in status.nodes if node.state is NodeState.DONE}
    match loaded.plan:
        case PairUpgradePlan():
            pair = make_pair(loaded, Silent(), find_site_key(results))
            return pair.open_box(pair.find_serving())
        case UpgradePlan() as upgrade:
            return PlannedBox(upgrade, results, make_reveal(loaded), Stopwatch(), 1.0).open()
        case Plan() as plan:
            boxes = PlannedBoxes(plan, results, make_reveal(loaded), Stopwatch(), 1.0)
            switched = "switch" in results and status.node("switch").undo is not UndoState.UNDONE
            return boxes.open_new() if switched else boxes.open_old()
        case other:
            raise UnexpectedError(f"No box is known of {type(other).__name__}.")
