"""Phase retire: the only part that destroys. It opens when every condition is observed at that moment, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from kit.errors import BoxshiftError, FailedError, RefusedError
from kit.files import write_private
from kit.waiting import wait_for
from migrate.appliances.contract import BackupReceipt
from migrate.cutover.contract import Change, Side
from migrate.facts import ApplianceFacts, Identity
from migrate.steps.context import Context, Done, Evidence, ServedProof, step
from migrate.steps.inspect import CertificateReading
from migrate.steps.join import read_parted
from migrate.steps.verify import check_contents, read_contents

POWER_TIMEOUT = 300.0


class GateError(RefusedError):
    """A condition of the retire gate is not met; the old box was not touched."""

    code = "retire-gate"


@dataclass(frozen=True)
class GateState:
    """The conditions, each with what was seen when it was looked at."""

    conditions: dict[str, str]


@step("retire-gate")
def retire_gate(ctx: Context) -> Done:
    """Look at every condition of the gate."""
    state = observe_gate(ctx)
    rows = tuple(Evidence(what, seen, "looked at now") for what, seen in state.conditions.items())
    return Done(f"All {len(state.conditions)} conditions hold.", state, rows)


def observe_gate(ctx: Context) -> GateState:
    """Every condition, observed now.

    Raises:
        GateError: the first that does not hold, or that could not be told.

    """
    conditions: tuple[tuple[str, Callable[[Context], str]], ...] = (
        ("approval is recorded", _approved),
        *((("the failover relationship is broken on both boxes", _parted),) if ctx.plan.cutover.by_failover else ()),
        ("visitors are sent to the new box", _switched),
        ("the new box serves the same certificates", _same_chain),
        ("every record is on the new box", _records_equal),
        ("the backup file is whole", _backup_whole),
        ("the hold time is over", _held),
        ("the box to wipe is the one that was inspected", _same_old_box),
        ("the hypervisor will be able to prove that it is off", _provable),
        ("the new box is healthy", _healthy),
    )
    seen = {}
    for number, (what, look) in enumerate(conditions):
        ctx.progress.update(what, number, len(conditions))
        try:
            seen[what] = look(ctx)
        except GateError:
            raise
        except BoxshiftError as error:
            raise GateError(
                f"The old box is not touched: it could not be told whether {what}: {error.sentence}",
                hint=error.hint or "Mend that and retry; every condition is looked at again.",
            ) from error
    return GateState(seen)


def _approved(ctx: Context) -> str:
    if "approve-retire" not in ctx.results:
        raise GateError("The old box is not touched: nobody approved it.", hint="boxshift approve")
    return "by a person, in this run"


def _parted(ctx: Context) -> str:
    """A reset of a box that is in a pair could reach the other one."""
    try:
        read_parted(ctx)
    except RefusedError as error:
        raise GateError(f"The old box is not touched: {error.sentence}", hint=error.hint) from error
    return "neither box is in a pair"


def _switched(ctx: Context) -> str:
    state = ctx.cutover.read_state()
    addresses = ctx.outside.resolve()
    if state.side is not Side.NEW or addresses != (ctx.plan.new.service.visible,):
        raise GateError(
            f"The old box is not touched: {ctx.plan.site.name} leads to {', '.join(addresses) or 'nowhere'} ({state.side.value}).",
            hint="Somebody changed the record since the switch.",
        )
    return ", ".join(addresses)


def _same_chain(ctx: Context) -> str:
    expected: ServedProof = ctx.result("diagnose-certificate", CertificateReading).served
    now = ctx.outside.read_served(ctx.plan.entrance, ctx.plan.site.port)
    if now.chain != expected.chain or not now.verified:
        raise GateError("The old box is not touched: the new box does not serve the same verified chain.", hint=now.said)
    return ", ".join(print_[:16] for print_ in now.chain)


def _records_equal(ctx: Context) -> str:
    before, after = read_contents(ctx)
    if before.sessions is None or after.sessions is None:
        raise GateError(
            "The old box is not touched: the sessions of one box could not be read.", hint="Check the API account's permissions."
        )
    blocker = next((finding for finding in check_contents(before, after) if finding.severity.rank <= 1), None)
    if blocker is not None:
        raise GateError(f"The old box is not touched: {blocker.sentence}", hint=blocker.hint)
    return f"{len(before.sessions)} sessions of the old box, all among the new box's {len(after.sessions)}"


def _backup_whole(ctx: Context) -> str:
    receipt = ctx.find_result("final-backup", BackupReceipt) or ctx.result("backup-old", BackupReceipt)
    with closing(ctx.boxes.open_new()) as new:
        again = new.verify_backup(receipt.path, ctx.secret(ctx.plan.backup.password, "the backup password"))
    if again.sha256 != receipt.sha256:
        raise GateError("The old box is not touched: the backup file changed since it was taken.", hint=str(receipt.path))
    restored = "its data came by data sync" if ctx.plan.cutover.by_failover else "restored once in this run"
    return f"{again.size} bytes, sha256 {again.sha256[:16]}, {restored}"


def _held(ctx: Context) -> str:
    since = ctx.result("switch", Change).at
    left = since + ctx.plan.retire.hold - ctx.read_time()
    if left > 0:
        raise GateError(
            f"The old box is not touched: its hold time lasts {left / 3600:.1f} h more.", hint="retire.hold in the plan says how long."
        )
    return f"{(ctx.read_time() - since) / 3600:.2f} h since the switch"


def _same_old_box(ctx: Context) -> str:
    expected = ctx.result("read-old", ApplianceFacts).identity
    with closing(ctx.boxes.open_old()) as old:
        now = old.read_identity()
    if now != expected:
        raise GateError(
            f"Nothing is touched: {ctx.plan.old.address} is not the box that was inspected (GUID {now.guid}, serial {now.serial}).",
            hint="Find out which box answers there.",
        )
    with closing(ctx.boxes.open_new()) as new:
        other = new.read_identity()
    if other.guid == now.guid or other.serial == now.serial:
        raise GateError("Nothing is touched: both addresses lead to the same box.", hint="Find out which box answers there.")
    return f"GUID {now.guid}, serial {now.serial}, key {now.tls_spki_sha256[:16]}"


def _provable(ctx: Context) -> str:
    """A box that is wiped and then cannot be proved to be off leaves a run that nobody can end: better to know before."""
    machine = ctx.plan.old.machine
    if machine is None:
        return "a physical box: its power is looked at by eye"
    power = ctx.machines.read_power(machine)
    if power.running is None:
        raise GateError(f"The old box is not touched: {power.said}.", hint="Check old.machine in the plan, and the hypervisor.")
    return power.said


def _healthy(ctx: Context) -> str:
    with closing(ctx.boxes.open_new()) as new:
        good, note = new.read_health()
    if not good:
        raise GateError(f"The old box is not touched: the new one is not healthy: {note}", hint="Look at it first.")
    return note


@step("factory-reset")
def factory_reset(ctx: Context) -> Done:
    """Wipe the old box, then prove that it is wiped. After a crash: a box that is proved to be reset is not reset again."""
    if not ctx.plan.retire.reset:
        return Done("The plan keeps the old box's data (retire.reset: false).")
    before = ctx.result("read-old", ApplianceFacts)
    factory = ctx.boxes.factory_credentials(of_old=True)
    with closing(ctx.boxes.open_old()) as old:
        if not (ctx.folder / "reset.started").exists() or _still_there(ctx, before.identity):
            old.reset_to_factory(before.identity, guard=lambda: _guard(ctx))
        after = old.verify_reset(before.identity, factory)
    rows = (
        Evidence("GUID before", before.identity.guid),
        Evidence("GUID now", after.identity.guid, "Status > Basics"),
        Evidence("site now", after.site.version or "none"),
        Evidence("users now", str(len(after.content.users or ()))),
    )
    return Done("The old box is in factory state: GUID, site, certificate and users are gone.", after.identity, rows)


def _still_there(ctx: Context, identity: Identity) -> bool:
    with closing(ctx.boxes.open_old()) as old:
        try:
            return old.read_identity().guid == identity.guid
        except FailedError:
            return False  # its key or its passwords changed: verify_reset finds out what it is now


def _guard(ctx: Context) -> None:
    """Called right before the last button. From here on the marker says that a GUID which is gone is gone by our own hand."""
    observe_gate(ctx)
    (ctx.folder / "reset.started").touch(mode=0o600)


@step("shut-down")
def shut_down(ctx: Context) -> Done:
    """Shut the old box down by its own page."""
    if not ctx.plan.retire.shut_down:
        return Done("The plan leaves the old box running (retire.shut_down: false).")
    identity = ctx.find_result("factory-reset", Identity) or ctx.result("read-old", ApplianceFacts).identity
    if _is_off(ctx):
        return Done("The old box was off already.")
    with closing(ctx.boxes.open_old()) as old:
        old.shut_down(identity)
    return Done("The old box was told to shut down, and answers no more.")


def _is_off(ctx: Context) -> bool:
    machine = ctx.plan.old.machine
    return machine is not None and ctx.machines.read_power(machine).running is False


@step("power-off")
def power_off(ctx: Context) -> Done:
    """Proof: the hypervisor says that it is off. Of a physical box, silence on its address is all that can be seen from here."""
    if not ctx.plan.retire.shut_down:
        return Done("The old box stays on.")
    machine = ctx.plan.old.machine
    if machine is None:
        return Done(
            "The old box is silent. Whether its power is off must be looked at by eye.",
            None,
            (Evidence("power", "unverified: physical box"),),
        )

    def look() -> str | None:
        power = ctx.machines.read_power(machine)
        if power.running is None:
            raise FailedError(f"The hypervisor cannot tell whether {machine.name} runs: {power.said}")
        return None if power.running else power.said

    said = wait_for(look, what=f"{machine.name} to be powered off", timeout=POWER_TIMEOUT, poll=1.0)
    return Done("The old box is powered off.", said, (Evidence("power", said, machine.hypervisor),))


@step("undefine")
def undefine(ctx: Context) -> Done:
    """A virtual old box goes out of the hypervisor's list; its disk is kept."""
    machine = ctx.plan.old.machine
    if machine is None or not (ctx.plan.retire.reset and ctx.plan.retire.shut_down):
        return Done("Nothing to undefine.")
    return Done(ctx.machines.retire(machine))


@step("return-papers")
def return_papers(ctx: Context) -> Done:
    """What goes with the box: who it was, that it was wiped, and when."""
    old = ctx.result("read-old", ApplianceFacts).identity
    lines = [
        f"Return of appliance {old.hostname}",
        f"Serial number: {old.serial}",
        f"Appliance GUID before the reset: {old.guid}",
        f"Factory reset: {'done and proved' if ctx.plan.retire.reset else 'NOT done (plan)'}",
        f"Shut down: {'done' if ctx.plan.retire.shut_down else 'NOT done (plan)'}",
        f"Run: {ctx.run}",
        f"Carrier: {ctx.plan.retire.carrier or '-'}",
    ]
    target = ctx.folder / "return-papers.txt"
    write_private(target, "\n".join(lines).encode() + b"\n")
    return Done("The return papers are written.", None, (Evidence("return papers", str(target)),))
