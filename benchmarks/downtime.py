"""How long visitors are without service, by the way in which a site is moved or upgraded: one run each, the same visitors.

    python benchmarks/downtime.py [--rate 20] [--scenario migration --scenario pair-async …]

Plays each scenario on local processes with visitors at 20 requests a second, and prints what they saw: seconds without service, requests
lost, records acknowledged to them and missing afterwards (which must be none). Then how much of that time fell into the steps that carry
the last data, change the roles, or move a pair's address, by the run's own record, and how much was beyond them (target for a gateway's
rule and a shared address: under 1 s). Then two ratios: a migration by failover to one by restoring (`resync`), and the asynchronous
upgrade of a pair to the synchronous one (target: under a tenth). Each is told by the share of requests that failed, and by the time without
service, which goes from the last good answer to the next one: of an outage as short as the asynchronous one that is mostly the pause
between two requests.

As root everything plays in a network of its own, where a gateway's rule can be played too. Packages install at once in the reference
appliance on local processes; on a real box a synchronous upgrade is longer by that, and the asynchronous one is not.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

from images.apart import enter
from kit.progress import Silent
from migrate.cli.running import run_loaded
from migrate.demo.local_stage import LocalStage
from migrate.demo.play import Curtain, Play, Scenario, perform
from migrate.demo.stage import SiteSize, find_free_net
from migrate.engine.model import RunStatus

PLAYED = (Scenario.MIGRATION, Scenario.NAT, Scenario.SHARED_IP, Scenario.MIGRATE_BY_FAILOVER, Scenario.PAIR_SYNC, Scenario.PAIR_ASYNC)
GIVE_UP = 1.0  # seconds after which a visitor counts a request as lost
# From the beginning of the first of these nodes to the end of the last: the old box takes nothing, and the data are on their way.
CARRYING = (("quiesce-old", "compare-last"), ("become-primary", "become-primary"), ("swing-shared", "swing-shared"))
BEYOND = 1.0  # seconds that a switch may cost beyond that
SWITCHED = (Scenario.NAT, Scenario.SHARED_IP)


def play(scenario: Scenario, rate: float) -> Curtain:
    """One scenario from its first to its last act."""
    with tempfile.TemporaryDirectory(prefix="boxshift-benchmark-") as place:
        folder = Path(place)
        stage = LocalStage(folder / "stage", net=find_free_net(), pair=scenario.is_pair, nat=scenario is Scenario.NAT)
        stage.pace = replace(stage.pace, rate=rate, timeout=GIVE_UP)
        with (folder / "said.log").open("w") as said, redirect_stderr(said):
            return perform(Play(folder, SiteSize(), scenario=scenario), stage, lambda loaded: run_loaded(loaded, yes=True), Silent())


def find_carrying(status: RunStatus) -> tuple[float, float] | None:
    """From when to when (Unix seconds) data were carried or roles changed; None in a run that has no such steps."""
    nodes = {node.name: node for node in status.nodes}
    for first, last in CARRYING:
        if first in nodes and last in nodes:
            since, until = nodes[first].started, nodes[last].ended
            return (since, until) if since is not None and until is not None else None
    return None


def show(scenario: Scenario, curtain: Curtain) -> None:
    """What visitors saw, and how much of it was the carrying of data."""
    seen = curtain.visitors
    print(
        f"{scenario.value:<20} {seen.downtime_seconds:8.2f} s without service  "
        f"{seen.requests_lost:5} of {seen.requests_sent:6} requests lost  "
        f"{len(seen.records_written):5} records written, {len(curtain.records_lost)} lost  {curtain.status.state.value}",
        flush=True,
    )
    carrying = find_carrying(curtain.status)
    if carrying is not None:
        since, until = carrying
        within = sum(max(0.0, min(one.until, until) - max(one.since, since)) for one in seen.outages)
        beyond = seen.downtime_seconds - within
        target = f" (target below {BEYOND:g}: {'met' if beyond < BEYOND else 'MISSED'})" if scenario in SWITCHED else ""
        print(f"{'':<20} {within:8.2f} s of it in the steps that carry data or change roles, {beyond:.2f} s beyond{target}", flush=True)


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--rate", type=float, default=20.0, help="requests a second")
    asked.add_argument("--scenario", action="append", choices=[one.value for one in PLAYED])
    wish = asked.parse_args()
    played = [Scenario(name) for name in wish.scenario or PLAYED]
    if os.geteuid() == 0:
        status = enter()
        if status is not None:
            sys.exit(status)
    elif Scenario.NAT in played:
        print(f"{Scenario.NAT.value:<20} not played: a gateway needs a network of its own, and that needs root", flush=True)
        played.remove(Scenario.NAT)
    found: dict[Scenario, Curtain] = {}
    for scenario in played:
        found[scenario] = play(scenario, wish.rate)
        show(scenario, found[scenario])
    for fast, slow, target in (
        (Scenario.MIGRATE_BY_FAILOVER, Scenario.MIGRATION, "the shorter the better"),
        (Scenario.PAIR_ASYNC, Scenario.PAIR_SYNC, "target below 0.10"),
    ):
        if fast in found and slow in found:
            quick, long = found[fast].visitors, found[slow].visitors
            failed = (quick.requests_lost / quick.requests_sent) / max(long.requests_lost / long.requests_sent, 0.001)
            whole = quick.downtime_seconds / max(long.downtime_seconds, 0.001)
            print(f"{fast.value} / {slow.value}: {failed:.2f} by failed requests, {whole:.2f} from good answer to good answer ({target})")
    sys.exit(0 if all(one.good for one in found.values()) else 1)


if __name__ == "__main__":
    main()
