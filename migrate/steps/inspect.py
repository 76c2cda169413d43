"""Phase inspect: read both boxes and the hypervisor, judge, change nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from pydantic import TypeAdapter

import certs.findings
from certs.diagnose import diagnose
from kit.errors import ChangedError, RefusedError
from kit.findings import Finding, Severity
from migrate.checks import (
    BlockedError,
    Estimate,
    check_new,
    check_old,
    check_room,
    check_two_boxes,
    find_site_certificate,
    name_box,
    plan_room,
    verify_no_blockers,
)
from migrate.facts import ApplianceFacts
from migrate.pair_checks import check_joined
from migrate.plan import CommonPlan, NewPlan, OldPlan
from migrate.steps.context import Context, Done, Evidence, ServedProof, Work, step, to_prints, to_sentence
from migrate.steps.transfer import chain_evidence, export_bundle, finding_evidence

# What a certificate's rules call an error stops a migration; so does, by the guide, every warning that the box itself shows on it.
SEVERITIES = {
    certs.findings.Severity.ERROR: Severity.BLOCKER,
    certs.findings.Severity.WARNING: Severity.WARNING,
    certs.findings.Severity.INFO: Severity.NOTE,
}


@dataclass(frozen=True)
class CertificateReading:
    """The site's certificate as the old box holds and serves it; fingerprints only."""

    issued_to: str
    spki: str
    chain: tuple[str, ...]
    not_after: str
    findings: tuple[Finding, ...]
    served: ServedProof


@dataclass(frozen=True)
class Preflight:
    """Every finding of the inspection."""

    findings: tuple[Finding, ...]


@step("read-old")
def read_old(ctx: Context) -> Done:
    """Log in everywhere and read the whole old box once. Before any password is sent, the key that the plan names is looked at."""
    verify_key(ctx, "old", ctx.plan.old)
    with closing(ctx.boxes.open_old()) as old:
        old.verify_access()
        facts = old.read_facts()
    return facts_done(facts, "old")


@step("read-new")
def read_new(ctx: Context) -> Done:
    """A new box that stands already must serve the key that the plan says. Nobody logs in yet: its factory passwords come first."""
    new = ctx.plan.new
    if new.provisioned:
        return Done("The new box is provisioned by this run; it is read once it runs.")
    seen = verify_key(ctx, "new", new)
    if seen == ctx.plan.old.pin:
        raise RefusedError("Old and new serve the same key: they are the same box.", hint="Check the two addresses in the plan.")
    return Done(
        "The new box answers with the key that the plan says.", None, (Evidence("key of the new box", seen, f"{new.address}:{new.port}"),)
    )


def verify_key(ctx: Work[CommonPlan], who: str, box: OldPlan | NewPlan) -> str:
    """The key that the administration address serves, which must be the plan's. Raises ChangedError where it is another."""
    return compare_key(ctx.outside.read_key(box.address, box.port), who, box)


def compare_key(seen: str, who: str, box: OldPlan | NewPlan) -> str:
    """The key that was seen, which must be the plan's for that box."""
    if seen != box.pin:
        raise ChangedError(
            f"{name_box(who).capitalize()} at {box.address}:{box.port} serves another key than the plan says ({seen[:16]}...).",
            hint=f"Another box answers there, or its certificate was changed. Compare, then set {who}.pin.",
        )
    return seen


@step("read-hypervisor")
def read_hypervisor(ctx: Context) -> Done:
    """Reach every hypervisor that the plan names."""
    rows = []
    for who, box in (("old", ctx.plan.old), ("new", ctx.plan.new)):
        if box.machine is not None:
            rows.append(Evidence(f"hypervisor of the {who} box", ctx.machines.read_hypervisor(box.machine), box.machine.hypervisor))
    return Done(f"{len(rows)} hypervisor(s) reached." if rows else "No box of this plan is a virtual machine.", None, tuple(rows))


@step("read-cutover")
def read_cutover(ctx: Context) -> Done:
    """Where visitors go now, and whether we may change it: tried without changing anything."""
    state = ctx.cutover.verify_ready()
    rows = [Evidence(f"{witness.where} says", ", ".join(witness.shows), "cutover") for witness in state.witnesses]
    rows += [Evidence(witness.where, witness.note, "cutover") for witness in state.witnesses if witness.note]
    kept = f"they keep an answer for {state.ttl} s" if state.ttls else f"a switch takes about {ctx.cutover.outage_estimate():.0f} s"
    return Done(f"Visitors are sent to the old box; {kept}.", state, tuple(rows))


@step("diagnose-certificate")
def diagnose_certificate(ctx: Context) -> Done:
    """Export certificate, chain and key in memory, judge them all at once, and look at what visitors are shown today."""
    facts = ctx.result("read-old", ApplianceFacts)
    service = ctx.plan.old.service
    row = find_site_certificate(facts.certificates, str(service.address))
    if row is None:
        return Done("The old box has no certificate with a key on its service address; preflight says so.")
    with closing(ctx.boxes.open_old()) as old:
        bundle = export_bundle(ctx, old, row)
    findings = tuple(
        Finding(found.code, SEVERITIES[found.severity], found.sentence, found.hint, found.about or "certificate")
        for found in diagnose(
            bundle,
            hostname=ctx.plan.site.name,
            clock_offset=timedelta(seconds=facts.clock.offset),
            allow_private=ctx.plan.certificate.roots is not None,
            need_key=True,
        )
    )
    served = ctx.outside.read_served(service.visible, ctx.plan.site.port)
    chain = bundle.fingerprints
    if served.leaf_spki != bundle.spki_sha256:
        findings = (*findings, _served_differs(service.visible))
    reading = CertificateReading(
        row.issued_to, bundle.spki_sha256, chain, bundle.not_after.isoformat() if bundle.not_after else "unreadable", findings, served
    )
    return Done(
        f"The certificate for {row.issued_to} has {len(chain) - 1} certificate(s) above it; {len(findings)} finding(s).",
        reading,
        (
            chain_evidence(bundle),
            *finding_evidence(findings),
            Evidence("served today", to_prints(served.chain), served.place),
        ),
    )


@step("judge")
def judge(ctx: Context) -> Done:
    """All findings together."""
    findings = collect_findings(ctx, ctx.result("read-old", ApplianceFacts))
    counts = {severity.value: sum(1 for finding in findings if finding.severity is severity) for severity in Severity}
    return Done(f"Found: {to_sentence(counts)}.", Preflight(findings))


@step("preflight")
def preflight(ctx: Work[CommonPlan]) -> Done:
    """Any blocker ends the run here, with nothing changed; no flag goes past it."""
    stop_at(ctx.result("judge", Preflight).findings)
    return Done("No blocker.")


def stop_at(findings: Sequence[Finding]) -> None:
    """Raise when anything blocks a run that has only read so far.

    What it read is kept with it, so that a retry would judge the same again: the way out is a new run.
    """
    try:
        verify_no_blockers(findings)
    except BlockedError as error:
        anew = "Nothing was changed. Once it is mended: boxshift rollback, and the same command reads everything anew."
        raise BlockedError(error.sentence, hint=f"{error.hint} {anew}".strip(), **error.facts) from error


def collect_findings(ctx: Context, old: ApplianceFacts) -> tuple[Finding, ...]:
    """Findings from facts just read and from the certificate's diagnosis. Also used again right before the switch."""
    findings = list(check_old(ctx.plan, old))
    reading = ctx.find_result("diagnose-certificate", CertificateReading)
    findings += check_two_boxes(ctx.plan, old, reading.spki if reading else "")
    findings += reading.findings if reading else ()
    free = shutil.disk_usage(ctx.folder).free
    findings += check_room(Estimate(free, plan_room(old.content)))
    if "first-sync" in ctx.results:  # the old box is in a pair by our own hand: what counts is how that pair is
        findings = [one for one in findings if (one.code, one.subject) != ("in-a-pair", "old")]
        findings += check_joined(ctx.need_pair().read())
    new = ctx.find_result("read-new-facts", ApplianceFacts)
    findings += check_new(ctx.plan, old, new) if new else ()
    return tuple(sorted(findings, key=lambda finding: finding.severity.rank))


def facts_done(facts: ApplianceFacts, who: str) -> Done:
    """The reading of a whole box as a step's result."""
    identity = facts.identity
    return Done(
        f"{name_box(who).capitalize()} {identity.hostname} runs site {facts.site.version or '(none)'} on base {facts.base.version}.",
        facts,
        (
            Evidence(name_box(who).removeprefix("the "), to_sentence(_shown(identity)), "Status > Basics"),
            Evidence("clock", f"{facts.clock.offset:+.1f} s", "against this machine"),
        ),
    )


def _shown(identity: object) -> dict[str, object]:
    shown: dict[str, object] = TypeAdapter(type(identity)).dump_python(identity, mode="json")
    return {key: value for key, value in shown.items() if value}


def _served_differs(address: str) -> Finding:
    return Finding(
        "served-is-not-assigned",
        Severity.BLOCKER,
        f"{address} serves another key than the certificate that the old box says is assigned there.",
        "Something stands between (a proxy, a load balancer), or the box did not reload. Find out which before moving.",
        "old",
    )
