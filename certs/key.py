"""One private key, as a value that does not print itself, and the ways in which keys are stored."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import NoReturn

from asn1crypto import keys as asn1
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key, load_pem_private_key
from OpenSSL import crypto

from certs.backend import read_backend
from certs.cert import MALFORMED, Cert, key_kind
from certs.errors import CertsError, DamagedError, LegacyCipherError, PassphraseNeededError, UnsupportedError, WrongPassphraseError
from certs.pbe import EMPTY, Effort, Phrase, Scheme, decrypt, missing_cipher, read_scheme
from certs.sniff import Kind, find_kind

WRONG = "Ask who exported the file; passphrases are case-sensitive."


@dataclass(frozen=True)
class Key:
    """A private key. Prints its kind and the fingerprint of its public half; cannot be pickled.

    ``encrypted`` says whether it was stored under a passphrase, ``how`` what decoded it, ``link`` is PKCS#12's localKeyID, ``where`` the
    file it came from.
    """

    private: PrivateKeyTypes = field(repr=False, compare=False)
    spki_sha256: str
    encrypted: bool = field(default=False, compare=False)
    how: str = field(default="cryptography", compare=False)
    label: str = field(default="", compare=False)
    link: bytes = field(default=b"", compare=False, repr=False)
    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """``RSA-2048``, ``P-256``, ``Ed25519`` and so on."""
        return key_kind(self.private)

    def fits(self, cert: Cert) -> bool:
        """Whether the certificate is for this key."""
        if cert.spki_sha256 == self.spki_sha256:
            return True
        try:
            return cert.public_key is not None and bool(cert.public_key == self.private.public_key())
        except MALFORMED:
            return False

    def __str__(self) -> str:
        return f"{self.kind} key {self.spki_sha256[:16]}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never serialised by accident")


def wrap_key(private: PrivateKeyTypes, *, encrypted: bool = False, how: str = "cryptography", label: str = "", link: bytes = b"") -> Key:
    """The library's key as ours."""
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(private, hashlib.sha256(spki).hexdigest(), encrypted, how, label, link)


def read_plain_key(der: bytes, *, encrypted: bool = False, label: str = "", link: bytes = b"", how: str = "") -> Key:
    """A key that is not encrypted: PKCS#8, PKCS#1, SEC 1 or DSA, as DER. The library first, then OpenSSL's own decoders.

    Raises:
        UnsupportedError: an algorithm or curve that nothing here knows.
        DamagedError: not well-formed, or its numbers do not fit each other.

    """
    reason = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wrap_key(load_der_private_key(der, None), encrypted=encrypted, label=label, link=link, how=how or "cryptography")
    except MALFORMED as error:
        reason = str(error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = crypto.load_privatekey(crypto.FILETYPE_ASN1, der).to_cryptography_key()
        return wrap_key(found, encrypted=encrypted, label=label, link=link, how="pyOpenSSL")  # type: ignore[arg-type]
    except (*MALFORMED, crypto.Error):
        pass
    algorithm = _algorithm_of(der)
    if any(word in reason for word in ("nsupported", "nknown key", "not supported", "explicit parameters")) or (
        algorithm and algorithm not in {"rsa", "ec", "dsa", "rsassa_pss", "ed25519", "ed448"}
    ):
        raise UnsupportedError(
            f"It is a private key of a kind that is not known here ({algorithm or reason}).",
            hint="Use an RSA, P-256, P-384 or Ed25519 key.",
        )
    raise DamagedError(
        f"The private key is malformed: {reason or 'its numbers do not fit each other'}.", hint="Export it again from where it came from."
    )


def _algorithm_of(der: bytes) -> str:
    try:
        return str(asn1.PrivateKeyInfo.load(der)["private_key_algorithm"]["algorithm"].native)
    except MALFORMED:
        return ""


def read_encrypted_scheme(der: bytes) -> tuple[Scheme, bytes]:
    """How an EncryptedPrivateKeyInfo is encrypted, and its ciphertext.

    Raises:
        DamagedError: it is malformed.

    """
    try:
        info = asn1.EncryptedPrivateKeyInfo.load(der)
        return read_scheme(info["encryption_algorithm"]), info["encrypted_data"].native
    except MALFORMED as error:
        raise DamagedError(f"The encrypted key is malformed: {error}.", hint="Export it again from where it came from.") from error


def read_encrypted_key(der: bytes, phrases: tuple[Phrase, ...], effort: Effort, *, label: str = "", link: bytes = b"") -> Key:
    """A PKCS#8 key under a passphrase; each phrase is tried.

    Raises:
        PassphraseNeededError, WrongPassphraseError, LegacyCipherError, UnsupportedError, TooCostlyError, DamagedError: as named.

    """
    scheme, content = read_encrypted_scheme(der)
    missing: LegacyCipherError | None = None
    for phrase in phrases or EMPTY:
        try:
            plain = decrypt(scheme, phrase, content, effort)
        except LegacyCipherError as error:
            missing = error
            found = _load_encrypted(der, phrase)
            if found is not None:
                return wrap_key(found, encrypted=True, label=label, link=link)
            continue
        except WrongPassphraseError:
            continue
        if _is_key(plain):
            how = "cryptography" if phrase.how == "as given" else f"cryptography, passphrase {phrase.how}"
            return read_plain_key(plain, encrypted=True, label=label, link=link, how=how)
    if missing is not None and not read_backend().legacy:
        raise missing
    if not phrases:
        raise PassphraseNeededError(
            "The private key is encrypted, and no passphrase was given.",
            hint="Give its passphrase, on the command line with --passphrase prompt.",
        )
    raise WrongPassphraseError("The passphrase of the private key is wrong.", hint=WRONG, encryption=scheme.label)


def _is_key(plain: bytes) -> bool:
    """Whether what came out has a key's shape: some ciphers decrypt to something under any passphrase."""
    try:
        return find_kind(plain) is Kind.PRIVATE_KEY
    except CertsError:
        return False


def _load_encrypted(der: bytes, phrase: Phrase) -> PrivateKeyTypes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_der_private_key(der, phrase.raw)
    except MALFORMED:
        pass
    try:
        return crypto.load_privatekey(crypto.FILETYPE_ASN1, der, phrase.raw).to_cryptography_key()  # type: ignore[return-value]
    except (*MALFORMED, crypto.Error):
        return None


def read_traditional_key(pem: bytes, cipher: str, iv: str, phrases: tuple[Phrase, ...]) -> Key:
    """A key under OpenSSL's old PEM encryption (``Proc-Type: 4,ENCRYPTED``); ``cipher`` and ``iv`` as its header writes them.

    Raises:
        PassphraseNeededError, WrongPassphraseError, UnsupportedError, LegacyCipherError, DamagedError: as named.

    """
    if not phrases:
        raise PassphraseNeededError(
            "The private key is encrypted, and no passphrase was given.",
            hint="Give its passphrase, on the command line with --passphrase prompt.",
        )
    _verify_header(cipher, iv)
    reason = ""
    for phrase in phrases:
        try:
            return wrap_key(load_pem_private_key(pem, phrase.raw), encrypted=True)
        except MALFORMED as error:
            reason = reason or str(error)
        try:
            found = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, phrase.raw).to_cryptography_key()
            return wrap_key(found, encrypted=True, how="pyOpenSSL")  # type: ignore[arg-type]
        except (*MALFORMED, crypto.Error):
            continue
    if cipher.upper().startswith(("RC2", "DES-CBC", "RC4")) and not read_backend().legacy:
        raise missing_cipher(Scheme(cipher.lower(), "md5", "", b"", 1))
    if "nsupported" in reason:
        raise UnsupportedError(f"The private key is encrypted with {cipher}, which is not known here.", hint="Export it again as PKCS#8.")
    raise WrongPassphraseError("The passphrase of the private key is wrong.", hint=WRONG, encryption=cipher)


def _verify_header(cipher: str, iv: str) -> None:
    """The library aborts on a vector that is too short (cryptography 50.0.2), so it is measured first."""
    needed = 16 if cipher.upper().startswith(("AES", "CAMELLIA", "ARIA", "SEED", "SM4")) else 8
    try:
        there = len(bytes.fromhex(iv))
    except ValueError:
        there = 0
    if not cipher or there < needed:
        raise DamagedError("The header of the encrypted key (DEK-Info) is malformed.", hint="Copy it again, every line whole.")
