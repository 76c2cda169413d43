"""What each target takes: the one table that writers read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ROUNDS = 600_000  # OWASP for PBKDF2-HMAC-SHA256; Windows accepts no more


class Target(Enum):
    """For what a file is written."""

    MODERN = "modern"
    LEGACY3DES = "legacy3des"
    FIPS = "fips"
    PEM = "pem"
    NGINX = "nginx"
    JAVA = "java"
    BOMGAR = "bomgar"

    @property
    def profile(self) -> Profile:
        return _PROFILES[self]


class Cipher(Enum):
    """How the contents are encrypted."""

    AES = "PBES2, AES-256-CBC, PBKDF2-HMAC-SHA256"
    TRIPLEDES = "PBE-SHA1-3DES"
    NONE = "not encrypted"


@dataclass(frozen=True)
class Profile:
    """``container`` is ``pkcs12`` or ``pem``; ``mac`` ``sha256``, ``sha1`` or ``pbmac1``; ``rounds`` of the key derivation."""

    target: Target
    container: str
    cipher: Cipher
    mac: str
    rounds: int
    why: str
    keep_root: bool = False


_PROFILES = {
    profile.target: profile
    for profile in (
        Profile(Target.MODERN, "pkcs12", Cipher.AES, "sha256", ROUNDS, "OpenSSL 1.1, Java 8u301, Windows Server 2019 and later"),
        Profile(Target.LEGACY3DES, "pkcs12", Cipher.TRIPLEDES, "sha1", ROUNDS, "Windows Server 2016, Cisco ASA, macOS, Android to 13"),
        Profile(Target.FIPS, "pkcs12", Cipher.AES, "pbmac1", ROUNDS, "OpenSSL 3.4 and later in FIPS mode, RHEL 9 and 10, NSS"),
        Profile(Target.PEM, "pem", Cipher.AES, "", ROUNDS, "anything that reads PEM; the key under a passphrase (PKCS#8)"),
        Profile(Target.NGINX, "pem", Cipher.NONE, "", 0, "nginx, Apache, HAProxy, Postfix, Dovecot: chain and bare key in one file"),
        Profile(Target.JAVA, "pkcs12", Cipher.AES, "sha256", ROUNDS, "Java 8u301 and later, as a keystore with the leaf's name as alias"),
        # The appliance's own export is such a file, and its import takes one; AES is read by every base version with OpenSSL 1.0 or later.
        Profile(Target.BOMGAR, "pkcs12", Cipher.AES, "sha256", ROUNDS, "the appliance's Security > Certificates > Import"),
    )
}
