"""Certificates as people upload and take them: PEM or PKCS#12 in, leaf, chain and key out, and back again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from .errors import Refused

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.*?-----END (?:[A-Z]+ )?PRIVATE KEY-----", re.DOTALL)
_WRONG_PASSPHRASE = "The private key could not be opened: the passphrase is wrong, or the file is damaged."  # noqa: S105 - a sentence


@dataclass(frozen=True)
class Upload:
    """What a file held. ``chain`` is in the file's order but for the leaf, which comes first; empty where only a key was given."""

    chain: tuple[x509.Certificate, ...]
    key: Any | None


def public_bytes(key: Any) -> bytes:
    """A public key in the form that two of them can be compared in."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def read_upload(content: bytes, passphrase: str) -> Upload:
    """Read PEM, PKCS#12 or a DER certificate.

    Raises:
        Refused: it is none of these, the passphrase is wrong, or key and certificates do not belong together.

    """
    if b"-----BEGIN " in content:
        found, keys = _read_pem(content, passphrase)
    else:
        found, keys = _read_binary(content, passphrase)
    if len(keys) > 1:
        raise Refused("The file holds more than one private key.")
    if not found and not keys:
        raise Refused("The file holds neither a certificate nor a private key.")
    key = keys[0] if keys else None
    return Upload(_leaf_first(found, key), key)


def _read_pem(content: bytes, passphrase: str) -> tuple[list[x509.Certificate], list[Any]]:
    return list(read_chain(content)), [_read_key(block, passphrase) for block in _KEY.findall(content)]


def read_chain(content: bytes) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM text, in its order (the library's own function for this is newer than Debian 12)."""
    try:
        return tuple(x509.load_pem_x509_certificate(block) for block in _CERTIFICATE.findall(content))
    except ValueError as error:
        raise Refused("A certificate in the file is damaged.") from error


def _read_key(block: bytes, passphrase: str) -> Any:
    is_sealed = b"ENCRYPTED" in block
    if is_sealed and not passphrase:
        raise Refused("The private key is encrypted: its passphrase is needed.")
    try:
        return load_pem_private_key(block, passphrase.encode() if is_sealed else None)
    except (ValueError, TypeError) as error:
        raise Refused(_WRONG_PASSPHRASE) from error


def _read_binary(content: bytes, passphrase: str) -> tuple[list[x509.Certificate], list[Any]]:
    try:
        return [x509.load_der_x509_certificate(content)], []
    except ValueError:
        pass
    try:
        key, leaf, more = pkcs12.load_key_and_certificates(content, passphrase.encode() or None)
    except ValueError as error:
        if content[:1] == b"\x30":  # a DER sequence, so it may well be PKCS#12
            raise Refused(_WRONG_PASSPHRASE) from error
        raise Refused("The file holds neither a certificate nor a private key.") from error
    return ([leaf] if leaf else []) + list(more), [key] if key else []


def _leaf_first(found: list[x509.Certificate], key: Any | None) -> tuple[x509.Certificate, ...]:
    unique = list(dict.fromkeys(found))
    if key is None or not unique:
        return tuple(unique)
    wanted = public_bytes(key.public_key())
    leaf = next((one for one in unique if public_bytes(one.public_key()) == wanted), None)
    if leaf is None:
        raise Refused("The private key does not belong to any certificate in the file.")
    return (leaf, *(one for one in unique if one != leaf))


@dataclass(frozen=True)
class Download:
    """An export: what the file is called, and its bytes."""

    name: str
    content: bytes


def write_export(
    chain: tuple[x509.Certificate, ...], key: Any | None, *, with_leaf: bool, with_chain: bool, passphrase: str, as_pkcs12: bool
) -> Download:
    """Write what the ticks of the export page ask for; ``key`` None where it was not ticked.

    PEM keeps the order of the chain and encrypts only the key; PKCS#12 needs a key and encrypts everything.
    """
    certificates = (chain[:1] if with_leaf else ()) + (chain[1:] if with_chain else ())
    if not certificates and key is None:
        raise Refused("Tick what shall be exported.")
    sealed: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", common_name(chain[0])) or "certificate"
    if key is not None and as_pkcs12 and with_leaf:
        content = pkcs12.serialize_key_and_certificates(
            common_name(chain[0]).encode(), key, chain[0], list(certificates[1:]) or None, sealed
        )
        return Download(f"{stem}.p12", content)
    parts = [one.public_bytes(Encoding.PEM) for one in certificates]
    if key is not None:
        parts.append(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    return Download(f"{stem}.pem", b"".join(parts))


def common_name(certificate: x509.Certificate, *, issuer: bool = False) -> str:
    """The common name of the subject (or issuer), the whole name where there is none."""
    name = certificate.issuer if issuer else certificate.subject
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def host_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its alternative names: DNS names and IP addresses, as text."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return (*names.get_values_for_type(x509.DNSName), *(str(one) for one in names.get_values_for_type(x509.IPAddress)))


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a browser would accept it for this host name; a star stands for one label."""
    host = host.lower().rstrip(".")
    for name in (name.lower() for name in host_names(certificate)):
        if name == host or (name.startswith("*.") and "." in host and host.split(".", 1)[1] == name[2:]):
            return True
    return False


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names fit and the issuer's key really made the signature."""
    if certificate.issuer != issuer.subject:
        return False
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    key, signed = issuer.public_key(), (certificate.signature, certificate.tbs_certificate_bytes)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            _verify_rsa(key, certificate, padding)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(*signed, ec.ECDSA(_hash_of(certificate)))
        else:
            key.verify(*signed)  # type: ignore[union-attr, call-arg]
    except Exception:  # noqa: BLE001 - whatever the reason, the signature is not the issuer's
        return False
    return True


def _verify_rsa(key: Any, certificate: x509.Certificate, padding: Any) -> None:
    algorithm = _hash_of(certificate)
    if certificate.signature_algorithm_oid == x509.SignatureAlgorithmOID.RSASSA_PSS:
        scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
    else:
        scheme = padding.PKCS1v15()
    key.verify(certificate.signature, certificate.tbs_certificate_bytes, scheme, algorithm)


def _hash_of(certificate: x509.Certificate) -> Any:
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:
        raise ValueError("no hash")
    return algorithm


def is_chain_complete(chain: tuple[x509.Certificate, ...]) -> bool:
    """Whether the leaf's issuer is there and no given certificate stands apart from the path that starts at the leaf.

    A root may be left out, so what issued the last certificate cannot be asked for.
    """
    path = [chain[0]]
    rest = list(chain[1:])
    while rest and not is_self_signed(path[-1]):
        issuer = next((one for one in rest if is_issued_by(path[-1], one)), None)
        if issuer is None:
            break
        path.append(issuer)
        rest.remove(issuer)
    return not rest and (len(path) > 1 or is_self_signed(path[0]))


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether it names itself as its issuer."""
    return certificate.issuer == certificate.subject
