"""A migration by failover behind a local gateway, in a network of its own, killed in its nodes and led back: FOLDER. Says where."""

from __future__ import annotations

import sys
from pathlib import Path

from killed_moves import CUTOVER, Move, play_killed
from rig import Rig

from images.apart import enter
from migrate.demo.play import Scenario
from migrate.demo.stage import by_failover


def move_by_failover(rig: Rig) -> None:
    rig.plan.write_text(by_failover(rig.plan.read_text(), rig.stage))


MOVE = Move(
    Scenario.NAT,
    ("read-cutover", *CUTOVER, "approve-retire"),
    ("switch",),
    ("switch", "join-pair"),
    move_by_failover,
    by_failover=True,
    retires=False,
)


def main() -> int:
    status = enter()
    if status is not None:
        return status
    sys.stdout.write("\n".join(play_killed(Path(sys.argv[1]), 1, None, MOVE)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
