"""A migration by failover behind a local gateway, in a network of its own, and back: FOLDER. Says what was undone as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from leave_again import leave_after_the_switch
from rig import open_rig

from images.apart import enter
from migrate.demo.play import Scenario
from migrate.demo.stage import by_failover


def main() -> int:
    status = enter()
    if status is not None:
        return status
    with open_rig(Path(sys.argv[1]), 1, scenario=Scenario.NAT) as rig:
        rig.plan.write_text(by_failover(rig.plan.read_text(), rig.stage))
        undone = sorted(leave_after_the_switch(rig))
        notes = [one for one in rig.said().splitlines() if "nat-" in one or "Traceback" in one]
    sys.stdout.write(json.dumps({"undone": undone, "notes": notes}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
