"""Certificates for tests, made on the spot: an authority, what it issues, and the faults that are planted in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from certs.bundle import Bundle
from certs.cert import Cert
from certs.read import read_bundle
from certs.roots import Roots
from kit.secret import Secret

NOW = datetime.now(UTC).replace(microsecond=0)
HOSTILE = Secret("a!b@c$ 'd\"e\\;ñ")
HOST = "box.example.com"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def cert(self) -> Cert:
        return Cert(self.der)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def key_as(self, form: PrivateFormat, passphrase: Secret | None = None, *, encoding: Encoding = Encoding.PEM) -> bytes:
        hidden: KeySerializationEncryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.reveal().encode())
        return self.key.private_bytes(encoding, form, hidden)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: Any = None,
    ca: bool = False,
    names: Sequence[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    path_length: int | None = None,
    purposes: Sequence[x509.ObjectIdentifier] | None = (Purpose.SERVER_AUTH,),
    usage: Sequence[str] | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    subject: x509.Name | None = None,
    identifiers: bool = True,
) -> Issued:
    """One certificate; self-signed without ``issuer``. Well-formed by every rule unless asked otherwise."""
    own = key or new_key()
    signer = issuer.key if issuer else own
    called = subject if subject is not None else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(issuer.certificate.subject if issuer else called)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start or NOW - timedelta(days=1))
        .not_valid_after(end or NOW + timedelta(days=3650 if ca else 300))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    bits = usage if usage is not None else (("key_cert_sign", "crl_sign") if ca else ("digital_signature",))
    builder = builder.add_extension(_usage(bits), critical=True)
    if identifiers:
        above = issuer.certificate.public_key() if issuer else own.public_key()
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
    if not ca:
        wanted = [name] if names is None else list(names)
        if wanted:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(each) for each in wanted]), critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest), own)


def _usage(bits: Sequence[str]) -> x509.KeyUsage:
    every = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    return x509.KeyUsage(**{bit: bit in bits for bit in (*every.split(), "encipher_only", "decipher_only")})


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class World:
    """A root, an intermediate and a leaf, all in order."""

    root: Issued
    middle: Issued
    leaf: Issued

    @property
    def roots(self) -> Roots:
        return Roots([self.root.cert])

    @property
    def pems(self) -> list[bytes]:
        return [self.leaf.pem, self.middle.pem, self.root.pem, self.leaf.key_pem]

    def bundle(self, **kwargs: Any) -> Bundle:
        """Read back from PEM, the root trusted."""
        return read_bundle([self.leaf.pem + self.middle.pem, self.leaf.key_pem], roots=self.roots, **kwargs)


def new_world(**leaf: Any) -> World:
    root = issue("Test Root", ca=True)
    middle = issue("Test Intermediate", root, ca=True, path_length=0)
    return World(root, middle, issue(leaf.pop("name", HOST), middle, **leaf))
