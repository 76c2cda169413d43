"""Password-based encryption as it is found in PKCS#8 and PKCS#12 files: which scheme, how costly, and its two directions.

The ciphers and PBKDF2 are the library's. The PKCS#12 key derivation (RFC 7292, appendix B) is spelled out here because the library
keeps its own to itself, and without it nobody can tell a wrong passphrase from a cipher that is missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from asn1crypto import algos, core
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, RC2, TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from certs.backend import read_backend
from certs.errors import DamagedError, LegacyCipherError, TooCostlyError, UnsupportedError, WrongPassphraseError
from certs.limits import MAX_ROUNDS, MAX_ROUNDS_IN_ALL, MAX_SCRYPT_BYTES, read_count
from certs.names import MALFORMED

_PRFS = {"sha1", "sha224", "sha256", "sha384", "sha512", "sha512_224", "sha512_256"}
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
    "sha512_224": hashes.SHA512_224,
    "sha512_256": hashes.SHA512_256,
}


SCRYPT = "1.3.6.1.4.1.11591.4.11"


class ScryptParameters(core.Sequence):  # type: ignore[misc]
    """RFC 7914, 7.1."""

    _fields = [  # noqa: RUF012 - asn1crypto's way
        ("salt", core.OctetString),
        ("cost_parameter", core.Integer),
        ("block_size", core.Integer),
        ("parallelization_parameter", core.Integer),
        ("key_length", core.Integer, {"optional": True}),
    ]


@dataclass
class Effort:
    """How many rounds of key derivation one reading may still spend. Hostile files ask for 10⁹."""

    left: int = MAX_ROUNDS_IN_ALL
    most: int = MAX_ROUNDS

    def spend(self, rounds: int) -> None:
        """Take ``rounds`` from it.

        Raises:
            TooCostlyError: one derivation, or all of them, ask for too many.

        """
        if rounds < 1:
            raise DamagedError("It asks for no rounds of key derivation at all.", hint="Export it again from where it came from.")
        if rounds > self.most:
            raise TooCostlyError(
                f"It asks for {rounds:,} rounds of key derivation; more than {self.most:,} are not tried.",
                hint="If the file is really yours, allow more with --max-rounds.",
                rounds=rounds,
            )
        if rounds > self.left:
            raise TooCostlyError("All its parts together ask for too many rounds of key derivation.", hint="Split the file.", rounds=rounds)
        self.left -= rounds


@dataclass(frozen=True)
class Scheme:
    """One encryption: the names of its parts for people, and the identifiers that drive it. ``rounds`` is 0 for scrypt."""

    cipher: str
    kdf: str
    digest: str
    salt: bytes = field(repr=False)
    rounds: int
    iv: bytes = field(default=b"", repr=False)
    key_bytes: int = 0
    scrypt: tuple[int, int, int] | None = None
    known: bool = True

    @property
    def label(self) -> str:
        """``PBES2 aes256_cbc, pbkdf2 sha256, 600,000 rounds``."""
        cost = f"{self.rounds:,} rounds" if self.scrypt is None else f"N={self.scrypt[0]:,}"
        return f"{self.cipher} with {self.kdf} {self.digest}".rstrip() + f", {cost}"

    @property
    def is_legacy(self) -> bool:
        """Whether it needs a cipher that OpenSSL 3 keeps in its legacy provider."""
        return self.cipher.startswith(("rc2", "rc4", "des"))


_PKCS12 = {
    "pkcs12_sha1_rc4_128": ("rc4", 16),
    "pkcs12_sha1_rc4_40": ("rc4", 5),
    "pkcs12_sha1_tripledes_3key": ("tripledes_cbc", 24),
    "pkcs12_sha1_tripledes_2key": ("tripledes_cbc", 16),
    "pkcs12_sha1_rc2_128": ("rc2_cbc", 16),
    "pkcs12_sha1_rc2_40": ("rc2_cbc", 5),
}
_PBES1 = {
    "pbes1_md5_des": ("md5", "des_cbc"),
    "pbes1_sha1_des": ("sha1", "des_cbc"),
    "pbes1_md5_rc2": ("md5", "rc2_cbc"),
    "pbes1_sha1_rc2": ("sha1", "rc2_cbc"),
    "pbes1_md2_des": ("md2", "des_cbc"),
    "pbes1_md2_rc2": ("md2", "rc2_cbc"),
}
_CIPHER_BYTES = {"aes128_cbc": 16, "aes192_cbc": 24, "aes256_cbc": 32, "tripledes_3key": 24, "tripledes_2key": 16, "des": 8}


def read_scheme(algorithm: algos.EncryptionAlgorithm) -> Scheme:
    """What encrypts it. An algorithm that nobody knows comes back with ``known`` False rather than as an error.

    Raises:
        ValueError, TypeError, KeyError: malformed parameters, as asn1crypto raises them.

    """
    name = str(algorithm["algorithm"].native)
    if name == "pbes2":
        return _read_pbes2(algorithm["parameters"])
    if name in _PKCS12 or name in _PBES1:
        salt, rounds = algorithm["parameters"]["salt"].native, read_count(algorithm["parameters"]["iterations"].native)
        if name in _PKCS12:
            cipher, size = _PKCS12[name]
            return Scheme(cipher, "pkcs12", "sha1", salt, rounds, key_bytes=size)
        digest, cipher = _PBES1[name]
        return Scheme(cipher, "pbkdf1", digest, salt, rounds, key_bytes=8)
    return Scheme(name, "unknown", "", b"", 0, known=False)


def _read_pbes2(parameters: core.Asn1Value) -> Scheme:
    kdf, encryption = parameters["key_derivation_func"], parameters["encryption_scheme"]
    kind, cipher = str(kdf["algorithm"].native), str(encryption["algorithm"].native)
    if kind == SCRYPT:
        cost = ScryptParameters.load(kdf["parameters"].dump())
        known = cipher in _CIPHER_BYTES
        n, r, p = (read_count(cost[name].native) for name in ("cost_parameter", "block_size", "parallelization_parameter"))
        return Scheme(
            cipher, "scrypt", "", cost["salt"].native, 0, encryption["parameters"].native if known else b"", _CIPHER_BYTES.get(cipher, 0),
            (n, r, p), known,
        )  # fmt: skip
    if kind != "pbkdf2":
        return Scheme(cipher, kind, "", b"", 0, known=False)
    inside = kdf["parameters"]
    prf = str(inside["prf"]["algorithm"].native)
    salt = inside["salt"].native
    rounds = read_count(inside["iteration_count"].native)
    if cipher == "rc2":
        bits = {160: 40, 120: 64, 58: 128}.get(int(encryption["parameters"]["rc2_parameter_version"].native or 0), 32)
        size = read_count(inside["key_length"].native or bits // 8)
        iv = encryption["parameters"]["iv"].native
        return Scheme("rc2_cbc", "pbkdf2", prf, salt, rounds, iv, size, known=prf in _PRFS and 0 < size <= 128)
    known = cipher in _CIPHER_BYTES and prf in _PRFS
    iv = encryption["parameters"].native if cipher in _CIPHER_BYTES else b""
    name = {"tripledes_3key": "tripledes_cbc", "tripledes_2key": "tripledes_cbc", "des": "des_cbc"}.get(cipher, cipher)
    return Scheme(name, "pbkdf2", prf, salt, rounds, iv, _CIPHER_BYTES.get(cipher, 0), known=known)


def derive_pkcs12(password: bytes, salt: bytes, rounds: int, *, digest: str, purpose: int, size: int) -> bytes:
    """The key derivation of PKCS#12: ``purpose`` 1 key, 2 initialisation vector, 3 MAC key. ``password`` as BMPString with its end mark."""
    make: Callable[[bytes], hashlib._Hash] = getattr(hashlib, digest, None) or functools.partial(hashlib.new, digest)
    block = make(b"").block_size
    filled = _stretch(salt, block) + _stretch(password, block)
    out = b""
    while len(out) < size:
        part = make(bytes([purpose]) * block + filled).digest()
        for _ in range(rounds - 1):
            part = make(part).digest()
        out += part
        step = int.from_bytes(_stretch(part, block)[:block], "big") + 1
        filled = b"".join(_add(filled[at : at + block], step) for at in range(0, len(filled), block))
    return out[:size]


def _stretch(text: bytes, block: int) -> bytes:
    size = block * -(-len(text) // block)
    return (text * (size // len(text) + 1))[:size] if text else b""


def _add(chunk: bytes, step: int) -> bytes:
    return ((int.from_bytes(chunk, "big") + step) % (1 << 8 * len(chunk))).to_bytes(len(chunk), "big")


def derive_pbkdf2(password: bytes, salt: bytes, rounds: int, *, digest: str, size: int) -> bytes:
    """PBKDF2 with HMAC; ``password`` as the bytes themselves."""
    return PBKDF2HMAC(_HASHES[digest](), size, salt, rounds).derive(password)


@dataclass(frozen=True)
class Phrase:
    """One way to turn a passphrase into bytes: ``raw`` for PKCS#5, ``wide`` for PKCS#12 (None where that encoding cannot hold it)."""

    raw: bytes = field(repr=False)
    wide: bytes | None = field(repr=False)
    how: str = "as given"


# Two programs, two notions of no passphrase at all.
EMPTY = (Phrase(b"", b"\0\0", "empty"), Phrase(b"", b"", "absent"))


def decrypt(scheme: Scheme, phrase: Phrase, content: bytes, effort: Effort) -> bytes:
    """Decrypt, padding checked and removed.

    Raises:
        UnsupportedError: nobody here knows the algorithm.
        LegacyCipherError: OpenSSL was started without it.
        WrongPassphraseError: the padding is not what it should be.
        TooCostlyError: see :class:`Effort`.

    """
    if not scheme.known:
        raise UnsupportedError(
            f"It is encrypted with {scheme.label.split(',')[0]}, which is not known here.",
            hint="Export it again with AES-256 and PBKDF2.",
            algorithm=scheme.cipher,
        )
    try:
        return _decrypt(scheme, phrase, content, effort)
    except MALFORMED as error:
        sentence = f"It is encrypted with {scheme.label}, with parameters that make no sense: {error}."
        raise DamagedError(sentence, hint="Export it again from where it came from.") from error


def _decrypt(scheme: Scheme, phrase: Phrase, content: bytes, effort: Effort) -> bytes:
    key, iv = _derive(scheme, phrase, effort)
    algorithm = _algorithm(scheme, key)
    mode = None if scheme.cipher == "rc4" else modes.CBC(iv)
    if mode is not None and (not iv or not content or len(content) % len(iv)):
        raise DamagedError("The encrypted part is not a whole number of blocks.", hint="Export it again from where it came from.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = Cipher(algorithm, mode).decryptor()
        plain = context.update(content) + context.finalize()
    except UnsupportedAlgorithm as error:
        raise missing_cipher(scheme) from error
    return plain if mode is None else _unpad(plain, len(iv))


def missing_cipher(scheme: Scheme) -> LegacyCipherError:
    """The error for a cipher that OpenSSL keeps in its legacy provider."""
    bits = f"-{scheme.key_bytes * 8}" if scheme.cipher.startswith("rc") else ""
    name = scheme.cipher.removesuffix("_cbc").upper() + bits
    return LegacyCipherError(
        f"It is encrypted with {name}, a legacy cipher that this OpenSSL does not offer.",
        hint="Unset CRYPTOGRAPHY_OPENSSL_NO_LEGACY, or export it again: "
        "openssl pkcs12 -legacy -in OLD -nodes | openssl pkcs12 -export -out NEW",
        cipher=name,
        openssl=read_backend().openssl,
    )


def _unpad(plain: bytes, block: int) -> bytes:
    last = plain[-1] if plain else 0
    if not 1 <= last <= block or plain[-last:] != bytes([last]) * last:
        raise WrongPassphraseError("The passphrase is wrong.", hint="Ask who exported the file; passphrases are case-sensitive.")
    return plain[:-last]


def _derive(scheme: Scheme, phrase: Phrase, effort: Effort) -> tuple[bytes, bytes]:
    if scheme.scrypt is not None:
        return _derive_scrypt(scheme, scheme.scrypt, phrase, effort), scheme.iv
    effort.spend(scheme.rounds)
    if scheme.kdf == "pbkdf2":
        return derive_pbkdf2(phrase.raw, scheme.salt, scheme.rounds, digest=scheme.digest, size=scheme.key_bytes), scheme.iv
    if scheme.kdf == "pbkdf1":
        return _derive_pbkdf1(scheme, phrase)
    if phrase.wide is None:
        raise WrongPassphraseError("The passphrase is wrong.", hint="It has characters that PKCS#12 cannot hold.")
    key = derive_pkcs12(phrase.wide, scheme.salt, scheme.rounds, digest="sha1", purpose=1, size=scheme.key_bytes)
    if scheme.cipher == "rc4":
        return key, b""
    return key, derive_pkcs12(phrase.wide, scheme.salt, scheme.rounds, digest="sha1", purpose=2, size=8)


def _derive_pbkdf1(scheme: Scheme, phrase: Phrase) -> tuple[bytes, bytes]:
    if scheme.digest not in hashlib.algorithms_available:
        raise UnsupportedError(f"It is encrypted by way of {scheme.digest.upper()}, which is not known here.", hint="Export it again.")
    part = phrase.raw + scheme.salt
    for _ in range(scheme.rounds):
        part = hashlib.new(scheme.digest, part, usedforsecurity=False).digest()
    return part[:8], part[8:16]


def _derive_scrypt(scheme: Scheme, cost: tuple[int, int, int], phrase: Phrase, effort: Effort) -> bytes:
    n, r, p = cost
    if n < 2 or n & (n - 1) or r < 1 or p < 1 or n * r * 128 > MAX_SCRYPT_BYTES or p > 64:
        raise TooCostlyError(f"Its scrypt parameters (N={n:,}, r={r}, p={p}) are absurd.", hint="Export it again.", rounds=n)
    effort.spend(min(n * r * p // 8 + 1, MAX_ROUNDS))
    return Scrypt(scheme.salt, scheme.key_bytes, n, r, p).derive(phrase.raw)


def _algorithm(scheme: Scheme, key: bytes) -> CipherAlgorithm:
    if scheme.cipher.startswith("aes"):
        return AES(key)
    if scheme.cipher == "rc4":
        return ARC4(key)
    if scheme.cipher == "tripledes_cbc":
        return TripleDES(key if len(key) == 24 else key + key[:8])
    if scheme.cipher == "des_cbc":
        return TripleDES(key * 3)
    if scheme.cipher == "rc2_cbc" and len(key) == 16:
        return RC2(key)
    raise missing_cipher(scheme)


def tripledes_encrypt(key: bytes, iv: bytes, content: bytes) -> bytes:
    """3DES-CBC, PKCS#7 padding; for targets that know nothing newer."""
    short = 8 - len(content) % 8
    context = Cipher(TripleDES(key), modes.CBC(iv)).encryptor()
    return context.update(content + bytes([short]) * short) + context.finalize()


def aes_encrypt(key: bytes, content: bytes) -> tuple[bytes, bytes]:
    """AES-CBC with a fresh initialisation vector, PKCS#7 padding. Answers the vector and the ciphertext."""
    iv, short = os.urandom(16), 16 - len(content) % 16
    context = Cipher(AES(key), modes.CBC(iv)).encryptor()
    return iv, context.update(content + bytes([short]) * short) + context.finalize()
