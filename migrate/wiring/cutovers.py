"""The cutover that a plan asks for."""

from __future__ import annotations

import time
from collections.abc import Callable

from migrate.cutover.contract import Cutover
from migrate.cutover.dns import DnsCutover
from migrate.cutover.dns_values import DnsCutoverPlan, Move, NameServer, TsigAlgorithm, TsigKey
from migrate.plan import Plan
from migrate.wiring.boxes import Reveal


def make_cutover(plan: Plan, reveal: Reveal, nap: Callable[[float], None] = time.sleep) -> Cutover:
    """The adapter for ``cutover.method``. ``nap`` sleeps for seconds while it waits for a TTL to run out, or raises."""
    wanted = plan.cutover.dns
    secret = reveal(wanted.key, f"the TSIG key {wanted.key_name}")
    return DnsCutover(
        DnsCutoverPlan(
            name=plan.site.name,
            moves=(Move(plan.old.service.visible, plan.new.service.visible),),
            server=NameServer(str(wanted.server), wanted.port),
            key=TsigKey(wanted.key_name, secret, TsigAlgorithm(wanted.algorithm)),
            zone=wanted.zone,
            ttl=wanted.ttl,
            authoritative=tuple(NameServer(str(one.address), one.port, one.name) for one in wanted.authoritative),
        ),
        nap=nap,
    )
