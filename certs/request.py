"""A signing request that repeats a certificate: for the key that cannot be exported."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from certs.cert import MALFORMED, Cert, as_address
from certs.errors import UnsupportedError
from certs.key import Key, wrap_key

_REPEATED = (x509.KeyUsage, x509.ExtendedKeyUsage, x509.TLSFeature)


@dataclass(frozen=True)
class Request:
    """A signing request as PEM, the key it is for, and what could not be repeated, one sentence each."""

    pem: bytes
    key: Key = field(repr=False)
    left_out: tuple[str, ...] = ()


def make_request(cert: Cert, key: Key | None = None) -> Request:
    """Ask for the same again: subject, alternative names, purposes, and a key of the same kind, new unless ``key`` is given.

    Raises:
        UnsupportedError: the kind of key cannot be made here.

    """
    used = key or wrap_key(_make_key(cert))
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(cert))
    left_out: list[str] = []
    names = _names(cert, left_out)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in _extensions(cert):
        if isinstance(extension.value, _REPEATED):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    signer = used.private
    if not isinstance(signer, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise UnsupportedError(f"A {used.kind} key cannot sign a request.", hint="Use an RSA, P-256 or P-384 key.")
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return Request(builder.sign(signer, digest).public_bytes(Encoding.PEM), used, tuple(left_out))


def _make_key(cert: Cert) -> PrivateKeyTypes:
    kind = cert.public_key
    if isinstance(kind, rsa.RSAPublicKey):
        return rsa.generate_private_key(65537, max(2048, kind.key_size // 8 * 8))
    if isinstance(kind, ec.EllipticCurvePublicKey):
        return ec.generate_private_key(kind.curve if kind.curve.key_size >= 256 else ec.SECP256R1())
    if isinstance(kind, ed25519.Ed25519PublicKey):
        return ed25519.Ed25519PrivateKey.generate()
    if isinstance(kind, ed448.Ed448PublicKey):
        return ed448.Ed448PrivateKey.generate()
    raise UnsupportedError(f"A new key of the kind {cert.key_kind} cannot be made here.", hint="Give a key with --key.")


def _subject(cert: Cert) -> x509.Name:
    try:
        if cert.parsed is not None:
            return cert.parsed.subject
    except MALFORMED:
        pass
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cert.name[:64])])


def _names(cert: Cert, left_out: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(cert.names.dns or ((cert.common_name,) if "." in cert.common_name and not cert.names else ())):
        try:
            found.append(x509.DNSName(name))
        except ValueError:
            left_out.append(f"The name {name!r} is malformed and was left out.")
    for text in cert.names.addresses:
        address = as_address(text)
        if address is not None:
            found.append(x509.IPAddress(address))
    left_out += [f"The alternative name {other} was left out." for other in cert.names.other]
    return found


def _extensions(cert: Cert) -> list[x509.Extension[x509.ExtensionType]]:
    try:
        return list(cert.parsed.extensions) if cert.parsed else []
    except MALFORMED:
        return []
