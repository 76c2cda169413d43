"""Management > Failover of ``/login``."""

from __future__ import annotations

import time
from dataclasses import replace

from .core import Appliance
from .errors import Refused
from .pairs import ROLE_NAMES, Kind, Pair, Role, Work, parse_door
from .web import Answer, Call, Entry, Going, Posted
from .widgets import Button, Field, Form, Heading, Input, Listing, Page, Say, Section, Shown, Table, Text, Tick

CONFLICT = (
    Text(Say("NOTE: There is a conflict in the primary and secondary site instances.")),
    Text(Say("Both of them are either primary or backup, which is an unexpected situation.")),
)
LONGEST_INTERVAL = 1440  # minutes
STATES = {"running": Say("Running"), "finished": Say("OK"), "failed": Say("Failed")}


def failover(call: Call) -> Answer:
    """The page of a site that is in no pair, or of one that is."""
    if call.posted is not None:
        return _act(call, call.posted)
    box = call.box
    pair = box.failover.pairs.read()
    if pair.role is Role.NONE:
        return Page(Say("Failover"), (_alone(box), _establishing(box), _shared(box, pair), _history(box)))
    if box.failover.works.find_running(Kind.PULL, Kind.ROLE) is None:
        box.failover.look()
    is_running = box.failover.works.find_running(*Kind) is not None
    sections = (_status(box), _role_section(pair), _settings(pair), _shared(box, pair), _history(box))
    return Page(Say("Failover"), sections, refresh=3 if is_running else 0)


def _alone(box: Appliance) -> Section:
    facts = ((Say("Failover Role"), ROLE_NAMES[Role.NONE]),)
    key = ((Say("Inter-appliance Communication Pre-shared Key"), _key(box)),)
    return Section(Say("Failover :: Status"), (Listing(facts + key), Text(Say("This appliance is not in a failover pair."))))


def _key(box: Appliance) -> Say:
    return Say("Set") if box.store.site.setting("preshared_key") else Say("Not set")


def _establishing(box: Appliance) -> Section:
    own = next((row.address for row in box.network.rows() if row.kind == "admin"), "")
    parts = (
        Heading(Say("New Backup Site Connection Details")),
        Field("peer_host", Say("Host Name or IP Address")),
        Field("peer_port", Say("TLS Port"), value=str(box.box.port)),
        Heading(Say("Reverse Connection Details To This Primary Site")),
        Field("own_host", Say("Host Name or IP Address"), value=own),
        Field("own_port", Say("TLS Port"), value=str(box.box.port)),
        Button("establish", Say("Establish Relationship")),
    )
    return Section(Say("Failover :: New Relationship"), (Form(parts),))


def _status(box: Appliance) -> Section:
    pairs = box.failover.pairs
    pair, seen = pairs.read(), pairs.read_seen()
    peer: Shown = ROLE_NAMES[seen.role] if seen.role is not None else (seen.problem or Say("Not known yet"))
    sync, role = box.failover.works.find_last(Kind.PULL, Kind.SERVE), box.failover.works.find_last(Kind.ROLE, Kind.AWAIT)
    facts: list[tuple[Shown, Shown]] = [
        (Say("Failover Role"), ROLE_NAMES[pair.role]),
        (Say("This Host's Status"), ROLE_NAMES[pair.role]),
        (Say("Peer Host's Status"), peer),
        (Say("Peer Host"), str(pair.peer or "")),
        (Say("Last Data Sync"), _moment(box.store.box.setting("last_sync")) or Say("None")),
        *_progress(sync),
    ]
    if role is not None:
        facts += [(Say("Last Role Change"), STATES[role.state]), (Say("Role Change Details"), role.step)]
    parts: tuple[object, ...] = (Listing(tuple(facts)),)
    if pairs.is_conflict():
        parts = (*parts, *CONFLICT, Form((Button("fix", Say("Fix This Error")),)))
    return Section(Say("Failover :: Status"), parts)


def _progress(sync: Work | None) -> list[tuple[Shown, Shown]]:
    if sync is None:
        return [(Say("Data Sync Status"), Say("None"))]
    facts: list[tuple[Shown, Shown]] = [(Say("Data Sync Status"), STATES[sync.state])]
    counted: dict[str, object] = {"percent": sync.percent, "done": sync.done, "total": sync.total}
    if sync.state == "running":
        facts.append((Say("Data Sync Progress"), Say("{percent} % ({done} of {total} bytes)", counted)))
    else:
        facts += [(Say("Data Sync Details"), sync.step), (Say("Data Sync Ended"), _moment(str(sync.ended or "")))]
        facts.append((Say("Data Moved"), Say("{done} bytes", counted)))
    return facts


def _role_section(pair: Pair) -> Section:
    sync = Form((Button("sync", Say("Sync Now")),))
    leave = Form((Button("break", Say("Break Failover Relationships")),))
    if pair.role is Role.PRIMARY:
        parts = (
            Field("sync_first", Say("Check this box to pull a data-sync from the site instance while becoming the backup"), Input.TICK),
            Field("force", Say("Become the backup even if the peer cannot be contacted"), Input.TICK),
            Button("backup", Say("Become Backup")),
        )
        return Section(Say("Failover :: Primary Site Instance Status"), (sync, Form(parts), leave))
    tick = Field("sync_first", Say("Check this box to pull a data-sync from the site instance while becoming the primary"), Input.TICK)
    role = Form((tick, Button("primary", Say("Become Primary"))))
    return Section(Say("Failover :: Backup Site Instance Status"), (sync, role, leave))


def _settings(pair: Pair) -> Section:
    label = Say("Automatic Data-Sync Interval (minutes, 0 for none)")
    form = Form((Field("interval", label, value=str(pair.interval)), Button("settings", Say("Save Changes"))))
    return Section(Say("Failover :: Backup Settings"), (form,))


def _shared(box: Appliance, pair: Pair) -> Section:
    rows = tuple(
        (
            Tick("shared", row.address, row.address, checked=row.address in pair.shared),
            row.address,
            Say("Yes") if row.enabled else Say("No"),
        )
        for row in box.network.rows()
        if row.kind == "service"
    )
    table = Table((Say("Shared"), Say("IP Address"), Say("Enabled")), rows)
    text = Text(Say("Tick the same addresses at both sites. The primary site has them enabled, the backup site disabled."))
    return Section(Say("Failover :: Shared IPs"), (text, Form((table, Button("share", Say("Save Changes"))))))


def _history(box: Appliance) -> Section:
    rows = tuple((_moment(str(at)), step) for at, step in box.failover.pairs.events())
    return Section(Say("Failover :: Status History"), (Table((Say("Time"), Say("Event")), rows),))


def _moment(seconds: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(seconds))) if seconds else ""


def _act(call: Call, posted: Posted) -> Going:
    box, pairs = call.box, call.box.failover.pairs
    if posted.has("establish"):
        peer = parse_door(posted.text("peer_host"), posted.text("peer_port"))
        box.failover.establish(peer, parse_door(posted.text("own_host"), posted.text("own_port")))
        box.roles.follow_addresses()
        return Going("failover", Say("The relationship was established."))
    if posted.has("share"):
        return _share(box, posted.texts("shared"))
    pair, _ = pairs.need()
    if posted.has("break"):
        told = box.failover.break_up()
        return Going(
            "failover",
            Say("The relationship was broken.") if told else Say("The relationship was broken here; the peer site could not be told."),
        )
    if posted.has("settings"):
        text = posted.text("interval")
        if not text.isascii() or not text.isdigit() or int(text) > LONGEST_INTERVAL:
            raise Refused("The interval must be a whole number of minutes, {most} at most.", most=LONGEST_INTERVAL)
        pairs.save(replace(pair, interval=int(text)))
        return Going("failover", Say("The changes were saved."))
    if posted.has("sync"):
        box.failover.start_sync()
        return Going("failover", Say("The data sync has begun."))
    return _change_role(box, posted)


def _change_role(box: Appliance, posted: Posted) -> Going:
    if posted.has("fix"):
        box.roles.fix()
        return Going("failover", Say("The conflict was resolved."))
    role = Role.PRIMARY if posted.has("primary") else Role.BACKUP
    done = box.roles.change(role, sync_first=posted.has("sync_first"), force=posted.has("force"))
    if done:
        return Going("failover", Say("The role was changed."))
    return Going("failover", Say("The data sync has begun; the role changes when it has ended well."))


def _share(box: Appliance, wanted: list[str]) -> Going:
    """Tick and untick; in a pair the addresses follow the role at once."""
    pair = box.failover.pairs.read()
    known = {row.address for row in box.network.rows() if row.kind == "service"}
    if pair.role is not Role.NONE and box.failover.is_conflict():
        raise Refused("Resolve the conflict first.")
    box.failover.pairs.save(replace(pair, shared=tuple(one for one in wanted if one in known)))
    box.roles.follow_addresses()
    return Going("failover", Say("The changes were saved."))


ENTRIES = (Entry("failover", failover, ("Management", "Failover")),)
