"""A failover pair at the operator's hand: each verb looks at both boxes, acts on the right one, and looks again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.errors import FailedError, RefusedError, UsageError
from kit.files import write_private
from kit.findings import Severity
from kit.progress import Progress
from migrate.appliances.contract import Appliance, PairPlace
from migrate.appliances.errors import LoginRefusedError
from migrate.checks import verify_no_blockers
from migrate.engine.model import NodeState
from migrate.facts import FailoverRole
from migrate.pair_checks import HalfFacts, PairFacts, check_pair
from migrate.pair_plan import PairPlan, PairUpgradePlan, plan_joined_pair
from migrate.plan import CommonPlan, Plan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json
from migrate.wiring.boxes import Reveal, Stopwatch, find_value, make_reveal, open_driver, read_credentials
from migrate.wiring.desk import open_desk
from migrate.wiring.machines import LibvirtMachines
from migrate.wiring.workspace import Workspace

OTHER = {"a": "b", "b": "a"}
ACCOUNTS = "pair-accounts.json"


def make_pair(loaded: LoadedPlan[CommonPlan], progress: Progress, site_key: str = "") -> Pair:
    """The pair of a plan. Raises UsageError where the plan is for something else.

    ``site_key``: the key that visitors are shown; a box that chooses certificates by itself shows it on its own address as well.
    """
    if isinstance(loaded.plan, Plan) and loaded.plan.cutover.by_failover:
        return _make_pair_of_run(LoadedPlan(loaded.plan, loaded.path, loaded.digest), progress)
    if not isinstance(loaded.plan, PairPlan | PairUpgradePlan):
        raise UsageError(f"The plan {loaded.path} is not one of a failover pair.", hint="It needs `procedure: pair`, or `pair-upgrade`.")

    return Pair(loaded.plan, find_memory(loaded.path), progress, make_reveal(loaded), Stopwatch(), site_key)


def _make_pair_of_run(loaded: LoadedPlan[Plan], progress: Progress) -> Pair:
    """The boxes of a migration by failover, as the newest run of its plan knows them."""
    with open_desk(loaded.path, "", "") as desk:
        results = {node.name: node.value for node in desk.status().nodes if node.state is NodeState.DONE}
        folder = desk.workspace.run_folder(desk.run)
    pair = find_joined_pair(loaded.plan, results, folder, progress, make_reveal(loaded), Stopwatch())
    if pair is None:
        raise UsageError("The new box of this run has not been made yet, so there is no pair.")
    return pair


def find_joined_pair(
    plan: Plan, results: Mapping[str, Json], folder: Path, progress: Progress, reveal: Reveal, watch: Stopwatch
) -> Pair | None:
    """The pair that the boxes of a migration by failover are meanwhile; None of another plan, or before the new box is made.

    ``folder`` and ``results`` are those of the run.
    """
    provisioned = find_value(results, "provision")
    pin = str(provisioned["pin"]) if provisioned else plan.new.pin
    if not plan.cutover.by_failover or not pin:
        return None
    site_key = str((find_value(results, "diagnose-certificate") or {}).get("spki", ""))
    return Pair(plan_joined_pair(plan, pin), folder / ACCOUNTS, progress, reveal, watch, site_key, keeps_key="a")


def find_memory(plan: Path) -> Path:
    """Where a plan's pair remembers which accounts opened which box."""
    return Workspace.beside(plan).root / ACCOUNTS


@dataclass(frozen=True)
class Pair:
    """Both boxes of one plan. ``memory``: where it is remembered which accounts open which box. ``site_key``: what both may serve too.

    ``keeps_key``: the box whose own pre-shared key is left as it is where it has one; empty: both are given the plan's.
    """

    plan: PairPlan | PairUpgradePlan
    memory: Path
    progress: Progress
    reveal: Reveal
    watch: Stopwatch
    site_key: str = ""
    keeps_key: str = ""

    def read(self) -> PairFacts:
        """Both boxes as they are; one that cannot be read is told, and the other is read all the same."""
        found: dict[str, HalfFacts] = {}
        notes: dict[str, str] = {}
        for name in OTHER:
            self.progress.update(f"reading box {name}")
            try:
                with self.open(name) as box:
                    base, site = box.read_versions()
                    found[name] = HalfFacts(box.read_identity(), base, site, box.read_failover(), box.read_clock().offset)
            except FailedError as error:
                notes[name] = error.sentence
        return PairFacts(found.get("a"), found.get("b"), notes)

    def find_serving(self) -> str:
        """The box that visitors reach: the primary; without a relationship the one that has a shared address enabled."""
        now = self.read()
        holders = [name for name, half in now.halves() if any(row.enabled for row in half.failover.shared)]
        found = (*now.find(FailoverRole.PRIMARY), *holders)
        if not found:
            raise RefusedError(f"Neither box serves the shared addresses: {now.state}.", hint="boxshift failover status tells more.")
        return found[0]

    def establish(self, primary: str) -> PairFacts:
        """Key on both, shared addresses ticked, the relationship, and a data sync.

        Raises:
            BlockedError: something stands against it.

        """
        before = self.read()
        if not before.is_led_by(primary):
            self._join(primary, before)
        # Also where they were a pair already: who was killed before the end of the sync comes back to a backup that may hold nothing.
        self.sync()
        return self._verified(lambda now: now.is_led_by(primary), f"{primary} to be the primary")

    def join(self, primary: str) -> PairFacts:
        """The same without the data sync: the boxes begin one by themselves after a while."""
        before = self.read()
        if before.is_led_by(primary):
            return before
        self._join(primary, before)
        return self._verified(lambda now: now.is_led_by(primary), f"{primary} to be the primary")

    def _join(self, primary: str, before: PairFacts) -> None:
        if before.state != "no relationship" and not before.notes:
            raise RefusedError(f"The pair is in another state: {before.state}.", hint="boxshift failover break ends the relationship.")
        verify_no_blockers(check_pair(before))
        key = self.reveal(self.plan.pre_shared_key, "the pre-shared key")
        for name in OTHER:
            self.progress.update(f"key and shared addresses of {name}")
            with self.open(name) as box:
                if name != self.keeps_key or box.is_pre_shared_key_set() is False:
                    box.set_pre_shared_key(key)
                if self.plan.shared:
                    box.share_addresses([str(address) for address in self.plan.shared])
        self.progress.update("establishing the relationship")
        with self.open(primary) as box:
            box.establish_failover(self._place(OTHER[primary]), self._place(primary))

    def sync(self) -> PairFacts:
        """A whole data sync to its real end."""
        before = self.read()
        primary = self._one(before, FailoverRole.PRIMARY)
        with self.open(primary) as box:
            box.sync_now(progress=self.progress)
        return self.read()

    def end(self) -> PairFacts:
        """No relationship on either box. Nothing but the relationship is lost."""
        before = self.read()
        for name, half in before.halves():
            if half.failover.role is not FailoverRole.NONE:
                self.progress.update(f"breaking the relationship at {name}")
                with self.open(name) as box:
                    box.break_failover()
        return self._verified(lambda now: now.state == "no relationship" or bool(now.notes), "no relationship on either box")

    def swap(self) -> PairFacts:
        """The backup becomes the primary, after a data sync: nothing that the primary has taken is lost.

        Raises:
            BlockedError: a conflict, or a box that cannot be read. Nothing is forced here.

        """
        before = self.read()
        verify_no_blockers(check_pair(before))
        return self._promote(self._one(before, FailoverRole.BACKUP))

    def promote(self, name: str) -> PairFacts:
        """The same for the box of that name; nothing is done where it is the primary already."""
        before = self.read()
        verify_no_blockers(check_pair(before))
        return before if before.is_led_by(name) else self._promote(name)

    def _promote(self, name: str) -> PairFacts:
        with self.open(name) as box:
            box.set_failover_role(FailoverRole.PRIMARY, data_sync_first=True, progress=self.progress)
        return self._verified(lambda now: now.is_led_by(name), f"{name} to be the only primary")

    def resolve(self) -> PairFacts:
        """Where both have the same role, the boxes decide which of them keeps it, as their page offers. A whole pair is left as it is."""
        before = self.read()
        if before.is_led_by("a") or before.is_led_by("b"):  # also where this was cut off after the box had done it
            return before
        if not before.state.startswith("conflict"):
            raise RefusedError(f"There is no conflict: {before.state}.")
        with self.open("a") as box:
            box.resolve_conflict()
        return self._verified(lambda now: not now.state.startswith("conflict"), "the conflict to be resolved")

    @contextmanager
    def open(self, name: str) -> Iterator[Appliance]:
        """A box, logged in, for the length of a block."""
        with closing(self.open_box(name)) as box:
            yield box

    def open_box(self, name: str) -> Appliance:
        """A box, logged in; the caller closes it.

        A data sync gives the backup the primary's site accounts, so the other box's are tried where its own fail. Which ones opened it
        is remembered beside the plan: no login is tried in vain twice.
        """
        first = self._remembered().get(name, name)
        try:
            box = self._open(name, first)
        except LoginRefusedError:
            first = OTHER[first]
            box = self._open(name, first)
        if self._remembered().get(name) != first:
            write_private(self.memory, json.dumps(self._remembered() | {name: first}).encode())
        return box

    def _open(self, name: str, accounts_of: str) -> Appliance:
        box, site = self.plan.box(name), self.plan.box(accounts_of)
        credentials = read_credentials(site.accounts, box.accounts, self.reveal, f"box {name}")
        patience = LibvirtMachines().patience(box.machine)
        driver = open_driver(box, (box.pin, self.site_key), credentials, self.plan.site.language, self.watch, patience)
        try:
            driver.verify_access()
        except BaseException:
            driver.close()
            raise
        return driver

    def _place(self, name: str) -> PairPlace:
        place = self.plan.box(name).place
        return PairPlace(place.host, place.port)

    def _remembered(self) -> dict[str, str]:
        try:
            found = json.loads(self.memory.read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: other for name, other in found.items() if name in OTHER and other in OTHER} if isinstance(found, dict) else {}

    def _one(self, pair: PairFacts, role: FailoverRole) -> str:
        found = pair.find(role)
        if len(found) != 1:
            raise RefusedError(f"There is no one box that is the {role.value}: {pair.state}.", hint="boxshift failover status tells more.")
        return found[0]

    def _verified(self, good: Callable[[PairFacts], bool], what: str) -> PairFacts:
        now = self.read()
        if not good(now):
            blockers = [finding.sentence for finding in check_pair(now) if finding.severity is Severity.BLOCKER]
            raise FailedError(
                f"Waited for {what}; the pair is now: {now.state}. {' '.join(blockers)}".strip(), hint="boxshift failover status"
            )
        return now
