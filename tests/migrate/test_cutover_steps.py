"""What the steps about the switch say, whichever way it is made."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from examples_of_plans import make_plan
from test_cutover_plan import DNS, NAT

from kit.errors import FailedError
from kit.progress import Silent
from migrate.cutover.contract import Change, CutoverState, Side, Witness
from migrate.plan import Plan
from migrate.steps.cutover import Proved, prove, switch, wait_for_swing
from migrate.steps.inspect import read_cutover

BY_NAT = make_plan((DNS, NAT))
COUNTED = Witness("gateway g, rule 3", Side.OLD, ("127.0.0.11",), note="The rule has counted 7 packets.")
CHANGE = Change(Side.NEW, 100.0, 101.0, (), acted=True, notes=("2 open connection(s) ended.",))


class Outside:
    """Says where the site leads; the second answer of all is a failure."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self) -> tuple[str, ...]:
        return ("127.0.0.12",)

    def probe(self, address: str, port: int) -> None:
        self.asked.append(f"{address}:{port}")
        if len(self.asked) == 2:
            raise FailedError("No.")


class Switched:
    """A cutover that has nothing left to do."""

    def verify_ready(self) -> CutoverState:
        return CutoverState(Side.OLD, (COUNTED,), (), 1.0)

    def wait_until_settled(self, moment: Change, progress: object) -> CutoverState:
        return CutoverState(moment.side, (COUNTED,), (), 1.0)

    def switch(self) -> Change:
        return CHANGE

    def outage_estimate(self) -> float:
        return 3.0


def seconds() -> Iterator[float]:
    now = 101.0
    while True:
        now += 1.0
        yield now


def make_context(plan: Plan) -> Any:
    clock = seconds()
    return SimpleNamespace(
        plan=plan, outside=Outside(), cutover=Switched(), progress=Silent(), read_time=lambda: next(clock), result=lambda *_: CHANGE
    )


@pytest.mark.parametrize(
    ("plan", "place"), [(make_plan(), "127.0.0.12:8443"), (BY_NAT, "127.0.0.80:8443")], ids=["dns", "through a gateway"]
)
def test_the_proof_goes_where_visitors_come_in_and_is_timed_from_the_switch(plan: Plan, place: str) -> None:
    ctx = make_context(plan)
    done = prove(ctx)
    assert set(ctx.outside.asked) == {place}
    # The first answer was good and the next was not, so the row began with the third look, which is the second moment told.
    assert done.value == Proved(5, 103.0)
    assert done.evidence[1].seen == "3.0 s"


def test_what_a_gateway_tells_becomes_evidence() -> None:
    ctx = make_context(BY_NAT)
    before = read_cutover(ctx)
    assert before.sentence == "Visitors are sent to the old box; a switch takes about 3 s."
    for done in (before, wait_for_swing(ctx)):
        assert COUNTED.note in [row.seen for row in done.evidence]
    assert CHANGE.notes[0] in [row.seen for row in switch(ctx).evidence]
