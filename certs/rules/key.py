"""The key: is it there, does it fit, is it of a kind that clients and appliances take."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from certs.bundle import mismatch
from certs.cert import Cert
from certs.findings import Case, Finding, Severity

_CURVES = frozenset({"secp256r1", "secp384r1"})
_PUBLIC_CURVES = _CURVES | {"secp521r1"}
RSA_PSS = bytes.fromhex("2a864886f70d01010a")


def check_key(case: Case) -> Iterator[Finding]:
    """The private key against the leaf."""
    bundle = case.bundle
    if bundle.key is None and bundle.spare_keys:
        error = mismatch(bundle.leaf, bundle.spare_keys, bundle.others)
        yield case.find("key_mismatch", error.sentence, bundle.leaf, hint=error.hint)
    elif bundle.key is None:
        severity = Severity.ERROR if case.need_key else Severity.INFO
        yield case.find("key_missing", f"There is no private key for {bundle.leaf}.", bundle.leaf, severity=severity)
    elif bundle.spare_keys:
        yield case.find("spare_keys", f"{len(bundle.spare_keys)} more private keys were given that do not belong to {bundle.leaf}.")


def check_strength(case: Case) -> Iterator[Finding]:
    """The public key of every certificate of the path."""
    for role, cert in case.roles():
        yield from _check_one(case, role, cert)


def _check_one(case: Case, role: str, cert: Cert) -> Iterator[Finding]:
    key, who = cert.public_key, f"the {role} {cert}" if role != "leaf" else str(cert)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            yield case.find("key_weak", f"The key of {who} is RSA with {key.key_size:,} bits.", cert)
        elif key.key_size % 8:
            yield case.find("key_weak", f"The key of {who} is RSA with {key.key_size:,} bits, which is no whole number of bytes.", cert)
        if RSA_PSS in cert.raw.spki[:30]:
            yield case.find("key_unusual", f"The key of {who} is restricted to RSA-PSS.", cert)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _PUBLIC_CURVES:
            yield case.find(
                "key_weak" if key.curve.key_size < 256 else "key_unusual", f"The key of {who} is on the curve {cert.key_kind}.", cert
            )
        elif key.curve.name not in _CURVES and case.is_usual:
            yield case.find("key_unusual", f"The key of {who} is on the curve {cert.key_kind}.", cert)
    elif isinstance(key, dsa.DSAPublicKey):
        yield case.find("key_weak", f"The key of {who} is DSA, which TLS has dropped.", cert)
    elif key is None:
        yield case.find("key_unusual", f"The key of {who} is of a kind that is not known here.", cert)
    else:
        yield case.find("key_unusual", f"The key of {who} is {cert.key_kind}.", cert)
