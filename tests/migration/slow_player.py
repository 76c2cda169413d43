"""A pair and a box of its own behind a slow and lossy link, in a network of their own: FOLDER. Says as JSON what came of it.

The link (``tests/cutover/slow_wire.py``) stands between boxshift and every box, and between the two boxes of the pair. TCP is the kernel's.
Visitors have a link of their own: what they write must be there in the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rig import Rig, open_rig, role_of, sessions_of, wait_end
from test_upgrade import change

from images.apart import enter
from kit.process import Child
from kit.waiting import wait_for
from migrate.demo.play import Scenario
from migrate.engine.model import NodeState

WIRE = Path(__file__).parent.parent / "cutover" / "slow_wire.py"
PAIR, ONE = 1, 2  # their networks


def main() -> int:
    status = enter()
    if status is not None:
        return status
    folder = Path(sys.argv[1])
    with ExitStack() as stack:
        pair = stack.enter_context(open_rig(folder / "pair", PAIR, scenario=Scenario.PAIR_ASYNC))
        one = stack.enter_context(open_rig(folder / "one", ONE, scenario=Scenario.UPGRADE))
        ends = [*move_behind(pair, PAIR), *move_behind(one, ONE)]
        with lay_wire(folder, "0", ends):  # the boxes of the pair know each other by the far ends from now on
            for word in ("break", "establish"):
                assert pair.run("failover", word, str(pair.plan), "--yes") == 0, pair.said()[-3000:]
        with lay_wire(folder, "0.1", ends):
            took = play(pair, one)
        written, upgraded = pair.scene.end_visits().records_written, one.scene.end_visits()
        told = {
            "took": took,
            "roles": [role_of(pair.stage.old_box), role_of(pair.stage.new_box)],
            "written": [len(written), len(upgraded.records_written)],
            "lost": [*(set(written) - sessions_of(pair.stage.new_box)), *(set(upgraded.records_written) - sessions_of(one.stage.old_box))],
            "failed": [node.name for node in one.status().nodes if node.state is not NodeState.DONE],
        }
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def move_behind(rig: Rig, net: int) -> list[str]:
    """The plan names the far end of the link for each address; answers both ends of each."""
    stage, text = rig.stage, rig.plan.read_text()
    ends = {stage.old.admin: f"10.8.{net}.11", stage.new.admin: f"10.8.{net}.12", stage.old.visible: f"10.8.{net}.1"}
    for near, far in ends.items():
        text = text.replace(f"address: {near}\n", f"address: {far}\n").replace(f"reached_at: {near}}}", f"reached_at: {far}}}")
    rig.plan.write_text(text)
    return [f"{near}={far}" for near, far in ends.items()]


@contextmanager
def lay_wire(folder: Path, delay: str, ends: list[str]) -> Iterator[None]:
    """``delay``: seconds each way."""
    devices = Path("/proc/self/net/dev")
    with Child([sys.executable, WIRE, "mirror", delay, *ends], log=folder / "wire.log"):
        wait_for(lambda: devices.read_text().count("slow") == len(ends) or None, what="the link", timeout=30, poll=0.05)
        yield


def play(pair: Rig, one: Rig) -> dict[str, float]:
    """The upgrade of the one box, and beside it a change of roles with its data sync. Answers the seconds of each."""
    change(one, ("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.1.1"}'))
    begin = time.monotonic()
    with one.start("upgrade", str(one.plan), "--yes") as upgrade:
        assert pair.run("failover", "swap", str(pair.plan), "--yes") == 0, pair.said()[-3000:]
        swapped = time.monotonic() - begin
        assert wait_end(upgrade, 240.0) == 0, one.said()[-3000:]
    status = one.status()
    return {"swap": round(swapped, 1), "upgrade": round((status.ended or 0.0) - status.submitted, 1)}


if __name__ == "__main__":
    sys.exit(main())
