"""A small private PKI for the tests: root, one intermediate, a leaf for a name."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, pkcs12

from kit.secret import Secret

NAME = "support.example.test"


@dataclass(frozen=True)
class Bundle:
    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey

    def to_pkcs12(self, passphrase: Secret) -> bytes:
        leaf, *others = self.chain
        return pkcs12.serialize_key_and_certificates(b"bundle", self.key, leaf, others, BestAvailableEncryption(passphrase.to_bytes()))

    def to_seed(self) -> dict[str, object]:
        """As the box's seed command takes it."""
        plain = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {"certificate_pem": b"".join(one.public_bytes(Encoding.PEM) for one in self.chain).decode(), "key_pem": plain.decode()}


def make_bundle(host: str = NAME) -> Bundle:
    root_key, middle_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _issue("Test Root", None, root_key, root_key, ca=True)
    middle = _issue("Test Intermediate", root, root_key, middle_key, ca=True)
    leaf = _issue(host, middle, middle_key, leaf_key, ca=False)
    return Bundle((leaf, middle, root), leaf_key)


def _issue(
    name: str, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=300))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
