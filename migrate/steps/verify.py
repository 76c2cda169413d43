"""Phase verify: the new box is proved before anybody is sent there. Every doubt raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from kit import process
from kit.errors import FailedError, RefusedError
from kit.findings import Finding, Severity
from migrate.appliances.contract import Appliance
from migrate.checks import check_same_box, find_files_left_out
from migrate.facts import ApplianceFacts, SiteContent
from migrate.steps.context import Context, Done, Evidence, ServedProof, step, to_prints
from migrate.steps.inspect import CertificateReading
from migrate.steps.transfer import compare_chains

COMMAND_TIMEOUT = 300.0


@dataclass(frozen=True)
class Compared:
    """Old and new side by side: what was counted on each, what is known to differ, and the new box's facts where all were read."""

    counts: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]
    new: ApplianceFacts | None = None


@step("compare")
def compare(ctx: Context) -> Done:
    """Users, sessions, files, Jump Clients: every name of the old box is on the new one. Recordings are the known exception."""
    old = ctx.result("read-old", ApplianceFacts)
    with closing(ctx.boxes.open_new()) as new:
        facts = new.read_facts()
    if list(check_same_box(old, facts)):
        raise RefusedError("Old and new are the same box.", hint="Check the addresses in the plan.")
    if (facts.base, facts.site) != (old.base, old.site):
        raise FailedError(
            f"The new box runs site {facts.site.version} ({facts.site.build}), the old one {old.site.version} ({old.site.build})."
        )
    return compared(old.content, facts.content, facts)


def read_contents(ctx: Context) -> tuple[SiteContent, SiteContent]:
    """The old box's content and the new one's, read side by side: this is done while visitors wait."""

    def read(open_box: Callable[[], Appliance]) -> SiteContent:
        with closing(open_box()) as box:
            return box.read_content()

    with ThreadPoolExecutor(max_workers=1) as beside:
        new = beside.submit(read, ctx.boxes.open_new)
        return read(ctx.boxes.open_old), new.result()


def compared(old: SiteContent, new: SiteContent, facts: ApplianceFacts | None = None) -> Done:
    """Compare contents; raises on the first kind of thing that is missing."""
    findings = tuple(check_contents(old, new))
    blocker = next((finding for finding in findings if finding.severity is Severity.BLOCKER), None)
    if blocker is not None:
        raise FailedError(blocker.sentence, hint=blocker.hint)
    counts = {
        what: (len(getattr(old, what) or ()), len(getattr(new, what) or ()))
        for what in ("users", "sessions", "recordings", "files", "jump_clients")
    }
    rows = tuple(Evidence(what, f"old {before}, new {after}") for what, (before, after) in counts.items())
    return Done(
        f"The new box holds all {counts['sessions'][0]} sessions and {counts['users'][0]} users.", Compared(counts, findings, facts), rows
    )


def check_contents(old: SiteContent, new: SiteContent) -> Iterator[Finding]:
    """What of the old content is not on the new box. "Could not be read" is a finding of its own, never equal."""
    for what in ("users", "sessions"):
        yield from _check_names(what, getattr(old, what), getattr(new, what))
    if old.files is not None and new.files is not None:
        there = {item.name: item.size for item in new.files}
        left_out = {item.name for item in find_files_left_out(old.files)}
        missing = [item.name for item in old.files if there.get(item.name) != item.size]
        for severity, names in (
            (Severity.BLOCKER, [name for name in missing if name not in left_out]),
            (Severity.WARNING, [name for name in missing if name in left_out]),
        ):
            if names:
                yield Finding(
                    "files-missing",
                    severity,
                    f"{len(names)} file-store item(s) are missing on the new box, the first is {names[0]}.",
                    "",
                    "new",
                )
    if old.files is None or new.files is None:
        yield _unread("file-store items")
    clients = tuple(str(client.number) for client in old.jump_clients) if old.jump_clients is not None else None
    other = tuple(str(client.number) for client in new.jump_clients) if new.jump_clients is not None else None
    yield from _check_names("jump clients", clients, other)
    staying = set(old.recordings or ()) - set(new.recordings or ())
    if staying:
        yield Finding(
            "recordings-stay",
            Severity.WARNING,
            f"{len(staying)} recordings are not on the new box: no interface takes them.",
            "",
            "new",
        )


def _check_names(what: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Iterator[Finding]:
    if old is None or new is None:
        yield _unread(what)
        return
    missing = sorted(set(old) - set(new))
    if missing:
        yield Finding(
            "content-missing",
            Severity.BLOCKER,
            f"{len(missing)} of {len(old)} {what} are missing on the new box.",
            "Retry the restore.",
            "new",
        )


def _unread(what: str) -> Finding:
    return Finding(
        "content-unread", Severity.UNVERIFIED, f"The {what} could not be compared: one box does not tell them.", "Compare by eye.", "new"
    )


@step("served-chain")
def served_chain(ctx: Context) -> Done:
    """The same certificates, byte by byte and in the same order, as visitors get today."""
    before = ctx.result("diagnose-certificate", CertificateReading).served
    now = ctx.outside.read_served(ctx.plan.new.service.visible, ctx.plan.site.port)
    if now.chain != before.chain:
        raise FailedError(
            f"The new box serves {len(now.chain)} certificate(s), not the same chain that the old one serves ({len(before.chain)}).",
            hint="Compare both with: boxshift certs served.",
        )
    if not now.verified:
        raise FailedError(f"The new box's chain does not verify: {now.said}", hint="Check certificate.roots in the plan.")
    return Done(
        "The new box serves the very same chain, and it verifies.",
        now,
        (
            Evidence("served before", to_prints(before.chain), f"the old box, {before.place}"),
            Evidence("served now", f"{compare_chains(now, before)}: {to_prints(now.chain)}", now.place),
            *(look_beside(ctx, what, address, port, before) for what, address, port in find_other_addresses(ctx)),
        ),
    )


def find_other_addresses(ctx: Context) -> tuple[tuple[str, str, int | None], ...]:
    """What else the new box serves on: what it is, its address, its port (None where no way leads there from here).

    A box behind NAT or port forwards names addresses that may belong to somebody else out here: those are not connected to.
    """
    new = ctx.plan.new
    facts = ctx.find_result("read-new-facts", ApplianceFacts)
    named = {row.address for row in facts.addresses if row.enabled} if facts else set()
    direct = str(new.address) in named
    further = sorted(named - {str(new.address), str(new.service.address)})
    port = ctx.plan.site.port if direct else None
    return (("administration address", str(new.address), new.port), *(("further address", each, port) for each in further))


def look_beside(ctx: Context, what: str, address: str, port: int | None, before: ServedProof) -> Evidence:
    """Beside the service address nothing has to be equal: visitors are not sent there. What is served is told all the same."""
    if port is None:
        return Evidence(what, "not looked at: it lies behind the box's own network", address)
    try:
        now = ctx.outside.read_served(address, port)
    except FailedError as error:
        return Evidence(what, f"could not be looked at: {error.sentence}", f"{address}:{port}")
    return Evidence(what, f"{compare_chains(now, before)}: {to_prints(now.chain)}", f"{address}:{port}")


@step("health")
def health(ctx: Context) -> Done:
    """The box says it is healthy, and its clock is right."""
    with closing(ctx.boxes.open_new()) as new:
        good, note = new.read_health()
        clock = new.read_clock()
    if not good:
        raise FailedError(f"The new box says it is not healthy: {note}", hint="Look at Status on both consoles.")
    if abs(clock.offset) - clock.uncertainty > ctx.plan.verify.clock_tolerance:
        raise FailedError(f"The clock of the new box is off by {clock.offset:+.0f} s.", hint="Set NTP under Networking > IP Configuration.")
    return Done(
        "The new box is healthy and its clock is right.", None, (Evidence("health", note), Evidence("clock", f"{clock.offset:+.1f} s"))
    )


@step("clients-can-connect")
def clients_can_connect(ctx: Context) -> Done:
    """A request under the site's name to the new address, fully verified, as a client would make it."""
    address = ctx.plan.new.service.visible
    ctx.outside.probe(address, ctx.plan.site.port)
    return Done(
        f"{ctx.plan.site.name} answers at {address}.", None, (Evidence("request", "good, verified", f"{address}:{ctx.plan.site.port}"),)
    )


@step("own-checks")
def own_checks(ctx: Context) -> Done:
    """The operator's own programs; each gets the site's name and the new address in its environment."""
    env = {
        "BOXSHIFT_SITE": ctx.plan.site.name,
        "BOXSHIFT_PORT": str(ctx.plan.site.port),
        "BOXSHIFT_NEW_ADDRESS": ctx.plan.new.service.visible,
    }
    rows = []
    for number, argv in enumerate(ctx.plan.verify.commands):
        ctx.progress.update(argv[0], number, len(ctx.plan.verify.commands))
        done = process.run(argv, timeout=COMMAND_TIMEOUT, env=env, cwd=ctx.folder)
        rows.append(Evidence(" ".join(argv), (done.text.strip().splitlines() or ["exit 0"])[-1][:200]))
    return Done(f"{len(rows)} check(s) of your own passed." if rows else "No checks of your own in the plan.", None, tuple(rows))
