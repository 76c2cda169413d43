"""Pages of ``/appliance`` about updates."""

from __future__ import annotations

import time

from .errors import Refused
from .jobs import Job
from .updates import KEY_MINUTES, Offer, make_download_key
from .web import Answer, Call, Entry, Going, Posted
from .widgets import Button, Field, Form, Input, Listing, Page, Say, Section, Table, Text

NAMES = {"base": Say("Base Software"), "site": Say("Site Software")}


def updates(call: Call) -> Answer:
    """Updates (older base versions: Support > Updates)."""
    box = call.box
    if call.posted is not None:
        return _act(call, call.posted)
    last = box.jobs.find_last("install")
    if last is not None and not last.state.is_over:
        return _progress(last)
    key = make_download_key(box.box, box.store)
    facts = Listing(
        (
            (Say("Appliance Download Key"), key),
            (Say("Valid For"), Say("{minutes} minutes", {"minutes": KEY_MINUTES})),
            (Say("System Time"), box.clock()),
        )
    )
    server = (Field("server", Say("Update Server"), value=box.store.box.setting("update_server")), Button("save", Say("Save Changes")))
    by_hand = (Field("file", Say("Update File"), Input.FILE), Button("upload", Say("Update Software")))
    return Page(
        Say("Updates"),
        (
            Section(Say("Updates :: Check for Updates"), (facts, Form(server), Form((Button("check", Say("Check for Updates")),)))),
            Section(Say("Available Updates"), (_offers(call), *_checked_at(call))),
            Section(Say("Manual Installation"), (Form(by_hand),)),
            Section(Say("Installed Software"), (_installed(call), *_outcome(last))),
        ),
    )


def _offers(call: Call) -> Table:
    rows, grey = [], set()
    for at, offer in enumerate(call.box.updates.offers()):
        state: object = ""
        if offer.missing:
            grey.add(at)
            state = Say("requires {kind} {version}", {"kind": NAMES[offer.missing[0]], "version": offer.missing[1]})
        button = Button("install", Say("Install This Update"), enabled=not offer.missing)
        form = Form((Field("name", value=offer.name, kind=Input.HIDDEN), button))
        size = f"{offer.size // 1024 + 1} kB"
        rows.append((_title(offer), offer.version, offer.build, size, state, form))
    headers = (Say("Name"), Say("Version"), Say("Build"), Say("Size"), Say("Prerequisites"), Say("Actions"))
    return Table(headers, tuple(rows), frozenset(grey), Say("No updates are available."))


def _title(offer: Offer) -> Say:
    return Say("{kind} {version}", {"kind": NAMES[offer.kind], "version": offer.version})


def _checked_at(call: Call) -> tuple[Listing, ...]:
    at = call.box.store.box.setting("offers_at")
    return (Listing(((Say("Last Check"), _moment(float(at))),)),) if at else ()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _installed(call: Call) -> Table:
    rows = call.box.store.box.rows("select * from installed order by kind")
    shown = tuple((NAMES[row["kind"]], row["version"], row["build"], _moment(row["at"])) for row in rows)
    return Table((Say("Name"), Say("Version"), Say("Build"), Say("Installed")), shown)


def _outcome(last: Job | None) -> tuple[Listing, ...]:
    if last is None:
        return ()
    states = {"finished": Say("Finished"), "failed": Say("Failed")}
    rows = ((Say("Last Installation"), states[last.state.value]), (Say("Details"), Say(last.step, last.facts)))
    return (Listing(rows),)


def _progress(last: Job) -> Page:
    rows = ((Say("Progress"), Say(last.step, last.facts)), (Say("Started"), _moment(last.started)))
    text = Text(Say("The installation is running. Do not restart the appliance."))
    return Page(Say("Updates"), (Section(Say("Updates :: Installation in Progress"), (text, Listing(rows))),), refresh=2)


def _act(call: Call, posted: Posted) -> Answer:
    box = call.box
    if posted.has("save"):
        box.store.box.set(update_server=posted.text("server").strip())
        return Going("updates", Say("The changes were saved."))
    box.jobs.verify_idle()
    if posted.has("check"):
        box.updates.check()
        return Going("updates", Say("The update server was asked."))
    if posted.has("upload"):
        return Going("eula", query=f"package={box.updates.keep(posted.file('file')).name}")
    if posted.has("install"):
        return Going("eula", query=f"package={box.updates.find_offer(posted.text('name')).name}")
    raise Refused("Choose an action.")


def eula(call: Call) -> Answer:
    """The licence agreement that stands before every installation."""
    box, offer = call.box, call.box.updates.find_offer(call.asked("package"))
    if offer.missing:
        kind, version = offer.missing
        raise Refused("{name} requires {kind} {version}, which is not installed.", name=offer.name, kind=kind, version=version)
    if call.posted is not None:
        if not call.posted.has("accept"):
            raise Refused("The licence agreement must be accepted.")
        box.jobs.start("install", lambda tell: box.updates.install(offer, tell))
        return Going("updates")
    fields = (Field("accept", Say("I accept"), Input.TICK), Button("continue", Say("Continue")))
    heading = Say("End User License Agreement")
    return Page(heading, (Section(heading, (Text(_title(offer)), Text(offer.eula), Form(fields))),))


OWN = (Entry("updates", updates, ("Updates", "Updates"), needs="!updates_under_support"),)
UNDER_SUPPORT = (Entry("updates", updates, ("Support", "Updates"), needs="updates_under_support"),)
HIDDEN = (Entry("eula", eula),)
