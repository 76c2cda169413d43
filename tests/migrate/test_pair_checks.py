from __future__ import annotations

from dataclasses import replace

import pytest
from examples_of_plans import OLD, make_loaded_pair_upgrade

from kit.findings import Severity
from migrate.facts import FailoverFacts, FailoverRole, PackageKind, PackageOffer, SharedAddress, Version, WorkState
from migrate.pair_checks import HalfFacts, PairFacts, check_joined, check_pair
from migrate.steps.pair import check_start
from migrate.upgrade_path import plan_path

NONE, PRIMARY, BACKUP = FailoverRole.NONE, FailoverRole.PRIMARY, FailoverRole.BACKUP


def half(role: FailoverRole, *, guid: str = "g", enabled: bool = False, shared: bool = True, **changes: object) -> HalfFacts:
    facts = FailoverFacts(
        role=role,
        peer="192.0.2.1:443" if role is not NONE else "",
        peer_role=None,
        peer_note="",
        conflict=False,
        sync=WorkState.FINISHED,
        sync_note="",
        sync_percent=None,
        sync_ended=10.0,
        last_sync=10.0,
        role_change=WorkState.NEVER,
        role_change_note="",
        shared=(SharedAddress("10.0.2.20", shared, enabled),),
    )
    return HalfFacts(replace(OLD.identity, guid=guid), OLD.base, OLD.site, replace(facts, **changes), 0.0)  # type: ignore[arg-type]


A, B = half(PRIMARY, guid="a", enabled=True), half(BACKUP, guid="b")
GOOD = PairFacts(A, B, {})


@pytest.mark.parametrize(
    ("a", "b", "state"),
    [
        (PRIMARY, BACKUP, "a primary, b backup"),
        (BACKUP, PRIMARY, "b primary, a backup"),
        (NONE, NONE, "no relationship"),
        (PRIMARY, PRIMARY, "conflict: both primary"),
        (BACKUP, BACKUP, "conflict: both backup"),
        (PRIMARY, NONE, "one-sided: only one box knows of the relationship"),
    ],
)
def test_every_combination_of_roles_has_a_name(a: FailoverRole, b: FailoverRole, state: str) -> None:
    assert PairFacts(half(a, guid="a"), half(b, guid="b"), {}).state == state


def test_a_pair_in_order_has_no_findings() -> None:
    assert check_pair(GOOD) == ()


@pytest.mark.parametrize(
    ("code", "severity", "pair"),
    [
        ("box-unread", Severity.BLOCKER, PairFacts(A, None, {"b": "Nothing answers."})),
        ("same-box", Severity.BLOCKER, PairFacts(A, half(BACKUP, guid="a"), {})),
        ("versions-differ", Severity.BLOCKER, PairFacts(A, replace(B, site=Version("1.0", "1")), {})),
        ("versions-differ", Severity.WARNING, PairFacts(A, replace(B, base=Version("1.0", "1")), {})),
        ("shared-differs", Severity.WARNING, PairFacts(A, half(BACKUP, guid="b", shared=False), {})),
        ("shared-on-both", Severity.BLOCKER, PairFacts(A, half(BACKUP, guid="b", enabled=True), {})),
        ("conflict", Severity.BLOCKER, PairFacts(A, half(PRIMARY, guid="b"), {})),
        ("one-sided", Severity.BLOCKER, PairFacts(A, half(NONE, guid="b"), {})),
        ("sync-failed", Severity.WARNING, PairFacts(A, half(BACKUP, guid="b", sync=WorkState.FAILED), {})),
        ("role-change-failed", Severity.WARNING, PairFacts(A, half(BACKUP, guid="b", role_change=WorkState.FAILED), {})),
        ("never-synced", Severity.WARNING, PairFacts(A, half(BACKUP, guid="b", last_sync=None), {})),
        ("peer-unknown", Severity.WARNING, PairFacts(A, half(BACKUP, guid="b", peer_note="no answer"), {})),
    ],
)
def test_each_trouble_is_found(code: str, severity: Severity, pair: PairFacts) -> None:
    assert (code, severity) in {(finding.code, finding.severity) for finding in check_pair(pair)}


def test_an_address_that_neither_box_shares_may_be_enabled_on_both() -> None:
    a, b = half(NONE, guid="a", enabled=True, shared=False), half(NONE, guid="b", enabled=True, shared=False)
    assert check_pair(PairFacts(a, b, {})) == ()


def test_before_the_switch_the_old_box_leads_and_nothing_else_will_do() -> None:
    assert check_joined(GOOD) == ()
    swapped, alone = (
        PairFacts(half(BACKUP, guid="a"), half(PRIMARY, guid="b"), {}),
        PairFacts(half(NONE, guid="a"), half(NONE, guid="b"), {}),
    )
    conflict = PairFacts(A, half(PRIMARY, guid="b"), {})
    found = [[one.code for one in check_joined(pair) if one.severity is Severity.BLOCKER] for pair in (swapped, alone, conflict)]
    assert found == [["pair-not-ready"], ["pair-not-ready"], ["conflict"]]


def test_an_upgrade_begins_from_the_everyday_roles_and_where_sessions_can_be_merged() -> None:
    plan = make_loaded_pair_upgrade().plan
    assert check_start(plan, GOOD, ()) == []
    swapped = PairFacts(half(BACKUP, guid="a"), half(PRIMARY, guid="b"), {})
    assert [finding.code for finding in check_start(plan, swapped, ())] == ["pair-not-ready"]
    old = PairFacts(replace(A, site=Version("10.5.4", "1")), replace(B, site=Version("10.5.4", "1")), {})
    assert [finding.code for finding in check_start(plan, old, ())] == ["no-merge"]
    assert check_start(make_loaded_pair_upgrade(("method: async", "method: sync")).plan, old, ()) == []


def test_clients_cannot_follow_two_site_packages_on_a_box_that_serves_nobody() -> None:
    offers = [PackageOffer(f"Site {version}", PackageKind.SITE, version, "1") for version in ("22.11.1", "22.12.1")]
    paths = [plan_path(offers, OLD.base, OLD.site, "", "")]
    assert [one.code for one in check_start(make_loaded_pair_upgrade().plan, GOOD, paths)] == ["clients-cannot-follow"]
    given_up = make_loaded_pair_upgrade(("method: async", "method: async\nclients: {wait: none}")).plan
    assert check_start(given_up, GOOD, paths) == []
