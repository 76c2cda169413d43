"""What an upgrade does for the clients: waits until they have followed, and lists what only people can do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kit.errors import FailedError
from kit.files import write_private
from kit.plain import spell_out
from kit.waiting import wait_for
from migrate.facts import ApplianceFacts, JumpClient
from migrate.steps.context import Done, Evidence, UpgradeContext, step
from migrate.steps.pair import Swung
from migrate.steps.upgrade import Installed, parse_item
from migrate.upgrade_plan import GUIDE_WAIT

POLL = 5.0  # seconds between two looks at the clients, at least
CLIENTS_A_CALL = 100  # that one call of the configuration API tells of
CALL_EVERY = 0.5  # seconds: with this many calls half of what the vendor allows an API account in an hour is left to others
SPARE = 300.0  # seconds beyond the end of the wait for a look that takes its time
BY_HAND = (
    "Installers of clients that were made before the update: make them again, the old ones install the old version.",
    "Representative consoles deployed as MSI: deploy the new MSI; keep the old one, it is needed to uninstall the old version.",
    "Integration clients: update each by hand.",
    "Buttons update at their first use; Jumpoints and connection agents update by themselves: look that they did.",
)

TO_REMOVE = (
    "Jump Clients, active and passive.",
    "Jumpoints and connection agents.",
    "Buttons on customers' desktops.",
    "Representative consoles; keep the MSI of those deployed so, it is needed to uninstall them.",
    "Integration clients.",
)


@dataclass(frozen=True)
class Followed:
    """Jump Clients after a site package. ``missing``: who has not updated; ``lost``: who is not waited for; a name and "last seen" each.

    ``looked``: when the last two looks of a wait began, by our clock.
    """

    expected: int
    updated: int
    missing: tuple[tuple[str, float | None], ...]
    lost: tuple[str, ...]
    looked: tuple[float, ...] = ()


@step("wait-for-clients")
def wait_for_clients(ctx: UpgradeContext) -> Done:
    """Until every client that can update has, or the plan's time is over: reckoned from the installation, whatever crashed since."""
    item = parse_item(ctx)
    installed = ctx.result(ctx.own(f"install-{item.label}"), Installed)
    swung = ctx.find_result("swing-shared", Swung)  # of a pair: before that, no client reached this box
    late = max(0.0, swung.at - installed.began) if swung is not None else 0.0
    end = installed.began + late + ctx.plan.clients.at_most
    looked: deque[float] = deque(maxlen=2)

    def look() -> Followed | None:
        looked.append(ctx.read_time())
        with closing(ctx.open_box()) as box:
            clients = box.read_jump_clients()
        if clients is None:
            raise FailedError("The Jump Clients could not be read.")
        found = count_followed(clients, installed.box_began + late)
        ctx.progress.update("Jump Clients updated", found.updated, found.expected)
        found = replace(found, looked=tuple(looked))
        return found if not found.missing or ctx.read_time() >= end else None

    followed = wait_for(
        look,
        what=f"the Jump Clients to take {item.version}",
        timeout=max(0.0, end - ctx.read_time()) + SPARE,
        poll=plan_poll(_count_clients(ctx)),
        give_up=ctx.find_stop,
    )
    if followed.missing and ctx.plan.clients.at_most < GUIDE_WAIT:
        raise FailedError(
            f"{len(followed.missing)} of {followed.expected} Jump Clients have not taken {item.version} in the time that the plan gives.",
            hint=f"Missing: {_names(followed)}. Another site package may strand them. boxshift retry looks again, boxshift skip goes on.",
        )
    return Done(
        f"{followed.updated} of {followed.expected} Jump Clients have taken {item.version}.",
        followed,
        (
            Evidence("missing", _names(followed), "Jump Clients"),
            Evidence("lost, not waited for", _shorten(followed.lost)),
            Evidence("updates a minute", f"{60 * followed.updated / max(1.0, ctx.read_time() - installed.began - late):.1f} on average"),
        ),
    )


def plan_poll(clients: int) -> float:
    """Seconds between two looks at so many clients: the more calls a look takes, the rarer it is."""
    return max(POLL, CALL_EVERY * -(-clients // CLIENTS_A_CALL))


def _count_clients(ctx: UpgradeContext) -> int:
    before = ctx.find_result(ctx.own(f"look-{parse_item(ctx).label}"), ApplianceFacts)
    return len(before.content.jump_clients or ()) if before is not None else 0


def count_followed(clients: Sequence[JumpClient], since: float) -> Followed:
    """Who has updated: the box says that no update is needed, and the client was seen after ``since`` (by the box's clock)."""
    expected = [client for client in clients if not client.lost]
    missing = [client for client in expected if client.needs_update or (client.last_seen or 0.0) < since]
    return Followed(
        len(expected),
        len(expected) - len(missing),
        tuple((client.name, client.last_seen) for client in missing),
        tuple(client.name for client in clients if client.lost),
    )


def _names(followed: Followed) -> str:
    return _shorten([name for name, _ in followed.missing])


def _shorten(names: Sequence[str], most: int = 20) -> str:
    more = len(names) - most
    return (", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")) or "none"


@step("list-clients")
def list_clients(ctx: UpgradeContext) -> Done:
    """What has to be removed before packages are installed without a wait: a list to tick off."""
    with closing(ctx.open_box()) as box:
        clients = box.read_jump_clients()
    lines = [f"# To remove before the upgrade of {ctx.plan.site.name}", "", "All of this is deployed again after the last package.", ""]
    lines += [f"- [ ] {line}" for line in TO_REMOVE]
    told = "the box does not tell them" if clients is None else str(len(clients))
    lines += ["", f"## Jump Clients: {told}", ""]
    lines += [f"- [ ] {spell_out(client.name)} (last seen {render_moment(client.last_seen)})" for client in clients or ()]
    target = ctx.folder / "clients-to-remove.md"
    write_private(target, ("\n".join(lines) + "\n").encode())
    return Done(
        f"{len(TO_REMOVE)} kinds of client software are to be removed; Jump Clients: {told}.",
        None,
        (Evidence("list", str(target)), *(Evidence("by hand", line) for line in TO_REMOVE)),
    )


@step("confirm-removal")
def confirm_removal(ctx: UpgradeContext) -> Done:
    """The box says the same as the person: no Jump Client is connected any more."""
    with closing(ctx.open_box()) as box:
        clients = box.read_jump_clients()
    if clients is None:
        return Done(
            "The box does not tell its Jump Clients: that they are gone is what a person said, and nothing else.",
            None,
            (Evidence("Jump Clients", "could not be told"),),
        )
    there = [client.name for client in clients if client.connected]
    if there:
        raise FailedError(
            f"{len(there)} Jump Clients are still connected: {_shorten(there)}.",
            hint="They would be stranded. Remove them, then boxshift retry; boxshift skip goes on without them.",
        )
    return Done(f"No Jump Client is connected; {len(clients)} are still listed.", None, (Evidence("connected", "none", "Jump Clients"),))


@step("clients-papers")
def clients_papers(ctx: UpgradeContext) -> Done:
    """What no program can do: a list for people, with the clients that are still missing."""
    now = ctx.result("compare", ApplianceFacts)
    behind = [client for client in now.content.jump_clients or () if client.needs_update or client.lost]
    lines = [f"# After the upgrade of {ctx.plan.site.name} to {now.site.version}", ""]
    lines += [f"- [ ] {line}" for line in BY_HAND]
    lines += ["", f"## Jump Clients that have not updated: {len(behind)}", ""]
    lines += [f"- [ ] {_client_line(client)}" for client in behind]
    target = ctx.folder / "clients-after-upgrade.md"
    write_private(target, ("\n".join(lines) + "\n").encode())
    return Done(
        f"{len(BY_HAND)} things are left to do by hand; {len(behind)} Jump Clients have not updated.",
        None,
        (Evidence("list", str(target)), *(Evidence("by hand", line) for line in BY_HAND)),
    )


def _client_line(client: JumpClient) -> str:
    return f"{spell_out(client.name)} ({'lost' if client.lost else 'behind'}; last seen {render_moment(client.last_seen)})"


def render_moment(at: float | None) -> str:
    """``2026-11-23 03:42 UTC``, or ``never``."""
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
