"""A demo on machines with a small site, as `boxshift demo --json` plays it with a large one: SCENARIO FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from rig import SMALL

from migrate.cli.demonstration import demonstrate, go_apart, surroundings
from migrate.cli.say import show_json
from migrate.demo.play import Play, Scenario


def main() -> int:
    scenario, folder = Scenario(sys.argv[1]), Path(sys.argv[2])
    status = go_apart(scenario, by_hand=False, keep=False)
    if status is not None:
        return status
    with surroundings(apart=True):
        ended = demonstrate(Play(folder, SMALL, soak=1.0, scenario=scenario), local=False, yes=True, keep=False)
    show_json(ended.json)
    return 0 if ended.good else 4


if __name__ == "__main__":
    sys.exit(main())
