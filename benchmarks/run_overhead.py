"""What boxshift itself adds to a migration: seconds outside appliances and servers, and the worker's peak memory.

    python benchmarks/run_overhead.py [--machines]

Runs one whole migration (local processes, or virtual machines) and prints: seconds in which at least one step was inside an appliance, a
name server or a hypervisor, or waited for a time; what is left, which is boxshift's own; the ratio (target: at most 5 %); how much of the
steps' time was saved by running them side by side; the worker's peak memory.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from kit.progress import Silent
from migrate.demo.local_stage import LocalStage
from migrate.demo.play import Play, open_scene
from migrate.demo.stage import SiteSize, Stage, find_free_net
from migrate.runbook import NodeKind
from migrate.wiring.desk import open_desk
from migrate.wiring.reporting import sum_inside

BOXSHIFT = Path(sys.executable).with_name("boxshift")


def run_migration(plan: Path) -> int:
    """`boxshift run` as a process of its own; answers its peak memory in KiB."""
    pid = os.posix_spawn(
        BOXSHIFT,
        [str(BOXSHIFT), "run", str(plan), "--yes"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, str(plan.parent / "boxshift.log"), os.O_WRONLY | os.O_CREAT, 0o600)],
    )
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"the run failed: see {plan.parent / 'boxshift.log'}")
    return usage.ru_maxrss


def make_stage(folder: Path) -> Stage:
    """The stage that the command line asks for."""
    if "--machines" in sys.argv:
        from migrate.demo.machine_stage import MachineStage

        return MachineStage(folder / "stage", net=find_free_net())
    return LocalStage(folder / "stage", net=find_free_net())


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="boxshift-benchmark-") as place:
        folder = Path(place)
        with open_scene(Play(folder, SiteSize(), soak=1.0), make_stage(folder), Silent()) as scene:
            memory = run_migration(scene.plan)
            with open_desk(scene.plan, "", "") as desk:
                status = desk.status()
    total = (status.ended or 0.0) - status.submitted
    inside = sum_inside(status)
    steps = sum(node.seconds for node in status.nodes if status.runbook.node(node.name).kind is NodeKind.STEP)
    print(f"whole run                          {total:8.1f} s")
    print(f"inside appliances, servers, waits  {inside:8.1f} s")
    print(f"boxshift's own                     {total - inside:8.1f} s = {(total - inside) / total:6.1%} of the run (target <= 5 %)")
    print(f"steps one after the other          {steps:8.1f} s; side by side they took {total:.1f} s with all waits")
    print(f"worker's peak memory               {memory / 1024:8.1f} MiB")


if __name__ == "__main__":
    main()
