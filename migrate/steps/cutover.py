"""Phase cutover: the moment that counts. Every look is taken anew, nothing is remembered from the inspection."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

from kit.errors import ChangedError, FailedError
from kit.files import write_private
from kit.waiting import wait_for
from migrate.appliances.contract import Appliance
from migrate.checks import verify_no_blockers
from migrate.cutover.contract import Change, Preparation
from migrate.facts import ApplianceFacts, BoxAddress
from migrate.steps.context import Context, Done, Evidence, step
from migrate.steps.inspect import Preflight, collect_findings
from migrate.steps.join import return_role
from migrate.steps.verify import compared, read_contents


@dataclass(frozen=True)
class Proved:
    """How many good answers in a row were seen from outside, and when the first of them came (Unix seconds)."""

    good: int
    at: float


@step("wait-for-old-ttl")
def wait_for_old_ttl(ctx: Context) -> Done:
    """Nobody keeps an answer with the old TTL any more."""
    state = ctx.cutover.wait_until_settled(ctx.result("lower-ttl", Preparation), ctx.progress)
    return Done(f"Every visitor asks again within {state.ttl} s.", state)


@step("blockers-live")
def blockers_live(ctx: Context) -> Done:
    """Both boxes and the servers are read again: what was fine at the inspection must be fine now."""
    before = ctx.result("read-old", ApplianceFacts)
    with closing(ctx.boxes.open_old()) as old:
        now = old.read_facts()
    if now.identity != before.identity:
        raise ChangedError(
            "The old box is not the one that was inspected.", hint="Look at GUID, serial number and certificate; start a new run."
        )
    if (now.base, now.site) != (before.base, before.site):
        raise ChangedError("The old box's software changed since the inspection.", hint="Start a new run.")
    ctx.cutover.verify_ready()
    findings = collect_findings(ctx, now)
    verify_no_blockers(findings)
    return Done("Looked at again just now: no blocker.", Preflight(findings))


def _enable_service(ctx: Context) -> Done:
    return _set_service(ctx, enabled=True)


def _set_service(ctx: Context, *, enabled: bool) -> Done:
    with closing(ctx.boxes.open_old()) as old:
        row = _switch_service(old, str(ctx.plan.old.service.address), enabled=enabled)
    word = "serves again on" if enabled else "no longer serves on"
    return Done(
        f"The old box {word} {row.address}.",
        None,
        (Evidence("service address", "enabled" if enabled else "disabled", "IP Configuration"),),
    )


def _switch_service(box: Appliance, address: str, *, enabled: bool) -> BoxAddress:
    """Only whether it is enabled changes; the prefix stays the box's own, whatever the plan takes it for."""
    row = next((row for row in box.read_addresses() if row.address == address), None)
    if row is None:
        raise FailedError(f"The box has no address {address} any more.", hint="Look at Networking > IP Configuration.")
    box.ensure_address(replace(row, enabled=enabled))
    return row


@step("quiesce-old", undo=_enable_service)
def quiesce_old(ctx: Context) -> Done:
    """Visitors cannot write to the old box any more; its administration address stays."""
    return _set_service(ctx, enabled=False)


@step("compare-last")
def compare_last(ctx: Context) -> Done:
    """Every record of the old box, to the last, is on the new one."""
    return compared(*read_contents(ctx))


def _switch_back(ctx: Context) -> Done:
    """The old box serves before anybody is sent there, and the new one until the last visitor has left it."""
    if ctx.plan.cutover.by_failover and ctx.need_pair().read().state != "no relationship":
        said = return_role(ctx)  # with its role the new box stops taking records, so none can come there any more
        change = ctx.cutover.switch_back()
        ctx.cutover.wait_until_settled(change, ctx.progress)  # alone again, it would take records of those who keep its address
        stopped = _stop_new(ctx)
        return Done(f"{said} Visitors are sent there again. {stopped}", change)
    if not ctx.plan.cutover.shares_address:  # that one may be on at the old box only when it is off at the new one
        _set_service(ctx, enabled=True)
    change = ctx.cutover.switch_back()
    try:
        _empty_new(ctx, change)
        kept = _keep_late_records(ctx)
    except FailedError as error:  # a broken new box is what rollbacks are for: it must not hinder one
        kept = f"What visitors wrote on the new box since the switch could NOT be read, and is only there: {error.sentence}"
    return Done(f"Visitors are sent to the old box again. {kept}", change)


def _empty_new(ctx: Context, change: Change) -> None:
    """Nobody writes on the new box any more: who keeps its address is served until that has run out, then it stops serving."""
    with closing(ctx.boxes.open_new()) as new:
        new.read_identity()  # it answers: worth waiting for
        ctx.cutover.wait_until_settled(change, ctx.progress)
        _switch_service(new, str(ctx.plan.new.service.address), enabled=False)


def _stop_new(ctx: Context) -> str:
    """Out of the pair the new box takes records again: not of a visitor whose open connection the gateway goes on leading there."""
    try:
        with closing(ctx.boxes.open_new()) as new:
            _switch_service(new, str(ctx.plan.new.service.address), enabled=False)
    except FailedError as error:  # it must not hinder the way back
        return f"The new box could NOT be made to stop serving: {error.sentence}"
    return "The new box serves nobody any more."


def _keep_late_records(ctx: Context) -> str:
    """What was written on the new box since the switch is not on the old one, and nothing takes it there: keep the list and a backup."""
    with closing(ctx.boxes.open_old()) as old:
        before = set(old.read_content().sessions or ())
    with closing(ctx.boxes.open_new()) as new:
        late = sorted(set(new.read_content().sessions or ()) - before)
        if late:
            password = ctx.secret(ctx.plan.backup.password, "the backup password")
            new.take_backup(ctx.folder / "backup-of-new-before-rollback.nsb", password, history=True, progress=ctx.progress)
    if not late:
        return "No record was written on the new box."
    write_private(ctx.folder / "records-only-on-new.txt", "\n".join(late).encode() + b"\n")
    return f"{len(late)} record(s) exist only on the new box: listed in records-only-on-new.txt, and in a backup beside it."


@step("switch", undo=_switch_back)
def switch(ctx: Context) -> Done:
    """Send visitors to the new box; read back wherever it says so."""
    change = ctx.cutover.switch()
    how = "" if change.acted else " (it was so already)"
    rows = (Evidence("visitors are sent to", change.side.value, "read back"), *(Evidence("at the switch", note) for note in change.notes))
    return Done(f"Visitors are sent to the new box{how}.", change, rows)


@step("prove")
def prove(ctx: Context) -> Done:
    """From outside: visitors are led to the new box, which answers well several times in a row; through the gateway, where there is one."""
    probes, wanted, asked = ctx.plan.cutover.probes, ctx.plan.new.service.visible, ctx.plan.entrance
    good: list[float] = []

    def look() -> float:
        earlier = good.copy()
        good.clear()  # a look that fails begins the row anew
        addresses = ctx.outside.resolve()
        if addresses != (wanted,):
            raise FailedError(f"{ctx.plan.site.name} leads to {', '.join(addresses) or 'nowhere'}, not to {wanted}.")
        ctx.outside.probe(asked, ctx.plan.site.port)
        good.extend((*earlier, ctx.read_time()))
        return good[0]

    first = wait_for(
        look, what=f"{probes.good_in_a_row} good answers in a row", timeout=probes.timeout, poll=0.2, in_a_row=probes.good_in_a_row
    )
    spent = first - ctx.result("switch", Change).asked_at
    place = f"{ctx.plan.site.name}:{ctx.plan.site.port} at {asked}"
    rows = (
        Evidence("answers in a row", str(probes.good_in_a_row), place),
        Evidence("from the beginning of the switch to the first good answer", f"{spent:.1f} s", place),
    )
    return Done(
        f"{probes.good_in_a_row} good answers in a row under the name, at {asked}; the first {spent:.1f} s after the switch began.",
        Proved(probes.good_in_a_row, first),
        rows,
    )


@step("wait-for-swing")
def wait_for_swing(ctx: Context) -> Done:
    """Nobody keeps the old box's address any more, and visitors are still sent to the new one."""
    state = ctx.cutover.wait_until_settled(ctx.result("switch", Change), ctx.progress)
    rows = tuple(Evidence(witness.where, witness.note) for witness in state.witnesses if witness.note)
    return Done("No visitor keeps the old address any more.", state, rows)
