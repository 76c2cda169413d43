"""The demo: raises the stage, lets visitors in, runs an ordinary plan with the ordinary command, and looks at what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kit.errors import DeadlineError
from kit.files import write_private
from kit.findings import Finding
from kit.process import Child
from kit.progress import Progress
from kit.waiting import wait_for
from migrate.demo.authority import issue
from migrate.demo.journal import VisitorSummary, read_journal
from migrate.demo.jump_client import ClientAccount
from migrate.demo.nameserver import DemoNameServer, ZoneRecord
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import (
    NEWEST,
    SITE,
    TRANSFER,
    ZONE,
    OldSite,
    PlanParts,
    SiteSize,
    Stage,
    private_folder,
    render_demo_plan,
    render_failover_plan,
    render_nat_plan,
    render_offline_plan,
    render_pair_plan,
    render_shared_plan,
    render_upgrade_plan,
)
from migrate.demo.visitor_config import VisitorConfig, write_config
from migrate.engine.model import NodeState, RunState, RunStatus
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan, read_any_plan
from migrate.steps.inspect import Preflight
from migrate.wiring.executor import parse_result

Perform = Callable[[LoadedPlan[CommonPlan]], RunStatus]
OLD_TTL = 5  # seconds; a real zone has an hour, and a demo has not
AFTER = 5.0  # seconds that visitors go on after the run


class Scenario(StrEnum):
    """Which procedure is played."""

    MIGRATION = "migration"
    MIGRATE_BY_FAILOVER = "migrate-by-failover"
    UPGRADE = "upgrade"
    OFFLINE = "offline"
    PAIR_SYNC = "pair-sync"
    PAIR_ASYNC = "pair-async"
    NAT = "nat"
    SHARED_IP = "shared-ip"

    @property
    def is_move(self) -> bool:
        """Whether a site is moved from one box to another, and the old one is wiped."""
        return self in (Scenario.MIGRATION, Scenario.MIGRATE_BY_FAILOVER, Scenario.NAT, Scenario.SHARED_IP)

    @property
    def is_pair(self) -> bool:
        """Whether it is played by two boxes that are a failover pair."""
        return self in (Scenario.PAIR_SYNC, Scenario.PAIR_ASYNC)

    @property
    def needs_network(self) -> bool:
        """Whether, on machines, both boxes and the visitors have to be on one network."""
        return self.is_pair or self in (Scenario.NAT, Scenario.SHARED_IP)


# How each scenario's plan is written, and which nodes prove that visitors are served what they were.
PLANS: dict[Scenario, Callable[[PlanParts], str]] = {
    Scenario.MIGRATION: render_demo_plan,
    Scenario.MIGRATE_BY_FAILOVER: render_failover_plan,
    Scenario.UPGRADE: render_upgrade_plan,
    Scenario.OFFLINE: render_offline_plan,
    Scenario.PAIR_SYNC: lambda parts: render_pair_plan(parts, "sync"),
    Scenario.PAIR_ASYNC: lambda parts: render_pair_plan(parts, "async"),
    Scenario.NAT: render_nat_plan,
    Scenario.SHARED_IP: render_shared_plan,
}
PROOFS = ("served-chain", "compare")


@dataclass(frozen=True)
class Play:
    """What a demo is asked for. ``visiting``: how many of the site's Jump Clients the visitors play; None: all of them."""

    folder: Path
    size: SiteSize
    soak: float = 10.0
    scenario: Scenario = Scenario.MIGRATION
    visiting: int | None = None


@dataclass(frozen=True)
class Curtain:
    """What came of it: the run, the visitors' journal, and what was looked at afterwards."""

    status: RunStatus
    visitors: VisitorSummary
    records_lost: tuple[str, ...]
    findings: tuple[Finding, ...]
    wall_seconds: float
    scenario: Scenario = Scenario.MIGRATION

    @property
    def good(self) -> bool:
        """The run is done, no acknowledged record is missing, and visitors saw one chain only."""
        return self.status.state is RunState.DONE and not self.records_lost and self.served_chain_equal

    @property
    def served_chain_equal(self) -> bool:
        """One and the same list of certificates before and after, by the visitors' own eyes and by the run's comparison."""
        return len(self.visitors.chains) == 1 and any(self._is_done(node) for node in PROOFS)

    def to_json(self, report: Path) -> dict[str, object]:
        """The object that ``boxshift demo --json`` ends with."""
        return {
            "run": self.status.run,
            "scenario": self.scenario.value,
            "state": self.status.state.value,
            "wall_seconds": round(self.wall_seconds, 1),
            "records_written": len(self.visitors.records_written),
            "records_lost": len(self.records_lost),
            "requests_sent": self.visitors.requests_sent,
            "requests_lost": self.visitors.requests_lost,
            "downtime_seconds": round(self.visitors.downtime_seconds, 2),
            "served_chain_equal": self.served_chain_equal,
            "old_reset": self._is_done("factory-reset"),
            "old_power": self._power(),
            "findings": [vars(finding) | {"severity": finding.severity.value} for finding in self.findings],
            "report": str(report),
        }

    def _power(self) -> str:
        """What the hypervisor said; on a stage without one, whether anything still answers is all that is known."""
        if not self._is_done("power-off"):
            return "on"
        value = self.status.node("power-off").value
        return "off" if isinstance(value, dict) and value.get("value") else "silent"

    def _is_done(self, name: str) -> bool:
        """Whether the runbook has such a node and it is done."""
        return any(node.name == name and node.state is NodeState.DONE for node in self.status.nodes)


@dataclass(frozen=True)
class Scene:
    """A raised stage: an ordinary plan with its secrets, and visitors who are at it already."""

    plan: Path
    stage: Stage
    names: DemoNameServer
    secrets: DemoSecrets
    visitors: Child
    clients: tuple[str, ...]

    @property
    def journal(self) -> Path:
        """Where the visitors write down what they see."""
        return self.plan.parent / "journal.jsonl"

    def end_visits(self) -> VisitorSummary:
        """Let the visitors go home, and add up."""
        self.visitors.stop()
        return read_journal(self.journal)


@contextmanager
def open_scene(play: Play, stage: Stage, progress: Progress) -> Iterator[Scene]:
    """Raise the stage, write the plan, let visitors in; afterwards take everything away."""
    folder = private_folder(play.folder)
    with ExitStack() as stack:
        stack.callback(stage.close)
        records = (ZoneRecord("support", OLD_TTL, "A", stage.entrance),)
        names = stack.enter_context(DemoNameServer(private_folder(folder / "names"), records, zone=ZONE))
        secrets = DemoSecrets.make(names.key.secret)
        issued = issue(SITE)
        (folder / "root.pem").write_text(issued.root)
        site = stage.raise_old(replace(play.size, packages=NEWEST if play.scenario.is_move else ()), secrets, issued, progress)
        secrets.write(folder / "secrets.yaml")
        plan = folder / "plan.yaml"
        write_private(plan, PLANS[play.scenario](PlanParts(stage, site, names.primary.port, names.key.name, play.soak)).encode())
        if play.scenario is Scenario.OFFLINE:
            fetch_packages(plan, stage.update_server, progress)
        if play.scenario.is_pair:
            establish_pair(plan, progress)
        visitors = stack.enter_context(_let_visitors_in(play, stage, names, site, secrets))
        _wait_for_first_visit(folder, visitors, stage.pace.first_visit)
        yield Scene(plan, stage, names, secrets, visitors, site.jump_clients)


def establish_pair(plan: Path, progress: Progress) -> None:
    """What `boxshift failover establish` does: a is the primary, b its backup, synced."""
    from migrate.wiring.pairs import make_pair

    make_pair(read_any_plan(plan), progress).establish("a")


def fetch_packages(plan: Path, server: str, progress: Progress) -> None:
    """What somebody does on a machine that may go out: the box's key is given to the update server, everything on offer is taken along."""
    from migrate.wiring.transfers import fetch, write_key

    written = write_key(plan, plan.parent / "download.key")
    fetch(plan.parent / TRANSFER, server, f"file:{written.path}", None, progress)


def perform(play: Play, stage: Stage, run: Perform, progress: Progress) -> Curtain:
    """Play it from the first to the last act. ``run`` is what ``boxshift run`` does with a plan."""
    begin = time.monotonic()
    with open_scene(play, stage, progress) as scene:
        status = run(read_any_plan(scene.plan))
        time.sleep(AFTER)
        summary = scene.end_visits()
        lost = find_lost(scene.plan, status, summary)
        return Curtain(status, summary, lost, _findings(status), time.monotonic() - begin, play.scenario)


def _let_visitors_in(play: Play, stage: Stage, names: DemoNameServer, site: OldSite, secrets: DemoSecrets) -> Child:
    config = VisitorConfig(
        site=SITE,
        port=stage.port,
        ca_file=play.folder / "root.pem",
        name_servers=names.servers,
        journal=play.folder / "journal.jsonl",
        clients=tuple(ClientAccount(client, secrets.jump_clients) for client in site.jump_clients[: play.visiting]),
        rate=stage.pace.rate,
        timeout=stage.pace.timeout,
        checkin_every=stage.pace.checkin_every,
        page="/check_health",
    )
    write_config(config, play.folder / "visitor.json")
    return Child([sys.executable, "-m", "migrate.demo.visitor", play.folder / "visitor.json"], log=play.folder / "visitor.log")


def _wait_for_first_visit(folder: Path, visitors: Child, timeout: float) -> None:
    def look() -> bool | None:
        path = folder / "journal.jsonl"
        summary = read_journal(path) if path.exists() else None
        good = summary is not None and summary.records_written and len(summary.clients_seen) > 0
        return True if good else None

    def dead() -> str | None:
        return f"the visitors' program ended: {visitors.said()}" if visitors.status is not None else None

    try:
        wait_for(look, what="the first visitor's record on the old box", timeout=timeout, give_up=dead)
    except DeadlineError as error:
        raise DeadlineError(error.sentence, hint=f"Look at {folder / 'journal.jsonl'}.", **error.facts) from error


def find_lost(plan: Path, status: RunStatus, summary: VisitorSummary) -> tuple[str, ...]:
    """Records that were acknowledged to a visitor and are on no box in service, read from the box through its own interface."""
    from migrate.wiring.serving import open_box_of_run

    with closing(open_box_of_run(read_any_plan(plan), status)) as box:
        there = set(box.read_content().sessions or ())
    return tuple(lsid for lsid in summary.records_written if lsid not in there)


def _findings(status: RunStatus) -> tuple[Finding, ...]:
    results = {node.name: node.value for node in status.nodes if node.state is NodeState.DONE}
    return parse_result(results, "judge", Preflight).findings if "judge" in results else ()
