"""The secrets that a plan names: looked at before anything is begun, so that none is missed in the middle of a night."""

from __future__ import annotations

from collections.abc import Iterator

from kit.errors import UsageError
from migrate.checks import name_box
from migrate.pair_plan import TwoBoxes
from migrate.plan import Accounts, CommonPlan, Plan
from migrate.plan_cutover import CutoverPlan
from migrate.plan_file import LoadedPlan
from migrate.secrets import resolve_secret
from migrate.upgrade_plan import UpgradePlan

PROMPT = "prompt"  # asked for when it is needed


def verify_secrets(loaded: LoadedPlan[CommonPlan]) -> None:
    """Resolve every reference once and forget what it gave; those that are asked for at the terminal excepted.

    Raises:
        UsageError: some are not there; all of them are told.

    """
    faults: list[UsageError] = []
    for what, reference in _list_references(loaded.plan):
        if reference == PROMPT:
            continue
        try:
            resolve_secret(reference, base=loaded.folder, what=what)
        except UsageError as error:
            if error.sentence not in [other.sentence for other in faults]:
                faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = "\n".join(error.sentence for error in faults)
        raise UsageError(f"{len(faults)} secrets of the plan cannot be had.", hint="Mend them all; nothing was tried.", faults=lines)


def _list_references(plan: CommonPlan) -> Iterator[tuple[str, str]]:
    if isinstance(plan, Plan):
        for who, accounts in (("old", plan.old.accounts), ("new", plan.new.accounts)):
            yield from _list_accounts(who, accounts)
        if plan.new.factory_password is not None:
            yield "the factory password", plan.new.factory_password
        if plan.old.factory_password is not None:
            yield "the factory password of the old box", plan.old.factory_password
        yield from _list_cutover(plan.cutover)
        if plan.cutover.failover is not None:
            yield "the pre-shared key", plan.cutover.failover.pre_shared_key
    if isinstance(plan, UpgradePlan):
        yield from _list_accounts("box", plan.box.accounts)
    if isinstance(plan, TwoBoxes):
        for name in ("a", "b"):
            yield from _list_accounts(name, plan.box(name).accounts)
        yield "the pre-shared key", plan.pre_shared_key
    yield "the passphrase of the safety copy", plan.certificate.safety_passphrase
    yield "the backup password", plan.backup.password
    for reference in plan.notify.to if plan.notify is not None else ():
        yield "an address for notices", reference


def _list_cutover(cutover: CutoverPlan) -> Iterator[tuple[str, str]]:
    if cutover.dns is not None:
        yield f"the TSIG key {cutover.dns.key_name}", cutover.dns.key
    if cutover.nat is not None and cutover.nat.password is not None:
        yield f"{cutover.nat.user} of the gateway", cutover.nat.password
    if cutover.nat is not None and cutover.nat.passphrase is not None:
        yield "the key of the gateway", cutover.nat.passphrase
    if cutover.command is not None and cutover.command.secret is not None:
        yield "the cutover commands", cutover.command.secret


def _list_accounts(who: str, accounts: Accounts) -> Iterator[tuple[str, str]]:
    yield f"/login of {name_box(who)}", accounts.site.password
    yield f"/appliance of {name_box(who)}", accounts.appliance.password
    if accounts.api is not None:
        yield f"the API account of {name_box(who)}", accounts.api.secret
