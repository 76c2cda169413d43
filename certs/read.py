"""Anything that an administrator has, read: PEM, DER, PKCS#7, PKCS#8, PKCS#12, in any order, under any name, somewhat damaged or not.

What a piece is, its bytes decide. One bad piece never loses the others: each failure is kept beside what was read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from asn1crypto import cms, core

from certs.bundle import Bundle, Contents, Note
from certs.cert import MALFORMED, Cert
from certs.chain import assemble
from certs.errors import (
    CertsError,
    DamagedError,
    KeystoreError,
    LegacyCipherError,
    PassphraseNeededError,
    TooCostlyError,
    UnsupportedError,
    WrongPassphraseError,
)
from certs.key import Key, read_encrypted_key, read_plain_key, read_traditional_key
from certs.limits import MAX_BYTES, MAX_PIECES, MAX_ROUNDS
from certs.pbe import Effort, Phrase
from certs.pem import Block, find_bare_base64, find_blocks, repair
from certs.pkcs12 import read_pkcs12
from certs.raw import cut
from certs.roots import Roots
from certs.sniff import KEYSTORES, Kind, find_kind, looks_binary, split_elements
from kit.secret import Secret


@dataclass(frozen=True)
class Source:
    """Some bytes and what people call them (a file's name)."""

    data: bytes = field(repr=False)
    name: str = ""


@dataclass(frozen=True)
class _Job:
    phrases: tuple[Phrase, ...]
    effort: Effort
    where: str

    def at(self, place: str) -> _Job:
        return _Job(self.phrases, self.effort, f"{self.where}: {place}" if self.where else place)


Passphrase = Secret | Sequence[Secret] | None


def read_bundle(
    data: bytes | Sequence[bytes | Source],
    passphrase: Passphrase = None,
    *,
    roots: Roots | None = None,
    intermediates: Sequence[Cert] = (),
    choose: str = "",
    at: datetime | None = None,
) -> Bundle:
    """Leaf, chain and key from the bytes of one or several files, in any format and order.

    ``passphrase`` may be several, each is tried. ``roots`` are this machine's where None; ``intermediates`` complete the chain;
    ``choose`` names the leaf where several could be it; ``at`` is the moment that paths are judged for (UTC, now where None).

    Raises:
        CertsError: one of its leaves says what is wrong: wrong passphrase, legacy cipher, truncated, no certificate, several leaves …

    """
    contents = read_contents(data, passphrase)
    for error in contents.failures:
        if isinstance(error, WrongPassphraseError | PassphraseNeededError | LegacyCipherError | TooCostlyError):
            raise error
    return assemble(contents, roots=roots, intermediates=intermediates, choose=choose, at=at)


def read_contents(data: bytes | Sequence[bytes | Source], passphrase: Passphrase = None, *, max_rounds: int = MAX_ROUNDS) -> Contents:
    """Everything in some files; what could not be read is in ``failures``, and nothing is raised."""
    sources = (
        [Source(data)] if isinstance(data, bytes | bytearray) else [each if isinstance(each, Source) else Source(each) for each in data]
    )
    phrases = spell(passphrase)
    effort = Effort(most=max_rounds, left=4 * max_rounds)
    found = Contents()
    for source in sources:
        found = found + _from(source.name, read_source(source, phrases, effort))
    if phrases and found.keys and not any(key.encrypted for key in found.keys):
        found = found + Contents(notes=(Note("passphrase_unused", "A passphrase was given, and the private key is not encrypted."),))
    return found


def _from(name: str, found: Contents) -> Contents:
    """The same, each certificate and key knowing the file it came from."""
    if not name:
        return found
    certs, keys = (replace(cert, where=name) for cert in found.certs), (replace(key, where=name) for key in found.keys)
    return replace(found, certs=tuple(certs), keys=tuple(keys))


def spell(passphrase: Passphrase) -> tuple[Phrase, ...]:
    """The ways in which programs have turned a passphrase into bytes; at most six for each, the usual one first."""
    given = [passphrase] if isinstance(passphrase, Secret) else list(passphrase or ())
    found: dict[tuple[bytes, bytes | None], Phrase] = {}
    for secret in given:
        for phrase in _spellings(secret.reveal()):
            found.setdefault((phrase.raw, phrase.wide), phrase)
    return tuple(found.values())


def _spellings(text: str) -> list[Phrase]:
    composed, apart = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    raw = text.encode("utf-8", errors="surrogatepass")
    ways = [_phrase(text, "as given")]
    if not text:
        return [*ways, Phrase(b"", b"", "as an absent passphrase")]
    ways += [_phrase(composed, "with composed accents (NFC)"), _phrase(apart, "with separate accents (NFD)")]
    ways.append(Phrase(raw, _wide(raw.decode("latin-1")), "in the old way of OpenSSL 1.0 (bytes taken for letters)"))
    ways.append(Phrase(text.encode("cp1252", errors="replace"), _wide(text), "in the Windows code page 1252"))
    if text != text.strip():
        ways.append(_phrase(text.strip(), "without the white space around it"))
    return ways


def _phrase(text: str, how: str) -> Phrase:
    return Phrase(text.encode("utf-8", errors="surrogatepass"), _wide(text), how)


def _wide(text: str) -> bytes | None:
    try:
        return text.encode("utf-16-be") + b"\0\0"
    except UnicodeEncodeError:
        return None


def read_source(source: Source, phrases: tuple[Phrase, ...], effort: Effort) -> Contents:
    """Everything in one file."""
    job = _Job(phrases, effort, source.name)
    if len(source.data) > MAX_BYTES:
        return _failed(
            TooCostlyError(
                f"It has {len(source.data):,} bytes; more than {MAX_BYTES:,} are not read.", hint="Give the certificate's own file."
            ),
            job,
        )
    data = bytes(source.data)
    if not data.strip(b" \t\r\n\0"):
        return Contents(notes=(Note("empty", "The file is empty.", source.name),))
    try:
        return _read_bytes(data, job)
    except CertsError as error:
        return _failed(error, job)
    except MALFORMED as error:
        sentence = f"It is malformed in a way that nothing here foresaw: {type(error).__name__}."
        return _failed(DamagedError(sentence, hint="Please report the kind of file, not the file.", unforeseen=True), job)


def _read_bytes(data: bytes, job: _Job, depth: int = 0) -> Contents:
    bare = data.removeprefix(b"\xef\xbb\xbf")
    if looks_binary(bare):
        noted = (Note("bom", "A byte order mark in front was ignored.", job.where),) if bare is not data and bare != data else ()
        return Contents(notes=noted) + _read_binary(bare, job)
    found = _read_text(data, job)
    if (found and not found.failures) or depth:
        return found
    return _read_repaired(data, job, found)


def _read_text(data: bytes, job: _Job) -> Contents:
    found, last = Contents(), 0
    for block in find_blocks(data):
        last = block.number
        if last > MAX_PIECES:
            return found + _failed(TooCostlyError(f"It holds more than {MAX_PIECES:,} blocks.", hint="Split the file."), job)
        found = found + _read_block(block, job.at(block.where))
    if last and _has_text_outside(data):
        found = found + Contents(notes=(Note("text_ignored", "Text outside the blocks was ignored.", job.where),))
    return found


def _has_text_outside(data: bytes) -> bool:
    head = data.lstrip(b"\xef\xbb\xbf \t\r\n\0")
    return not head.startswith(b"-----BEGIN")


def _read_block(block: Block, job: _Job) -> Contents:
    try:
        if block.failure is not None:
            raise block.failure
        if block.is_encrypted:
            return Contents(keys=(read_traditional_key(block.render(), block.cipher, block.iv, job.phrases),))
        return _read_element(block.der, job, label=block.label)
    except CertsError as error:
        return _failed(error, job)


def _read_repaired(data: bytes, job: _Job, first: Contents) -> Contents:
    text, done = repair(data)
    again = _read_text(text, job) if done else Contents()
    if not again and not first:
        unwrapped = find_bare_base64(text)
        if unwrapped is not None:
            done, again = (*done, "base64 without BEGIN and END"), _read_bytes(unwrapped, job, depth=1)
    if not again or _worth(again) <= _worth(first):
        return first if first or first.failures or first.notes else _nothing_known(job, again)
    return again + Contents(notes=(Note("repaired", "Repaired: " + ", ".join(done) + ".", job.where),))


def _worth(contents: Contents) -> tuple[int, int]:
    return len(contents.certs) + len(contents.keys) + len(contents.crls), -len(contents.failures)


def _nothing_known(job: _Job, found: Contents) -> Contents:
    if found.notes or found.failures:
        return found
    return Contents(notes=(Note("unknown_file", "It holds no certificate or key in any form that is known here.", job.where),))


def _read_binary(data: bytes, job: _Job) -> Contents:
    if data[:4] in KEYSTORES:
        raise KeystoreError(
            "It is a Java keystore in Sun's own format.",
            hint="keytool -importkeystore -srckeystore FILE -destkeystore NEW.p12 -deststoretype PKCS12, then give NEW.p12.",
        )
    elements, rest = split_elements(data)
    if not elements:
        raise DamagedError("It begins like DER and is not well-formed.", hint="Export it again from where it came from.")
    found = Contents()
    for number, element in enumerate(elements, 1):
        place = job.at(f"part {number}") if len(elements) > 1 else job
        try:
            found = found + _read_element(element, place)
        except CertsError as error:
            found = found + _failed(error, place)
    if rest.strip(b"\0\r\n\t "):
        found = found + _read_trailing(rest, job)
    return found


def _read_trailing(rest: bytes, job: _Job) -> Contents:
    place = job.at("after the first part")
    within = _read_text(rest, place)
    if within:
        return within
    return Contents(notes=(Note("trailing", f"{len(rest):,} bytes after it were ignored.", job.where),))


def _read_element(der: bytes, job: _Job, label: str = "") -> Contents:
    if der.startswith(b"openssh-key-v1"):
        raise UnsupportedError("It is an OpenSSH key, which TLS servers do not use.", hint="Give the certificate's own key.")
    kind = find_kind(der)
    reader = _READERS.get(kind)
    found = reader(der, job) if reader else Contents(notes=(Note("ignored", f"Ignored: {kind.value}.", job.where),))
    expected = _LABELS.get(label.upper())
    if expected is not None and kind not in expected and found:
        found = found + Contents(notes=(Note("label", f"The label says {label}, and it is {kind.value}.", job.where),))
    return found


def _read_certificate(der: bytes, job: _Job) -> Contents:
    elements, rest = split_elements(der)
    if not elements:
        raise DamagedError("It is a certificate in an encoding that nobody uses.", hint="Export it again from where it came from.")
    cert = Cert(elements[0])
    notes = []
    if len(elements) > 1 or rest:
        notes.append(Note("trailing", f"{len(der) - len(elements[0])} bytes after the certificate were ignored.", job.where))
    return Contents(certs=(cert,), notes=tuple(notes))


def _read_pkcs7(der: bytes, job: _Job) -> Contents:
    try:
        info = cms.ContentInfo.load(der)
        kind = str(info["content_type"].native)
        if kind != "signed_data":
            raise UnsupportedError(
                f"It is PKCS#7 {kind.replace('_', ' ')}, which holds no readable certificates.",
                hint="Export it as PKCS#7 with certificates.",
            )
        content = info["content"]
        raw = [] if isinstance(content["certificates"], core.Void) else [choice.chosen.dump() for choice in content["certificates"]]
        lists = [] if isinstance(content["crls"], core.Void) else [choice.chosen.dump() for choice in content["crls"]]
    except MALFORMED as error:
        raise DamagedError(f"The PKCS#7 container is malformed: {error}.", hint="Export it again from where it came from.") from error
    if len(raw) > MAX_PIECES:
        raise TooCostlyError(f"It holds more than {MAX_PIECES:,} certificates.", hint="Split the file.")
    found = Contents(crls=tuple(lists))
    for number, each in enumerate(raw, 1):
        found = found + _one_cert(each, job.at(f"certificate {number}"))
    if not raw and not lists:
        found = found + Contents(notes=(Note("ignored", "The PKCS#7 container holds no certificates.", job.where),))
    return found


def _one_cert(der: bytes, job: _Job) -> Contents:
    try:
        return Contents(certs=(Cert(der),))
    except CertsError as error:
        return _failed(error, job)


def _read_row(der: bytes, job: _Job) -> Contents:
    found = Contents()
    for number, each in enumerate(cut(der).children()[:MAX_PIECES], 1):
        found = found + _one_cert(each.whole, job.at(f"certificate {number}"))
    return found


def _read_plain(der: bytes, _job: _Job) -> Contents:
    return Contents(keys=(read_plain_key(der),))


def _read_encrypted(der: bytes, job: _Job) -> Contents:
    return Contents(keys=(read_encrypted_key(der, job.phrases, job.effort),))


def _read_pkcs12(der: bytes, job: _Job) -> Contents:
    return read_pkcs12(der, job.phrases, job.effort, where=job.where)


def _read_crl(der: bytes, _job: _Job) -> Contents:
    return Contents(crls=(der,))


_READERS: dict[Kind, Callable[[bytes, _Job], Contents]] = {
    Kind.CERTIFICATE: _read_certificate,
    Kind.CERTIFICATES: _read_row,
    Kind.PKCS7: _read_pkcs7,
    Kind.PKCS12: _read_pkcs12,
    Kind.PRIVATE_KEY: _read_plain,
    Kind.ENCRYPTED_KEY: _read_encrypted,
    Kind.CRL: _read_crl,
}
_CERTS, _KEYS = {Kind.CERTIFICATE}, {Kind.PRIVATE_KEY, Kind.ENCRYPTED_KEY}
_LABELS = {
    "CERTIFICATE": _CERTS,
    "TRUSTED CERTIFICATE": _CERTS,
    "X509 CERTIFICATE": _CERTS,
    "PRIVATE KEY": {Kind.PRIVATE_KEY},
    "ENCRYPTED PRIVATE KEY": {Kind.ENCRYPTED_KEY},
    "RSA PRIVATE KEY": _KEYS,
    "EC PRIVATE KEY": _KEYS,
    "PKCS7": {Kind.PKCS7},
    "PKCS12": {Kind.PKCS12},
    "X509 CRL": {Kind.CRL},
}


def _failed(error: CertsError, job: _Job) -> Contents:
    error.facts = {**error.facts, "where": job.where} if job.where else error.facts
    return Contents(failures=(error,))


def with_keys(contents: Contents, keys: tuple[Key, ...]) -> Contents:
    """The contents with these keys too."""
    return contents + Contents(keys=keys)
