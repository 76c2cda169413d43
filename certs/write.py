"""Writing a bundle for a target: as bytes in memory, or as a private file. Read back and compared before anyone is told it worked."""

from __future__ import annotations

import base64
import secrets
import string
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asn1crypto import keys as asn1_keys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.bundle import Bundle
from certs.cert import Cert
from certs.errors import CertsError, NotWritableError, WriteMismatchError
from certs.key import Key
from certs.limits import MAX_ROUNDS
from certs.pfx import Bags, build_pfx, encryption
from certs.read import read_contents
from certs.targets import Cipher, Profile, Target
from kit.errors import FailedError
from kit.files import write_private
from kit.secret import Secret

LETTERS = string.ascii_letters + string.digits


def generate_passphrase() -> Secret:
    """Twenty ASCII letters and digits (119 bits): no program and no keyboard can spell it wrongly."""
    return Secret("".join(secrets.choice(LETTERS) for _ in range(20)))


def write_bundle(
    bundle: Bundle, target: Target, passphrase: Secret | None, *, keep_root: bool = False, alias: str = "", rounds: int | None = None
) -> bytes:
    """The bundle as its target wants it, read back and compared.

    ``passphrase`` may be None only for a target whose key is not encrypted. ``keep_root`` appends the root, where it is known.
    ``alias`` is PKCS#12's friendly name (the leaf's name where ""). ``rounds`` replaces the profile's.

    Raises:
        NotWritableError: the target cannot hold it, or a passphrase is missing.
        WriteMismatchError: what was written does not read back the same.

    """
    profile = target.profile if rounds is None else replace(target.profile, rounds=rounds)
    if profile.container == "pem":
        return write_pem(bundle, passphrase if profile.cipher is not Cipher.NONE else None, keep_root=keep_root, rounds=profile.rounds)
    return write_pkcs12(bundle, passphrase, profile, keep_root=keep_root, alias=alias)


def write_pkcs12(
    bundle: Bundle, passphrase: Secret | None, profile: Profile | Target = Target.MODERN, *, keep_root: bool = False, alias: str = ""
) -> bytes:
    """A PKCS#12 file: leaf, key (where there is one) and chain. Certificates go in byte for byte, also those the library cannot parse.

    Raises:
        NotWritableError, WriteMismatchError: as in :func:`write_bundle`.

    """
    wanted = profile.profile if isinstance(profile, Target) else profile
    if wanted.container != "pkcs12":
        raise NotWritableError(f"The target {wanted.target.value} is no PKCS#12 profile.", hint="Use write_bundle.")
    if not passphrase:
        raise NotWritableError(
            "A PKCS#12 file needs a passphrase; several programs refuse an empty one.", hint="Give one, or let one be generated."
        )
    _verify_allowed(bundle, wanted)
    certs = _certs(bundle, keep_root=keep_root or wanted.keep_root)
    private = pkcs8(bundle.key) if bundle.key else None
    written = build_pfx(Bags(tuple(cert.der for cert in certs), private, alias or bundle.leaf.name), passphrase, wanted)
    verify_written(written, certs, bundle.key, passphrase)
    return written


def _verify_allowed(bundle: Bundle, profile: Profile) -> None:
    """FIPS 186-5 keys only, where the target is a FIPS machine: no silent downgrade."""
    if profile.target is not Target.FIPS:
        return
    for cert in bundle.certs:
        kind = cert.key_kind
        weak = kind.startswith("RSA-") and int(kind[4:]) < 2048
        if weak or not kind.startswith(("RSA-", "P-256", "P-384", "P-521")):
            raise NotWritableError(
                f"{cert} has a {kind} key, which FIPS mode refuses.", hint="Use RSA with 2,048 bits or more, P-256 or P-384."
            )


def write_pem(
    bundle: Bundle, passphrase: Secret | None = None, *, keep_root: bool = False, rounds: int = Target.PEM.profile.rounds
) -> bytes:
    """PEM: leaf, chain, then the key; under ``passphrase`` as PKCS#8 with AES-256 and PBKDF2, bare where that is None.

    Raises:
        WriteMismatchError: what was written does not read back the same.

    """
    certs = _certs(bundle, keep_root=keep_root)
    parts = [pem("CERTIFICATE", cert.der) for cert in certs]
    if bundle.key is not None:
        parts.append(write_key(bundle.key, passphrase, rounds=rounds))
    written = b"".join(parts)
    verify_written(written, certs, bundle.key, passphrase)
    return written


def write_key(key: Key, passphrase: Secret | None, *, rounds: int = Target.PEM.profile.rounds) -> bytes:
    """The private key alone as PEM, PKCS#8; encrypted where there is a passphrase."""
    plain = pkcs8(key)
    if passphrase is None:
        return pem("PRIVATE KEY", plain)
    algorithm, content = encryption(plain, passphrase, Cipher.AES, rounds)
    info = asn1_keys.EncryptedPrivateKeyInfo({"encryption_algorithm": algorithm, "encrypted_data": content})
    return pem("ENCRYPTED PRIVATE KEY", info.dump())


def pem(label: str, der: bytes) -> bytes:
    """One PEM block, 64 characters a line."""
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


def pkcs8(key: Key) -> bytes:
    """The key as PKCS#8 DER, not encrypted: for memory only.

    Raises:
        NotWritableError: the library cannot serialise this kind.

    """
    try:
        return key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    except (ValueError, TypeError) as error:
        raise NotWritableError(
            f"The {key.kind} key cannot be written as PKCS#8: {error}.", hint="Use an RSA or elliptic-curve key."
        ) from error


def _certs(bundle: Bundle, *, keep_root: bool) -> tuple[Cert, ...]:
    return bundle.path if keep_root else bundle.certs


def verify_written(written: bytes, certs: Sequence[Cert], key: Key | None, passphrase: Secret | None) -> None:
    """Read ``written`` back: the same certificates byte for byte in the same order, and a key that signs for the same public key.

    Raises:
        WriteMismatchError: it does not read back the same.

    """
    found = read_contents(written, passphrase, max_rounds=MAX_ROUNDS)
    if found.failures:
        raise WriteMismatchError(
            f"What was written cannot be read back: {found.failures[0].sentence}", hint="Nothing was kept; report this."
        )
    if [cert.der for cert in found.certs] != [cert.der for cert in certs]:
        raise WriteMismatchError("The certificates do not read back the same.", hint="Nothing was kept; report this.")
    if [each.spki_sha256 for each in found.keys] != ([key.spki_sha256] if key else []):
        raise WriteMismatchError("The private key does not read back the same.", hint="Nothing was kept; report this.")
    if key is not None:
        verify_key_works(found.keys[0], key)


def verify_key_works(copy: Key, original: Key) -> None:
    """Sign with the copy, verify with the original's public half.

    Raises:
        WriteMismatchError: it does not verify.

    """
    text = secrets.token_bytes(32)
    private, public = copy.private, original.private.public_key()
    try:
        if isinstance(private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
            public.verify(private.sign(text, padding.PKCS1v15(), hashes.SHA256()), text, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(private.sign(text, ec.ECDSA(hashes.SHA256())), text, ec.ECDSA(hashes.SHA256()))
        elif isinstance(private, dsa.DSAPrivateKey) and isinstance(public, dsa.DSAPublicKey):
            public.verify(private.sign(text, hashes.SHA256()), text, hashes.SHA256())
        elif isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) and isinstance(
            public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
        ):
            public.verify(private.sign(text), text)
    except (InvalidSignature, ValueError) as error:
        raise WriteMismatchError(
            "The private key signs for another public key after writing.", hint="Nothing was kept; report this."
        ) from error


def verify_place(path: Path, *, overwrite: bool = False) -> None:
    """Whether a file may come to stand there. Only a plain file is ever replaced: not a link, a folder, a pipe, a device.

    Raises:
        NotWritableError: it may not.

    """
    if path.is_symlink():
        raise NotWritableError(f"{path} is a symbolic link; links are not followed.", hint="Name the file itself.")
    if path.exists() and not path.is_file():
        raise NotWritableError(f"{path} is there, and is no plain file.", hint="Choose another name.")
    if path.exists() and not overwrite:
        raise NotWritableError(f"{path} is there already.", hint="Choose another name, or say --overwrite.")
    if not path.parent.is_dir():
        raise NotWritableError(f"The folder {path.parent} is not there.", hint=f"mkdir -p {path.parent}")


def write_file(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write to disk: mode 0600 from the first byte, whole or not at all, read back and compared.

    Raises:
        NotWritableError: the file is there already, and ``overwrite`` was not said; see :func:`verify_place`.
        WriteMismatchError: the disk gives other bytes back.
        CertsError: it cannot be written.

    """
    verify_place(path, overwrite=overwrite)
    try:
        write_private(path, content)
        again = path.read_bytes()
    except FailedError as error:
        raise CertsError(error.sentence, hint=error.hint) from error
    except OSError as error:
        raise CertsError(f"{path} cannot be read back: {error.strerror}.", hint="Look at the disk.") from error
    if again != content:
        raise WriteMismatchError(f"{path} does not read back the same.", hint="Look at the disk, then write it again.")
