"""The chain: complete, trusted, signed link by link."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from certs.bundle import Trust
from certs.cert import Cert, Signed, same_name
from certs.chain import MAX_DEPTH, WEAK
from certs.findings import Case, Finding, Severity


def check_chain(case: Case) -> Iterator[Finding]:
    """What the top of the path is, and who signed whom."""
    bundle = case.bundle
    severity = Severity.INFO if case.allow_private or case.is_authority else None
    if bundle.trust is Trust.UNKNOWN:
        yield from _check_missing(case, bundle.certs[-1])
    elif bundle.trust is Trust.SELF_SIGNED:
        yield case.find("self_signed", f"{bundle.leaf} is self-signed: no authority vouches for it.", bundle.leaf, severity=severity)
    elif bundle.trust is Trust.GIVEN:
        yield case.find(
            "private_ca", f"The chain ends in {bundle.root}, which this machine does not trust.", bundle.root, severity=severity
        )
    if bundle.paths:
        listed = "; ".join(" → ".join(str(cert) for cert in path) for path in bundle.paths[:5])
        yield case.find("other_paths", f"There are {len(bundle.paths)} other paths: {listed}.")
    if bundle.others:
        yield case.find("unused_certificates", "Not part of the chain: " + ", ".join(str(cert) for cert in bundle.others[:20]) + ".")


def _check_missing(case: Case, top: Cert) -> Iterator[Finding]:
    wrong = [cert for cert in case.bundle.others if same_name(cert.raw.subject, top.raw.issuer)]
    if any(top.check_signed_by(cert) is Signed.YES for cert in wrong):
        sentence = f"The chain goes on above {top}, deeper than {MAX_DEPTH} intermediates or in a circle, and ends in no root."
        yield case.find("path_too_long", sentence, top)
        return
    for cert in wrong[:10]:
        if top.check_signed_by(cert) is Signed.NO:
            yield case.find("not_signed_by", f"{cert} has the name of the issuer of {top}, and another key made the signature.", cert)
    wanted = f", key identifier {top.authority_key_id.hex()}" if top.authority_key_id else ""
    where = f"; it can be fetched from {top.issuer_urls[0]}" if top.issuer_urls else ""
    if not wrong:
        # A private authority's root is rarely sent along: with an intermediate above the leaf, nothing else need be missing.
        severity = None if not case.allow_private else Severity.INFO if top.is_ca and case.bundle.chain else Severity.WARNING
        yield case.find("issuer_missing", f"The issuer of {top} is missing: {top.issuer}{wanted}{where}.", top, severity=severity)


def check_signatures(case: Case) -> Iterator[Finding]:
    """The hash of every signature, and those that nothing here can check."""
    path = case.bundle.path
    for role, cert in case.roles():
        used = cert.signature_hash
        if used in WEAK and role == "root":
            yield case.find("weak_root_signature", f"The root {cert} signed itself with {used.upper()}.", cert)
        elif used in WEAK and not (role == "leaf" and cert.is_self_issued):
            yield case.find("weak_signature", f"{cert} is signed with {used.upper()}.", cert)
        elif used in WEAK:
            yield case.find("weak_signature", f"{cert} signed itself with {used.upper()}.", cert, severity=Severity.WARNING)
    for below, above in pairwise(path):
        if below.check_signed_by(above) is Signed.UNKNOWN:
            yield case.find(
                "signature_unknown", f"Whether {above} signed {below} could not be told: the algorithm is not known here.", below
            )
