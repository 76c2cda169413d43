"""What a plan is for decides its runbook. A migration's follows from the plan alone; an upgrade's from what the box is offered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from kit.errors import UnexpectedError, UsageError
from kit.progress import Silent
from migrate.pair_plan import PairMethod, PairUpgradePlan
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


def verify_upgrade(path: Path, *, pair: str = "", offline: bool = False) -> None:
    """The plan is one of an upgrade, and the one that is meant: ``pair`` is a method's name, ``offline``: packages come from a folder.

    Raises:
        PlanError: it is not.
        UsageError: there is no such method.

    """
    plan = read_any_plan(path).plan
    if not isinstance(plan, UpgradePlan | PairUpgradePlan):
        raise PlanError(f"The plan {path} is not one of an upgrade.", hint="boxshift run performs whatever a plan is for.")
    if pair:
        if pair not in {method.value for method in PairMethod}:
            raise UsageError(f"A pair is not upgraded by a method {pair!r}.", hint="sync: the primary first. async: the backup first.")
        found = plan.method.value if isinstance(plan, PairUpgradePlan) else ""
        if found != pair:
            kind = f"for a pair, method {found}" if found else "for a single box"
            raise PlanError(f"The plan {path} is {kind}.", hint=f"It needs `procedure: pair-upgrade` and `method: {pair}`.")
    if offline and plan.packages.source != "folder":
        hint = "`boxshift packages fetch FOLDER` fills one where the network is open; then `packages: {source: folder, folder: FOLDER, …}`."
        raise PlanError(f"By the plan {path} the box fetches its packages itself.", hint=hint)


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
