"""Phase watch: the new box serves, and everybody has to come back."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass

from kit.errors import FailedError
from kit.files import write_private
from kit.waiting import wait_for
from migrate.cutover.contract import Change, Preparation
from migrate.facts import ApplianceFacts
from migrate.steps.context import Context, Done, Evidence, step

CLIENTS_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Back:
    """Jump Clients connected before, and of those the ones seen on the new box since the switch."""

    before: int
    back: int
    missing: tuple[str, ...]


@step("clients-back")
def clients_back(ctx: Context) -> Done:
    """The share of connected Jump Clients that the plan asks for has checked in at the new box since the switch."""
    before = ctx.result("read-old", ApplianceFacts).content.jump_clients or ()
    expected = {client.number: client.name for client in before if client.connected}
    since = ctx.result("switch", Change).at
    wanted = ctx.plan.watch.clients * len(expected)

    def look() -> Back | None:
        with closing(ctx.boxes.open_new()) as new:
            clients = new.read_content().jump_clients
        if clients is None:
            raise FailedError("The Jump Clients of the new box could not be read.")
        # A restored "last seen" is the old box's: only what came after the switch counts.
        seen = {client.number for client in clients if client.connected and (client.last_seen or 0) >= since - 1}
        missing = tuple(sorted(name for number, name in expected.items() if number not in seen))
        ctx.progress.update("Jump Clients back", len(expected) - len(missing), len(expected))
        return Back(len(expected), len(expected) - len(missing), missing) if len(expected) - len(missing) >= wanted else None

    back = wait_for(
        look, what=f"{wanted:.0f} of {len(expected)} Jump Clients on the new box", timeout=CLIENTS_TIMEOUT, poll=2.0, give_up=ctx.find_stop
    )
    return Done(
        f"{back.back} of {back.before} Jump Clients are on the new box.", back, (Evidence("missing", ", ".join(back.missing) or "none"),)
    )


@step("restore-ttl")
def restore_ttl(ctx: Context) -> Done:
    """The record's TTL is what it was."""
    state = ctx.cutover.restore(ctx.result("lower-ttl", Preparation))
    return Done(f"The TTL is {state.ttl} s again.", state)


@step("inventory")
def inventory(ctx: Context) -> Done:
    """The hand-over for inventory, monitoring and IPAM: the same service, another serial number."""
    old = ctx.result("read-old", ApplianceFacts)
    with closing(ctx.boxes.open_new()) as new:
        now = new.read_facts()
    record = {
        "site": ctx.plan.site.name,
        "replaced": {"serial": old.identity.serial, "guid": old.identity.guid, "hostname": old.identity.hostname},
        "by": {"serial": now.identity.serial, "guid": now.identity.guid, "hostname": now.identity.hostname},
        "service_address": {"before": str(ctx.plan.old.service.address), "now": str(ctx.plan.new.service.address)},
        "software": {"site": now.site.version, "site_build": now.site.build, "base": now.base.version},
    }
    target = ctx.folder / "inventory.json"
    write_private(target, json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
    return Done(f"{old.identity.serial} is replaced by {now.identity.serial}.", None, (Evidence("inventory record", str(target)),))
