from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import replace

import pytest
from examples_of_plans import CONTENT, OLD, make_loaded, make_loaded_pair_upgrade, make_loaded_upgrade
from hypothesis import given
from hypothesis import strategies as st

import migrate.steps
from migrate.facts import PackageKind, PackageOffer, Version
from migrate.runbook import Node, NodeKind, Phase, Runbook, Undo
from migrate.runbooks.migration import plan_migration
from migrate.runbooks.pair_upgrade import plan_pair_upgrade
from migrate.runbooks.upgrade import plan_upgrade
from migrate.steps.context import STEPS
from migrate.upgrade_path import plan_path

for module in pkgutil.iter_modules(migrate.steps.__path__, "migrate.steps."):
    importlib.import_module(module.name)

WINDOW = ("cutover:\n", "cutover:\n  not_before: 2027-02-28T22:00:00+01:00\n")
BY_FAILOVER = (
    "cutover:\n",
    "cutover:\n  data: failover\n  failover:\n    pre_shared_key: env:PAIR\n    old: {host: 10.123.7.1}\n    new: {host: 10.123.7.2}\n",
)
VARIANTS = {
    "as written": plan_migration(make_loaded()),
    "with facts": plan_migration(make_loaded(), OLD),
    "no resync": plan_migration(make_loaded(("cutover:\n", "cutover:\n  data: none\n"))),
    "by failover": plan_migration(make_loaded(BY_FAILOVER)),
    "a window": plan_migration(make_loaded(WINDOW)),
    "standing already": plan_migration(make_loaded(("    image: reference\n", ""), ("new:\n", f"new:\n  pin: {'cd' * 32}\n"))),
    "nothing retired": plan_migration(make_loaded(more="retire: {reset: false, shut_down: false, hold: 0}\n")),
}
BASE, SITE = Version("5.1.0", "1"), Version("21.1.1", "1")
OFFERS = (
    PackageOffer("Site <b>22.1.4</b>", PackageKind.SITE, "22.1.4", "4", "needs Base 5.3.0"),
    PackageOffer("Site 21.2.1", PackageKind.SITE, "21.2.1", "2"),
    PackageOffer("Base 5.3.0", PackageKind.BASE, "5.3.0", "3"),
)


def make_upgrade(*changes: tuple[str, str]) -> Runbook:
    return plan_upgrade(make_loaded_upgrade(*changes), plan_path(OFFERS, BASE, SITE, "", ""))


UPGRADES = {
    "upgrade": make_upgrade(),
    "upgrade in windows": make_upgrade(("clients:", "window: {zone: UTC, opens: '22:00', closes: '04:00'}\nclients:")),
    "upgrade, a day": make_upgrade(("wait: updated", "wait: day")),
    "upgrade, nobody waited for": make_upgrade(("wait: updated", "wait: none")),
    "nothing to upgrade": plan_upgrade(make_loaded_upgrade(), plan_path((), BASE, SITE, "", "")),
}
PATHS = {name: plan_path(OFFERS, BASE, SITE, "", "21.2.1") for name in ("a", "b")}
PAIRS = {
    "pair, the backup first": plan_pair_upgrade(make_loaded_pair_upgrade(), PATHS),
    "pair, the primary first": plan_pair_upgrade(make_loaded_pair_upgrade(("method: async", "method: sync")), PATHS),
}
NOBODY = ("packages:", "clients: {wait: none}\npackages:")
NOBODY_WAITED_FOR = {
    method: plan_pair_upgrade(make_loaded_pair_upgrade(NOBODY, ("method: async", f"method: {method}")), PATHS)
    for method in ("async", "sync")
}
PHASES = ["inspect", "prepare", "build", "verify", "cutover", "watch", "retire"]


@pytest.fixture(params=(VARIANTS | UPGRADES | PAIRS).values(), ids=(VARIANTS | UPGRADES | PAIRS).keys())
def runbook(request: pytest.FixtureRequest) -> Runbook:
    return request.param


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def migration(request: pytest.FixtureRequest) -> Runbook:
    return request.param


@pytest.fixture(params=UPGRADES.values(), ids=UPGRADES.keys())
def upgrade(request: pytest.FixtureRequest) -> Runbook:
    return request.param


def before(phase: Phase, name: str) -> set[str]:
    """Every node of the phase that must be done before this one."""
    found: set[str] = set()
    open_ = [name]
    while open_:
        wanted = open_.pop()
        fresh = {earlier for node in phase.nodes if node.name == wanted for earlier in node.after} - found
        found |= fresh
        open_ += fresh
    return found


def test_it_survives_json(runbook: Runbook) -> None:
    assert Runbook.from_json(json.loads(json.dumps(runbook.to_json()))) == runbook


def test_its_phases_are_those_of_the_design(migration: Runbook) -> None:
    assert [phase.name for phase in migration.phases if phase.name != "join"] == PHASES


def test_by_failover_the_boxes_are_a_pair_from_the_join_until_right_before_the_gate() -> None:
    runbook = VARIANTS["by failover"]
    assert [phase.name for phase in runbook.phases] == [*PHASES[:3], "join", *PHASES[3:]]
    names = [node.name for node in runbook.nodes()]
    assert {"restore", "quiesce-old", "final-backup", "final-restore"}.isdisjoint(names)
    undone = [node.name for node in runbook.nodes() if node.undo is Undo.STEP]
    assert undone == ["provision", "lower-ttl", "join-pair", "become-primary", "switch", "end-pair"]
    assert {"end-pair", "approve-retire"} <= before(runbook.phases[-1], "retire-gate")
    assert "become-primary" in before(runbook.phases[5], "switch")
    assert runbook.outage() < VARIANTS["as written"].outage()


def test_names_are_unique(runbook: Runbook) -> None:
    names = [node.name for node in runbook.nodes()]
    assert len(names) == len(set(names))
    assert all(runbook.node(name).name == name for name in names)
    with pytest.raises(KeyError):
        runbook.node("of no name")


def test_a_node_comes_only_after_earlier_nodes_of_its_own_phase(runbook: Runbook) -> None:
    for phase in runbook.phases:
        seen: set[str] = set()
        for node in phase.nodes:
            assert set(node.after) <= seen, node.name
            assert len(node.after) == len(set(node.after))
            seen.add(node.name)


def test_every_step_is_registered_and_no_registered_step_is_forgotten(runbook: Runbook) -> None:
    used = {node.step for node in runbook.nodes() if node.kind is NodeKind.STEP}
    assert used <= STEPS.keys()
    assert all(not node.step for node in runbook.nodes() if node.kind is not NodeKind.STEP)


def test_every_registered_step_is_used_by_a_runbook() -> None:
    assert {node.step for runbook in (VARIANTS | UPGRADES | PAIRS).values() for node in runbook.nodes()} - {""} == set(STEPS)


def test_an_undo_is_declared_exactly_where_the_step_has_one(runbook: Runbook) -> None:
    for node in runbook.nodes():
        has_one = bool(node.step) and STEPS[node.step].undo is not None
        assert has_one == (node.undo is Undo.STEP), node.name


def test_there_is_no_way_back_only_behind_the_gate_of_the_last_phase(migration: Runbook) -> None:
    for phase in migration.phases:
        for node in phase.nodes:
            if node.undo is Undo.IMPOSSIBLE:
                assert phase.name == "retire", node.name
                assert {"approve-retire", "retire-gate", "hold"} <= before(phase, node.name), node.name


def test_what_destroys_the_old_box_is_marked_as_a_point_of_no_return(migration: Runbook) -> None:
    assert {node.name for node in migration.nodes() if node.undo is Undo.IMPOSSIBLE} == {"factory-reset", "shut-down"}
    retire = migration.phases[-1]
    assert {"approve-retire", "retire-gate"} <= before(retire, "undefine")


def test_no_gate_and_no_proof_can_be_skipped(migration: Runbook) -> None:
    by_failover = {"carry-files"} if migration is VARIANTS["by failover"] else set()  # users may have removed a file meanwhile
    assert {node.name for node in migration.nodes() if node.may_skip} == {"own-checks", "clients-back"} | by_failover


def test_visitors_are_switched_only_after_approval_live_blockers_and_the_old_ttl(migration: Runbook) -> None:
    cutover = next(phase for phase in migration.phases if phase.name == "cutover")
    stopped = "become-primary" if migration is VARIANTS["by failover"] else "quiesce-old"  # from then on the old box takes no record
    needed = {"approve-cutover", "wait-for-old-ttl", "blockers-live"}
    assert needed | {stopped} <= before(cutover, "switch")
    assert needed <= before(cutover, stopped)
    assert {"switch"} <= before(cutover, "prove")


def test_only_the_cutover_takes_the_service_away(migration: Runbook) -> None:
    for phase in migration.phases:
        assert phase.name == "cutover" or not any(node.outage for node in phase.nodes)
    assert migration.outage() == sum(node.outage for node in migration.nodes()) > 0


def test_the_last_data_is_moved_between_quiet_and_switch_unless_the_plan_gives_it_up() -> None:
    cutover = VARIANTS["as written"].phases[PHASES.index("cutover")]
    assert {"final-backup", "final-restore", "compare-last"} <= before(cutover, "switch")
    given_up = VARIANTS["no resync"].phases[PHASES.index("cutover")]
    assert "final-backup" not in {node.name for node in given_up.nodes}
    assert "IS LOST" in given_up.title


def test_a_window_opens_at_its_moment_and_before_anything_switches() -> None:
    window = VARIANTS["a window"].node("cutover-window")
    assert window.kind is NodeKind.WINDOW
    assert window.until == 1803848400.0  # 2027-02-28 21:00 UTC
    assert "cutover-window" in before(VARIANTS["a window"].phases[PHASES.index("cutover")], "quiesce-old")


def test_the_hold_is_whole_however_long_the_soak_was() -> None:
    def hold(more: str) -> float:
        return plan_migration(make_loaded(more=more)).node("hold").seconds

    assert hold("watch: {soak: 1h}\nretire: {hold: 24h}\n") == 24 * 3600
    assert hold("watch: {soak: 2h}\nretire: {hold: 1h}\n") == 3600


def test_facts_change_the_estimates_and_not_the_order() -> None:
    large = replace(OLD, content=replace(CONTENT, sessions=tuple(map(str, range(50_000))), recordings=tuple(map(str, range(1000)))))
    small, big = plan_migration(make_loaded(), OLD), plan_migration(make_loaded(), large)
    assert [node.name for node in small.nodes()] == [node.name for node in big.nodes()]
    assert big.estimate() > small.estimate()
    assert big.outage() > small.outage()


def test_every_node_tells_what_it_does_and_holds_no_parameters_that_could_be_secret(runbook: Runbook) -> None:
    for node in runbook.nodes():
        assert node.title[0].isupper()
        assert node.estimate >= 0
        assert node.outage >= 0
    told = json.dumps(runbook.to_json())
    assert "env:" not in told
    assert "prompt" not in told


def test_a_migration_needs_no_parameters(migration: Runbook) -> None:
    assert all(node.params == {} for node in migration.nodes())


def test_base_packages_come_first_and_each_site_package_is_followed_by_its_clients() -> None:
    names = [node.name for node in UPGRADES["upgrade"].nodes()]
    order = ["backup", "safety-copy", "approve-upgrade", "install-base-5.3.0", "prove-base-5.3.0", "install-site-21.2.1"]
    order += ["prove-site-21.2.1", "clients-site-21.2.1", "backup-site-22.1.4", "install-site-22.1.4", "clients-site-22.1.4", "compare"]
    assert [name for name in names if name in order] == order
    assert "clients-base-5.3.0" not in names


def test_a_package_is_a_point_of_no_return_behind_backup_copy_and_approval(upgrade: Runbook) -> None:
    marked = {node.name for node in upgrade.nodes() if node.undo is Undo.IMPOSSIBLE}
    assert marked == {node.name for node in upgrade.nodes() if node.step == "install-package"}
    assert [phase.name for phase in upgrade.phases[:2]] == ["inspect", "prepare"]
    assert {"backup", "safety-copy"} <= before(upgrade.phases[1], "approve-upgrade")


def test_in_windows_each_package_waits_for_one_of_its_own() -> None:
    for phase in UPGRADES["upgrade in windows"].phases[2:-1]:
        assert f"window-{phase.name}" in before(phase, f"look-{phase.name}")
        assert f"look-{phase.name}" in before(phase, f"install-{phase.name}")


@pytest.mark.parametrize("book", [UPGRADES["upgrade, nobody waited for"], *NOBODY_WAITED_FOR.values()])
def test_where_nobody_is_waited_for_clients_are_removed_before_the_first_package_and_the_box_is_asked(book: Runbook) -> None:
    names = [phase.name for phase in book.phases]
    phase = book.phases[names.index("removal")]
    assert names[:3] == ["inspect", "prepare", "removal"]
    assert [node.name for node in phase.nodes] == ["list-clients", "clients-removed", "confirm-removal"]
    assert before(phase, "confirm-removal") == {"list-clients", "clients-removed"}
    assert book.node("clients-removed").kind is NodeKind.GATE
    assert [node.name for node in book.nodes()][-1] == "clients-deployed"
    assert not [node.name for node in book.nodes() if "clients-site" in node.name]


@pytest.mark.parametrize("book", [*UPGRADES.values(), *PAIRS.values(), *NOBODY_WAITED_FOR.values()])
def test_nothing_comes_after_a_node_that_its_phase_does_not_have(book: Runbook) -> None:
    for phase in book.phases:
        there = {node.name for node in phase.nodes}
        assert all(set(node.after) <= there for node in phase.nodes)


def test_a_day_is_a_soak_of_24_hours() -> None:
    waits = [node for node in UPGRADES["upgrade, a day"].nodes() if node.name.startswith("clients-site")]
    assert [(node.kind, node.seconds) for node in waits] == [(NodeKind.SOAK, 86400.0)] * 2


def test_the_backup_of_a_pair_is_upgraded_and_proved_before_visitors_are_moved_to_it() -> None:
    names = [node.name for node in PAIRS["pair, the backup first"].nodes()]
    order = ["sync-pair", "approve-upgrade", "break-pair", "b-install-base-5.3.0", "b-install-site-21.2.1", "probe-as-site"]
    order += ["approve-second", "swing-shared", "b-clients-site-21.2.1", "a-install-base-5.3.0", "a-install-site-21.2.1", "establish-pair"]
    assert [name for name in names if name in order] == order
    outages = [node.name for node in PAIRS["pair, the backup first"].nodes() if node.outage]
    assert outages == ["swing-shared"]


def test_the_primary_of_a_pair_keeps_its_role_where_it_is_upgraded_first() -> None:
    book = PAIRS["pair, the primary first"]
    names = [node.name for node in book.nodes()]
    assert "swing-shared" not in names
    assert names.index("a-clients-site-21.2.1") < names.index("approve-second") < names.index("b-install-base-5.3.0")
    assert {node.name for node in book.nodes() if node.outage} == {"a-install-base-5.3.0", "a-install-site-21.2.1"}
    assert not [name for name in names if name.startswith("b-clients")]


def test_side_by_side_nodes_cost_their_longest() -> None:
    nodes = (Node("a", "A", estimate=5), Node("b", "B", estimate=3), Node("c", "C", after=("a", "b"), estimate=1, seconds=10))
    runbook = Runbook("r", 1, "s", "p", "d", (Phase("p", "P", nodes), Phase("q", "Q", ())))
    assert runbook.estimate() == 16


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20))
def test_the_estimate_lies_between_the_longest_node_and_their_sum(times: list[tuple[float, float]]) -> None:
    nodes = tuple(
        Node(str(number), "N", estimate=one, seconds=two, after=(str(number // 2),) if number else ())
        for number, (one, two) in enumerate(times)
    )
    runbook = Runbook("r", 1, "s", "p", "d", (Phase("p", "P", nodes),))
    total = [one + two for one, two in times]
    assert max(total, default=0) <= runbook.estimate() <= sum(total) * (1 + 1e-9)
    assert Runbook.from_json(runbook.to_json()) == runbook
