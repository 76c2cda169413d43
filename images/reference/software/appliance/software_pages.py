"""Management > Software Management of ``/login``: backups and restores of the site and of the Vault's key."""

from __future__ import annotations

import time

from .backup import Parts, make_backup, make_key_backup, read_backup, restore, restore_key, vault_fingerprint
from .core import Appliance
from .errors import Refused
from .jobs import State
from .web import Answer, Call, Entry, File, Going, Posted
from .widgets import Button, Field, Form, Input, Listing, Page, Say, Section, Text

_BYTE = 0x5A


def software(call: Call) -> Answer:
    """The Software page."""
    if call.posted is not None:
        return _act(call, call.posted)
    backup = (
        Field("backup_password", Say("Backup Password"), Input.PASSWORD),
        Field("again", Say("Confirm Password"), Input.PASSWORD),
        Field("history", Say("Include logged history"), Input.TICK, checked=True),
        Button("backup", Say("Download Backup")),
    )
    restoring = (
        Field("file", Say("Configuration Backup File"), Input.FILE),
        Field("restore_password", Say("Backup Password"), Input.PASSWORD),
        Button("restore", Say("Upload Backup")),
    )
    sections = [
        Section(Say("Software :: Backup Settings"), (Form(backup),)),
        Section(Say("Software :: Restore Settings"), (*_last(call), Form(restoring))),
    ]
    if call.box.site.has("vault"):
        sections += _vault_sections(call.box)
    is_running = call.box.jobs.is_busy
    return Page(Say("Software Management"), tuple(sections), refresh=3 if is_running else 0)


def _last(call: Call) -> tuple[Listing, ...]:
    job = call.box.jobs.find_last("restore")
    if job is None:
        return (Listing(((Say("Last Restore"), Say("None")),)),)
    states = {State.FINISHED: Say("Finished"), State.FAILED: Say("Failed")}
    ended = "" if job.ended is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.ended))
    rows = ((Say("Last Restore"), states.get(job.state, Say("Running"))), (Say("Details"), Say(job.step, job.facts)), (Say("Ended"), ended))
    return (Listing(rows),)


def _vault_sections(box: Appliance) -> list[Section]:
    known = vault_fingerprint(box.store)
    save = (
        Field("key_password", Say("Vault Key Password"), Input.PASSWORD),
        Field("key_again", Say("Confirm Password"), Input.PASSWORD),
        Button("key_backup", Say("Download Vault Encryption Key")),
    )
    load = (
        Field("key_file", Say("Vault Encryption Key File"), Input.FILE),
        Field("key_password", Say("Vault Key Password"), Input.PASSWORD),
        Button("key_restore", Say("Upload Vault Encryption Key")),
    )
    facts = Listing(((Say("Vault Key Fingerprint"), known or Say("None")),))
    return [
        Section(Say("Software :: Backup Vault Encryption Key"), (facts, Form(save))),
        Section(Say("Software :: Restore Vault Encryption Key"), (Form(load),)),
    ]


def _act(call: Call, posted: Posted) -> Answer:
    box = call.box
    box.jobs.verify_idle()
    if posted.has("backup"):
        if posted.text("backup_password") != posted.text("again"):
            raise Refused("The two passwords are not the same.")
        made = make_backup(box.store, box.base, box.site, Parts(posted.has("history"), posted.text("backup_password")))
        return File(backup_name(box), bend(box, made))
    if posted.has("restore"):
        tables = read_backup(posted.file("file"), posted.text("restore_password"), box.site)

        def work(tell: object) -> State:
            restore(box.store, tables, tell)  # type: ignore[arg-type]
            tell("The configuration was restored.")  # type: ignore[operator]
            return State.FINISHED

        box.jobs.start("restore", work)
        text = Text(Say("The backup is being restored. Everyone is logged out when it ends; log in with a user of the backup."))
        return Page(Say("Software Management"), (Section(Say("Software :: Restore Settings"), (text,)),), refresh=3)
    if posted.has("key_backup"):
        if posted.text("key_password") != posted.text("key_again"):
            raise Refused("The two passwords are not the same.")
        return File("vault-encryption-key.nsb", make_key_backup(box.store, posted.text("key_password")))
    restore_key(box.store, posted.file("key_file"), posted.text("key_password"))
    return Going("software", Say("The Vault encryption key was restored."))


def backup_name(box: Appliance) -> str:
    """What a backup made now is called."""
    day = time.strftime("%Y-%m-%d", time.gmtime(box.faults.now()))
    host = box.store.site.setting("public_host") or box.hostname
    return f"backup-{host}-{box.site.version}-{day}.nsb"


def bend(box: Appliance, made: bytes) -> bytes:
    """What the fault switches do to a backup that is downloaded."""
    if box.faults.is_on("backup-altered"):
        at = len(made) // 2
        made = made[:at] + bytes([made[at] ^ _BYTE]) + made[at + 1 :]
    if box.faults.is_on("backup-truncated"):
        made = made[: len(made) // 2]
    return made


ENTRIES = (Entry("software", software, ("Management", "Software Management")),)
