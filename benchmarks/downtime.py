"""How long visitors are without service, by the way in which a site is moved or upgraded: one run each, the same visitors.

    python benchmarks/downtime.py [--rate 20] [--scenario migration --scenario pair-async …]

Plays each scenario on local processes with visitors at 20 requests a second, and prints what they saw: seconds without service, requests
lost, records acknowledged to them and missing afterwards (which must be none). Then two ratios: a migration by failover to one by
restoring (`resync`), and the asynchronous upgrade of a pair to the synchronous one (target: under a tenth). A rule at a gateway needs
network namespaces; `tests/cutover/test_nat_cutover.py` prints what it costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

from kit.progress import Silent
from migrate.cli.running import run_loaded
from migrate.demo.local_stage import LocalStage
from migrate.demo.play import Curtain, Play, Scenario, perform
from migrate.demo.stage import SiteSize, find_free_net

PLAYED = (Scenario.MIGRATION, Scenario.SHARED_IP, Scenario.MIGRATE_BY_FAILOVER, Scenario.PAIR_SYNC, Scenario.PAIR_ASYNC)
GIVE_UP = 1.0  # seconds after which a visitor counts a request as lost


def play(scenario: Scenario, rate: float) -> Curtain:
    """One scenario from its first to its last act."""
    with tempfile.TemporaryDirectory(prefix="boxshift-benchmark-") as place:
        folder = Path(place)
        stage = LocalStage(folder / "stage", net=find_free_net(), pair=scenario.is_pair)
        stage.pace = replace(stage.pace, rate=rate, timeout=GIVE_UP)
        with (folder / "said.log").open("w") as said, redirect_stderr(said):
            return perform(Play(folder, SiteSize(), scenario=scenario), stage, lambda loaded: run_loaded(loaded, yes=True), Silent())


def show(scenario: Scenario, curtain: Curtain) -> None:
    """One line."""
    seen = curtain.visitors
    print(
        f"{scenario.value:<20} {seen.downtime_seconds:8.2f} s without service  "
        f"{seen.requests_lost:5} of {seen.requests_sent:6} requests lost  "
        f"{len(seen.records_written):5} records written, {len(curtain.records_lost)} lost  {curtain.status.state.value}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--rate", type=float, default=20.0, help="requests a second")
    asked.add_argument("--scenario", action="append", choices=[one.value for one in PLAYED])
    wish = asked.parse_args()
    found: dict[Scenario, Curtain] = {}
    for scenario in [Scenario(name) for name in wish.scenario or PLAYED]:
        found[scenario] = play(scenario, wish.rate)
        show(scenario, found[scenario])
    for fast, slow, target in (
        (Scenario.MIGRATE_BY_FAILOVER, Scenario.MIGRATION, "the shorter the better"),
        (Scenario.PAIR_ASYNC, Scenario.PAIR_SYNC, "target below 0.10"),
    ):
        if fast in found and slow in found:
            ratio = found[fast].visitors.downtime_seconds / max(found[slow].visitors.downtime_seconds, 0.001)
            print(f"{fast.value} / {slow.value}: {ratio:.2f} ({target})")
    sys.exit(0 if all(one.good for one in found.values()) else 1)


if __name__ == "__main__":
    main()
