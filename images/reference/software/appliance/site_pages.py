"""Pages of ``/login``: the site."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from .accounts import hash_token
from .backup import is_vault_readable
from .box_pages import users
from .core import Appliance
from .errors import Refused
from .permissions import PERMISSIONS
from .presence import Presence, read_presence
from .web import Answer, Call, Entry, File, Going, Posted
from .widgets import Button, Field, Form, Input, Link, Listing, Page, Say, Section, Table, Text

COUNTED = {
    "account": Say("Users"),
    "jump_client": Say("Jump Clients"),
    "session": Say("Sessions"),
    "recording": Say("Session Recordings"),
    "file_item": Say("File Store Items"),
    "vault_account": Say("Vault Accounts"),
}


def count_rows(box: Appliance) -> dict[str, int]:
    """How many rows the site has of each kind."""
    return {table: int(box.store.site.value(f"select count(*) from {table}")) for table in COUNTED}  # noqa: S608 - our own names


def status(call: Call) -> Answer:
    """Status."""
    site, settings = call.box.site, call.box.store.site
    facts = (
        (Say("Product"), site.product),
        (Say("Product Version"), site.version),
        (Say("Product Build"), site.build),
        (Say("Site Name"), settings.setting("site_name")),
        (Say("Company"), settings.setting("company")),
        (Say("Public Host Name"), settings.setting("public_host")),
        (Say("API Version"), site.api_version),
        (Say("System Time"), call.box.clock()),
    )
    counts = tuple((COUNTED[table], str(number)) for table, number in count_rows(call.box).items())
    return Page(Say("Status"), (Section(Say("Status :: Site"), (Listing(facts),)), Section(Say("Status :: Contents"), (Listing(counts),))))


def security(call: Call) -> Answer:
    """Management > Security."""
    settings = call.box.store.site
    if call.posted is not None:
        key = call.posted.text("preshared")
        if key:
            settings.set(preshared_key=key)
        elif call.posted.has("clear"):
            settings.set(preshared_key="")
        return Going("security", Say("The changes were saved."))
    has = Say("Set") if settings.setting("preshared_key") else Say("Not set")
    label = Say("Inter-appliance Communication Pre-shared Key")
    fields = (
        Field("preshared", label, Input.PASSWORD),
        Field("clear", Say("Remove the key"), Input.TICK),
        Button("save", Say("Save Changes")),
    )
    parts = (Listing(((label, has),)), Form(fields))
    return Page(Say("Security"), (Section(Say("Security :: Options"), parts),))


def api_accounts(call: Call) -> Answer:
    """Management > API Configuration."""
    if call.posted is not None:
        return _change_api(call, call.posted)
    rows = []
    for row in call.box.store.site.rows("select * from api_account order by name"):
        held = ", ".join(f"{name}: {value}" for name, value in json.loads(row["permissions"]).items())
        remove = Form((Field("who", value=row["client_id"], kind=Input.HIDDEN), Button("delete", Say("Delete"))))
        rows.append((row["name"], row["client_id"], held, remove))
    headers = (Say("Name"), Say("OAuth Client ID"), Say("Permissions"), Say("Actions"))
    levels = tuple((level, level) for level in ("deny", "read_only", "full_access"))
    add = (
        Field("name", Say("Name")),
        Field("command", Say("Command API"), Input.CHOICE, "deny", levels),
        *(Field(key, label, Input.TICK) for key, label in PERMISSIONS.items()),
        Button("add", Say("Add API Account")),
    )
    enabled = Field("xml_api", Say("Enable XML API"), Input.TICK, checked=call.box.store.site.setting("xml_api") == "on")
    return Page(
        Say("API Configuration"),
        (
            Section(Say("API Configuration"), (Form((enabled, Button("save", Say("Save Changes")))),)),
            Section(Say("API :: Accounts"), (Table(headers, tuple(rows)),)),
            Section(Say("API :: Add Account"), (Form(add),)),
        ),
    )


def _change_api(call: Call, posted: Posted) -> Answer:
    site = call.box.store.site
    if posted.has("save"):
        site.set(xml_api="on" if posted.has("xml_api") else "off")
        return Going("api_accounts", Say("The changes were saved."))
    if posted.has("delete"):
        site.run("delete from api_account where client_id = ?", posted.text("who"))
        call.box.store.box.run("delete from api_token where account = ?", posted.text("who"))
        return Going("api_accounts", Say("The API account was deleted."))
    if not posted.text("name").strip():
        raise Refused("A name is needed.")
    client_id, secret = secrets.token_hex(20), secrets.token_urlsafe(36)
    command = posted.text("command")
    held: dict[str, object] = {"perm_command": command if command in ("read_only", "full_access") else "deny"}
    held |= {key: posted.has(key) for key in PERMISSIONS}
    site.run("insert into api_account values (?, ?, ?, ?, 1)", client_id, posted.text("name"), hash_token(secret), json.dumps(held))
    facts = ((Say("OAuth Client ID"), client_id), (Say("OAuth Client Secret"), secret))
    text = Text(Say("The secret is shown only now."))
    return Page(Say("API Configuration"), (Section(Say("API :: Add Account"), (Listing(facts), text, Link(Say("Back"), "api_accounts"))),))


def _read_clients(box: Appliance) -> tuple[list[Any], list[Presence]]:
    """All rows, and of each whether it is there; asked for in parts, since a question takes only so many names."""
    rows = box.store.site.rows("select * from jump_client order by id")
    parts = [rows[at : at + 500] for at in range(0, len(rows), 500)]
    return rows, [one for part in parts for one in read_presence(box, part)]


def jump_clients(call: Call) -> Answer:
    """Jump > Jump Clients."""
    box = call.box
    if call.posted is not None:
        at_once, days = call.posted.text("slots"), call.posted.text("lost_days")
        if not at_once.isdigit() or int(at_once) < 1:
            raise Refused("The number of concurrent upgrades must be 1 or more.")
        if not days.isdigit() or int(days) > 9999:
            raise Refused("The number of days must be between 0 and 9999; with 0 none is marked as lost.")
        box.store.site.set(upgrade_slots=int(at_once), lost_days=int(days))
        return Going("jump_clients", Say("The changes were saved."))
    rows = []
    for row, presence in zip(*_read_clients(box), strict=True):
        state = Say("Connected") if presence.connected else Say("Lost") if presence.lost else Say("Disconnected")
        last = _moment(row["last_connect"]) if row["last_connect"] else ""
        rows.append((row["name"], row["hostname"], row["jump_group"], row["version"], state, last))
    headers = tuple(Say(text) for text in ("Name", "Hostname", "Jump Group", "Version", "Status", "Last Status Date"))
    label = Say("Maximum number of concurrent Jump Client upgrades")
    slots = Field("slots", label, value=box.store.site.setting("upgrade_slots"))
    lost = Say("Days without a connection after which a Jump Client is lost")
    form = Form((slots, Field("lost_days", lost, value=box.store.site.setting("lost_days", "0")), Button("save", Say("Save Changes"))))
    return Page(
        Say("Jump Clients"),
        (Section(Say("Jump :: Jump Clients"), (Table(headers, tuple(rows)),)), Section(Say("Jump Clients :: Settings"), (form,))),
    )


def vault(call: Call) -> Answer:
    """Vault > Accounts."""
    rows = tuple(
        (row["name"], row["username"], Say("Yes") if is_vault_readable(call.box.store, row["sealed"]) else Say("No"))
        for row in call.box.store.site.rows("select * from vault_account order by id")
    )
    headers = (Say("Name"), Say("Username"), Say("Can be decrypted"))
    return Page(Say("Vault Accounts"), (Section(Say("Vault :: Accounts"), (Table(headers, rows),)),))


def files(call: Call) -> Answer:
    """Public Portals > File Store."""
    site = call.box.store.site
    if call.posted is not None:
        if call.posted.has("delete"):
            site.run("delete from file_item where id = ?", call.posted.text("who"))
            return Going("files", Say("The file was deleted."))
        content, name = call.posted.file("file"), call.posted.file_name("file")
        site.run(
            "insert into file_item (name, content) values (?, ?) on conflict (name) do update set content = excluded.content", name, content
        )
        return Going("files", Say("{name} was uploaded.", {"name": name}))
    wanted = call.asked("file")
    if wanted:
        row = site.find_row("select name, content from file_item where id = ?", wanted)
        if row is None:
            raise Refused("There is no such file.")
        return File(row["name"], row["content"])
    rows = []
    for row in site.rows("select id, name, length(content) as size from file_item order by name"):
        remove = Form((Field("who", value=str(row["id"]), kind=Input.HIDDEN), Button("delete", Say("Delete"))))
        rows.append((row["name"], str(row["size"]), Link(Say("Download"), "files", f"file={row['id']}"), remove))
    headers = (Say("Name"), Say("Size"), Say("Download"), Say("Actions"))
    upload = Form((Field("file", Say("File"), Input.FILE), Button("upload", Say("Upload"))))
    listing = Section(Say("File Store :: Files"), (Table(headers, tuple(rows)),))
    return Page(Say("File Store"), (listing, Section(Say("File Store :: Upload"), (upload,))))


def reports(call: Call) -> Answer:
    """Reports: the sessions that ended last."""
    site = call.box.store.site
    kept = "exists (select 1 from recording where recording.lsid = session.lsid) as kept"
    rows = tuple(
        (row["lsid"], row["customer"], row["representative"], _moment(row["ended"]), _yes(row["kept"]))
        for row in site.rows(f"select *, {kept} from session order by ended desc limit 50")  # noqa: S608 - our own words
    )
    headers = tuple(Say(text) for text in ("Session ID", "Customer", "Representative", "Ended", "Recording"))
    total = Listing(((Say("Sessions"), str(count_rows(call.box)["session"])),))
    return Page(Say("Reports"), (Section(Say("Reports :: Support Sessions"), (total, Table(headers, rows))),))


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _yes(value: int) -> Say:
    return Say("Yes") if value else Say("No")


FIRST = (Entry("status", status, ("Status", "Status")),)
SECURITY = (Entry("security", security, ("Management", "Security")),)
MANAGEMENT = (Entry("api_accounts", api_accounts, ("Management", "API Configuration")),)
REST = (
    Entry("users", users, ("Users & Security", "Users")),
    Entry("jump_clients", jump_clients, ("Jump", "Jump Clients"), on_backup=False),
    Entry("vault", vault, ("Vault", "Vault Accounts"), needs="vault", on_backup=False),
    Entry("files", files, ("Public Portals", "File Store")),
    Entry("reports", reports, ("Reports", "Reports")),
)
