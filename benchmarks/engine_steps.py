"""What the engine adds: seconds for each node, from start to first node, from a killed worker to its next node, and memory.

``python benchmarks/engine_steps.py [--nodes N] [--runs N]``; works in a temporary folder, prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from kit.progress import Progress
from migrate.engine import Call, Engine, Outcome
from migrate.runbook import Node, Phase, Runbook, Undo


class Nothing:
    """An executor whose nodes take no time, so that all the time there is belongs to the engine."""

    def execute(self, call: Call, progress: Progress) -> Outcome:
        """Do nothing."""
        del progress
        return Outcome(ok=True, value={"node": call.node.name})

    def undo(self, call: Call, progress: Progress) -> Outcome:
        """Do nothing."""
        del call, progress
        return Outcome(ok=True)


def plan_chain(nodes: int) -> Runbook:
    """Nodes that wait for each other, each with an undo to register."""
    chain = tuple(Node(f"n{n}", f"Node {n}", after=(f"n{n - 1}",) if n else (), undo=Undo.STEP) for n in range(nodes))
    return Runbook("benchmark", 1, "site", "plan", "0" * 64, (Phase("chain", "Chain", chain),))


def measure(folder: Path, nodes: int, runs: int) -> dict[str, float]:
    """Seconds and bytes, by name."""
    begin = time.perf_counter()
    engine = Engine(folder / "runs.sqlite", Nothing()).start()
    started = time.perf_counter() - begin
    begin, spent = time.perf_counter(), time.process_time()
    engine.submit(plan_chain(nodes), "one")
    engine.wait("one")
    chain = time.perf_counter() - begin
    work = time.process_time() - spent
    begin = time.perf_counter()
    for number in range(runs):
        engine.submit(plan_chain(5), f"run{number}")
    for number in range(runs):
        engine.wait(f"run{number}")
    many = time.perf_counter() - begin
    begin = time.perf_counter()
    engine.control.rollback("one", "benchmark")
    engine.wait("one")
    undone = time.perf_counter() - begin
    begin = time.perf_counter()
    engine.stop()
    return {
        "start_seconds": started,
        "milliseconds_a_node": 1000 * chain / nodes,
        "processor_milliseconds_a_node": 1000 * work / nodes,
        "milliseconds_an_undo": 1000 * undone / nodes,
        "nodes_a_second_over_many_runs": 5 * runs / many,
        "stop_seconds": time.perf_counter() - begin,
        "peak_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes_a_node_in_the_database": (folder / "runs.sqlite").stat().st_size / (nodes + 5 * runs),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(
            json.dumps({name: round(value, 2) for name, value in measure(Path(folder), given.nodes, given.runs).items()}) + "\n"
        )


if __name__ == "__main__":
    main()
