"""A private certificate authority for the demo: a root, two intermediates, a leaf for the site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_BITS, LEAF_BITS = 2048, 3072
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Issued:
    """PEM texts. ``chain`` is leaf first, root left out; ``key`` is the leaf's, unencrypted: it goes straight into the box."""

    root: str
    chain: str
    key: str


def issue(name: str) -> Issued:
    """A new root, two intermediates below it, and a leaf for ``name``."""
    root_key, root = _make_ca("Demo Root", None, None, depth=2)
    upper_key, upper = _make_ca("Demo Policy CA", root, root_key, depth=1)
    lower_key, lower = _make_ca("Demo Issuing CA", upper, upper_key, depth=0)
    key = rsa.generate_private_key(65537, LEAF_BITS)
    leaf = (
        _begin(name, lower, key.public_key(), YEAR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signing=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(lower_key.public_key()), critical=False)
        .sign(lower_key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Issued(_pem(root), "".join(_pem(cert) for cert in (leaf, lower, upper)), secret.decode())


def _make_ca(
    name: str, issuer: x509.Certificate | None, issuer_key: rsa.RSAPrivateKey | None, *, depth: int
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(65537, CA_BITS)
    signer = issuer_key or key
    builder = (
        _begin(name, issuer, key.public_key(), 10 * YEAR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signing=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return key, builder.sign(signer, hashes.SHA256())


def _begin(name: str, issuer: x509.Certificate | None, key: rsa.RSAPublicKey, life: timedelta) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=False,
        key_encipherment=signing,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signing,
        crl_sign=not signing,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
