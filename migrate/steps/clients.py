"""What an upgrade does for the clients: waits until they have followed, and lists what only people can do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
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

POLL = 5.0  # seconds between two looks at the clients
SPARE = 300.0  # seconds beyond the end of the wait for a look that takes its time
BY_HAND = (
    "Installers of clients that were made before the update: make them again, the old ones install the old version.",
    "Representative consoles deployed as MSI: deploy the new MSI; keep the old one, it is needed to uninstall the old version.",
    "Integration clients: update each by hand.",
    "Buttons update at their first use; Jumpoints and connection agents update by themselves: look that they did.",
)


@dataclass(frozen=True)
class Followed:
    """Jump Clients after a site package. ``missing``: who has not updated; ``lost``: who is not waited for; a name and "last seen" each."""

    expected: int
    updated: int
    missing: tuple[tuple[str, float | None], ...]
    lost: tuple[str, ...]


@step("wait-for-clients")
def wait_for_clients(ctx: UpgradeContext) -> Done:
    """Until every client that can update has, or the plan's time is over: reckoned from the installation, whatever crashed since."""
    item = parse_item(ctx)
    installed = ctx.result(ctx.own(f"install-{item.label}"), Installed)
    swung = ctx.find_result("swing-shared", Swung)  # of a pair: before that, no client reached this box
    late = max(0.0, swung.at - installed.began) if swung is not None else 0.0
    end = installed.began + late + ctx.plan.clients.at_most

    def look() -> Followed | None:
        with closing(ctx.open_box()) as box:
            clients = box.read_jump_clients()
        if clients is None:
            raise FailedError("The Jump Clients could not be read.")
        found = count_followed(clients, installed.box_began + late)
        ctx.progress.update("Jump Clients updated", found.updated, found.expected)
        return found if not found.missing or ctx.read_time() >= end else None

    followed = wait_for(
        look,
        what=f"the Jump Clients to take {item.version}",
        timeout=max(0.0, end - ctx.read_time()) + SPARE,
        poll=POLL,
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
        (Evidence("missing", _names(followed), "Jump Clients"), Evidence("lost, not waited for", ", ".join(followed.lost) or "none")),
    )


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


def _names(followed: Followed, most: int = 20) -> str:
    shown = [name for name, _ in followed.missing[:most]]
    more = len(followed.missing) - len(shown)
    return (", ".join(shown) + (f" and {more} more" if more else "")) or "none"


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
