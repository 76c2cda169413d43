"""The ``.cert`` of a bundle: a signature over its manifest, and who made it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from images.import_errors import SignatureError, SourceError
from images.manifest import parse_algorithm
from kit.findings import Finding, Severity

LONGEST = 1 << 20
_SIGNATURE = re.compile(r"^\s*(?P<algorithm>[A-Za-z0-9-]+)\s*\((?P<name>[^)]*)\)\s*=\s*(?P<hex>[0-9A-Fa-f]+)\s*$", re.MULTILINE)
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - what old bundles are signed with; it is told as weak
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class Trust(StrEnum):
    """What is known of who shipped a bundle."""

    TRUSTED = "signed and trusted"
    UNKNOWN = "signed by unknown"
    UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Signer:
    """``name``: the certificate's subject, empty where there is none. ``reason``: why it is not trusted."""

    trust: Trust
    name: str = ""
    reason: str = ""
    weak: bool = False


UNSIGNED = Signer(Trust.UNSIGNED)


def read_anchors(paths: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    """The certificates whose signatures are trusted, from PEM files.

    Raises:
        SourceError: a file cannot be read, or holds none.

    """
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            found += x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} holds no certificates in PEM form that can be read.", hint="--trust takes PEM files.") from error
    return tuple(found)


def verify_signature(
    raw: bytes, manifest: bytes, name: str, *, anchors: Sequence[x509.Certificate] = (), now: datetime | None = None
) -> Signer:
    """Who signed the manifest of that name.

    Raises:
        SignatureError: the file cannot be read, or the signature is not one over this manifest.

    """
    text = raw[: LONGEST + 1].decode("utf-8", errors="replace")
    head = text.partition("-----BEGIN")[0]
    match = _SIGNATURE.search(head)
    algorithm = parse_algorithm(match["algorithm"]) if match else ""
    if len(raw) > LONGEST or match is None or not algorithm or len(match["hex"]) % 2:
        raise SignatureError("The certificate of the bundle holds no signature that can be read.", hint="Ask for the bundle anew.")
    if match["name"].strip() and match["name"].strip().removeprefix("./") != name:
        raise SignatureError(f"The signature is over {match['name'][:100]!r}, not over this bundle's manifest {name!r}.")
    leaf, *others = _certificates(raw)
    _verify_bytes(leaf, bytes.fromhex(match["hex"]), manifest, _HASHES[algorithm])
    reason = _find_distrust(leaf, others, anchors, now or datetime.now(UTC))
    trust = Trust.UNKNOWN if reason else Trust.TRUSTED
    return Signer(trust, leaf.subject.rfc4514_string(), reason, weak=algorithm == "sha1")


def check_signer(signer: Signer) -> tuple[Finding, ...]:
    """What a person should know of the signature."""
    found = []
    if signer.trust is Trust.UNKNOWN:
        found.append(
            Finding(
                "ovf.unknown-signer",
                Severity.WARNING,
                f"The bundle is signed by {signer.name}, who is not known here: {signer.reason}.",
                "Ask the vendor for the certificate of its authority and give it with --trust.",
            )
        )
    if signer.trust is Trust.UNSIGNED:
        found.append(Finding("ovf.unsigned", Severity.NOTE, "The bundle is not signed: who made it cannot be told."))
    if signer.weak:
        found.append(Finding("ovf.weak-signature", Severity.WARNING, "The signature is over SHA-1, which can be forged."))
    return tuple(found)


def _certificates(raw: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise SignatureError("The certificate of the bundle cannot be read.", hint="Ask for the bundle anew.") from error


def _verify_bytes(leaf: x509.Certificate, signature: bytes, content: bytes, algorithm: hashes.HashAlgorithm) -> None:
    try:
        key = leaf.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), algorithm)
            return
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(algorithm))
            return
    except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            "The signature does not fit the manifest: one of them was changed.", hint="Do not use this bundle; ask who made it."
        ) from error
    raise SignatureError("The bundle is signed with a kind of key that is not known.", hint="RSA and elliptic curves are.")


def _find_distrust(leaf: x509.Certificate, others: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime) -> str:
    """Why the signer is not trusted; empty where it is."""
    try:
        if now < leaf.not_valid_before_utc or now > leaf.not_valid_after_utc:
            return f"its certificate was valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        if not anchors:
            return "no trusted certificate was given"
        if leaf in anchors:
            return ""
        # A certificate for signing code names no server, so no policy of the web fits it; those that issued it must be authorities.
        policy = PolicyBuilder().store(Store(list(anchors))).time(now)
        policy = policy.extension_policies(
            ee_policy=ExtensionPolicy.permit_all().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _permits_signing),
            ca_policy=ExtensionPolicy.webpki_defaults_ca(),
        )
        policy.build_client_verifier().verify(leaf, list(others))
    except (VerificationError, ValueError) as error:
        return f"its chain leads to none of the trusted certificates ({str(error).splitlines()[0][:200]})"
    return ""


def _permits_signing(_policy: object, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    wanted = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and not wanted & set(usage):
        raise ValueError("its certificate is not for signing code")
