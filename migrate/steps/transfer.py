"""The private key's one crossing: out of the old box, through memory, into the new one."""

from __future__ import annotations

from collections.abc import Sequence

from certs.bundle import Bundle
from certs.read import read_bundle
from certs.roots import read_roots
from certs.targets import Target
from certs.write import generate_passphrase, write_bundle
from kit.findings import Finding
from migrate.appliances.contract import Appliance
from migrate.facts import CertificateRow
from migrate.plan import CommonPlan
from migrate.steps.context import Evidence, ServedProof, Work

TRANSIT_ROUNDS = 2048


def export_bundle(ctx: Work[CommonPlan], box: Appliance, row: CertificateRow) -> Bundle:
    """Certificate, chain and key of ``row``, decrypted in memory only.

    Raises:
        KeyMismatchError: what the box exported has no key that fits.

    """
    passphrase = generate_passphrase()
    roots = ctx.plan.certificate.roots
    trusted = read_roots(ctx.base / roots) if roots is not None else None
    bundle = read_bundle(box.export_certificate(row, passphrase), passphrase, roots=trusted)
    bundle.need_key()
    return bundle


def import_bundle(box: Appliance, bundle: Bundle) -> None:
    """Hand the bundle to the other box, encrypted for the way with a passphrase that only these two calls know.

    Few rounds of key derivation on purpose: the passphrase has 119 random bits and lives for seconds, and a slow box would spend half a
    minute on the usual 600,000.
    """
    passphrase = generate_passphrase()
    box.import_certificate(write_bundle(bundle, Target.BOMGAR, passphrase, rounds=TRANSIT_ROUNDS), "certificate.p12", passphrase)


def chain_evidence(bundle: Bundle) -> Evidence:
    """What was exported: names and fingerprints, leaf first, and the key by its public half."""
    seen = " > ".join(f"{cert} ({cert.sha256[:16]}, until {str(cert.not_after)[:10]})" for cert in bundle.certs)
    return Evidence("certificates and key", f"{seen}; key {bundle.spki_sha256[:16]} fits", "exported, in memory")


def finding_evidence(findings: Sequence[Finding]) -> tuple[Evidence, ...]:
    """Every finding about the certificate; "none" where there is none, so that it shows that it was judged."""
    rows = tuple(Evidence(f"{found.severity.value} {found.code}", found.sentence, found.subject) for found in findings)
    return rows or (Evidence("findings", "none", "all rules of boxshift certs"),)


def compare_chains(now: ServedProof, before: ServedProof) -> str:
    """How what is served compares with what was served before, certificate by certificate, in words for evidence."""
    if now.chain == before.chain:
        return "the same certificates, byte by byte"
    if now.chain[:1] == before.chain[:1]:
        return "the same leaf, another chain"
    if now.leaf_spki == before.leaf_spki:
        return "another certificate for the same key"
    return "another certificate"
