"""What this process's OpenSSL can do: tried, not believed, since a name of a version says nothing of the providers that are loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.backends.openssl import backend as library
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, RC2, TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, modes

from certs.names import MALFORMED


@dataclass(frozen=True)
class Backend:
    """``openssl``: the version that the library was built with. ``ciphers``: which of the old ciphers work.

    ``legacy``: whether OpenSSL's legacy provider is there (RC2, RC4, DES); ``fips``: whether it refuses what FIPS 140 forbids.
    """

    openssl: str
    ciphers: tuple[str, ...]
    legacy: bool
    fips: bool

    def __str__(self) -> str:
        return f"{self.openssl}, legacy ciphers {'on' if self.legacy else 'off'}, FIPS mode {'on' if self.fips else 'off'}"


_OLD: tuple[tuple[str, CipherAlgorithm, modes.CBC | None], ...] = (
    ("RC2", RC2(bytes(16)), modes.CBC(bytes(8))),
    ("RC4", ARC4(bytes(16)), None),
    ("3DES", TripleDES(bytes(range(24))), modes.CBC(bytes(8))),
)


@lru_cache(maxsize=1)
def read_backend() -> Backend:
    """What works here. Looked at once in a process."""
    ciphers = tuple(name for name, cipher, mode in _OLD if _decrypts(cipher, mode))
    return Backend(library.openssl_version_text(), ciphers, legacy="RC2" in ciphers, fips=not _hashes_md5())


def _decrypts(cipher: CipherAlgorithm, mode: modes.CBC | None) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Cipher(cipher, mode).decryptor()
    except MALFORMED:
        return False
    return True


def _hashes_md5() -> bool:
    """MD5 is what every FIPS provider leaves out."""
    try:
        hashes.Hash(hashes.MD5())  # noqa: S303 - only whether it is there
    except MALFORMED:
        return False
    return True
