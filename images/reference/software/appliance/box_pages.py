"""Pages of ``/appliance`` about the box itself: what it is, its users, its power, who may come in, its tools."""

from __future__ import annotations

import socket
import time

from .control import Order, tell
from .errors import Refused
from .release import LANGUAGES
from .web import Answer, Call, Entry, Going, is_accepted
from .widgets import Button, Field, Form, Input, Listing, Page, Say, Section, Shown, Table, Text

ORDERS = {
    "reset": (Order.RESET, Say("Reset Appliance to Factory Defaults")),
    "power_off": (Order.POWER_OFF, Say("Shut Down This Appliance")),
    "reboot": (Order.REBOOT, Say("Reboot This Appliance")),
}


def basics(call: Call) -> Answer:
    """Status > Basics."""
    if call.posted is not None:
        for key, (order, label) in ORDERS.items():
            if call.posted.has(key):
                return _confirm(call, key, label) if order is not Order.REBOOT else _obey(call, key)
            if call.posted.has(f"sure_{key}"):
                return _obey(call, key)
    box = call.box
    facts = (
        (Say("Hostname"), box.hostname),
        (Say("Serial Number"), box.hardware.serial),
        (Say("Appliance GUID"), box.guid),
        (Say("Base Software Version"), box.base.version),
        (Say("Base Software Build"), box.base.build),
        (Say("System Time"), box.clock()),
        (Say("Uptime"), _duration(box.uptime())),
    )
    sections = [Section(Say("Basics :: View Appliance Details"), (Listing(facts),))]
    sections += [Section(label, (Form((Button(key, label),)),)) for key, (_, label) in ORDERS.items()]
    return Page(Say("Basics"), tuple(sections))


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    return f"{days} d " + time.strftime("%H:%M:%S", time.gmtime(rest))


def _confirm(call: Call, key: str, label: Say) -> Page:
    host: dict[str, object] = {"host": call.box.hostname}
    warning = {
        "reset": Say("All data, certificates, addresses and users of {host} will be erased. This cannot be undone.", host),
        "power_off": Say("{host} will be switched off.", host),
    }[key]
    form = Form((Button(f"sure_{key}", Say("Confirm")),))
    return Page(label, (Section(label, (Listing(((Say("Hostname"), call.box.hostname),)), Text(warning), form)),))


def _obey(call: Call, key: str) -> Page:
    order, label = ORDERS[key]
    call.box.jobs.verify_idle()
    tell(order)
    said = {
        "reset": Say("The appliance is being reset to factory defaults."),
        "power_off": Say("The appliance is shutting down."),
        "reboot": Say("The appliance is rebooting."),
    }[key]
    return Page(label, (Section(label, (Text(said),)),))


def users(call: Call) -> Answer:
    """Users of a console; the same page serves both consoles."""
    accounts = call.box.accounts(call.visit.console)
    if call.posted is not None:
        return _change_users(call)
    rows = []
    for row in accounts.rows():
        locked = row["locked_until"] > call.box.faults.now()
        keep = (Field("who", value=row["name"], kind=Input.HIDDEN),)
        unlock = (Button("unlock", Say("Unlock"), enabled=locked),)
        actions = Form((*keep, *unlock, Button("delete", Say("Delete"))))
        rows.append((row["name"], row["display"], Say("Yes") if locked else Say("No"), actions))
    headers = (Say("Username"), Say("Display Name"), Say("Locked"), Say("Actions"))
    languages: tuple[tuple[str, Shown], ...] = (("", Say("As the browser says")), *LANGUAGES.items())
    add = (
        Field("name", Say("Username")),
        Field("display", Say("Display Name")),
        Field("password", Say("Password"), Input.PASSWORD),
        Button("add", Say("Add User")),
    )
    mine = (Field("language", Say("Language"), Input.CHOICE, call.visit.language, languages), Button("set_language", Say("Save Changes")))
    return Page(
        Say("Users"),
        (
            Section(Say("Users"), (Table(headers, tuple(rows)),)),
            Section(Say("Add User"), (Form(add),)),
            Section(Say("My Language"), (Form(mine),)),
        ),
    )


def _change_users(call: Call) -> Going:
    posted, accounts = call.posted, call.box.accounts(call.visit.console)
    if posted is None or posted.has("set_language"):
        accounts.set_language(call.visit.account, posted.text("language") if posted and posted.text("language") in LANGUAGES else "")
        return Going("users", Say("The changes were saved."))
    if posted.has("unlock"):
        accounts.unlock(posted.text("who"))
        return Going("users", Say("The user was unlocked."))
    if posted.has("delete"):
        accounts.remove(posted.text("who"))
        return Going("users", Say("The user was deleted."))
    if len(posted.text("password")) < 8:
        raise Refused("The password must have {shortest} characters or more.", shortest=8)
    accounts.add(posted.text("name"), posted.text("display"), posted.text("password"), must_change=True)
    return Going("users", Say("The user was added."))


def administration(call: Call) -> Answer:
    """Security > Appliance Administration."""
    settings = call.box.store.box
    if call.posted is not None:
        _save_administration(call)
        return Going("administration", Say("The changes were saved."))
    limit = Field("limit", Say("Failed Login Attempts Before Lock-out"), value=settings.setting("lockout_limit"))
    agreement = (
        Field("agreement", Say("Enable Prerequisite Login Agreement"), Input.TICK, checked=settings.setting("agreement") == "on"),
        Field("agreement_text", Say("Agreement Text"), Input.AREA, settings.setting("agreement_text")),
    )
    accepted = Field("accepted", Say("Accepted Addresses"), Input.AREA, settings.setting("accepted"))
    save = Button("save", Say("Save Changes"))
    return Page(
        Say("Appliance Administration"),
        (
            Section(Say("Security :: Failed Logins"), (Form((limit, save)),)),
            Section(Say("Security :: Prerequisite Login Agreement"), (Form((*agreement, save)),)),
            Section(Say("Security :: Accepted Addresses"), (Text(Say("One network per line; empty accepts all.")), Form((accepted, save)))),
        ),
    )


def _save_administration(call: Call) -> None:
    posted, settings = call.posted, call.box.store.box
    if posted is None:
        return
    if posted.text("limit"):
        if not posted.text("limit").isdigit():
            raise Refused("The number of failed logins must be a whole number; 0 means no limit.")
        settings.set(lockout_limit=int(posted.text("limit")))
    elif posted.text("agreement_text") or posted.has("agreement"):
        settings.set(agreement="on" if posted.has("agreement") else "off", agreement_text=posted.text("agreement_text"))
    else:
        _save_accepted(call, posted.text("accepted").split())


def _save_accepted(call: Call, networks: list[str]) -> None:
    from flask import request

    try:
        mine = not networks or is_accepted(request.headers.get("X-Real-IP", ""), networks)
    except ValueError as error:
        raise Refused("{reason}", reason=str(error)) from error
    if not mine:
        raise Refused("Your own address would be shut out.")
    call.box.store.box.set(accepted="\n".join(networks))


def utilities(call: Call) -> Answer:
    """Support > Utilities: a real connection attempt."""
    parts: tuple[object, ...] = (
        Form((Field("host", Say("Host Name or IP Address")), Field("port", Say("Port"), value="443"), Button("test", Say("Test")))),
    )
    if call.posted is not None:
        parts = (*parts, Text(_try_connection(call.posted.text("host"), call.posted.text("port"))))
    return Page(Say("Utilities"), (Section(Say("Utilities :: TCP Connection Test"), parts),))


def _try_connection(host: str, port: str) -> Say:
    facts: dict[str, object] = {"host": host, "port": port}
    try:
        with socket.create_connection((host, int(port)), 5):
            return Say("{host} port {port} can be reached.", facts)
    except (OSError, ValueError, OverflowError) as error:
        return Say("{host} port {port} cannot be reached: {reason}", facts | {"reason": str(error)})


FIRST = (Entry("basics", basics, ("Status", "Basics")), Entry("users", users, ("Users", "Users")))
SECURITY = (Entry("administration", administration, ("Security", "Appliance Administration")),)
SUPPORT = (Entry("utilities", utilities, ("Support", "Utilities")),)
