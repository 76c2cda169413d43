"""What a migration carries: a leaf, its chain and its key, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from certs.cert import AltNames, Cert
from certs.errors import CertsError, KeyMismatchError
from certs.key import Key
from kit.plain import spell_out


class Trust(Enum):
    """What the top of a chain is."""

    SYSTEM = "a root that this machine trusts"
    GIVEN = "a root that was given with it (a private CA)"
    SELF_SIGNED = "the certificate itself"
    UNKNOWN = "unknown: an issuer is missing"


@dataclass(frozen=True)
class Note:
    """Something that reading found and a person may want to know. ``code`` is stable; ``where`` names the file and the place in it."""

    code: str
    sentence: str
    where: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentence", spell_out(self.sentence))


@dataclass(frozen=True)
class Contents:
    """Everything that was found in some files, nothing judged yet. ``failures`` holds what could not be read, one error each."""

    certs: tuple[Cert, ...] = ()
    keys: tuple[Key, ...] = ()
    crls: tuple[bytes, ...] = ()
    notes: tuple[Note, ...] = ()
    failures: tuple[CertsError, ...] = ()

    def __add__(self, other: Contents) -> Contents:
        return Contents(
            self.certs + other.certs,
            self.keys + other.keys,
            self.crls + other.crls,
            self.notes + other.notes,
            self.failures + other.failures,
        )

    def __bool__(self) -> bool:
        return bool(self.certs or self.keys or self.crls)


@dataclass(frozen=True)
class Bundle:
    """A leaf with the certificates that lead to a root, in the order TLS sends them.

    ``chain`` holds the issuers from the leaf's own upwards, the root not among them. ``root`` is None where no issuer for the last of
    them was found. ``others`` are certificates that were given and take no part; ``spare_keys`` keys that do not fit the leaf.
    ``paths`` are the other ways up that were found (cross-signed), best first, each without the leaf.
    """

    leaf: Cert
    chain: tuple[Cert, ...] = ()
    root: Cert | None = None
    trust: Trust = Trust.UNKNOWN
    key: Key | None = None
    others: tuple[Cert, ...] = ()
    spare_keys: tuple[Key, ...] = ()
    paths: tuple[tuple[Cert, ...], ...] = ()
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    notes: tuple[Note, ...] = ()
    failures: tuple[CertsError, ...] = field(default=(), compare=False)

    @property
    def certs(self) -> tuple[Cert, ...]:
        """Leaf and chain, as a TLS server sends them."""
        return (self.leaf, *self.chain)

    @property
    def path(self) -> tuple[Cert, ...]:
        """Leaf, chain and, where it is known, the root."""
        return self.certs if self.root is None or self.root == self.leaf else (*self.certs, self.root)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of leaf and chain, lower-case hex, in order."""
        return tuple(cert.sha256 for cert in self.certs)

    @property
    def spki_sha256(self) -> str:
        """Fingerprint of the leaf's public key, lower-case hex."""
        return self.leaf.spki_sha256

    @property
    def names(self) -> AltNames:
        """What the leaf is for."""
        return self.leaf.names

    @property
    def not_after(self) -> datetime | None:
        """When the leaf ends, in UTC; None where its date is malformed."""
        return self.leaf.not_after

    @property
    def is_complete(self) -> bool:
        """Whether every issuer up to a root was found."""
        return self.root is not None

    def need_key(self) -> Key:
        """The leaf's private key.

        Raises:
            KeyMismatchError: there is none, or those given fit other certificates.

        """
        if self.key is not None:
            return self.key
        if not self.spare_keys:
            raise KeyMismatchError(
                f"There is no private key for {self.leaf}.", hint="Export it with its key, or make a request with boxshift certs request."
            )
        raise mismatch(self.leaf, self.spare_keys, self.others)


def mismatch(leaf: Cert, keys: tuple[Key, ...], others: tuple[Cert, ...]) -> KeyMismatchError:
    """The error for a key that fits another certificate, with both fingerprints and what would fit."""
    fitting = [str(cert) for cert in others if keys[0].fits(cert)]
    return KeyMismatchError(
        f"The private key does not fit {leaf}: the key is {keys[0].spki_sha256[:16]}…, the certificate wants {leaf.spki_sha256[:16]}….",
        hint=f"It would fit {', '.join(fitting)}." if fitting else "None of the certificates given fits it; look for the other key file.",
        key_spki_sha256=keys[0].spki_sha256,
        leaf_spki_sha256=leaf.spki_sha256,
    )
