"""One verb of the NAT cutover as a program of its own, so that it can run in another namespace and be killed.

Reads ``{"place": ..., "plan": ..., "verb": ...}`` and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from kit.errors import BoxshiftError
from migrate.cutover.nat import NatCutover
from migrate.cutover.nat_values import NatCutoverPlan
from migrate.cutover.ssh import SshGateway, SshPlace


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    place = SshPlace(**(asked["place"] | {"key": Path(asked["place"]["key"])}))
    cutover = NatCutover(NatCutoverPlan(**asked["plan"]), lambda: SshGateway(place), where=str(place))
    try:
        answer = getattr(cutover, asked["verb"])()
        told = {"ok": TypeAdapter(type(answer)).dump_python(answer, mode="json")}
    except BoxshiftError as error:
        told = {"error": error.to_record()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
