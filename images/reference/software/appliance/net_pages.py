"""Pages of ``/appliance`` about addresses and certificates."""

from __future__ import annotations

from .bundles import write_export
from .certificates import Held, describe
from .errors import Refused
from .network import Address, apply_names
from .web import Answer, Call, Entry, File, Going, Posted
from .widgets import Button, Field, Form, Input, Link, Listing, Page, Say, Section, Table, Text, Tick


def addresses(call: Call) -> Answer:
    """Networking > IP Configuration."""
    if call.posted is not None:
        return _change_addresses(call, call.posted)
    box = call.box
    wanted = call.asked("address")
    row = next((one for one in box.network.rows() if one.address == wanted), None)
    if row is not None:
        return _address_page(row)
    headers = (Say("IP Address"), Say("Subnet Mask"), Say("Enabled"), Say("Kind"), Say("Actions"))
    kinds = {"admin": Say("Administration"), "service": Say("Service")}
    rows = tuple(
        (one.address, f"/{one.prefix}", _yes(one.enabled), kinds[one.kind], Link(Say("Edit"), "addresses", f"address={one.address}"))
        for one in box.network.rows()
    )
    add = (
        Field("address", Say("IP Address")),
        Field("mask", Say("Subnet Mask")),
        Field("enabled", Say("Enabled"), Input.TICK, checked=True),
        Button("add", Say("Add Address")),
    )
    settings = box.store.box
    names = (
        Field("hostname", Say("Hostname"), value=box.hostname),
        Field("gateway", Say("Default Gateway"), value=settings.setting("gateway")),
        Field("dns", Say("DNS Servers"), value=settings.setting("dns")),
        Field("ntp", Say("NTP Server"), value=settings.setting("ntp")),
        Button("names", Say("Save Changes")),
    )
    return Page(
        Say("IP Configuration"),
        (
            Section(Say("Networking :: IP Addresses"), (Table(headers, rows),)),
            Section(Say("Networking :: Add IP Address"), (Form(add),)),
            Section(Say("Networking :: Global Network Configuration"), (Form(names),)),
        ),
    )


def _yes(value: bool) -> Say:  # noqa: FBT001 - it is the value that is shown
    return Say("Yes") if value else Say("No")


def _address_page(row: Address) -> Page:
    fields = (
        Field("address", value=row.address, kind=Input.HIDDEN),
        Field("mask", Say("Subnet Mask"), value=f"/{row.prefix}"),
        Field("enabled", Say("Enabled"), Input.TICK, checked=row.enabled),
        Button("change", Say("Save Changes")),
        *((Button("delete", Say("Delete")),) if row.kind != "admin" else ()),
    )
    facts = Listing(((Say("IP Address"), row.address),))
    return Page(Say("IP Configuration"), (Section(Say("Networking :: Edit IP Address"), (facts, Form(fields, "addresses"))),))


def _change_addresses(call: Call, posted: Posted) -> Going:
    network = call.box.network
    if posted.has("names"):
        _save_names(call, posted)
    elif posted.has("add"):
        network.add(posted.text("address"), posted.text("mask"), enabled=posted.has("enabled"))
        try:
            _follow(call)
        except Refused:
            call.box.store.box.run("delete from address where address = ?", posted.text("address").strip())
            call.box.front.write()
            raise
    elif posted.has("delete"):
        _verify_not_shared(call, posted)
        network.remove(posted.text("address"))
        _follow(call)
    else:
        _verify_not_shared(call, posted)
        network.change(posted.text("address"), posted.text("mask"), enabled=posted.has("enabled"))
        _follow(call)
    return Going("addresses", Say("The changes were saved."))


def _verify_not_shared(call: Call, posted: Posted) -> None:
    if any(row.address == posted.text("address").strip() for row in call.box.failover.sharing.rows()):
        raise Refused("The address is shared in a failover pair: the primary site has it enabled, the backup site disabled.")


def _follow(call: Call) -> None:
    """Make the machine and the web server follow what the database says now; returns when they have."""
    call.box.network.apply()
    call.box.ensure_certificates_bound()
    call.box.front.apply()


def _save_names(call: Call, posted: Posted) -> None:
    host = posted.text("hostname").strip()
    if not host or not all(part and part.replace("-", "a").isalnum() and part.isascii() for part in host.split(".")):
        raise Refused("{host} is not a host name.", host=host)
    call.box.store.box.set(hostname=host, **{key: posted.text(key).strip() for key in ("gateway", "dns", "ntp")})
    apply_names(call.box.box, call.box.store)


def certificates(call: Call) -> Answer:
    """Security > Certificates."""
    posted = call.posted
    if posted is not None and posted.has("upload"):
        held = call.box.certificates.add_upload(posted.file("file"), posted.text("passphrase"))
        call.box.ensure_certificates_bound()
        call.box.front.apply()
        return Going("certificates", Say("The certificate {name} was imported.", {"name": describe(held)[0]}))
    if posted is not None:
        return _act_on_certificates(call, posted)
    headers = ["Select", "Issued To", "Issued By", "Expires", "Alternative Names", "Private Key", "IP addresses", "Warnings"]
    headers += ["Actions"] if call.box.base.has("assign_ip") else []
    rows = tuple(_certificate_row(call, held) for held in call.box.certificates.rows())
    actions = (("", Say("Choose an action")), ("export", Say("Export")), ("delete", Say("Delete")))
    chosen = (
        Field("action", Say("Action"), Input.CHOICE, options=actions),
        Button("act", Say("Go")),
        Table(tuple(Say(text) for text in headers), rows),
    )
    upload = (
        Field("file", Say("Certificate or Key File"), Input.FILE),
        Field("passphrase", Say("Passphrase"), Input.PASSWORD),
        Button("upload", Say("Upload")),
    )
    return Page(
        Say("Certificates"),
        (
            Section(Say("Security :: Certificate Installation"), (Text(Say("Import")), Form(upload))),
            Section(Say("Security :: Certificates"), (Form(chosen),)),
        ),
    )


def _certificate_row(call: Call, held: Held) -> tuple[object, ...]:
    to, by, until, names = describe(held)
    warnings = call.box.certificates.check(held)
    shown: object = ""
    if warnings:
        joined = " · ".join(f"{{w{at}}}" for at in range(len(warnings)))
        shown = Say(joined, {f"w{at}": Say(text, facts) for at, (text, facts) in enumerate(warnings)})
    row: tuple[object, ...] = (
        Tick("chosen", str(held.id), Say("Select {name}", {"name": to})),
        *(to, by, until, names, _yes(held.has_key), ", ".join(_addresses_of(call, held)), shown),
    )
    if call.box.base.has("assign_ip"):
        row = (*row, Link(Say("Assign IP"), "assign", f"certificate={held.id}") if held.has_key else "")
    return row


def _addresses_of(call: Call, held: Held) -> tuple[str, ...]:
    if not held.built_in:
        return held.addresses
    return tuple(row.address for row in call.box.network.rows() if row.certificate is None)


def _act_on_certificates(call: Call, posted: Posted) -> Answer:
    chosen = [int(number) for number in posted.texts("chosen") if number.isdigit()]
    if not chosen:
        raise Refused("Tick a certificate.")
    if posted.text("action") == "delete":
        for number in chosen:
            call.box.certificates.remove(call.box.certificates.read(number))
        return Going("certificates", Say("The certificate was deleted."))
    if posted.text("action") != "export":
        raise Refused("Choose an action.")
    if len(chosen) > 1:
        raise Refused("Tick one certificate to export.")
    return Going("export", query=f"certificate={chosen[0]}")


def export(call: Call) -> Answer:
    """Security :: Certificates :: Export."""
    held = call.box.certificates.read(_number(call))
    if call.posted is not None:
        posted = call.posted
        if posted.has("key") and not held.has_key:
            raise Refused("The private key of this certificate is not on this appliance.")
        made = write_export(
            held.chain,
            call.box.certificates.read_key(held) if posted.has("key") else None,
            with_leaf=posted.has("leaf"),
            with_chain=posted.has("chain"),
            passphrase=posted.text("passphrase"),
            as_pkcs12=call.box.base.has("export_pkcs12"),
        )
        return File(made.name, made.content)
    to, by, until, _ = describe(held)
    facts = Listing(((Say("Issued To"), to), (Say("Issued By"), by), (Say("Expires"), until)))
    fields = (
        Field("leaf", Say("Certificate"), Input.TICK),
        Field("key", Say("Private Key"), Input.TICK),
        Field("chain", Say("Certificate Chain"), Input.TICK),
        Field("passphrase", Say("Passphrase"), Input.PASSWORD),
        Text(Say("It is strongly recommended to set a passphrase for the private key. Exporting removes nothing.")),
        Button("export", Say("Export")),
    )
    return Page(Say("Security :: Certificates :: Export"), (Section(Say("Security :: Certificates :: Export"), (facts, Form(fields))),))


def _number(call: Call) -> int:
    asked = call.asked("certificate")
    if not asked.isdigit():
        raise Refused("There is no such certificate.")
    return int(asked)


def assign(call: Call) -> Answer:
    """Assign IP (older base versions)."""
    held = call.box.certificates.read(_number(call))
    if call.posted is not None:
        known = {row.address for row in call.box.network.rows()}
        call.box.certificates.assign(held, tuple(one for one in call.posted.texts("address") if one in known))
        call.box.front.apply()
        return Going("certificates", Say("The configuration was saved."))
    rows = tuple(
        (Tick("address", row.address, row.address, checked=row.certificate == held.id), row.address, _yes(row.enabled))
        for row in call.box.network.rows()
    )
    form = Form((Table((Say("Select"), Say("IP Address"), Say("Enabled")), rows), Button("save", Say("Save Configuration"))))
    facts = Listing(((Say("Issued To"), describe(held)[0]),))
    return Page(Say("Assign IP"), (Section(Say("Security :: Certificates :: Assign IP"), (facts, form)),))


NETWORKING = (Entry("addresses", addresses, ("Networking", "IP Configuration")),)
SECURITY = (
    Entry("certificates", certificates, ("Security", "Certificates")),
    Entry("export", export),
    Entry("assign", assign, needs="assign_ip"),
)
