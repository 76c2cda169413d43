"""What a plan is for decides its runbook. A migration's follows from the plan alone; an upgrade's from what the box is offered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from kit.errors import UnexpectedError
from kit.progress import Silent
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import CommonPlan, Plan
from migrate.plan_file import LoadedPlan, PlanError, read_any_plan
from migrate.runbook import Runbook
from migrate.runbooks.migration import plan_migration
from migrate.runbooks.pair_upgrade import plan_pair_upgrade
from migrate.runbooks.upgrade import plan_upgrade
from migrate.upgrade_path import UpgradePath
from migrate.upgrade_plan import UpgradePlan


def make_runbook(loaded: LoadedPlan[CommonPlan]) -> Runbook:
    """The runbook of any plan. For an upgrade the box is asked what it offers, which changes nothing on it.

    Raises:
        ChangedError: the box serves another key than the plan says.
        FailedError: it cannot be read.

    """
    match loaded.plan:
        case Plan():
            return plan_migration(LoadedPlan(loaded.plan, loaded.path, loaded.digest))
        case UpgradePlan():
            upgrade = LoadedPlan(loaded.plan, loaded.path, loaded.digest)
            return plan_upgrade(upgrade, read_offered_path(upgrade))
        case PairUpgradePlan():
            pair_plan = LoadedPlan(loaded.plan, loaded.path, loaded.digest)
            return plan_pair_upgrade(pair_plan, read_offered_paths(pair_plan))
        case other:
            raise UnexpectedError(f"No procedure belongs to {type(other).__name__}.")


def verify_upgrade(path: Path) -> None:
    """The plan is one of an upgrade. Raises PlanError where it is not."""
    if not isinstance(read_any_plan(path).plan, UpgradePlan | PairUpgradePlan):
        raise PlanError(f"The plan {path} is not one of an upgrade.", hint="boxshift run performs whatever a plan is for.")


def read_offered_paths(loaded: LoadedPlan[PairUpgradePlan]) -> dict[str, UpgradePath]:
    """The same for both boxes of a pair, by ``a`` and ``b``."""
    from migrate.steps.upgrade import read_path
    from migrate.wiring.pairs import make_pair

    pair = make_pair(loaded, Silent())
    paths = {}
    for name in ("a", "b"):
        with pair.open(name) as box:
            paths[name] = read_path(box, loaded.plan, loaded.folder)
    return paths


def read_offered_path(loaded: LoadedPlan[UpgradePlan]) -> UpgradePath:
    """Log in to the box, whose key must be the plan's, and read versions and offers."""
    from certs.served import read_pin
    from migrate.steps.inspect import compare_key
    from migrate.steps.upgrade import read_path
    from migrate.wiring.boxes import open_planned_box

    plan = loaded.plan
    compare_key(read_pin(plan.box.address, plan.box.port), "box", plan.box)
    with closing(open_planned_box(loaded)) as box:
        return read_path(box, plan, loaded.folder)
