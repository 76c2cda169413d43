"""Findings of an upgrade: the box, its path, its clients, the time there is. Pure; all findings come at once."""

from __future__ import annotations

from collections.abc import Iterator

from kit.findings import Finding, Severity
from migrate.checks import check_box
from migrate.facts import ApplianceFacts, PackageKind
from migrate.upgrade_path import UpgradePath
from migrate.upgrade_plan import GUIDE_WAIT, ClientWait, UpgradePlan, UpgradingPlan
from migrate.windows import find_longest, find_window, render_moment

WHO = "box"


def check_upgrade(plan: UpgradePlan, facts: ApplianceFacts, path: UpgradePath, now: float) -> tuple[Finding, ...]:
    """Everything that is known of one box before anything is changed. ``now`` in Unix seconds."""
    return (*check_box(plan.box, facts, WHO, plan.verify.clock_tolerance), *_pair(facts), *check_path(plan, facts, path, now))


def check_path(plan: UpgradingPlan, facts: ApplianceFacts, path: UpgradePath, now: float) -> tuple[Finding, ...]:
    """The path of a box, its clients, and the time there is."""
    return (
        *_path(plan, path),
        *_clients(plan, facts, path),
        *_window(plan, path, now),
    )


def _pair(facts: ApplianceFacts) -> Iterator[Finding]:
    if facts.failover_role not in {"none", ""}:
        yield Finding(
            "in-a-pair",
            Severity.BLOCKER,
            f"The box is the {facts.failover_role} of a failover pair: one box of a pair is not upgraded by itself.",
            "Break the relationship first (Management > Failover), upgrade both, and establish it again.",
            WHO,
        )


def _path(plan: UpgradingPlan, path: UpgradePath) -> Iterator[Finding]:
    for what, kind, wanted in (
        ("site", PackageKind.SITE, plan.packages.target.site),
        ("base", PackageKind.BASE, plan.packages.target.base),
    ):
        if wanted and path.ends_at(kind) != wanted:
            yield Finding(
                "target-not-on-offer",
                Severity.BLOCKER,
                f"The path ends at {what} software {path.ends_at(kind) or '(none)'}; {wanted}, which the plan asks for, is not on offer.",
                "Send support a snapshot of Status > Basics and ask for the path.",
                WHO,
            )
    if path.items and all(item.needs for item in path.items):
        first = path.items[0]
        yield Finding(
            "path-greyed-out",
            Severity.BLOCKER,
            f"Every package of the path is greyed out; {first.name} {first.needs}.",
            "What is needed is not on offer. Send support a snapshot of Status > Basics and ask for the path.",
            WHO,
        )
    for item in path.items:
        if item.needs and item is not path.items[0]:
            yield Finding(
                "greyed-out", Severity.NOTE, f"{item.name} is greyed out today: {item.needs}.", "The path installs it first.", WHO
            )
    for offer in path.greyed:
        yield Finding("greyed-out", Severity.NOTE, f"{offer.name} is not on the path and greyed out: {offer.missing}.", "", WHO)
    if path.items and not plan.packages.accept_eula:
        yield Finding(
            "licence-not-accepted",
            Severity.BLOCKER,
            "The plan does not accept the vendor's licence, and every package asks for it.",
            "Read the licence, then set packages.accept_eula: true.",
            WHO,
        )
    if not path.items:
        yield Finding("nothing-to-install", Severity.NOTE, "Nothing newer is on offer.", "", WHO)


def _clients(plan: UpgradingPlan, facts: ApplianceFacts, path: UpgradePath) -> Iterator[Finding]:
    clients = facts.content.jump_clients
    if clients is None and plan.clients.wait is ClientWait.UPDATED:
        yield Finding(
            "clients-unread",
            Severity.BLOCKER,
            "The Jump Clients could not be read, so nobody can tell when they have updated.",
            "Give the API account the right to read the configuration API, or set clients.wait: day.",
            WHO,
        )
    lost = [client for client in clients or () if client.lost]
    if lost:
        yield Finding(
            "clients-lost",
            Severity.WARNING,
            f"{len(lost)} Jump Clients are marked lost: they are not waited for, and may be stranded.",
            "Bring them back first, or deploy them again afterwards.",
            WHO,
        )
    behind = [client for client in clients or () if client.needs_update and not client.lost]
    if behind and path.site_items:
        yield Finding(
            "clients-behind",
            Severity.WARNING,
            f"{len(behind)} Jump Clients have not taken the version that the box runs now, the first is {behind[0].name}.",
            "Another site package may strand them; wait until they have.",
            WHO,
        )
    if len(path.site_items) > 1 and plan.clients.wait is ClientWait.NONE:
        yield Finding(
            "no-wait",
            Severity.WARNING,
            f"{len(path.site_items)} site packages are installed without a wait: clients that are still deployed will be stranded.",
            "A gate asks whether all client software was removed.",
            WHO,
        )
    elif len(path.site_items) > 1 and plan.clients.wait is ClientWait.UPDATED and plan.clients.at_most < GUIDE_WAIT:
        yield Finding(
            "short-wait",
            Severity.NOTE,
            f"Clients are waited for {plan.clients.at_most / 3600:g} h at most; the guide says 24 h. With clients missing, the run stops.",
            "",
            WHO,
        )


def _window(plan: UpgradingPlan, path: UpgradePath, now: float) -> Iterator[Finding]:
    if plan.window is None or not path.items:
        return
    rule, needed = plan.window.rule(), plan.packages.longest
    found = find_window(rule, now, needed)
    if found is None:
        longest = find_longest(rule, now)
        yield Finding(
            "window-too-short",
            Severity.BLOCKER,
            f"One package may take {needed / 60:.0f} min, and the longest window of the year to come has {longest / 60:.0f} min.",
            "Make window.opens and window.closes wider, or say in packages.longest how long one really takes on this box.",
            "plan",
        )
        return
    yield Finding(
        "next-window",
        Severity.NOTE,
        f"The next window opens {render_moment(found.opens, rule.zone)} and closes {render_moment(found.closes, rule.zone)}.",
        "",
        "plan",
    )
