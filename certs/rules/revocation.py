"""Revocation lists that were given with the certificates. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

from cryptography import x509

from certs.cert import MALFORMED, Cert, same_name
from certs.findings import Case, Finding, Severity


def check_revocation(case: Case) -> Iterator[Finding]:
    """Each certificate of the path against the lists of its issuer."""
    lists = [_load(der) for der in case.crls]
    path = case.bundle.path
    for below, above in pairwise(path):
        for crl in lists:
            if crl is not None and _is_of(crl, above):
                yield from _check_list(case, crl, below, above)


def _load(der: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_pem_x509_crl(der) if der.lstrip().startswith(b"-----") else x509.load_der_x509_crl(der)
    except MALFORMED:
        return None


def _is_of(crl: x509.CertificateRevocationList, issuer: Cert) -> bool:
    try:
        return same_name(crl.issuer.public_bytes(), issuer.raw.subject) and crl.is_signature_valid(issuer.public_key)  # type: ignore[arg-type]
    except MALFORMED:
        return False


def _check_list(case: Case, crl: x509.CertificateRevocationList, cert: Cert, issuer: Cert) -> Iterator[Finding]:
    if issuer.key_usage is not None and "crl_sign" not in issuer.key_usage:
        yield case.find("bad_crl", f"{issuer} may not sign revocation lists (keyUsage without cRLSign), and did.", issuer)
    yield from _check_number(case, crl, issuer)
    if crl.next_update_utc is not None and crl.next_update_utc < case.at:
        sentence = f"The revocation list of {issuer} is out of date since {_day(crl.next_update_utc)}."
        yield case.find("bad_crl", sentence, issuer, severity=Severity.WARNING)
    try:
        entry = crl.get_revoked_certificate_by_serial_number(cert.serial)
    except MALFORMED as error:
        yield case.find("bad_crl", f"The revocation list of {issuer} is malformed: {error}.", issuer)
        return
    if entry is not None:
        yield case.find("revoked", f"{cert} was revoked by {issuer} on {_day(entry.revocation_date_utc)}.", cert)


def _check_number(case: Case, crl: x509.CertificateRevocationList, issuer: Cert) -> Iterator[Finding]:
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber)
    except x509.ExtensionNotFound:
        yield case.find("bad_crl", f"The revocation list of {issuer} has no number (CRLNumber).", issuer)
        return
    except MALFORMED as error:
        yield case.find("bad_crl", f"The revocation list of {issuer} is malformed: {error}.", issuer)
        return
    if number.critical:
        yield case.find("bad_crl", f"The number of the revocation list of {issuer} is critical, and must not be.", issuer)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")
