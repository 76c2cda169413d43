"""One certificate, as a value: its DER, and what can be read from it even where parts are malformed."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property, lru_cache

from asn1crypto import core
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.errors import CertsError, TooCostlyError
from certs.limits import MAX_CERTIFICATE
from certs.names import MALFORMED, AltNames, alt_names, as_address, folded_name, name_parts, name_text, same_name
from certs.raw import RawCert, RawExtension, cut_certificate
from kit.plain import spell_out

BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_USAGE = "2.5.29.19", "2.5.29.15", "2.5.29.37"
ALT_NAMES, AUTHORITY_KEY, SUBJECT_KEY = "2.5.29.17", "2.5.29.35", "2.5.29.14"
NAME_CONSTRAINTS, AUTHORITY_ACCESS, TLS_FEATURE = "2.5.29.30", "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.24"
SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
LONGEST_NAME = 200  # characters; RFC 5280 allows a common name 64

# The library names no hash for some of these; the link must still be checked before it is judged.
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "1.2.840.113549.1.1.4": hashes.MD5,
    "1.2.840.113549.1.1.5": hashes.SHA1,
    "1.3.14.3.2.29": hashes.SHA1,
    "1.2.840.113549.1.1.14": hashes.SHA224,
    "1.2.840.113549.1.1.11": hashes.SHA256,
    "1.2.840.113549.1.1.12": hashes.SHA384,
    "1.2.840.113549.1.1.13": hashes.SHA512,
    "1.2.840.10045.4.1": hashes.SHA1,
    "1.2.840.10045.4.3.1": hashes.SHA224,
    "1.2.840.10045.4.3.2": hashes.SHA256,
    "1.2.840.10045.4.3.3": hashes.SHA384,
    "1.2.840.10045.4.3.4": hashes.SHA512,
    "1.2.840.10040.4.3": hashes.SHA1,
    "2.16.840.1.101.3.4.3.1": hashes.SHA224,
    "2.16.840.1.101.3.4.3.2": hashes.SHA256,
}
_MD2 = "1.2.840.113549.1.1.2"
_PSS = "1.2.840.113549.1.1.10"


class Signed(Enum):
    """Whether a key made a signature."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "could not tell"


@dataclass(frozen=True, repr=False)
class Cert:
    """A certificate. Two are equal when every byte is. ``label`` is the name that a container gave it, ``where`` the file it came from.

    Raises:
        DamagedError: ``der`` has not the shape of a certificate. (A malformed field inside raises nothing: see ``faults``.)
        TooCostlyError: it is absurdly large.

    """

    der: bytes = field(repr=False)
    label: str = field(default="", compare=False)
    where: str = field(default="", compare=False)
    raw: RawCert = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.der) > MAX_CERTIFICATE:
            sentence = f"It is a certificate of {len(self.der):,} bytes; more than {MAX_CERTIFICATE:,} are not read."
            raise TooCostlyError(sentence, hint="No honest certificate is so large.")
        object.__setattr__(self, "raw", cut_certificate(self.der))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Cert {self.name} {self.sha256[:12]}>"

    @cached_property
    def parsed(self) -> x509.Certificate | None:
        """The library's view of it; None where the library refuses it (``faults`` says why)."""
        return self._parse[0]

    @cached_property
    def _parse(self) -> tuple[x509.Certificate | None, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return x509.load_der_x509_certificate(self.der), ""
        except MALFORMED as error:
            return None, str(error)

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """One sentence for each part that could not be decoded."""
        found = [] if self.parsed else [f"The library refuses it: {self._parse[1]}"]
        found += [f"Extension {extension.oid} is malformed." for extension in self.raw.extensions if self._decode(extension) is None]
        found += [f"The {end} is no valid date." for end in ("not_before", "not_after") if getattr(self, end) is None]
        return tuple(found)

    # Names

    @cached_property
    def subject(self) -> str:
        return name_text(self.raw.subject)

    @cached_property
    def issuer(self) -> str:
        return name_text(self.raw.issuer)

    @cached_property
    def common_name(self) -> str:
        """The last CN in the subject, "" where there is none."""
        return ([value for kind, value in name_parts(self.raw.subject) if kind == "common_name"] or [""])[-1]

    @cached_property
    def name(self) -> str:
        """What people call it: its CN, else its first alternative name, else its subject. Safe to show, and not endless."""
        found = spell_out(self.common_name) or (str(self.names).split(", ")[0] if self.names else "") or self.subject or "(no name)"
        return found if len(found) <= LONGEST_NAME else f"{found[:LONGEST_NAME]}…"

    @cached_property
    def names(self) -> AltNames:
        """The alternative names; empty where there are none or they are malformed."""
        found = self.extension(ALT_NAMES)
        return alt_names(found) if found is not None else AltNames()

    # Time

    @cached_property
    def not_before(self) -> datetime | None:
        return _moment(self.raw.not_before.whole)

    @cached_property
    def not_after(self) -> datetime | None:
        return _moment(self.raw.not_after.whole)

    # Identity

    @cached_property
    def serial(self) -> int:
        return int.from_bytes(self.raw.serial, "big", signed=True)

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the whole certificate, lower-case hex."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def sha1(self) -> str:
        """The older fingerprint that many appliances still show."""
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest()

    @cached_property
    def spki_sha256(self) -> str:
        """Fingerprint of its public key (the whole SubjectPublicKeyInfo), lower-case hex."""
        return hashlib.sha256(self.raw.spki).hexdigest()

    @cached_property
    def public_key(self) -> PublicKeyTypes | None:
        """None where the library knows no such key."""
        try:
            return self.parsed.public_key() if self.parsed else load_der_public_key(self.raw.spki)
        except MALFORMED:
            return None

    @cached_property
    def key_kind(self) -> str:
        """``RSA-2048``, ``P-256``, ``Ed25519``, ``unknown`` and so on."""
        return key_kind(self.public_key)

    # Extensions

    def extension(self, oid: str) -> core.Asn1Value | None:
        """The decoded extension; None where it is absent or malformed."""
        found = self.find_extension(oid)
        return self._decode(found) if found else None

    def find_extension(self, oid: str) -> RawExtension | None:
        """The extension as it is written, None where it is absent."""
        return next((extension for extension in self.raw.extensions if extension.oid == oid), None)

    def _decode(self, extension: RawExtension) -> core.Asn1Value | None:
        return _decode_extension(extension.oid, extension.value)

    @cached_property
    def is_ca(self) -> bool:
        """Whether basicConstraints says so (a version 1 certificate says nothing)."""
        found = self.extension(BASIC_CONSTRAINTS)
        return bool(found is not None and found["ca"].native)

    @cached_property
    def path_length(self) -> int | None:
        found = self.extension(BASIC_CONSTRAINTS)
        return None if found is None else found["path_len_constraint"].native

    @cached_property
    def key_usage(self) -> frozenset[str] | None:
        """Names of the bits (``digital_signature``, ``key_cert_sign`` …); None where the extension is absent or malformed."""
        found = self.extension(KEY_USAGE)
        return None if found is None else frozenset(found.native)

    @cached_property
    def extended_usage(self) -> frozenset[str] | None:
        """Names of the purposes (``server_auth``, ``client_auth``, ``any_extended_key_usage`` …), None where absent or malformed."""
        found = self.extension(EXTENDED_USAGE)
        return None if found is None else frozenset(found.native)

    @cached_property
    def subject_key_id(self) -> bytes | None:
        found = self.extension(SUBJECT_KEY)
        return None if found is None else found.native

    @cached_property
    def authority_key_id(self) -> bytes | None:
        found = self.extension(AUTHORITY_KEY)
        return None if found is None else found["key_identifier"].native

    @cached_property
    def must_staple(self) -> bool:
        """Whether clients will demand a stapled OCSP answer (status_request, feature 5)."""
        found = self.find_extension(TLS_FEATURE)
        return found is not None and b"\x02\x01\x05" in found.value

    @cached_property
    def issuer_urls(self) -> tuple[str, ...]:
        """Where its issuer's certificate can be fetched (AIA caIssuers), as it says."""
        found = self.extension(AUTHORITY_ACCESS)
        if found is None:
            return ()
        try:
            wanted = [item["access_location"] for item in found if item["access_method"].native == "ca_issuers"]
            return tuple(str(place.native) for place in wanted if place.name == "uniform_resource_identifier")
        except MALFORMED:
            return ()

    # Signature

    @cached_property
    def signature_oid(self) -> str:
        try:
            return str(asn1.SignedDigestAlgorithm.load(self.raw.outer_algorithm)["algorithm"].dotted)
        except MALFORMED:
            return ""

    @cached_property
    def signature_hash(self) -> str:
        """``sha256``, ``sha1``, ``md5`` …; "" for Ed25519 and the like, and where it is not known."""
        known = _HASHES.get(self.signature_oid)
        if known is not None or self.signature_oid == _MD2:
            return known().name if known else "md2"
        try:
            used = self.parsed.signature_hash_algorithm if self.parsed else None
        except MALFORMED:
            return ""
        return used.name if used else ""

    @cached_property
    def is_self_issued(self) -> bool:
        return same_name(self.raw.subject, self.raw.issuer)

    @cached_property
    def is_self_signed(self) -> bool:
        """Its own key made its signature, as far as that can be told (MD2 cannot be checked any more)."""
        return self.is_self_issued and self.check_signed_by(self) is not Signed.NO

    def check_signed_by(self, issuer: Cert) -> Signed:
        """Whether the issuer's key made this signature, SHA-1 and MD5 included. Looks at nothing but the key."""
        return _check_signature(self, issuer)


@lru_cache(maxsize=2048)
def _check_signature(cert: Cert, issuer: Cert) -> Signed:
    key = issuer.public_key
    if key is None:
        return Signed.UNKNOWN
    try:
        _verify(cert, key)
    except InvalidSignature:
        return Signed.NO
    except MALFORMED:
        return Signed.UNKNOWN
    return Signed.YES


def _verify(cert: Cert, key: PublicKeyTypes) -> None:
    signature, signed, known = cert.raw.signature, cert.raw.tbs, _HASHES.get(cert.signature_oid)
    if isinstance(
        key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
    ):
        key.verify(signature, signed)
    elif isinstance(key, rsa.RSAPublicKey) and cert.signature_oid == _PSS and cert.parsed is not None:
        scheme, used = cert.parsed.signature_algorithm_parameters, cert.parsed.signature_hash_algorithm
        if not isinstance(scheme, padding.PSS) or used is None:
            raise UnsupportedAlgorithm(cert.signature_oid)
        key.verify(signature, signed, scheme, used)
    elif known is None:
        raise UnsupportedAlgorithm(cert.signature_oid)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), known())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(known()))
    elif isinstance(key, dsa.DSAPublicKey):
        key.verify(signature, signed, known())
    else:
        raise UnsupportedAlgorithm(cert.signature_oid)


def key_kind(key: object) -> str:
    """What people call a key of this kind, public or private: ``RSA-2048``, ``P-256``, ``Ed25519``."""
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return f"RSA-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        common = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp192r1": "P-192", "secp224r1": "P-224"}
        return common.get(key.curve.name, key.curve.name)
    if isinstance(key, dsa.DSAPublicKey | dsa.DSAPrivateKey):
        return f"DSA-{key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey").lstrip("_") if key is not None else "unknown"


def _decode_extension(oid: str, value: bytes) -> core.Asn1Value | None:
    """The extension as asn1crypto knows it, every part of it touched, so that a fault deep inside shows here."""
    kind = asn1.Extension._oid_specs.get(asn1.ExtensionId.map(oid))  # noqa: SLF001 - the only table that maps identifiers to decoders
    try:
        found = (kind or core.Any).load(value, strict=True)
        _ = found.native if kind else found.contents
    except (*MALFORMED, CertsError):
        return None
    return found


def _moment(der: bytes) -> datetime | None:
    try:
        found = asn1.Time.load(der).native
    except MALFORMED:
        return None
    return found.astimezone(UTC) if isinstance(found, datetime) else None


__all__ = [
    "MALFORMED",
    "AltNames",
    "Cert",
    "Signed",
    "alt_names",
    "as_address",
    "folded_name",
    "key_kind",
    "name_parts",
    "name_text",
    "same_name",
]
