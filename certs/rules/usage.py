"""What a certificate may be used for."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import Trust
from certs.cert import EXTENDED_USAGE, KEY_USAGE, SCT_LIST, Cert
from certs.findings import Case, Finding, Measure, Severity


def check_usage(case: Case) -> Iterator[Finding]:
    """The leaf's purposes and those of its issuers."""
    leaf = case.bundle.leaf
    if case.is_authority:
        yield case.find("ca_as_leaf", f"{leaf} is a certificate authority's own certificate, not a server's.", leaf, severity=Severity.INFO)
    elif leaf.is_ca:
        severity = Severity.WARNING if leaf.is_self_issued and case.is_usual else None
        yield case.find("ca_as_leaf", f"{leaf} is a certificate authority's own certificate, used as a server's.", leaf, severity=severity)
    if not case.is_authority:
        yield from _check_purposes(case, leaf)
        yield from _check_bits(case, leaf)
    for role, cert in case.roles():
        if role != "leaf":
            yield from _check_issuer(case, role, cert)
    yield from _check_promises(case, leaf)


def _check_purposes(case: Case, leaf: Cert) -> Iterator[Finding]:
    wanted, called = ("client_auth", "clients") if case.client else ("server_auth", "TLS servers")
    purposes = leaf.extended_usage
    if purposes is None:
        if leaf.find_extension(EXTENDED_USAGE) is None:
            yield case.find("usage_missing", f"{leaf} does not say what it is for (no extended key usage).", leaf)
    elif wanted in purposes:
        if "any_extended_key_usage" in purposes:
            yield case.find("any_usage", f"{leaf} allows every purpose (anyExtendedKeyUsage).", leaf)
        elif not case.client and "client_auth" not in purposes:
            yield case.find("no_client_auth", f"{leaf} is not for signing in to other servers (no clientAuth).", leaf)
    elif "any_extended_key_usage" in purposes:
        yield case.find("any_usage", f"{leaf} says 'any purpose' instead of {called}.", leaf)
    else:
        yield case.find("wrong_usage", f"{leaf} is not for {called}; it is for {', '.join(sorted(purposes)) or 'nothing'}.", leaf)


def _check_bits(case: Case, leaf: Cert) -> Iterator[Finding]:
    bits = leaf.key_usage
    if bits is None or case.client:
        return
    if "digital_signature" not in bits:
        fatal = isinstance(leaf.public_key, ec.EllipticCurvePublicKey) or "key_encipherment" not in bits
        severity = Severity.ERROR if fatal and case.measure is not Measure.RFC5280 else Severity.WARNING
        yield case.find(
            "wrong_usage", f"{leaf} may not make signatures (digitalSignature is missing): TLS 1.3 fails.", leaf, severity=severity
        )
    if "key_cert_sign" in bits and not leaf.is_ca:
        yield case.find("critical_wrong", f"{leaf} may sign certificates (keyCertSign) and is no authority.", leaf)


def _check_issuer(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    bits, purposes = cert.key_usage, cert.extended_usage
    if not cert.is_ca and (role != "root" or not case.is_usual or cert.raw.version == 3):
        yield case.find("not_a_ca", f"The {role} {cert} is no certificate authority (basicConstraints).", cert)
    if bits is not None and "key_cert_sign" not in bits:
        yield case.find("not_a_ca", f"The {role} {cert} may not sign certificates (keyUsage without keyCertSign).", cert)
    if bits is None and cert.find_extension(KEY_USAGE) is None and not case.is_usual and role != "root":
        yield case.find(
            "usage_missing", f"The {role} {cert} does not say that it may sign certificates (no keyUsage).", cert, severity=Severity.INFO
        )
    wanted = "client_auth" if case.client else "server_auth"
    if purposes is not None and role != "root" and not purposes & {wanted, "any_extended_key_usage"}:
        yield case.find("wrong_usage", f"The {role} {cert} may only issue for {', '.join(sorted(purposes))}.", cert)


def _check_promises(case: Case, leaf: Cert) -> Iterator[Finding]:
    if leaf.must_staple:
        yield case.find("must_staple", f"{leaf} demands a stapled OCSP answer (must-staple).", leaf)
    if case.bundle.trust is Trust.SYSTEM and not leaf.is_ca and leaf.find_extension(SCT_LIST) is None:
        yield case.find(
            "no_sct",
            f"{leaf} has no certificate transparency proof in it; a stapled one does not move with it.",
            leaf,
            severity=Severity.INFO,
        )
