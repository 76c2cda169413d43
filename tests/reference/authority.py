"""A small certificate authority for the tests."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, pkcs12

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: str = "") -> bytes:
        sealed = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)


def issue(name: str, issuer: Issued | None = None, *, names: tuple[str, ...] = (), starts: int = -1, ends: int = 90) -> Issued:
    """Issue a certificate; an authority where no ``names`` are given. ``starts`` and ``ends`` in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=starts))
        .not_valid_after(NOW + dt.timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Chain:
    """Leaf, two intermediates, root, in the order they are served."""

    leaf: Issued
    inner: Issued
    outer: Issued
    root: Issued

    @property
    def all(self) -> tuple[Issued, ...]:
        return (self.leaf, self.inner, self.outer, self.root)

    @property
    def pem(self) -> bytes:
        return b"".join(one.pem for one in self.all)

    def p12(self, passphrase: str) -> bytes:
        others = [one.certificate for one in self.all[1:]]
        sealed = BestAvailableEncryption(passphrase.encode())
        return pkcs12.serialize_key_and_certificates(b"site", self.leaf.key, self.leaf.certificate, others, sealed)


def issue_chain(name: str = "support.example.test", **more: int) -> Chain:
    root = issue("Zoë's Root & <b>Sons</b>")
    outer = issue("Outer", root)
    inner = issue("Inner", outer)
    return Chain(issue(name, inner, names=(name, "*.support.example.test"), **more), inner, outer, root)
