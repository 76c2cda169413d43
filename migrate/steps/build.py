"""Phase build: the new box gets the certificate, the address, the exact version, the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from certs.bundle import Bundle
from kit.errors import ChangedError, DeadlineError, FailedError, RefusedError, RejectedError
from kit.waiting import wait_for
from migrate.appliances.contract import Appliance, BackupReceipt
from migrate.checks import find_site_certificate, parse_version
from migrate.facts import ApplianceFacts, BoxAddress, PackageKind, PackageOffer, Version
from migrate.steps.context import Context, Done, Evidence, ServedProof, step, to_prints
from migrate.steps.inspect import CertificateReading
from migrate.steps.prepare import Archive, take_backup
from migrate.steps.transfer import chain_evidence, compare_chains, export_bundle, import_bundle

RELOAD = 30.0  # seconds that a box may take until it serves what was assigned
MOST_PACKAGES = 64  # a path longer than this is a loop


@dataclass(frozen=True)
class Installed:
    """The path that was taken, in order, and where it ended."""

    path: tuple[str, ...]
    base: Version
    site: Version


@dataclass(frozen=True)
class Carried:
    """What was carried one by one, and what stays with the operator."""

    files: tuple[str, ...]
    archived_recordings: int


@step("service-address")
def service_address(ctx: Context) -> Done:
    """The new box has its service address, enabled: nobody is sent there yet, and probes need it."""
    service, machine = ctx.plan.new.service, ctx.plan.new.machine
    wanted = BoxAddress(str(service.address), service.prefix, enabled=True)
    with closing(ctx.boxes.open_new()) as new:
        new.ensure_address(wanted)
        if ctx.plan.cutover.shares_address:
            shared = ctx.plan.old.service
            new.ensure_address(BoxAddress(str(shared.address), shared.prefix, enabled=False))
        if machine is not None and machine.segment is not None:  # the box answers on the card that its machine was given
            card = IPv4Interface(machine.segment.address)
            new.ensure_address(BoxAddress(str(card.ip), card.network.prefixlen, enabled=True))
        seen = next(row for row in new.read_addresses() if row.address == wanted.address)
    return Done(
        f"The new box has {seen.address}/{seen.prefix}.", None, (Evidence("address", f"{seen.address}/{seen.prefix}", "IP Configuration"),)
    )


@step("transfer-certificate")
def transfer_certificate(ctx: Context) -> Done:
    """Export from the old box, import into the new one, in one step and in memory; then look whether the row is there."""
    facts = ctx.result("read-old", ApplianceFacts)
    row = find_site_certificate(facts.certificates, str(ctx.plan.old.service.address))
    if row is None:
        raise RefusedError("The old box has no certificate with a key on its service address.", hint="boxshift check explains.")
    with closing(ctx.boxes.open_old()) as old, closing(ctx.boxes.open_new()) as new:
        there = [other for other in new.read_certificates() if other.has_key and _same_certificate(other, row)]
        moved = Evidence("transfer", "it was there already, with its key", "Security > Certificates of the new box")
        if not there:
            bundle = export_bundle(ctx, old, row)
            verify_unchanged(ctx, bundle)
            import_bundle(new, bundle)
            moved = chain_evidence(bundle)
            there = [other for other in new.read_certificates() if other.has_key and _same_certificate(other, row)]
    if not there:
        raise FailedError(
            f"The new box does not list the certificate for {row.issued_to} with its key.", hint="Look at Security > Certificates there."
        )
    if there[0].warnings:
        raise RefusedError(
            f"The new box shows a warning on the certificate: {there[0].warnings[0]}",
            hint="The guide allows none. Mend it on the old box (chain, dates, name) and retry.",
        )
    listed = f"{there[0].issued_to} by {there[0].issued_by}, until {there[0].expires}, with its key, no warnings"
    return Done(
        f"The new box holds the certificate for {row.issued_to} with its key.",
        there[0],
        (moved, Evidence("row of the new box", listed, "Security > Certificates of the new box")),
    )


def verify_unchanged(ctx: Context, bundle: Bundle) -> None:
    """What is carried is what was judged."""
    judged = ctx.find_result("diagnose-certificate", CertificateReading)
    if judged is not None and (bundle.fingerprints, bundle.spki_sha256) != (judged.chain, judged.spki):
        raise ChangedError(
            "The old box gives another certificate than the one that was inspected.",
            hint="Somebody replaced it during the run. boxshift rollback, then run the plan anew: the new one is inspected first.",
        )


def _same_certificate(one: object, other: object) -> bool:
    keys = ("issued_to", "issued_by", "expires", "names")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


@step("assign-certificate")
def assign_certificate(ctx: Context) -> Done:
    """Serve it on the service address, and look from outside that exactly this chain is served."""
    addresses = [str(ctx.plan.new.service.address)]
    if ctx.plan.cutover.shares_address:
        addresses.append(str(ctx.plan.old.service.address))
    reading = ctx.result("diagnose-certificate", CertificateReading)
    with closing(ctx.boxes.open_new()) as new:
        rows = [row for row in new.read_certificates() if row.has_key and ctx.plan.site.name in row.names]
        if not rows:
            raise FailedError(f"No certificate of the new box covers {ctx.plan.site.name}.", hint="Retry the transfer.")
        assigned = new.assign_certificate(rows[0], tuple(addresses))
    how = "assigned on the page" if assigned else "chosen by the box itself"
    served = wait_for_key(ctx, reading.spki)
    return Done(
        f"The new service address serves the site's certificate ({how}).",
        served,
        (
            Evidence("served before", to_prints(reading.served.chain), "the old box"),
            Evidence("served now", f"{compare_chains(served, reading.served)}: {to_prints(served.chain)}", served.place),
        ),
    )


def wait_for_key(ctx: Context, spki: str) -> ServedProof:
    """What the new service address serves, once it is the right key: a box that reloads still shows the old one for a moment."""

    def look() -> ServedProof:
        served = ctx.outside.read_served(ctx.plan.new.service.visible, ctx.plan.site.port)
        if served.leaf_spki != spki:
            raise FailedError(f"{served.address} serves another certificate ({served.leaf_spki[:16]}) than the one that was assigned.")
        return served

    try:
        return wait_for(look, what="the certificate that was assigned", timeout=RELOAD, poll=1.0)
    except DeadlineError as error:
        last = str(error.facts.get("last_seen"))
        raise FailedError(last, hint="Look at Security > Certificates of the new box, then retry.") from error


@step("install-packages")
def install_packages(ctx: Context) -> Done:
    """Base first, then site, prerequisite by prerequisite, until both versions equal the old box's exactly."""
    target = ctx.result("read-old", ApplianceFacts)
    taken: list[str] = []
    with closing(ctx.boxes.open_new()) as new:
        new.finish_installation(progress=ctx.progress)  # a run that was cut off may have left one going on
        while True:
            base, site = new.read_versions()
            if (base, site) == (target.base, target.site):
                break
            taken.append(_install_next(ctx, new, base, site, target))
            if len(taken) > MOST_PACKAGES:
                raise FailedError("The package path does not end.", hint="Ask the vendor for the path.")
    path = " > ".join(taken) or "nothing to install"
    return Done(
        f"Site {site.version} (build {site.build}) on base {base.version}, as on the old box.",
        Installed(tuple(taken), base, site),
        (Evidence("package path", path, "Updates"),),
    )


def _install_next(ctx: Context, new: Appliance, base: Version, site: Version, target: ApplianceFacts) -> str:
    if not ctx.plan.packages.accept_eula:
        raise RefusedError(
            "Software has to be installed on the new box, and the plan does not accept the vendor's licence for it.",
            hint="Read the licence. Then: boxshift rollback, set packages.accept_eula: true, and run the changed plan.",
        )
    if ctx.plan.packages.source == "folder":
        return _install_from_folder(ctx, new, base, site, target)
    offers = new.read_offers()
    offer = choose_offer(offers, base, site, target.base, target.site)
    if offer is None:
        greyed = "; ".join(f"{other.name} needs {other.missing}" for other in offers if other.missing)
        raise FailedError(
            f"The new box is at base {base.version}, site {site.version}, and is offered nothing that leads to "
            f"base {target.base.version}, site {target.site.version}.",
            hint=f"Greyed out: {greyed}." if greyed else "Send support a snapshot of Status > Basics and ask for the path.",
        )
    ctx.progress.update(f"installing {offer.name}")
    new.install_offer(offer, progress=ctx.progress, accept_eula=ctx.plan.packages.accept_eula)
    return offer.name


def choose_offer(offers: Sequence[PackageOffer], base: Version, site: Version, to_base: Version, to_site: Version) -> PackageOffer | None:
    """The next package of the path: the lowest base package that is not beyond the target, then the lowest site package.

    Only such a package is taken whose prerequisites are met. None where nothing leads on.
    """
    for kind, now, to in ((PackageKind.BASE, base, to_base), (PackageKind.SITE, site, to_site)):
        here, there = parse_version(now.version), parse_version(to.version)
        fitting = [offer for offer in offers if offer.kind is kind and not offer.missing and here < parse_version(offer.version) <= there]
        if fitting:
            return min(fitting, key=lambda offer: parse_version(offer.version))
    return None


def _install_from_folder(ctx: Context, new: Appliance, base: Version, site: Version, target: ApplianceFacts) -> str:
    folder = ctx.base / (ctx.plan.packages.folder or Path())
    refusals = []
    for path in plan_folder_path((path for path in folder.iterdir() if path.is_file()), target.base, target.site):
        try:
            new.install_file(path, progress=ctx.progress, accept_eula=ctx.plan.packages.accept_eula)
        except RejectedError as error:
            refusals.append(f"{path.name}: {error.sentence}")
            continue
        if new.read_versions() != (base, site):
            return path.name
    here, there = f"base {base.version}, site {site.version}", f"base {target.base.version}, site {target.site.version}"
    raise FailedError(
        f"No package in {folder} leads from {here} to {there}.",
        hint="; ".join(refusals) or "The folder holds no package with a version in its name.",
    )


def plan_folder_path(paths: Iterable[Path], to_base: Version, to_site: Version) -> tuple[Path, ...]:
    """Package files in the order to try: base first, low versions first, none beyond the target, none without a version in its name."""
    fitting = []
    for path in paths:
        found = re.search(r"\d+(?:\.\d+)+", path.name)
        is_base = "base" in path.name.lower()
        if found and parse_version(found[0]) <= parse_version((to_base if is_base else to_site).version):
            fitting.append((not is_base, parse_version(found[0]), path))
    return tuple(path for _, _, path in sorted(fitting))


@contextmanager
def _opened_for_restore(ctx: Context) -> Iterator[Appliance]:
    """The new box, opened with the accounts it has.

    A restore brings the old site's accounts. When an earlier attempt was cut off, either set may be in force: the restored one is tried
    first, once, and a refusal is the one failed login that the lock-out allows for.
    """
    marker = ctx.folder / f"{ctx.node.name}.started"
    box = None
    if marker.exists():
        box = ctx.boxes.open_new(restored=True)
        try:
            box.verify_access()
        except RejectedError:
            box.close()
            box = None
    with closing(box or ctx.boxes.open_new()) as new:
        marker.touch(mode=0o600)
        yield new


@step("restore")
def restore(ctx: Context) -> Done:
    """The site's data and settings are on the new box."""
    return restore_backup(ctx, ctx.result("backup-old", BackupReceipt))


def restore_backup(ctx: Context, receipt: BackupReceipt) -> Done:
    """Check the file again, restore it, log in with the restored accounts, and look at the version."""
    password = ctx.secret(ctx.plan.backup.password, "the backup password")
    with _opened_for_restore(ctx) as new:
        again = new.verify_backup(receipt.path, password)
        if again.sha256 != receipt.sha256:
            raise FailedError("The backup file changed on this machine since it was taken.", hint="Look at the disk; take a new backup.")
        new.restore_backup(receipt.path, password, progress=ctx.progress)
    with closing(ctx.boxes.open_new(restored=True)) as new:
        new.verify_access()
    return Done(
        f"Restored {receipt.size / 1e6:.1f} MB; the old site's accounts open the new box.",
        None,
        (Evidence("restored", receipt.sha256, str(receipt.path)),),
    )


@step("restore-vault-key")
def restore_vault_key(ctx: Context) -> Done:
    """The vault's encryption key, which no backup holds."""
    if not ctx.result("archive-extras", Archive).vault_key:
        return Done("The old box had no vault key.")
    with closing(ctx.boxes.open_new()) as new:
        new.restore_vault_key(ctx.folder / "vault-key.nsk", ctx.secret(ctx.plan.backup.password, "the backup password"))
    return Done("The vault key is on the new box.")


@step("carry-files")
def carry_files(ctx: Context) -> Done:
    """Upload the file-store items that the restore did not bring; recordings have no way in, and are listed."""
    archive = ctx.result("archive-extras", Archive)
    wanted = ctx.result("read-old", ApplianceFacts).content.files or ()
    carried = []
    with closing(ctx.boxes.open_new()) as new:
        there = {item.name: item.size for item in new.read_content().files or ()}
        for number, item in enumerate(archive.files):
            if there.get(item.name) != item.size:
                ctx.progress.update("file-store items", number, len(archive.files))
                new.upload_file(archive.folder / f"file-{number:05d}", item.name)
                carried.append(item.name)
        now = {item.name: item.size for item in new.read_content().files or ()}
    missing = [item.name for item in wanted if now.get(item.name) != item.size]
    if missing:
        raise FailedError(f"{len(missing)} file-store item(s) are not on the new box, the first is {missing[0]}.", hint="Retry the step.")
    return Done(
        f"All {len(wanted)} file-store items are on the new box, {len(carried)} of them carried one by one.",
        Carried(tuple(carried), archive.recordings),
        (Evidence("recordings kept by the operator", str(archive.recordings), str(archive.folder)),),
    )


@step("final-backup")
def final_backup(ctx: Context) -> Done:
    """The last state of the old box, which nobody can write to any more."""
    return take_backup(ctx, "backup-final.nsb")


@step("final-restore")
def final_restore(ctx: Context) -> Done:
    """The same on the new box."""
    return restore_backup(ctx, ctx.result("final-backup", BackupReceipt))
