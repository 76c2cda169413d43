"""Facts in, findings out. Every function here is pure; all findings come at once; a blocker has no flag that bypasses it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from kit.errors import ChangedError, RefusedError
from kit.findings import Finding, Severity
from migrate.facts import ApplianceFacts, BoxAddress, CertificateRow, FileItem, SiteContent, Version
from migrate.plan import OldPlan, Plan

# What the appliance's guide says a backup holds of the file store.
FILE_BYTES_IN_BACKUP = 200_000
FILES_IN_BACKUP = 50
SPARE = 3  # working room on this machine: a backup is taken twice, and restored from a copy


class BlockedError(RefusedError):
    """At least one blocker stands; ``codes`` names them."""

    code = "blocked"


class OutdatedError(ChangedError):
    """The old box is not, or is no longer, what the plan was made for."""

    code = "plan-outdated"


OUTDATED = {"wrong-box", "version-changed"}  # blockers that tell of another world than the plan's


@dataclass(frozen=True)
class Estimate:
    """Room on this machine in bytes: what is free and what the run will write."""

    free: int
    wanted: int


def verify_no_blockers(findings: Sequence[Finding]) -> None:
    """Raise when anything blocks.

    Raises:
        OutdatedError: the old box is another one than the plan was made for, so what else was found is about that one.
        BlockedError: anything else.

    """
    blockers = [finding for finding in findings if finding.severity is Severity.BLOCKER]
    if not blockers:
        return
    outdated = [finding for finding in blockers if finding.code in OUTDATED]
    first = (outdated or blockers)[0]
    kind = OutdatedError if outdated else BlockedError
    more = f" ({len(blockers) - 1} more)" if len(blockers) > 1 else ""
    raise kind(f"{first.sentence}{more}", hint=first.hint, codes=", ".join(finding.code for finding in blockers))


def check_old(plan: Plan, old: ApplianceFacts) -> tuple[Finding, ...]:
    """The box to be replaced."""
    return tuple(
        chain(
            check_box(plan.old, old, "old", plan.verify.clock_tolerance),
            _failover(old, "old"),
            _licence(plan),
            _kept_rules(plan),
            _content(plan, old.content),
        )
    )


def check_new(plan: Plan, old: ApplianceFacts, new: ApplianceFacts) -> tuple[Finding, ...]:
    """The box that replaces it, once it can be read."""
    return tuple(
        chain(
            _health_of_new(new),
            _identity(new, "new"),
            _clock(plan.verify.clock_tolerance, new, "new"),
            _failover(new, "new"),
            check_same_box(old, new),
            _not_newer(old.site, new.site, "site software"),
            _not_newer(old.base, new.base, "base software"),
        )
    )


def check_box(box: OldPlan, facts: ApplianceFacts, who: str, clock_tolerance: float) -> Iterator[Finding]:
    """A box in service: is it the one the plan was made for, is it well, does it serve what the plan says? ``who``: its key in the plan."""
    yield from _health(facts, who)
    yield from _identity(facts, who)
    yield from _clock(clock_tolerance, facts, who)
    yield from _expected_box(box, facts, who)
    yield from _expected_versions(box, facts, who)
    yield from _service_address(box, facts, who)
    yield from _certificate_warnings(box, facts, who)


def name_box(who: str) -> str:
    """``the old box``; ``the box`` where a plan has one only; ``box a`` of a pair."""
    return {"box": "the box", "a": "box a", "b": "box b"}.get(who, f"the {who} box")


def _name(who: str) -> str:
    return name_box(who).capitalize()


def check_same_box(old: ApplianceFacts, new: ApplianceFacts) -> Iterator[Finding]:
    """Old and new must be two boxes: the GUID and the serial both tell."""
    for what, one, other in (("GUID", old.identity.guid, new.identity.guid), ("serial number", old.identity.serial, new.identity.serial)):
        if one and one.lower() == other.lower():
            yield Finding(
                "same-box",
                Severity.BLOCKER,
                f"Old and new are the same box: both have the {what} {one}.",
                "Check the two addresses in the plan; one of them leads to the wrong box.",
                "new",
            )


def check_two_boxes(plan: Plan, old: ApplianceFacts, site_key: str) -> Iterator[Finding]:
    """What tells before anybody logs in to the new box that it is the old one: an address of it, or the site's key (``""``: not known).

    Addresses are compared only where the old box knows the one it is reached at: behind NAT its own names say nothing out here.
    """
    own = {row.address for row in old.addresses}
    for setting, address in (("new.address", plan.new.address), ("new.service", plan.new.service.visible)):
        if plan.old.address in own and address in own:
            yield Finding(
                "same-box",
                Severity.BLOCKER,
                f"Old and new are the same box: {address} ({setting}) is one of the old box's addresses.",
                "Put the other box's address there.",
                "new",
            )
    if site_key and plan.new.pin == site_key:
        yield Finding(
            "same-box",
            Severity.BLOCKER,
            f"The box at {plan.new.address} serves the site's own key already: it is the old box, or one that was moved to.",
            "Check new.address. A box that an earlier run prepared is reset to factory state first, and its new key is put into new.pin.",
            "new",
        )


def check_room(room: Estimate) -> Iterator[Finding]:
    """Room on the control machine."""
    if room.free < room.wanted:
        yield Finding(
            "no-room",
            Severity.BLOCKER,
            f"This machine has {room.free // 2**20} MiB free in the run's folder and needs {room.wanted // 2**20} MiB.",
            "Free space, or keep the plan on another disk.",
            "control machine",
        )


def plan_room(content: SiteContent) -> int:
    """Bytes the run may write: backups, the archive of what they do not hold, and slack."""
    files = sum(item.size for item in content.files or ())
    return 64 * 2**20 + SPARE * (files + 4096 * len(content.sessions or ())) + 2**20 * len(content.recordings or ())


def find_files_left_out(files: Sequence[FileItem]) -> tuple[FileItem, ...]:
    """File-store items that a backup does not hold: those of 200 kB or more, and those beyond fifty.

    Which fifty a box takes is not documented; the answer here is a first estimate, what a restore brought is compared afterwards.
    """
    small = [item for item in files if item.size < FILE_BYTES_IN_BACKUP]
    return (*(item for item in files if item.size >= FILE_BYTES_IN_BACKUP), *small[FILES_IN_BACKUP:])


def parse_version(text: str) -> tuple[int, ...]:
    """``22.1.4`` as numbers for comparing; parts that are no numbers count as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split(".")) if text else ()


def _health(facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    if not facts.healthy:
        yield Finding(
            "unhealthy",
            Severity.BLOCKER,
            f"{_name(who)} says it is not healthy: {facts.health_note}",
            "Mend the box first; its trouble is carried along.",
            who,
        )


def _health_of_new(facts: ApplianceFacts) -> Iterator[Finding]:
    if not facts.healthy:
        yield Finding(
            "new-unhealthy",
            Severity.NOTE,
            f"The new box is not healthy yet: {facts.health_note}",
            "Looked at again before the switch.",
            "new",
        )


def _identity(facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    if not facts.identity.guid and not facts.identity.serial:
        yield Finding(
            "identity-unread",
            Severity.BLOCKER,
            f"{_name(who)} tells neither its GUID nor its serial number, so it cannot be told from another.",
            "Look at Status > Basics on /appliance.",
            who,
        )


def _clock(most: float, facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    off, unsure = abs(facts.clock.offset), facts.clock.uncertainty
    if off - unsure > most:
        yield Finding(
            "clock-off",
            Severity.BLOCKER,
            f"The clock of {name_box(who)} is off by {facts.clock.offset:+.0f} s (at most {most:.0f} s are allowed).",
            "Set NTP on /appliance under Networking > IP Configuration, then check again: certificates and download keys depend on it.",
            who,
        )
    elif off + unsure > most:
        yield Finding(
            "clock-unsure",
            Severity.UNVERIFIED,
            f"The clock of {name_box(who)} reads {facts.clock.offset:+.0f} s, but only to within {unsure:.0f} s.",
            "Look at Status > Basics yourself.",
            who,
        )


def _expected_box(box: OldPlan, facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    for what, wanted, seen in (("GUID", box.guid, facts.identity.guid), ("serial number", box.serial, facts.identity.serial)):
        if wanted and wanted.lower() != seen.lower():
            yield Finding(
                "wrong-box",
                Severity.BLOCKER,
                f"The box at {box.address} has the {what} {seen or '(none)'}, the plan says {wanted}.",
                "Another box answers there than the one the plan was made for.",
                who,
            )


def _expected_versions(box: OldPlan, facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    for what, wanted, seen in (("site", box.expect.site, facts.site.version), ("base", box.expect.base, facts.base.version)):
        if wanted and wanted != seen:
            yield Finding(
                "version-changed",
                Severity.BLOCKER,
                f"{_name(who)} runs {what} software {seen or '(none)'}, the plan was made for {wanted}.",
                f"Somebody updated the box since. Check what changed, then set {who}.expect in the plan to what it runs.",
                who,
            )
    if not facts.site.version:
        yield Finding("no-site", Severity.BLOCKER, f"{_name(who)} has no site software.", "Check the address.", who)


def _service_address(box: OldPlan, facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    wanted = str(box.service.address)
    found: BoxAddress | None = next((row for row in facts.addresses if row.address == wanted), None)
    if found is None:
        seen = ", ".join(row.address for row in facts.addresses) or "none"
        yield Finding(
            "no-service-address",
            Severity.BLOCKER,
            f"{_name(who)} does not have the service address {wanted}; it has {seen}.",
            f"Put the address that Networking > IP Configuration shows into {who}.service.address.",
            who,
        )
    elif not found.enabled:
        yield Finding(
            "service-disabled",
            Severity.BLOCKER,
            f"The service address {wanted} of {name_box(who)} is disabled.",
            "Is it in service at all?",
            who,
        )


def _failover(facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    if facts.failover_role not in {"none", ""}:
        yield Finding(
            "in-a-pair",
            Severity.BLOCKER,
            f"{_name(who)} is the {facts.failover_role} of a failover pair.",
            "Break the failover relationship first (Management > Failover): a restore overwrites its settings.",
            who,
        )


def find_site_certificate(rows: Sequence[CertificateRow], service: str) -> CertificateRow | None:
    """The certificate that serves the service address and has a key here."""
    return next((row for row in rows if service in row.addresses and row.has_key), None)


def _certificate_warnings(box: OldPlan, facts: ApplianceFacts, who: str) -> Iterator[Finding]:
    row = find_site_certificate(facts.certificates, str(box.service.address))
    if row is None:
        yield Finding(
            "no-certificate",
            Severity.BLOCKER,
            f"No certificate with a private key is assigned to {box.service.address} on {name_box(who)}.",
            "Look at Security > Certificates. A certificate without its key cannot be moved: have it issued again.",
            who,
        )
        return
    for warning in row.warnings:
        yield Finding(
            "certificate-warning",
            Severity.BLOCKER,
            f"{_name(who)} shows a warning on the certificate for {row.issued_to}: {warning}",
            "The guide allows no warning on it. Mend the certificate first.",
            who,
        )


def _licence(plan: Plan) -> Iterator[Finding]:
    if not plan.packages.accept_eula:
        yield Finding(
            "licence-not-accepted",
            Severity.WARNING,
            "The plan does not accept the vendor's licence: where the new box needs any package, the run stops before installing it.",
            "Read the licence, then set packages.accept_eula: true.",
            "new",
        )


def _kept_rules(plan: Plan) -> Iterator[Finding]:
    if plan.cutover.nat is not None:
        yield Finding(
            "rule-not-saved",
            Severity.WARNING,
            f"The switch changes the rules that run on the gateway {plan.cutover.nat.gateway}, not the file that it loads at its start.",
            f"After the switch, put {plan.new.service.visible} into that file (often /etc/nftables.conf): a restart would lead back.",
            "gateway",
        )


def _content(plan: Plan, content: SiteContent) -> Iterator[Finding]:
    for what, value in (
        ("users", content.users),
        ("sessions", content.sessions),
        ("recordings", content.recordings),
        ("files", content.files),
        ("jump clients", content.jump_clients),
    ):
        if value is None:
            yield Finding(
                "content-unread",
                Severity.UNVERIFIED,
                f"The {what} of the old box could not be read, so nobody can tell afterwards whether they all arrived.",
                "Give the API account the right permission, or compare by eye.",
                "old",
            )
    if content.recordings:
        where = "downloaded into the run's folder" if plan.backup.archive_recordings else "NOT kept by this plan"
        way = "are carried by the data sync alone" if plan.cutover.by_failover else "are in no backup"
        yield Finding(
            "recordings-not-in-backup",
            Severity.WARNING,
            f"{len(content.recordings)} session recordings {way}, and no interface takes them back: they will be {where}.",
            "Export what must stay searchable to an integration or an archive.",
            "old",
        )
    left_out = find_files_left_out(content.files or ())
    if left_out:
        size = sum(item.size for item in left_out)
        yield Finding(
            "files-not-in-backup",
            Severity.NOTE,
            f"{len(left_out)} file-store items ({size / 1e6:.1f} MB) are beyond what a backup holds: "
            f"they are carried one by one{' where the data sync leaves them out' if plan.cutover.by_failover else ''}.",
            "",
            "old",
        )
    lost = [client for client in content.jump_clients or () if client.lost]
    if lost:
        yield Finding(
            "clients-lost", Severity.NOTE, f"{len(lost)} Jump Clients are marked lost already.", "They are not waited for.", "old"
        )


def _not_newer(old: Version, new: Version, what: str) -> Iterator[Finding]:
    if parse_version(new.version) > parse_version(old.version):
        yield Finding(
            "new-is-newer",
            Severity.BLOCKER,
            f"The new box runs {what} {new.version}, newer than the old box's {old.version}: a backup only restores into the same version.",
            "Update the old box first, or provision the new one from an older image.",
            "new",
        )
