"""The library's verifier as the last word: a final yes or no where the rules above found nothing."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509 import verification
from OpenSSL import crypto

from certs.bundle import Bundle, Trust
from certs.cert import MALFORMED, as_address
from certs.findings import Case, Measure
from certs.rules.names import ascii_name


def find_refusal(case: Case) -> str | None:
    """Why the library's verifier refuses the bundle's path; None where it accepts, or cannot be asked (no root, unparsable)."""
    bundle = case.bundle
    if bundle.root is None or bundle.trust is Trust.SELF_SIGNED:
        return None
    parsed = [cert.parsed for cert in (*bundle.certs, bundle.root)]
    certs = [cert for cert in parsed if cert is not None]
    if len(certs) != len(parsed):
        return None
    try:
        _verify(case, bundle, certs)
    except verification.VerificationError as error:
        return _find_openssl_refusal(case, certs) if _openssl_decides(case, bundle) else str(error)
    except MALFORMED:
        return None
    return None


def _openssl_decides(case: Case, bundle: Bundle) -> bool:
    """Where the library is stricter than RFC 5280.

    It counts certificates that an authority issued to itself toward path lengths, and refuses an authority's own certificate as a leaf.
    """
    return any(cert.is_self_issued for cert in bundle.chain) or (bundle.leaf.is_ca and case.measure is Measure.RFC5280)


def _find_openssl_refusal(case: Case, certs: list[x509.Certificate]) -> str | None:
    store = crypto.X509Store()
    store.set_time(case.at)
    store.add_cert(crypto.X509.from_cryptography(certs[-1]))
    above = [crypto.X509.from_cryptography(cert) for cert in certs[1:-1]]
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(certs[0]), above).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return None


def _verify(case: Case, bundle: Bundle, certs: list[x509.Certificate]) -> None:
    builder = verification.PolicyBuilder().store(verification.Store([certs[-1]])).time(case.at.replace(tzinfo=None))
    if case.max_depth is not None:
        builder = builder.max_chain_depth(case.max_depth)
    if case.measure is not Measure.WEBPKI:
        builder = builder.extension_policies(ca_policy=_lenient_authority(), ee_policy=_lenient())
    if case.client:
        builder.build_client_verifier().verify(certs[0], certs[1:-1])
        return
    for subject in _subjects(case, bundle):
        builder.build_server_verifier(subject).verify(certs[0], certs[1:-1])


def _lenient() -> verification.ExtensionPolicy:
    """Private authorities leave the authorityKeyIdentifier out; every client accepts that."""
    plain = verification.ExtensionPolicy.webpki_defaults_ee()
    return plain.may_be_present(x509.AuthorityKeyIdentifier, verification.Criticality.AGNOSTIC, None)


def _lenient_authority() -> verification.ExtensionPolicy:
    """RFC 5280 lets an authority leave keyUsage out; the Forum does not."""
    plain = verification.ExtensionPolicy.webpki_defaults_ca()
    return plain.may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, None)


def _subjects(case: Case, bundle: Bundle) -> list[verification.Subject]:
    hosts = list(case.hostnames) or [name for name in bundle.names.dns if not name.startswith("*")][:1] or list(bundle.names.addresses)[:1]
    found: list[verification.Subject] = []
    for host in hosts:
        address = as_address(host)
        found.append(x509.IPAddress(address) if address is not None else x509.DNSName(ascii_name(host)))
    return found
