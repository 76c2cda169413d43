"""PKCS#12 written bag by bag. The library's writer cannot set the MAC's rounds, make a PBMAC1, or carry a certificate it cannot parse."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

from asn1crypto import algos, cms, core
from asn1crypto import pkcs12 as asn1

from certs.errors import CertsError, NotWritableError
from certs.pbe import Effort, Phrase, aes_encrypt, derive_pbkdf2, derive_pkcs12, tripledes_encrypt
from certs.pkcs12 import PBMAC1, Mac, PbmacParameters, compute_mac
from certs.targets import Cipher, Profile, Target
from kit.secret import Secret


@dataclass(frozen=True)
class Bags:
    """What goes in: certificates as DER, the leaf first; the key as PKCS#8 DER or None; the name people see."""

    certs: tuple[bytes, ...]
    key: bytes | None = field(repr=False)
    alias: str


def build_pfx(bags: Bags, passphrase: Secret, profile: Profile) -> bytes:
    """The whole file.

    Raises:
        NotWritableError: the passphrase has characters that PKCS#12 cannot hold.

    """
    phrase = _spelled(passphrase)
    infos = [_encrypted(_safe(_cert_bags(bags, trusted=profile.target is Target.JAVA and bags.key is None)), passphrase, profile)]
    if bags.key is not None:
        infos.append(_plain(_safe([_key_bag(bags, passphrase, profile)])))
    content = asn1.AuthenticatedSafe(infos).dump()
    pfx = asn1.Pfx(
        {
            "version": "v3",
            "auth_safe": cms.ContentInfo({"content_type": "data", "content": core.OctetString(content)}),
            "mac_data": _mac(content, phrase, profile),
        }
    )
    return bytes(pfx.dump())


def encryption(plain: bytes, passphrase: Secret, cipher: Cipher, rounds: int) -> tuple[algos.EncryptionAlgorithm, bytes]:
    """Encrypt under a passphrase: the algorithm identifier that says how, and the ciphertext."""
    phrase = _spelled(passphrase)
    salt = os.urandom(16)
    if cipher is Cipher.AES:
        key = derive_pbkdf2(phrase.raw, salt, rounds, digest="sha256", size=32)
        iv, content = aes_encrypt(key, plain)
        return _pbes2(salt, rounds, iv), content
    if phrase.wide is None:
        raise NotWritableError("The passphrase has characters that PKCS#12 cannot hold.", hint="Use letters and digits.")
    key = derive_pkcs12(phrase.wide, salt, rounds, digest="sha1", purpose=1, size=24)
    iv = derive_pkcs12(phrase.wide, salt, rounds, digest="sha1", purpose=2, size=8)
    parameters = {"algorithm": "pkcs12_sha1_tripledes_3key", "parameters": {"salt": salt, "iterations": rounds}}
    return algos.EncryptionAlgorithm(parameters), tripledes_encrypt(key, iv, plain)


def _spelled(passphrase: Secret) -> Phrase:
    text = passphrase.reveal()
    try:
        return Phrase(text.encode(), text.encode("utf-16-be") + b"\0\0")
    except UnicodeEncodeError as error:
        raise NotWritableError("The passphrase has characters that PKCS#12 cannot hold.", hint="Use letters and digits.") from error


def _pbes2(salt: bytes, rounds: int, iv: bytes) -> algos.EncryptionAlgorithm:
    return algos.EncryptionAlgorithm(
        {
            "algorithm": "pbes2",
            "parameters": {
                "key_derivation_func": _pbkdf2(salt, rounds),
                "encryption_scheme": {"algorithm": "aes256_cbc", "parameters": iv},
            },
        }
    )


def _pbkdf2(salt: bytes, rounds: int, size: int | None = None) -> algos.KdfAlgorithm:
    inside: dict[str, Any] = {
        "salt": algos.Pbkdf2Salt(name="specified", value=core.OctetString(salt)),
        "iteration_count": rounds,
        "prf": {"algorithm": "sha256", "parameters": core.Null()},
    }
    if size is not None:
        inside["key_length"] = size
    return algos.KdfAlgorithm({"algorithm": "pbkdf2", "parameters": inside})


def _attributes(bags: Bags) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"type": "friendly_name", "values": [bags.alias]}] if bags.alias else []
    if bags.key is not None and bags.certs:
        # The same identifier on the key and on its certificate is how importers pair them.
        found.append({"type": "local_key_id", "values": [hashlib.sha1(bags.certs[0], usedforsecurity=False).digest()]})
    return found


def _trusted(alias: str) -> list[dict[str, Any]]:
    """Without Oracle's mark, Java shows a file of certificates as empty: the mark says for what they are trusted (anything)."""
    return [{"type": "friendly_name", "values": [alias]}, {"type": "trusted_key_usage", "values": ["any_extended_key_usage"]}]


def _cert_bags(bags: Bags, *, trusted: bool) -> list[asn1.SafeBag]:
    made = []
    for number, der in enumerate(bags.certs):
        value = asn1.CertBag({"cert_id": "x509", "cert_value": core.ParsableOctetString(der)})
        bag: dict[str, Any] = {"bag_id": "cert_bag", "bag_value": value}
        if trusted:
            bag["bag_attributes"] = _trusted(f"{bags.alias}{f'-{number}' if number else ''}")
        elif number == 0 and _attributes(bags):
            bag["bag_attributes"] = _attributes(bags)
        made.append(asn1.SafeBag(bag))
    return made


def _key_bag(bags: Bags, passphrase: Secret, profile: Profile) -> asn1.SafeBag:
    algorithm, content = encryption(bags.key or b"", passphrase, profile.cipher, profile.rounds)
    value = {"encryption_algorithm": algorithm, "encrypted_data": content}
    return asn1.SafeBag({"bag_id": "pkcs8_shrouded_key_bag", "bag_value": value, "bag_attributes": _attributes(bags)})


def _safe(bags: list[asn1.SafeBag]) -> bytes:
    return bytes(asn1.SafeContents(bags).dump())


def _plain(content: bytes) -> cms.ContentInfo:
    return cms.ContentInfo({"content_type": "data", "content": core.OctetString(content)})


def _encrypted(content: bytes, passphrase: Secret, profile: Profile) -> cms.ContentInfo:
    algorithm, hidden = encryption(content, passphrase, profile.cipher, profile.rounds)
    inside = {"content_type": "data", "content_encryption_algorithm": algorithm, "encrypted_content": hidden}
    return cms.ContentInfo({"content_type": "encrypted_data", "content": {"version": "v0", "encrypted_content_info": inside}})


def _mac(content: bytes, phrase: Phrase, profile: Profile) -> asn1.MacData:
    salt, rounds = os.urandom(16), profile.rounds
    if profile.mac == "pbmac1":
        return _pbmac1(content, phrase, salt, rounds)
    made = compute_mac(Mac("pkcs12", profile.mac, salt, rounds, b""), phrase, content, Effort())
    if made is None:
        raise CertsError("The MAC could not be made.", hint="Use a passphrase of letters and digits.")
    digest = {"algorithm": profile.mac, "parameters": core.Null()}
    return asn1.MacData({"mac": {"digest_algorithm": digest, "digest": made}, "mac_salt": salt, "iterations": rounds})


def _pbmac1(content: bytes, phrase: Phrase, salt: bytes, rounds: int) -> asn1.MacData:
    made = compute_mac(Mac("pbmac1", "sha256", salt, rounds, b"", 32, "sha256"), phrase, content, Effort())
    parameters = PbmacParameters(
        {
            "key_derivation_func": _pbkdf2(salt, rounds, 32),
            "message_auth_scheme": {"algorithm": "sha256", "parameters": core.Null()},
        }
    )
    algorithm = algos.DigestAlgorithm({"algorithm": algos.DigestAlgorithmId(PBMAC1), "parameters": core.Any(parameters)})
    # RFC 9579: the old salt and rounds stay in the structure and mean nothing.
    return asn1.MacData({"mac": {"digest_algorithm": algorithm, "digest": made}, "mac_salt": b"NOT USED", "iterations": 1})
