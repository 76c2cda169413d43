from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from examples_of_plans import CONTENT, OLD, make_upgrade_plan
from hypothesis import given
from hypothesis import strategies as st

from kit.findings import Severity
from migrate.checks import parse_version
from migrate.facts import JumpClient, PackageKind, PackageOffer, SiteContent, Version
from migrate.steps.clients import count_followed
from migrate.upgrade_checks import check_upgrade
from migrate.upgrade_path import plan_path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
BASE, SITE = Version("5.1.0", "1"), Version("21.1.1", "1")
BASE_OFFER = PackageOffer("Base 5.3.0", PackageKind.BASE, "5.3.0", "3")
FIRST = PackageOffer("Site 21.2.1", PackageKind.SITE, "21.2.1", "2", "needs Base 5.3.0")
LAST = PackageOffer("Site 22.1.4", PackageKind.SITE, "22.1.4", "4", "needs Site 21.2.1")
PATH = plan_path((LAST, FIRST, BASE_OFFER), BASE, SITE, "", "")
CLIENT = JumpClient(1, "pc-1", connected=True, lost=False, needs_update=False, last_seen=100.0)


def with_clients(*clients: JumpClient) -> SiteContent:
    return replace(CONTENT, jump_clients=clients)


@pytest.mark.parametrize(
    ("code", "severity", "changes", "facts", "path"),
    [
        ("in-a-pair", Severity.BLOCKER, (), replace(OLD, failover_role="backup"), PATH),
        ("unhealthy", Severity.BLOCKER, (), replace(OLD, healthy=False, health_note="disk failing."), PATH),
        ("licence-not-accepted", Severity.BLOCKER, (("accept_eula: true", "accept_eula: false"),), OLD, PATH),
        ("target-not-on-offer", Severity.BLOCKER, (("accept_eula: true", 'accept_eula: true, target: {site: "23.1"}'),), OLD, PATH),
        ("path-greyed-out", Severity.BLOCKER, (), OLD, plan_path((FIRST, LAST), BASE, SITE, "", "")),
        ("greyed-out", Severity.NOTE, (), OLD, PATH),
        ("nothing-to-install", Severity.NOTE, (), OLD, plan_path((), BASE, SITE, "", "")),
        ("clients-unread", Severity.BLOCKER, (), replace(OLD, content=replace(CONTENT, jump_clients=None)), PATH),
        ("clients-lost", Severity.WARNING, (), replace(OLD, content=with_clients(replace(CLIENT, lost=True))), PATH),
        ("clients-behind", Severity.WARNING, (), replace(OLD, content=with_clients(replace(CLIENT, needs_update=True))), PATH),
        ("no-wait", Severity.WARNING, (("wait: updated", "wait: none"),), OLD, PATH),
        ("short-wait", Severity.NOTE, (("wait: updated", "wait: updated, at_most: 2h"),), OLD, PATH),
        (
            "window-too-short",
            Severity.BLOCKER,
            (("clients:", "window: {zone: UTC, opens: '22:00', closes: '22:30'}\nclients:"),),
            OLD,
            PATH,
        ),
        ("next-window", Severity.NOTE, (("clients:", "window: {zone: UTC, opens: '22:00', closes: '23:30'}\nclients:"),), OLD, PATH),
    ],
)
def test_each_trouble_is_found(code: str, severity: Severity, changes: tuple[tuple[str, str], ...], facts: object, path: object) -> None:
    plan = make_upgrade_plan(*changes)
    found = {finding.code: finding for finding in check_upgrade(plan, facts, path, NOW)}  # type: ignore[arg-type]
    assert found[code].severity is severity
    assert found[code].sentence.endswith(".")


def test_a_box_that_is_well_and_a_path_that_can_be_gone_block_nothing() -> None:
    assert not [one for one in check_upgrade(make_upgrade_plan(), OLD, PATH, NOW) if one.severity is Severity.BLOCKER]


def test_base_packages_come_first_and_the_target_is_the_end() -> None:
    assert [item.label for item in PATH.items] == ["base-5.3.0", "site-21.2.1", "site-22.1.4"]
    shorter = plan_path((LAST, FIRST, BASE_OFFER), BASE, SITE, "", "21.2.1")
    assert [item.label for item in shorter.items] == ["base-5.3.0", "site-21.2.1"]
    assert shorter.greyed == (LAST,)
    assert shorter.ends_at(PackageKind.SITE) == "21.2.1"


OFFERS = st.builds(
    PackageOffer,
    name=st.text(max_size=20),
    kind=st.sampled_from(PackageKind),
    version=st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts))) | st.text(max_size=8),
    build=st.text(max_size=6),
    missing=st.just("") | st.text(max_size=12),
)


@given(st.lists(OFFERS, max_size=12))
def test_whatever_is_offered_the_path_goes_up_and_names_each_package_once(offers: list[PackageOffer]) -> None:
    path = plan_path(offers, BASE, SITE, "", "")
    labels = [item.label for item in path.items]
    assert len(labels) == len(set(labels))
    assert all(label.isascii() and " " not in label for label in labels)
    for kind, installed in ((PackageKind.BASE, BASE), (PackageKind.SITE, SITE)):
        versions = [parse_version(item.version) for item in path.items if item.kind is kind]
        assert versions == sorted(versions)
        assert all(version > parse_version(installed.version) for version in versions)
    kinds = [item.kind for item in path.items]
    assert kinds == sorted(kinds, key=lambda kind: kind is PackageKind.SITE)


@pytest.mark.parametrize(
    ("client", "missing"),
    [
        (CLIENT, False),
        (replace(CLIENT, needs_update=True), True),
        (replace(CLIENT, last_seen=49.0), True),
        (replace(CLIENT, last_seen=None), True),
    ],
    ids=["has updated", "needs it", "not seen since", "never seen"],
)
def test_a_client_has_followed_when_it_needs_nothing_and_was_seen_since(client: JumpClient, missing: bool) -> None:
    followed = count_followed((client, replace(CLIENT, name="gone", lost=True)), 50.0)
    assert followed.expected == 1
    assert bool(followed.missing) == missing
    assert followed.lost == ("gone",)
