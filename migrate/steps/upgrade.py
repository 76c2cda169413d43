"""The steps of an upgrade of one box: look, install package by package, and see that the clients follow."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from kit.errors import BoxshiftError, ChangedError, FailedError, RefusedError, UnexpectedError, UnreachableError, UsageError
from kit.files import write_private
from kit.findings import Finding, Severity
from kit.waiting import wait_for
from migrate.appliances.contract import Appliance
from migrate.checks import parse_version
from migrate.facts import ApplianceFacts, FailoverRole, PackageKind, SiteContent, Version
from migrate.pair_checks import PairFacts, check_pair
from migrate.steps.context import Done, Evidence, ServedProof, UpgradeContext, step, to_prints, to_sentence
from migrate.steps.inspect import Preflight, facts_done, stop_at, verify_key
from migrate.steps.prepare import keep_backup, keep_certificate
from migrate.steps.support import write_support_bundle
from migrate.steps.transfer import compare_chains
from migrate.steps.verify import check_contents
from migrate.transfer_folder import find_entry, read_transfer, verify_file
from migrate.upgrade_checks import check_upgrade
from migrate.upgrade_path import PathItem, UpgradePath, plan_path
from migrate.upgrade_plan import UpgradePlan, UpgradingPlan
from migrate.windows import find_window, render_moment

SETTLE = 300.0  # seconds that a box may take until it is well again after a package


class BaseUpdateError(FailedError):
    """A base package did not install. The box must not be restarted."""

    code = "base-update-failed"


@dataclass(frozen=True)
class Installed:
    """A package that is on the box. ``began`` and ``box_began``: when installing it was begun, by our clock and by the box's."""

    name: str
    version: str
    began: float
    box_began: float


def read_path(box: Appliance, plan: UpgradingPlan, base: Path) -> UpgradePath:
    """What the box runs, and the path to the plan's target: from what it is offered, or from the plan's folder (relative to ``base``)."""
    now, target = box.read_versions(), plan.packages.target
    folder = find_folder(plan, base)
    offers = box.read_offers() if folder is None else [entry.offer() for entry in read_transfer(folder).packages]
    return plan_path(offers, *now, target.base, target.site)


def find_folder(plan: UpgradingPlan, base: Path) -> Path | None:
    """The folder of packages; None where the box downloads by itself."""
    packages = plan.packages
    return base / packages.folder if packages.source == "folder" and packages.folder is not None else None


@step("read-box")
def read_box(ctx: UpgradeContext) -> Done:
    """Log in everywhere and read the whole box once. Before any password is sent, the key that the plan names is looked at."""
    verify_key(ctx, ctx.title, ctx.box)
    with closing(ctx.open_box()) as box:
        box.verify_access()
        facts = box.read_facts()
    return facts_done(facts, ctx.title)


@step("read-path")
def read_path_again(ctx: UpgradeContext) -> Done:
    """The box is still offered the path that this runbook was made for."""
    frozen = TypeAdapter(UpgradePath).validate_python(ctx.node.params["path"])
    with closing(ctx.open_box()) as box:
        now = read_path(box, ctx.plan, ctx.base)
    names, wanted = [item.name for item in now.items], [item.name for item in frozen.items]
    if names != wanted:
        raise ChangedError(
            f"The box is offered another path than when this runbook was made: {' > '.join(names) or 'nothing'}.",
            hint="boxshift rollback, then run the plan anew.",
        )
    path = " > ".join(names) or "nothing to install"
    return Done(f"Path: {path}.", now, (Evidence("package path", path, "Updates"),))


@step("read-service")
def read_service(ctx: UpgradeContext) -> Done:
    """The chain that visitors are shown today."""
    try:
        served = _read_verified(ctx)
    except FailedError:
        pair = ctx.find_result("read-pair", PairFacts)
        stop_at(check_pair(pair) if pair is not None else ())  # where no box of a pair is the primary, that is the reason
        raise
    return Done(
        f"{ctx.plan.site.name} is served at {served.place}.", served, (Evidence("served today", to_prints(served.chain), served.place),)
    )


def _read_verified(ctx: UpgradeContext) -> ServedProof:
    served = ctx.outside.read_served(ctx.box.service.visible, ctx.plan.site.port)
    if not served.verified:
        raise FailedError(
            f"A verified request to {ctx.plan.site.name} at {served.place} fails today: {served.said}",
            hint="Mend that first, or name the trusted roots in certificate.roots: after the upgrade nobody could tell whose fault it is.",
        )
    return served


@step("judge-upgrade")
def judge_upgrade(ctx: UpgradeContext) -> Done:
    """All findings together."""
    if not isinstance(ctx.plan, UpgradePlan):
        raise UnexpectedError("This step judges one box, and the plan has two.")
    path, facts = ctx.result("read-path", UpgradePath), ctx.result("read-box", ApplianceFacts)
    return judged(check_upgrade(ctx.plan, facts, path, ctx.read_time()))


def judged(found: Sequence[Finding]) -> Done:
    """The findings as a step's result, the heaviest first."""
    findings = tuple(sorted(found, key=lambda finding: finding.severity.rank))
    counts = {severity.value: sum(1 for finding in findings if finding.severity is severity) for severity in Severity}
    return Done(f"Found: {to_sentence(counts)}.", Preflight(findings))


@step("backup-box")
def backup_box(ctx: UpgradeContext) -> Done:
    """A backup of the version that the box runs now, on this machine, read back."""
    with closing(ctx.open_box()) as box:
        _, site = box.read_versions()
        return keep_backup(ctx, box, site, f"{ctx.node.name}.nsb")


@step("safety-copy-box")
def safety_copy_box(ctx: UpgradeContext) -> Done:
    """The operator's encrypted copy of certificate, chain and key."""
    with closing(ctx.open_box()) as box:
        return keep_certificate(ctx, box, ctx.result(ctx.own("read-box"), ApplianceFacts), str(ctx.box.service.address))


@step("wait-for-window")
def wait_for_window(ctx: UpgradeContext) -> Done:
    """Wait until a window is open that has room for one package."""
    until = await_window(ctx)
    return Done(f"The window is open until {until}.", None, (Evidence("window closes", until, "plan"),))


def await_window(ctx: UpgradeContext) -> str:
    """Returns when the window closes, in words, as soon as one is open that has room for a package; at once where the plan has none."""
    window = ctx.plan.window
    if window is None:
        return "no window in the plan"
    rule, needed = window.rule(), ctx.plan.packages.longest
    while True:
        found = find_window(rule, ctx.read_time(), needed)
        if found is None:
            raise RefusedError(f"No window of the year to come has the {needed / 60:.0f} min that a package may take.")
        if found.opens <= ctx.read_time():
            return render_moment(found.closes, rule.zone)
        ctx.progress.update(f"the window opens {render_moment(found.opens, rule.zone)}")
        if ctx.stop_wanted():
            raise RefusedError("The wait for the maintenance window was ended.", hint="The same command goes on waiting.")
        time.sleep(min(1.0, max(0.05, found.opens - ctx.read_time())))


@step("read-before-package")
def read_before_package(ctx: UpgradeContext) -> Done:
    """The box right before a package: still the one that was judged, well, alone; its content is what the package must leave in place.

    Days may lie between this and the start of the run: people were deleted, sessions purged, somebody built a pair.
    """
    with closing(ctx.open_box()) as box:
        facts = box.read_facts()
    _verify_identity(ctx.result(ctx.own("read-box"), ApplianceFacts), facts)
    if not facts.healthy:
        raise FailedError(f"The box says it is not healthy: {facts.health_note}", hint="Mend that first; nothing is installed until then.")
    _verify_alone(ctx, facts.failover_role)
    return facts_done(facts, ctx.title)


def _verify_alone(ctx: UpgradeContext, role: str) -> None:
    if role not in {FailoverRole.NONE, ""}:
        hint = "boxshift failover break, then boxshift retry." if ctx.pair else "Break the relationship first (Management > Failover)."
        raise RefusedError(f"The box is the {role} of a failover pair by now.", hint=hint)


@step("install-package")
def install_package(ctx: UpgradeContext) -> Done:
    """One package. A base package that fails stops everything: nothing restarts the box, and support gets a bundle."""
    item = parse_item(ctx)
    try:
        return _install(ctx, item)
    except (UsageError, RefusedError, ChangedError):
        raise  # nothing was pressed
    except BoxshiftError as error:
        if not _marker(ctx).exists():
            raise  # nor here
        bundle = write_support_bundle(ctx, error)
        if item.kind is PackageKind.BASE:
            raise BaseUpdateError(
                f"The base package {item.name} did not install: {error.sentence}",
                hint=f"Do NOT restart the box. Call support and give them {bundle}. `boxshift retry` looks again at what the box runs.",
            ) from error
        raise FailedError(
            f"{item.name} did not install: {error.sentence}", hint=f"Look at Updates on the box; {bundle} holds what support asks for."
        ) from error


def _install(ctx: UpgradeContext, item: PathItem) -> Done:
    _await_restart(ctx)
    with closing(ctx.open_box()) as box:
        box.finish_installation(progress=ctx.progress)  # a run that was cut off may have left one going on, whatever the window
        if not _is_on(box, item):
            await_window(ctx)  # again: a person may have come back to it a day later
            box.finish_installation(progress=ctx.progress)  # and have begun it by hand
        if not _is_on(box, item):
            _verify_alone(ctx, box.read_failover().role)  # somebody may have made it a pair meanwhile
            _note_begin(ctx, box)
            ctx.progress.update(f"installing {item.name}")
            _press(ctx, box, item)
    with closing(ctx.open_box()) as box:
        version = _version(box, item.kind)
        began = _note_begin(ctx, box)
    if version.version != item.version:
        raise FailedError(f"The box runs {item.kind.value} software {version.version} after {item.name} was installed.")
    return Done(
        f"{item.name} is on the box.",
        Installed(item.name, version.version, *began),
        (Evidence("now runs", f"{version.version} (build {version.build})", "Status"),),
    )


def _await_restart(ctx: UpgradeContext) -> None:
    """Who comes back to an installation that he has begun may find the box restarting from it: that is no failure yet."""

    def answers() -> bool:
        try:
            with closing(ctx.open_box()) as box:
                box.read_versions()
        except UnreachableError:
            raise
        except BoxshiftError:
            pass  # for the step itself to tell
        return True

    if _marker(ctx).exists():
        wait_for(answers, what="the box to answer", timeout=SETTLE, poll=2.0, give_up=ctx.find_stop)


def _press(ctx: UpgradeContext, box: Appliance, item: PathItem) -> None:
    accepted = ctx.plan.packages.accept_eula
    folder = find_folder(ctx.plan, ctx.base)
    if folder is not None:
        box.install_file(verify_file(folder, find_entry(read_transfer(folder), item.name)), progress=ctx.progress, accept_eula=accepted)
        return
    offer = next((one for one in box.read_offers() if (one.name, one.version) == (item.name, item.version)), None)
    if offer is None:
        raise RefusedError(
            f"{item.name} is not offered any more.",
            hint="A package is offered until it was downloaded once. Where the box has lost it since (a restart in the middle of the "
            "download), support gives it again: install it there by hand, then boxshift retry.",
        )
    if offer.missing:
        raise RefusedError(f"{item.name} is greyed out: {offer.missing}.", hint="Look at Updates on the box.")
    box.install_offer(offer, progress=ctx.progress, accept_eula=accepted)


def _note_begin(ctx: UpgradeContext, box: Appliance) -> tuple[float, float]:
    """When this node was first begun, by our clock and by the box's: kept on disk, since a crash must not make it later."""
    marker = _marker(ctx)
    if not marker.exists():
        now = ctx.read_time()
        write_private(marker, json.dumps([now, now + box.read_clock().offset]).encode())
    ours, theirs = TypeAdapter(tuple[float, float]).validate_json(marker.read_bytes())
    return ours, theirs


def _marker(ctx: UpgradeContext) -> Path:
    return ctx.folder / f"{ctx.node.name}.began"


def _is_on(box: Appliance, item: PathItem) -> bool:
    return parse_version(_version(box, item.kind).version) >= parse_version(item.version)


def _version(box: Appliance, kind: PackageKind) -> Version:
    base, site = box.read_versions()
    return base if kind is PackageKind.BASE else site


def parse_item(ctx: UpgradeContext) -> PathItem:
    """The package that a node of the runbook is about."""
    return TypeAdapter(PathItem).validate_python(ctx.node.params["item"])


@step("prove-package")
def prove_package(ctx: UpgradeContext) -> Done:
    """The same box, well, with its content, serving visitors the chain that it served before."""
    item = parse_item(ctx)
    before = ctx.result(ctx.own(f"look-{item.label}"), ApplianceFacts)

    def look() -> ApplianceFacts:
        with closing(ctx.open_box()) as box:
            facts = box.read_facts()
        if not facts.healthy:
            raise FailedError(f"The box says it is not healthy: {facts.health_note}")
        return facts

    facts = wait_for(look, what="the box to be well again", timeout=SETTLE, poll=2.0, give_up=ctx.find_stop)
    rows = [Evidence("health", facts.health_note, "/check_health")]
    if ctx.serving:
        served = wait_for(lambda: verify_service(ctx), what="visitors to be served", timeout=SETTLE, poll=2.0, give_up=ctx.find_stop)
        rows.append(Evidence("served now", to_prints(served.chain), served.place))
    _verify_identity(before, facts)
    version = facts.base if item.kind is PackageKind.BASE else facts.site
    if version.version != item.version:
        raise FailedError(f"The box runs {item.kind.value} software {version.version}, not {item.version}.")
    verify_content(before.content, facts.content)
    rows.append(Evidence("sessions", f"{_count(before.content)} before, {_count(facts.content)} now", "reports"))
    return Done(f"The box runs {item.version} and is well{', and visitors are served' if ctx.serving else ''}.", None, tuple(rows))


def verify_service(ctx: UpgradeContext) -> ServedProof:
    """Visitors are shown the chain that they were shown before, and a request is answered."""
    before = ctx.result("read-service", ServedProof)
    ctx.outside.probe(ctx.box.service.visible, ctx.plan.site.port)
    now = ctx.outside.read_served(ctx.box.service.visible, ctx.plan.site.port)
    if now.chain != before.chain or not now.verified:
        raise FailedError(
            f"Visitors are shown {compare_chains(now, before)} ({now.said}) since the package.",
            hint="Compare with: boxshift certs served. The safety copy in the run's folder holds chain and key.",
        )
    return now


def _verify_identity(before: ApplianceFacts, now: ApplianceFacts) -> None:
    if (before.identity.guid, before.identity.serial) != (now.identity.guid, now.identity.serial):
        raise ChangedError("Another box answers than the one that was read at the start.", hint="Find out which; nothing more is done.")


def verify_content(before: SiteContent, now: SiteContent) -> None:
    """Whatever the site held is there. Raises on the first kind of thing that is missing."""
    blocker = next((finding for finding in check_contents(before, now) if finding.severity is Severity.BLOCKER), None)
    if blocker is not None:
        raise FailedError(blocker.sentence.replace("the new box", "the box"), hint="Do not go on. Call support; the backup holds it.")


def _count(content: SiteContent) -> str:
    return "not told" if content.sessions is None else str(len(content.sessions))


@step("compare-upgrade")
def compare_upgrade(ctx: UpgradeContext) -> Done:
    """The box at the end against the box at the beginning."""
    before = ctx.result(ctx.own("read-box"), ApplianceFacts)
    with closing(ctx.open_box()) as box:
        now = box.read_facts()
    _verify_identity(before, now)
    served = verify_service(ctx)
    return Done(
        f"Site {now.site.version} on base {now.base.version}; it was site {before.site.version} on base {before.base.version}.",
        now,
        (
            Evidence("sessions", f"{_count(before.content)} before, {_count(now.content)} now", "reports"),
            Evidence("served now", to_prints(served.chain), served.place),
        ),
    )
