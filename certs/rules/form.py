"""How a certificate is written: what RFC 5280 and the CA/Browser Forum say about each field and each extension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec

from certs.cert import (
    ALT_NAMES,
    AUTHORITY_ACCESS,
    AUTHORITY_KEY,
    BASIC_CONSTRAINTS,
    EXTENDED_USAGE,
    KEY_USAGE,
    MALFORMED,
    NAME_CONSTRAINTS,
    SUBJECT_KEY,
    TLS_FEATURE,
    Cert,
)
from certs.errors import CertsError
from certs.findings import Case, Finding, Measure, Severity
from certs.raw import OID, cut

POLICIES, POLICY_MAPPINGS, POLICY_CONSTRAINTS, INHIBIT_ANY = "2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54"
ISSUER_NAMES, SUBJECT_DIRECTORY, CRL_POINTS, FRESHEST = "2.5.29.18", "2.5.29.9", "2.5.29.31", "2.5.29.46"
POISON = "1.3.6.1.4.1.11129.2.4.3"
KNOWN = frozenset(
    {BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_USAGE, ALT_NAMES, AUTHORITY_KEY, SUBJECT_KEY, NAME_CONSTRAINTS, AUTHORITY_ACCESS, TLS_FEATURE}
    | {POLICIES, POLICY_MAPPINGS, POLICY_CONSTRAINTS, INHIBIT_ANY, ISSUER_NAMES, SUBJECT_DIRECTORY, CRL_POINTS, FRESHEST}
)
_MUST_NOT_BE_CRITICAL = {
    AUTHORITY_KEY: "authorityKeyIdentifier",
    SUBJECT_KEY: "subjectKeyIdentifier",
    AUTHORITY_ACCESS: "authorityInfoAccess",
}
EC_PUBLIC_KEY = bytes.fromhex("2a8648ce3d0201")
EMPTY_NAME = b"\x30\x00"


def check_form(case: Case) -> Iterator[Finding]:
    """Every certificate of the path."""
    for role, cert in case.roles():
        yield from _check_parse(case, cert)
        yield from _check_fields(case, role, cert)
        yield from _check_criticality(case, role, cert)
        yield from _check_identifiers(case, role, cert)
        yield from _check_authority(case, role, cert)


def _check_parse(case: Case, cert: Cert) -> Iterator[Finding]:
    if cert.parsed is None:
        yield case.find("malformed", f"{cert} is malformed: {cert.faults[0]}", cert, severity=Severity.WARNING if case.is_usual else None)
    for extension in cert.raw.extensions:
        if cert.extension(extension.oid) is None:
            yield case.find("malformed_extension", f"The extension {extension.oid} of {cert} is malformed.", cert)
    twice = [oid for oid, count in Counter(extension.oid for extension in cert.raw.extensions).items() if count > 1]
    if twice:
        yield case.find("duplicate_extension", f"{cert} has the extension {', '.join(twice)} more than once.", cert)
    for extension in cert.raw.extensions:
        if extension.critical and extension.oid not in KNOWN:
            what = (
                "It is a precertificate, made for logs only"
                if extension.oid == POISON
                else f"{cert} has the critical extension {extension.oid}"
            )
            yield case.find("unknown_critical", f"{what}, which clients do not know.", cert)


def _check_fields(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    raw = cert.raw
    if len(raw.serial.lstrip(b"\0")) > 20 or cert.serial <= 0:
        what = "negative" if cert.serial < 0 else "zero" if cert.serial == 0 else "longer than 20 bytes"
        severity = Severity.INFO if role == "root" else None  # old roots have the serial number 0
        yield case.find("bad_serial", f"The serial number of {cert} is {what}.", cert, severity=severity)
    if raw.version != 3 and (raw.extensions or role == "leaf"):
        yield case.find("bad_version", f"{cert} is a version {raw.version} certificate.", cert)
    if raw.inner_algorithm != raw.outer_algorithm:
        yield case.find("bad_algorithm", f"{cert} names two different signature algorithms, one inside and one outside.", cert)
    if raw.issuer == EMPTY_NAME:
        yield case.find("empty_subject", f"{cert} has no issuer name.", cert)
    if raw.subject == EMPTY_NAME and (cert.is_ca or role != "leaf"):
        yield case.find("empty_subject", f"A certificate authority in the chain has no name ({cert.sha256[:12]}).", cert)
    if _has_explicit_curve(cert):
        yield case.find("explicit_curve", f"The key of {cert} spells out its curve instead of naming it.", cert)


def _has_explicit_curve(cert: Cert) -> bool:
    try:
        algorithm = cut(cert.raw.spki).children()[0].children()
    except (CertsError, IndexError):
        return False
    if len(algorithm) < 2 or algorithm[1].is_a(OID):
        return False
    return isinstance(cert.public_key, ec.EllipticCurvePublicKey) or algorithm[0].content == EC_PUBLIC_KEY


def _check_criticality(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    for extension in cert.raw.extensions:
        if extension.critical and extension.oid in _MUST_NOT_BE_CRITICAL:
            yield case.find("critical_wrong", f"{_MUST_NOT_BE_CRITICAL[extension.oid]} of {cert} is critical, and must not be.", cert)
    names, basic = cert.find_extension(ALT_NAMES), cert.find_extension(BASIC_CONSTRAINTS)
    if names and names.critical and cert.raw.subject != EMPTY_NAME:
        yield case.find("critical_alt_names", f"The alternative names of {cert} are critical although it has a subject.", cert)
    if names and not names.critical and cert.raw.subject == EMPTY_NAME:
        yield case.find("critical_wrong", f"The alternative names of {cert} are not critical although it has no subject.", cert)
    if basic and not basic.critical and (cert.is_ca or role != "leaf"):
        yield case.find("critical_wrong", f"basicConstraints of {cert} are not critical.", cert)
    limits = cert.find_extension(NAME_CONSTRAINTS)
    if limits and not limits.critical:
        severity = Severity.INFO if case.measure is Measure.WEBPKI else None  # the Forum allows what the RFC forbids
        yield case.find("critical_wrong", f"The name constraints of {cert} are not critical.", cert, severity=severity)
    policy = cert.find_extension(POLICY_CONSTRAINTS)
    if policy and not policy.critical:
        yield case.find("bad_policy", f"policyConstraints of {cert} are not critical.", cert, severity=_info_if_usual(case))
    purposes = cert.find_extension(EXTENDED_USAGE)
    if purposes and purposes.critical and case.measure is Measure.WEBPKI:
        yield case.find("critical_wrong", f"extendedKeyUsage of {cert} is critical.", cert)


def _info_if_usual(case: Case) -> Severity | None:
    return Severity.INFO if case.is_usual else None


def _check_identifiers(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    own, above = cert.find_extension(SUBJECT_KEY), cert.find_extension(AUTHORITY_KEY)
    if cert.is_ca and own is None and cert.raw.version == 3:
        yield case.find("bad_key_identifier", f"The authority {cert} has no subjectKeyIdentifier.", cert)
    if above is None and not cert.is_self_issued and cert.raw.version == 3:
        severity = Severity.INFO if role == "root" else None  # nobody looks above a trusted certificate
        yield case.find(
            "bad_key_identifier", f"{cert} does not name the key of its issuer (authorityKeyIdentifier).", cert, severity=severity
        )
    if above is not None and not cert.is_self_issued and cert.extension(AUTHORITY_KEY) is not None and cert.authority_key_id is None:
        yield case.find("bad_key_identifier", f"The authorityKeyIdentifier of {cert} has no keyIdentifier.", cert)
    if role == "root" and above is not None and case.measure is Measure.WEBPKI:
        yield from _check_root_identifier(case, cert)


def _check_root_identifier(case: Case, cert: Cert) -> Iterator[Finding]:
    found = cert.extension(AUTHORITY_KEY)
    if found is None:
        return
    if cert.authority_key_id is None:
        yield case.find("bad_key_identifier", f"The authorityKeyIdentifier of the root {cert} has no keyIdentifier.", cert)
    elif cert.is_self_issued and cert.authority_key_id != cert.subject_key_id:
        yield case.find("bad_key_identifier", f"The two key identifiers of the root {cert} differ.", cert)
    for field in ("authority_cert_issuer", "authority_cert_serial_number"):
        if not isinstance(found[field], core.Void) and found[field].native is not None:
            yield case.find("bad_key_identifier", f"The authorityKeyIdentifier of the root {cert} has {field.replace('_', ' ')}.", cert)


def _check_authority(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    if role == "leaf" and not cert.is_ca and cert.find_extension(NAME_CONSTRAINTS) is not None:
        yield case.find("bad_name_constraints", f"{cert} is no authority and has name constraints.", cert)
    if role == "root" and cert.find_extension(EXTENDED_USAGE) is not None and case.measure is Measure.WEBPKI:
        yield case.find("wrong_usage", f"The root {cert} has an extended key usage.", cert)
    access = cert.extension(AUTHORITY_ACCESS)
    if access is not None and _is_empty(access):
        yield case.find("bad_access_information", f"The authorityInfoAccess of {cert} is empty.", cert)


def _is_empty(found: core.Asn1Value) -> bool:
    try:
        return len(found) == 0
    except MALFORMED:
        return True
