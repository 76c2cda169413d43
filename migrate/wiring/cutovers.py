"""The cutover that a plan asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from kit.errors import UnexpectedError
from migrate.cutover.contract import Cutover
from migrate.plan import Plan
from migrate.plan_cutover import CommandPlan, DnsPlan, NatPlan
from migrate.wiring.boxes import PlannedBoxes, Reveal


def make_cutover(plan: Plan, folder: Path, reveal: Reveal, boxes: PlannedBoxes, nap: Callable[[float], None] = time.sleep) -> Cutover:
    """The adapter for ``cutover.method``. ``folder``: the plan's, from which its paths count.

    ``boxes``: for the method that needs them; ``nap`` sleeps for seconds while it waits for a TTL to run out, or raises.
    """
    if plan.cutover.shares_address:
        return _make_shared(plan, boxes)
    match plan.cutover.dns or plan.cutover.nat or plan.cutover.command:
        case DnsPlan() as wanted:
            return _make_dns(plan, wanted, reveal, nap)
        case NatPlan() as wanted:
            return _make_nat(plan, wanted, folder, reveal)
        case CommandPlan() as wanted:
            return _make_command(plan, wanted, folder, reveal)
    raise UnexpectedError("This plan has no cutover.")


def _make_dns(plan: Plan, wanted: DnsPlan, reveal: Reveal, nap: Callable[[float], None]) -> Cutover:
    from migrate.cutover.dns import DnsCutover
    from migrate.cutover.dns_values import DnsCutoverPlan, Move, NameServer, TsigAlgorithm, TsigKey

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


def _make_shared(plan: Plan, boxes: PlannedBoxes) -> Cutover:
    from migrate.cutover.shared_ip import SharedIpCutover, SharedIpCutoverPlan

    service = plan.old.service
    wanted = SharedIpCutoverPlan(
        address=str(service.address),
        entrance=service.visible,
        port=plan.site.port,
        new=plan.new.service.visible,
        seconds=plan.cutover.seconds,
    )
    return SharedIpCutover(wanted, boxes.open_old, boxes.open_new if boxes.has_addresses else None)


def _make_nat(plan: Plan, wanted: NatPlan, folder: Path, reveal: Reveal) -> Cutover:
    from migrate.cutover.nat import NatCutover
    from migrate.cutover.nat_values import NatCutoverPlan
    from migrate.cutover.ssh import SshGateway, SshPlace

    place = SshPlace(
        address=wanted.gateway,
        port=wanted.port,
        user=wanted.user,
        host_key=wanted.host_key,
        password=reveal(wanted.password, f"{wanted.user} of the gateway") if wanted.password is not None else None,
        key=folder / wanted.key if wanted.key is not None else None,
        passphrase=reveal(wanted.passphrase, "the key of the gateway") if wanted.passphrase is not None else None,
    )
    rule = NatCutoverPlan(plan.old.service.visible, plan.new.service.visible, plan.site.port, sudo=wanted.sudo, seconds=wanted.seconds)
    return NatCutover(rule, lambda: SshGateway(place), where=str(place))


def _make_command(plan: Plan, wanted: CommandPlan, folder: Path, reveal: Reveal) -> Cutover:
    from migrate.cutover.command import CommandCutover, CommandCutoverPlan

    return CommandCutover(
        CommandCutoverPlan(
            old=plan.old.service.visible,
            new=plan.new.service.visible,
            check=wanted.check,
            switch=wanted.switch,
            switch_back=wanted.switch_back,
            folder=folder,
            ready=wanted.ready,
            secret=reveal(wanted.secret, "the cutover commands") if wanted.secret is not None else None,
            timeout=wanted.timeout,
            spread=wanted.spread,
            seconds=wanted.seconds,
        )
    )
