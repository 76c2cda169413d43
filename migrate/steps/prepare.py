"""Phase prepare: everything that can be done ahead without touching the service."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from certs.read import read_bundle
from certs.write import write_pkcs12
from kit.errors import FailedError, RejectedError
from kit.files import write_private
from migrate.appliances.contract import Appliance, BackupReceipt
from migrate.checks import check_new as check_new_facts
from migrate.checks import find_files_left_out, find_site_certificate, verify_no_blockers
from migrate.cutover.contract import CutoverState, Preparation
from migrate.facts import ApplianceFacts, FileItem, Version
from migrate.plan import CommonPlan
from migrate.steps.context import Context, Done, Evidence, Work, step
from migrate.steps.inspect import facts_done
from migrate.steps.transfer import export_bundle


@dataclass(frozen=True)
class Provisioned:
    """The new machine, and the key its administration address served when it came up."""

    pin: str


@dataclass(frozen=True)
class Archive:
    """What was fetched because no backup holds it. ``files`` go to the new box; ``recordings`` stay with the operator."""

    folder: Path
    files: tuple[FileItem, ...]
    recordings: int
    vault_key: bool


def _remove_machine(ctx: Context) -> Done:
    machine = ctx.plan.new.machine
    if machine is None or not ctx.plan.new.provisioned:
        return Done("The new box was not made by this run; it is left as it is.")
    return Done(ctx.machines.remove_new(ctx.plan, ctx.run))


@step("provision", undo=_remove_machine)
def provision(ctx: Context) -> Done:
    """The new box runs and its pages answer."""
    machine = ctx.plan.new.machine
    if machine is None or not ctx.plan.new.provisioned:
        return Done("The new box stands already.", Provisioned(ctx.plan.new.pin or ""))
    pin = ctx.machines.ensure_new(ctx.plan, ctx.run, ctx.progress)
    return Done(f"{machine.name} runs; {ctx.plan.new.address}:{ctx.plan.new.port} answers.", Provisioned(pin))


@step("first-login")
def first_login(ctx: Context) -> Done:
    """The factory passwords are gone; the box has its own."""
    try:
        with closing(ctx.boxes.open_new()) as new:
            new.ensure_first_login(ctx.boxes.factory_credentials())
            new.verify_access()
    except RejectedError as error:
        raise RejectedError(
            f"The new box opens neither with the factory's passwords nor with the plan's: {error.sentence}",
            hint="A box that an earlier run prepared has other accounts by now: reset it to factory state, put its new key into new.pin, "
            "and begin again. Otherwise correct new.accounts.",
        ) from error
    return Done("Both consoles of the new box have their own passwords.")


@step("read-new-facts")
def read_new_facts(ctx: Context) -> Done:
    """Read the new box, and refuse it here if it is the old one, newer, or off in time."""
    old = ctx.result("read-old", ApplianceFacts)
    with closing(ctx.boxes.open_new()) as new:
        facts = new.read_facts()
    verify_no_blockers(check_new_facts(ctx.plan, old, facts))
    return facts_done(facts, "new")


@step("backup-old")
def backup_old(ctx: Context) -> Done:
    """A backup of the old site, on this machine, read back."""
    return take_backup(ctx, "backup.nsb")


def take_backup(ctx: Context, name: str) -> Done:
    """Take, store and verify a backup of the old box."""
    with closing(ctx.boxes.open_old()) as old:
        return keep_backup(ctx, old, ctx.result("read-old", ApplianceFacts).site, name)


def keep_backup(ctx: Work[CommonPlan], box: Appliance, expected: Version, name: str) -> Done:
    """Take, store and verify a backup; an earlier file of that name from a crashed attempt is replaced."""
    password = ctx.secret(ctx.plan.backup.password, "the backup password")
    target = ctx.folder / name
    box.take_backup(target, password, history=ctx.plan.backup.history, progress=ctx.progress)
    receipt = box.verify_backup(target, password)
    if receipt.site is not None and receipt.site != expected:
        raise FailedError(
            f"The backup says it is of site {receipt.site.version}, the box runs {expected.version}.",
            hint="Was the box updated in between? Start a new run.",
        )
    return Done(f"Backup of {receipt.size / 1e6:.1f} MB, verified.", receipt, _backup_evidence(receipt))


def _backup_evidence(receipt: BackupReceipt) -> tuple[Evidence, ...]:
    return (
        Evidence("backup file", f"{receipt.size} bytes, sha256 {receipt.sha256}", str(receipt.path)),
        Evidence("looked at in the backup", "; ".join(receipt.verified)),
    )


@step("safety-copy")
def safety_copy(ctx: Context) -> Done:
    """The operator's encrypted copy of certificate, chain and key, read back from the disk."""
    with closing(ctx.boxes.open_old()) as old:
        return keep_certificate(ctx, old, ctx.result("read-old", ApplianceFacts), str(ctx.plan.old.service.address))


def keep_certificate(ctx: Work[CommonPlan], box: Appliance, facts: ApplianceFacts, service: str) -> Done:
    """Export the certificate that ``service`` serves, with its chain and key, into an encrypted file; read that back from the disk."""
    row = find_site_certificate(facts.certificates, service)
    if row is None:
        raise FailedError("The box has no certificate with a key on its service address.", hint="boxshift check explains.")
    passphrase = ctx.secret(ctx.plan.certificate.safety_passphrase, "the passphrase of the safety copy")
    bundle = export_bundle(ctx, box, row)
    target = ctx.folder / "certificate-safety-copy.p12"
    write_private(target, write_pkcs12(bundle, passphrase))
    again = read_bundle(target.read_bytes(), passphrase)
    if again.spki_sha256 != bundle.spki_sha256 or again.key is None:
        raise FailedError(
            "The safety copy of the certificate does not read back as it was written.", hint=f"Look at the disk that holds {target}."
        )
    return Done(
        "Certificate, chain and key are kept in an encrypted copy.", None, (Evidence("safety copy", bundle.spki_sha256, str(target)),)
    )


@step("archive-extras")
def archive_extras(ctx: Context) -> Done:
    """Fetch what no backup holds: recordings, large and surplus file-store items, the vault key."""
    content = ctx.result("read-old", ApplianceFacts).content
    folder = ctx.folder / "extras"
    folder.mkdir(mode=0o700, exist_ok=True)
    files = find_files_left_out(content.files or ())
    recordings = (content.recordings or ()) if ctx.plan.backup.archive_recordings else ()
    total = len(files) + len(recordings)
    with closing(ctx.boxes.open_old()) as old:
        for number, item in enumerate(files):
            ctx.progress.update("file-store items", number, total)
            old.take_file(item, folder / f"file-{number:05d}")
        for number, session in enumerate(recordings):
            ctx.progress.update("recordings", len(files) + number, total)
            target = folder / f"recording-{session}"
            if not target.exists():
                old.take_recording(session, target)
        vault = old.take_vault_key(ctx.folder / "vault-key.nsk", ctx.secret(ctx.plan.backup.password, "the backup password"))
    _verify_archive(folder, files, len(recordings))
    sentence = (
        f"{len(files)} file(s) and {len(recordings)} recording(s) fetched; {'the vault key too' if vault else 'the box has no vault key'}."
    )
    return Done(sentence, Archive(folder, files, len(recordings), vault))


def _verify_archive(folder: Path, files: tuple[FileItem, ...], recordings: int) -> None:
    for number, item in enumerate(files):
        size = (folder / f"file-{number:05d}").stat().st_size
        if size != item.size:
            raise FailedError(f"The file-store item {item.name} came as {size} bytes, the box lists {item.size}.", hint="Retry the step.")
    found = sum(1 for path in folder.iterdir() if path.name.startswith("recording-") and path.stat().st_size > 0)
    if found < recordings:
        raise FailedError(f"{recordings - found} recording(s) came empty.", hint="Retry the step.")


def _restore_ttl(ctx: Context) -> Done:
    prepared = ctx.find_result("lower-ttl", Preparation)
    before = ctx.result("read-cutover", CutoverState)
    # Interrupted midway there is no result yet: what was read before the first try says what to put back.
    state = ctx.cutover.restore(prepared or Preparation(before.ttls, before.ttls, ctx.read_time()))
    return Done(f"The TTL is {state.ttl} s again.")


@step("lower-ttl", undo=_restore_ttl)
def lower_ttl(ctx: Context) -> Done:
    """Lower the TTL now, so that it has run out by the time of the switch."""
    prepared = ctx.cutover.prepare(ctx.result("read-cutover", CutoverState))
    old, new = max(prepared.old_ttls, default=0), max(prepared.ttls, default=0)
    return Done(f"The TTL went from {old} s to {new} s.", prepared, (Evidence("TTL", f"{old} -> {new} s", "every authoritative server"),))
