"""PKCS#12 read bag by bag: nothing in it is lost silently, and every way to fail has its own name."""

from __future__ import annotations

import hashlib
import hmac
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asn1crypto import algos, cms, core
from asn1crypto import pkcs12 as asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization import pkcs12 as library

from certs.backend import read_backend
from certs.bundle import Contents, Note
from certs.cert import MALFORMED, Cert
from certs.errors import (
    CertsError,
    DamagedError,
    LegacyCipherError,
    PassphraseNeededError,
    UnsupportedError,
    WrongPassphraseError,
)
from certs.key import read_encrypted_key, read_encrypted_scheme, read_plain_key, wrap_key
from certs.limits import MAX_BAGS, read_count
from certs.pbe import EMPTY, Effort, Phrase, Scheme, decrypt, derive_pbkdf2, derive_pkcs12, read_scheme

PBMAC1 = "1.2.840.113549.1.5.14"


class PbmacParameters(core.Sequence):  # type: ignore[misc]
    """RFC 9579: how a PBMAC1 is made."""

    _fields = [("key_derivation_func", algos.KdfAlgorithm), ("message_auth_scheme", algos.HmacAlgorithm)]  # noqa: RUF012 - asn1crypto's way


@dataclass(frozen=True)
class Mac:
    """What proves a PKCS#12 file whole: ``kdf`` is ``pkcs12`` or ``pbmac1``."""

    kdf: str
    digest: str
    salt: bytes = field(repr=False)
    rounds: int
    expected: bytes = field(repr=False)
    key_bytes: int = 0
    prf: str = ""
    known: bool = True


@dataclass
class Reading:
    """What one file has given so far."""

    phrases: tuple[Phrase, ...]
    effort: Effort
    where: str
    contents: Contents = field(default_factory=Contents)
    unread: list[CertsError] = field(default_factory=list)
    schemes: list[Scheme] = field(default_factory=list)
    bags: int = 0

    def add(self, **found: tuple[object, ...]) -> None:
        self.contents = self.contents + Contents(**found)  # type: ignore[arg-type]

    def note(self, code: str, sentence: str) -> None:
        self.add(notes=(Note(code, sentence, self.where),))


def read_pkcs12(der: bytes, phrases: tuple[Phrase, ...], effort: Effort, *, where: str = "") -> Contents:
    """Everything in a PKCS#12 file.

    ``phrases`` are the ways to spell the passphrases given; none for no passphrase. Failures of single bags come back in the
    contents; what concerns the whole file is raised.

    Raises:
        WrongPassphraseError, PassphraseNeededError, LegacyCipherError, UnsupportedError, TooCostlyError, DamagedError: as named.

    """
    pfx, authenticated = _open(der)
    mac = read_mac(pfx)
    reading = Reading(phrases or EMPTY, effort, where)
    if mac is None:
        reading.note("no_integrity", "It has no MAC: nothing proves that it is what was written, and any passphrase may seem right.")
    else:
        reading.phrases = _verify_mac(mac, authenticated, reading, given=bool(phrases))
    try:
        infos = list(asn1.AuthenticatedSafe.load(authenticated))
        for info in infos:
            _read_info(info, reading)
    except MALFORMED as error:
        reading.unread.append(DamagedError(f"A part of it is malformed: {error}.", hint="Export it again from where it came from."))
    if reading.unread:
        _read_by_library(der, reading, given=bool(phrases))
    if not reading.contents and not reading.contents.failures:
        raise DamagedError("It opens, and it is empty.", hint="Export it again, with the certificate and its key ticked.")
    return reading.contents


def _open(der: bytes) -> tuple[asn1.Pfx, bytes]:
    try:
        pfx = asn1.Pfx.load(der)
        version, kind = pfx["version"].native, pfx["auth_safe"]["content_type"].native
        content = pfx["auth_safe"]["content"].native if kind == "data" else b""
    except MALFORMED as error:
        raise DamagedError(f"The PKCS#12 file is malformed: {error}.", hint="Export it again from where it came from.") from error
    if version != "v3":
        shown = read_count(version) if isinstance(version, int) else version
        raise UnsupportedError(f"It is PKCS#12 version {shown}; only version 3 is known.", hint="Export it again.")
    if kind != "data" or not isinstance(content, bytes):
        raise UnsupportedError(
            "Its integrity rests on a public key instead of a passphrase; no tool here opens that.", hint="Export it again."
        )
    return pfx, content


def read_mac(pfx: asn1.Pfx) -> Mac | None:
    """How the file proves itself whole, None where it does not.

    Raises:
        DamagedError: that part is malformed.

    """
    try:
        data = pfx["mac_data"]
        if isinstance(data, core.Void) or data.native is None:
            return None
        algorithm, expected = data["mac"]["digest_algorithm"], data["mac"]["digest"].native
        oid = algorithm["algorithm"].dotted
        if oid != PBMAC1:
            name = str(algorithm["algorithm"].native)
            known = name in hashlib.algorithms_available
            return Mac("pkcs12", name, data["mac_salt"].native, read_count(data["iterations"].native), expected, known=known)
        inside = PbmacParameters.load(algorithm["parameters"].dump())
        kdf = inside["key_derivation_func"]["parameters"]
        return Mac(
            "pbmac1",
            str(inside["message_auth_scheme"]["algorithm"].native),
            kdf["salt"].native,
            read_count(kdf["iteration_count"].native),
            expected,
            read_count(kdf["key_length"].native or 0),
            str(kdf["prf"]["algorithm"].native),
        )
    except MALFORMED as error:
        raise DamagedError(f"The file's MAC is malformed: {error}.", hint="Export it again from where it came from.") from error


def compute_mac(mac: Mac, phrase: Phrase, content: bytes, effort: Effort) -> bytes | None:
    """The MAC that this phrase makes; None where the phrase cannot be spelled for it."""
    effort.spend(mac.rounds)
    if mac.kdf == "pbmac1":
        key = derive_pbkdf2(phrase.raw, mac.salt, mac.rounds, digest=mac.prf, size=min(mac.key_bytes, 1024))
        return hmac.digest(key, content, mac.digest)
    if phrase.wide is None:
        return None
    size = hashlib.new(mac.digest, usedforsecurity=False).digest_size
    key = derive_pkcs12(phrase.wide, mac.salt, mac.rounds, digest=mac.digest, purpose=3, size=size)
    return hmac.digest(key, content, mac.digest)


def _verify_mac(mac: Mac, content: bytes, reading: Reading, *, given: bool) -> tuple[Phrase, ...]:
    """The phrases with the one first that the MAC proves."""
    if not mac.known or (mac.kdf == "pbmac1" and mac.key_bytes < 1):
        raise UnsupportedError(f"Its MAC uses {mac.digest}, which is not known here.", hint="Export it again with SHA-256.")
    for phrase in reading.phrases:
        try:
            made = compute_mac(mac, phrase, content, reading.effort)
        except MALFORMED as error:
            raise UnsupportedError(f"Its MAC cannot be computed here: {error}.", hint="Export it again with SHA-256.") from error
        if made is not None and hmac.compare_digest(made, mac.expected):
            if phrase.how not in {"as given", "empty", "absent"}:
                reading.note("passphrase_spelling", f"The passphrase fits {phrase.how}.")
            return (phrase, *(other for other in reading.phrases if other is not phrase))
    if not given:
        raise PassphraseNeededError(
            "The PKCS#12 file is encrypted, and no passphrase was given.",
            hint="Give its passphrase, on the command line with --passphrase prompt.",
        )
    raise WrongPassphraseError(
        "The passphrase of the PKCS#12 file is wrong.", hint="Ask who exported the file; passphrases are case-sensitive.", mac=mac.digest
    )


def _read_info(info: cms.ContentInfo, reading: Reading) -> None:
    kind = info["content_type"].native
    if kind == "data":
        _read_safe(info["content"].native, reading, depth=0)
    elif kind == "encrypted_data":
        inside = info["content"]["encrypted_content_info"]
        scheme = read_scheme(inside["content_encryption_algorithm"])
        reading.schemes.append(scheme)
        try:
            _read_safe(_decrypt_any(scheme, inside["encrypted_content"].native, reading), reading, depth=0)
        except CertsError as error:
            reading.unread.append(error)
    else:
        sentence = f"A part of it is {str(kind).replace('_', ' ')}: encrypted for a recipient's key; no tool here opens that."
        reading.add(failures=(UnsupportedError(sentence, hint="Export it again under a passphrase."),))


def _decrypt_any(scheme: Scheme, content: bytes, reading: Reading) -> bytes:
    first: CertsError | None = None
    for phrase in reading.phrases:
        try:
            plain = decrypt(scheme, phrase, content, reading.effort)
            if _is_safe(plain):
                return plain
            first = first or WrongPassphraseError(f"The passphrase does not open the part under {scheme.label}.", hint=SECOND)
        except WrongPassphraseError:
            first = first or WrongPassphraseError(f"The passphrase does not open the part under {scheme.label}.", hint=SECOND)
    raise first or WrongPassphraseError("The passphrase does not open it.", hint=SECOND)


SECOND = "Its MAC and its content may have different passphrases: give the other one too."


def _is_safe(plain: bytes) -> bool:
    try:
        return len(asn1.SafeContents.load(plain)) >= 0
    except MALFORMED:
        return False


def _read_safe(plain: bytes, reading: Reading, *, depth: int) -> None:
    for bag in _bags(plain, reading):
        try:
            kind = str(bag["bag_id"].native)
            label, link = _attributes(bag)
            reader = _READERS.get(kind)
            if kind == "safe_contents" and depth < 5:
                _read_safe(bag["bag_value"].untag().dump(), reading, depth=depth + 1)
            elif reader is None:
                reading.note("ignored", f"It holds a {kind.replace('_', ' ')} bag{f' {label!r}' if label else ''}, which is not used.")
            else:
                reader(bag["bag_value"], reading, label, link)
        except CertsError as error:
            reading.add(failures=(error,))
        except MALFORMED as error:
            reading.add(failures=(DamagedError(f"A bag is malformed: {error}.", hint="The others were read."),))


def _bags(plain: bytes, reading: Reading) -> Iterator[asn1.SafeBag]:
    for bag in asn1.SafeContents.load(plain):
        reading.bags += 1
        if reading.bags > MAX_BAGS:
            raise DamagedError(f"It holds more than {MAX_BAGS:,} bags.", hint="Split the file.")
        yield bag


def _attributes(bag: asn1.SafeBag) -> tuple[str, bytes]:
    label, link = "", b""
    try:
        for attribute in bag["bag_attributes"] or ():
            kind, values = attribute["type"].native, attribute["values"].native
            if kind == "friendly_name" and values:
                label = str(values[0])
            elif kind == "local_key_id" and values:
                link = values[0]
    except MALFORMED:
        return label, link
    return label, link


def _read_cert(value: core.Asn1Value, reading: Reading, label: str, _link: bytes) -> None:
    if value["cert_id"].native != "x509":
        reading.note("ignored", "It holds a certificate that is not X.509, which is not used.")
        return
    reading.add(certs=(Cert(bytes(value["cert_value"]), label),))


def _read_shrouded(value: core.Asn1Value, reading: Reading, label: str, link: bytes) -> None:
    der = value.untag().dump()
    reading.schemes.append(read_encrypted_scheme(der)[0])
    try:
        key = read_encrypted_key(der, reading.phrases, reading.effort, label=label, link=link)
    except WrongPassphraseError:
        reading.unread.append(WrongPassphraseError("The passphrase does not open the private key in it.", hint=SECOND))
    except LegacyCipherError as error:
        reading.unread.append(error)
    else:
        reading.add(keys=(key,))


def _read_bare(value: core.Asn1Value, reading: Reading, label: str, link: bytes) -> None:
    reading.note("key_not_encrypted", "The private key in it is not encrypted.")
    reading.add(keys=(read_plain_key(value.untag().dump(), label=label, link=link),))


def _read_crl(value: core.Asn1Value, reading: Reading, _label: str, _link: bytes) -> None:
    reading.add(crls=(bytes(value["crl_value"]),))


_READERS: dict[str, Callable[[core.Asn1Value, Reading, str, bytes], None]] = {
    "cert_bag": _read_cert,
    "pkcs8_shrouded_key_bag": _read_shrouded,
    "key_bag": _read_bare,
    "crl_bag": _read_crl,
}


def _read_by_library(der: bytes, reading: Reading, *, given: bool) -> None:
    """What the ciphers here could not open, the library's own loader may (RC2-40). It knows only one key."""
    found = _load_by_library(der, reading)
    if found is None:
        reading.add(failures=(_reason(reading, given=given),))
        return
    known = {cert.der for cert in reading.contents.certs}
    every = [found.cert, *found.additional_certs]
    new = [(each.certificate.public_bytes(Encoding.DER), (each.friendly_name or b"").decode(errors="replace")) for each in every if each]
    reading.add(certs=tuple(Cert(each, label) for each, label in new if each not in known))
    if found.key is not None and not reading.contents.keys:
        reading.add(keys=(wrap_key(found.key, encrypted=True),))


def _load_by_library(der: bytes, reading: Reading) -> library.PKCS12KeyAndCertificates | None:
    if not any(isinstance(error, LegacyCipherError) for error in reading.unread):
        return None
    for phrase in reading.phrases:
        # The library knows no limits: it is asked only for what could be afforded here.
        reading.effort.spend(sum(scheme.rounds for scheme in reading.schemes) or 1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return library.load_pkcs12(der, phrase.raw)
        except MALFORMED:
            continue
    return None


def _reason(reading: Reading, *, given: bool) -> CertsError:
    missing = next((error for error in reading.unread if isinstance(error, LegacyCipherError)), None)
    if missing is not None and not read_backend().legacy:
        return missing
    if not given and isinstance(reading.unread[0], WrongPassphraseError):
        return PassphraseNeededError(
            "The PKCS#12 file is encrypted, and no passphrase was given.",
            hint="Give its passphrase, on the command line with --passphrase prompt.",
        )
    if missing is not None:
        return WrongPassphraseError("The passphrase does not open the content.", hint=SECOND)
    return reading.unread[0]
