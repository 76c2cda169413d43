"""The steps of a pair's upgrade that are about both boxes: look, sync, break, move the shared addresses, establish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from kit.errors import FailedError, UnexpectedError
from kit.findings import Finding, Severity
from kit.waiting import wait_for
from migrate.checks import check_box, find_site_certificate, parse_version
from migrate.facts import ApplianceFacts, BoxAddress, FailoverRole
from migrate.pair_checks import UNKNOWN_PEER, PairFacts, check_pair
from migrate.pair_plan import PairMethod, PairUpgradePlan
from migrate.steps.context import Done, Evidence, UpgradeContext, step
from migrate.steps.upgrade import judged, verify_service
from migrate.upgrade_checks import check_path
from migrate.upgrade_path import UpgradePath
from migrate.upgrade_plan import ClientWait

MERGES_FROM = (10, 6)  # site software that merges sessions of both boxes when a relationship is established again
PROVE = 120.0
SETTLED = 6.0  # seconds that a box is given to look at its peer


@dataclass(frozen=True)
class Swung:
    """The shared addresses moved: seconds between the last answer of one box and the first of the other, as far as this step saw."""

    at: float
    seconds: float


@step("read-pair")
def read_pair(ctx: UpgradeContext) -> Done:
    """Both boxes' failover pages."""
    pair = _read_settled(ctx)
    return Done(f"The pair: {pair.state}.", pair, _pair_evidence(pair))


def _read_settled(ctx: UpgradeContext) -> PairFacts:
    """Right after a change of roles, or a restart, a box has not looked at the other yet: that is not a box that cannot be reached."""
    end = time.monotonic() + SETTLED
    while True:
        pair = ctx.need_pair().read()
        if time.monotonic() > end or ctx.stop_wanted() or not any(one.code == UNKNOWN_PEER for one in check_pair(pair)):
            return pair
        time.sleep(1.0)


@step("judge-pair")
def judge_pair(ctx: UpgradeContext) -> Done:
    """Everything that stands against it, of both boxes and of the two together."""
    plan, pair = _plan(ctx), ctx.result("read-pair", PairFacts)
    paths = {name: ctx.result(f"{name}-read-path", UpgradePath) for name in ("a", "b")}
    # A pair that does not reach each other cannot be synced: here that is known before a backup is taken, and before the break.
    of_pair = [replace(one, severity=Severity.BLOCKER) if one.code == UNKNOWN_PEER else one for one in check_pair(pair)]
    found = [*of_pair, *check_start(plan, pair, tuple(paths.values()))]
    for name, path in paths.items():
        facts = ctx.result(f"{name}-read-box", ApplianceFacts)
        of_box = check_box(plan.box(name), facts, name, plan.verify.clock_tolerance)
        # Only the primary has the shared addresses enabled; that the backup has not is as it should be.
        found += [one for one in of_box if not (one.code == "service-disabled" and pair.find(FailoverRole.BACKUP) == (name,))]
        found += check_path(plan, facts, path, ctx.read_time())
    return judged(list(dict.fromkeys(found)))


def check_start(plan: PairUpgradePlan, pair: PairFacts, paths: Sequence[UpgradePath]) -> list[Finding]:
    """What a pair must be at the start: in its everyday roles, and able to merge where sessions run on both boxes."""
    found = []
    if pair.state != "a primary, b backup":
        sentence = f"The pair is not in its everyday state: {pair.state}."
        hint = "a is to be the primary and b its backup: boxshift failover swap or establish; or exchange a and b in the plan."
        found.append(Finding("pair-not-ready", Severity.BLOCKER, sentence, hint, "pair"))
    sites = [half.site.version for _, half in pair.halves()]
    many = max((len(path.site_items) for path in paths), default=0)
    if plan.method is PairMethod.ASYNC and many > 1 and plan.clients.wait is not ClientWait.NONE:
        sentence = f"The path has {many} site packages, and clients cannot follow between them on a box that serves nobody."
        hint = "Set packages.target.site to the first of them and repeat, use method: sync, or clients.wait: none."
        found.append(Finding("clients-cannot-follow", Severity.BLOCKER, sentence, hint, "pair"))
    if plan.method is PairMethod.ASYNC and any(parse_version(site) < MERGES_FROM for site in sites):
        sentence = "This version does not merge the sessions of both boxes, so those of the old primary would be lost."
        found.append(Finding("no-merge", Severity.BLOCKER, sentence, "Use method: sync for this upgrade.", "pair"))
    return found


@step("sync-pair")
def sync_pair(ctx: UpgradeContext) -> Done:
    """A data sync to its real end: the backup holds what the primary holds."""
    pair = ctx.need_pair().sync()
    return Done("The data sync has ended well.", None, _pair_evidence(pair))


def _establish_again(ctx: UpgradeContext) -> Done:
    hands = ctx.need_pair()
    if hands.read().state.startswith("one-sided"):
        hands.end()  # cut off between the two boxes: one of them knows of its end already
    pair = hands.establish("a")
    return Done("The relationship is established again, with a as the primary.", None, _pair_evidence(pair))


@step("break-pair", undo=_establish_again)
def break_pair(ctx: UpgradeContext) -> Done:
    """No relationship on either box; from here until it is established again there is no failover."""
    pair = ctx.need_pair().end()
    return Done("The relationship is ended on both boxes.", None, _pair_evidence(pair))


@step("probe-as-site")
def probe_as_site(ctx: UpgradeContext) -> Done:
    """The box answers under the site's name before any visitor is sent there; no hosts file is touched for it.

    Where its own address serves a certificate of its own, the site's must be on the address that visitors will come to.
    """
    place = f"{ctx.box.address}:{ctx.box.port}"
    with closing(ctx.open_box()) as box:
        row = find_site_certificate(box.read_certificates(), str(ctx.box.service.address))
    if row is None or ctx.plan.site.name not in row.names or row.warnings:
        said = f": {row.warnings[0]}" if row is not None and row.warnings else ""
        raise FailedError(
            f"Box {ctx.who} has no certificate for {ctx.plan.site.name} with its key on {ctx.box.service.address}{said}.",
            hint="Import and assign it there (Security > Certificates), then boxshift retry.",
        )
    assigned = Evidence("certificate", f"{row.issued_to} until {row.expires}, with its key", "Security > Certificates")
    try:
        ctx.outside.probe(ctx.box.address, ctx.box.port)
    except FailedError as error:
        served = ctx.outside.read_served(ctx.box.address, ctx.box.port)
        if served.leaf_spki != ctx.box.pin:
            raise
        rows = (assigned, Evidence("its own address", f"serves its own key: {error.sentence}", place))
        return Done(
            f"Box {ctx.who} will serve the site's certificate on {ctx.box.service.address}; its own address has another.", None, rows
        )
    rows = (assigned, Evidence("request under the site's name", "good, verified", place))
    return Done(f"{ctx.plan.site.name} answers at {place}.", None, rows)


def _swing_back(ctx: UpgradeContext) -> Done:
    swung = swing(ctx, "b", "a")
    return Done(f"The shared addresses are on a again, after {swung.seconds:.1f} s.")


@step("swing-shared", undo=_swing_back)
def swing_shared(ctx: UpgradeContext) -> Done:
    """Off at a, at once on at b, and proved from outside."""
    swung = swing(ctx, "a", "b")
    proof = wait_for(lambda: verify_service(ctx), what="visitors to be served by b", timeout=PROVE, poll=0.5, give_up=ctx.find_stop)
    return Done(
        f"The shared addresses moved to b; {swung.seconds:.1f} s between off and on.",
        swung,
        (Evidence("served now by b", proof.said, proof.place),),
    )


def swing(ctx: UpgradeContext, source: str, target: str) -> Swung:
    """Disable every shared address at ``source``, enable it at ``target``. What is done already is seen and not done twice."""
    addresses = [str(one) for one in _plan(ctx).shared]
    hands = ctx.need_pair()
    with closing(hands.open_box(source)) as old, closing(hands.open_box(target)) as new:
        rows = {row.address: row for row in new.read_addresses()}
        missing = [one for one in addresses if one not in rows]
        if missing:
            raise FailedError(f"Box {target} does not have the address {missing[0]}.", hint="Add it there, disabled, then boxshift retry.")
        # Nobody is served between off and on: what the second needs is made ready before the first.
        changes = [box.prepare_address(BoxAddress(one, rows[one].prefix, enabled=box is new)) for box in (old, new) for one in addresses]
        begin = time.monotonic()
        for change in changes:
            change()
        return Swung(ctx.read_time(), time.monotonic() - begin)


@step("establish-pair")
def establish_pair(ctx: UpgradeContext) -> Done:
    """The relationship again, with the box that serves as the primary; sessions of both are merged, then it is synced."""
    primary = "b" if _plan(ctx).method is PairMethod.ASYNC else "a"
    pair = ctx.need_pair().establish(primary)
    return Done(f"{primary} is the primary again, the other its backup.", pair, _pair_evidence(pair))


@step("compare-pair")
def compare_pair(ctx: UpgradeContext) -> Done:
    """Both boxes run the same, as a pair, and visitors are served what they were served."""
    pair, before = ctx.need_pair().read(), ctx.result("a-read-box", ApplianceFacts)
    blockers = [finding for finding in check_pair(pair) if finding.severity is Severity.BLOCKER]
    if blockers:
        raise FailedError(blockers[0].sentence, hint=blockers[0].hint)
    with closing(ctx.open_box()) as box:
        now = box.read_facts()
    served = verify_service(ctx)
    return Done(
        f"The pair: {pair.state}; site {before.site.version} before, {now.site.version} now.",
        now,
        (*_pair_evidence(pair), Evidence("served now", served.said, served.place)),
    )


def _pair_evidence(pair: PairFacts) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(
            f"box {name}", f"{half.failover.role.value}, site {half.site.version} on base {half.base.version}", "Management > Failover"
        )
        for name, half in pair.halves()
    )


def _plan(ctx: UpgradeContext) -> PairUpgradePlan:
    if not isinstance(ctx.plan, PairUpgradePlan):
        raise UnexpectedError("This step is about a pair, and the plan has one box.")
    return ctx.plan
