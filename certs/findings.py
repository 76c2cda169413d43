"""What a judgement says: findings with stable codes, and the table of every code with its severity and hint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum

from certs.bundle import Bundle
from certs.cert import Cert
from kit.plain import spell_out


class Severity(IntEnum):
    """How bad. An ``ERROR`` blocks: clients will refuse it, or it cannot be imported."""

    INFO = 1
    WARNING = 2
    ERROR = 3


class Measure(Enum):
    """By what measure.

    ``USUAL``: what clients and appliances really refuse. ``RFC5280`` and ``WEBPKI`` (the CA/Browser Forum's rules for public
    authorities, over and above the RFC): every clause of the standard.
    """

    USUAL = "usual"
    RFC5280 = "rfc5280"
    WEBPKI = "webpki"


I, W, E = Severity.INFO, Severity.WARNING, Severity.ERROR  # noqa: E741 - columns of a table


@dataclass(frozen=True)
class Finding:
    """One thing that is so. ``code`` is stable; ``about`` names the certificate (its name and the start of its SHA-256), "" for all."""

    code: str
    severity: Severity
    sentence: str
    hint: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        # What a certificate says of itself is anybody's text, and stands in sentences that terminals and reports show.
        object.__setattr__(self, "sentence", spell_out(self.sentence))
        object.__setattr__(self, "about", spell_out(self.about))

    @property
    def blocks(self) -> bool:
        return self.severity is Severity.ERROR


@dataclass(frozen=True)
class Case:
    """What is judged, and by what measure.

    ``at`` is true time (UTC); ``clock_offset`` is how far the box's clock is ahead of it, None where that is not known.
    ``allow_private`` makes private CAs and self-signed certificates legal; ``need_key`` makes a missing key block; ``client`` judges a
    client's certificate; ``soon`` is how long before its end a certificate is reported; ``max_depth`` limits the intermediates.
    """

    bundle: Bundle
    hostnames: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock_offset: timedelta | None = None
    measure: Measure = Measure.USUAL
    allow_private: bool = False
    need_key: bool = False
    client: bool = False
    soon: timedelta = timedelta(days=30)
    max_depth: int | None = None
    crls: tuple[bytes, ...] = ()

    def find(self, code: str, sentence: str, cert: Cert | None = None, *, severity: Severity | None = None, hint: str = "") -> Finding:
        """A finding with the severity and the hint that the table gives its code."""
        row = CODES[code]
        about = f"{cert} ({cert.sha256[:12]})" if cert is not None else ""
        return Finding(code, severity or row.severity(self.measure), sentence, hint or row.hint, about)

    @property
    def is_usual(self) -> bool:
        return self.measure is Measure.USUAL

    @property
    def is_authority(self) -> bool:
        """Whether the certificate of an authority is looked at for itself, and nobody means to serve it."""
        return self.is_usual and self.bundle.leaf.is_ca and self.bundle.key is None and not (self.hostnames or self.need_key or self.client)

    def roles(self) -> Iterator[tuple[str, Cert]]:
        """Each certificate of the path with its part: ``leaf``, ``intermediate``, ``root``."""
        yield "leaf", self.bundle.leaf
        for cert in self.bundle.chain:
            yield "intermediate", cert
        if self.bundle.root is not None and self.bundle.root != self.bundle.leaf:
            yield "root", self.bundle.root


@dataclass(frozen=True)
class Row:
    """One code: its severity in each measure, its hint, and whether an appliance's certificate page shows a warning for it."""

    usual: Severity
    rfc5280: Severity
    webpki: Severity
    hint: str
    shown: bool = False

    def severity(self, measure: Measure) -> Severity:
        return {Measure.USUAL: self.usual, Measure.RFC5280: self.rfc5280}.get(measure, self.webpki)


_AGAIN = "Ask the issuing authority for a new certificate."
_FORM = "Clients that check strictly refuse it; ask the issuing authority for a new certificate."
CODES: dict[str, Row] = {
    # time
    "expired": Row(E, E, E, "Renew it first; an expired certificate is not worth moving.", shown=True),
    "not_yet_valid": Row(E, E, E, "Wait, or ask for one that is valid already.", shown=True),
    "clock_wrong": Row(E, E, E, "Set the box's clock (NTP) before blaming the certificate.", shown=True),
    "expires_soon": Row(W, I, I, "Renew it soon, and move the new one.", shown=True),
    "issuer_expired": Row(E, E, E, "Get the current intermediate from the issuing authority and leave the expired one out.", shown=True),
    "root_expired": Row(E, E, E, "Use a chain that ends in a current root; the alternatives are listed."),
    "issuer_ends_first": Row(W, I, I, "Renew before that date, or use another chain."),
    "bad_date": Row(E, E, E, _FORM),
    "long_lived": Row(I, I, I, "Browsers accept 398 days at most from public authorities."),
    # names
    "hostname_mismatch": Row(E, E, E, "Have it issued again for that name, or use a name that it has.", shown=True),
    "no_alt_names": Row(E, E, E, "Clients ignore the common name; have it issued again with alternative names.", shown=True),
    "bad_alt_name": Row(W, E, E, _FORM),
    "wildcard_too_wide": Row(W, I, E, "Clients refuse a wildcard that covers a whole public suffix."),
    "common_name_differs": Row(I, I, E, "Public authorities must repeat the common name among the alternative names."),
    "critical_alt_names": Row(I, I, E, _FORM),
    # key
    "key_missing": Row(W, W, W, "Export it with its private key, or make a request with boxshift certs request.", shown=True),
    "key_mismatch": Row(E, E, E, "Look for the key that belongs to it; both fingerprints are printed."),
    "spare_keys": Row(I, I, I, "Only the key of the leaf is written."),
    "key_weak": Row(W, W, E, "Use RSA with 2,048 bits or more, P-256 or P-384."),
    "key_unusual": Row(W, I, E, "Many appliances take only RSA, P-256 and P-384."),
    # chain
    "issuer_missing": Row(
        E,
        E,
        E,
        "Give the issuer's file too, or allow fetching it with --aia; where only your own root is missing, say --private.",
        shown=True,
    ),
    "self_signed": Row(W, E, E, "Legal where clients trust this very certificate; say so with --private.", shown=True),
    "private_ca": Row(W, E, E, "Legal where clients trust this authority; say so with --private."),
    "not_signed_by": Row(E, E, E, "The intermediate has the right name and another key; get the one that made the signature."),
    "other_paths": Row(I, I, I, "The first path is the one that is used."),
    "unused_certificates": Row(I, I, I, "They take no part in the chain and are left out."),
    "path_too_long": Row(E, E, E, "The authority may not issue through so many levels; get another chain."),
    "name_not_permitted": Row(E, E, E, "The authority may not issue for that name."),
    "bad_name_constraints": Row(W, E, E, "The authority's certificate is malformed; get a corrected one."),
    "not_a_ca": Row(E, E, E, "A certificate in the chain may not issue others; get the right intermediate."),
    "ca_as_leaf": Row(W, I, E, "A certificate authority's own certificate stands where the server's should."),
    # signatures
    "weak_signature": Row(E, E, E, "Clients refuse it; ask for a certificate signed with SHA-256."),
    "weak_root_signature": Row(I, I, I, "A root is trusted by itself; its signature does not matter."),
    "signature_unknown": Row(W, E, E, "Nothing here can check that signature."),
    # purposes
    "wrong_usage": Row(E, E, E, "It was issued for another purpose; " + _AGAIN[0].lower() + _AGAIN[1:]),
    "usage_missing": Row(I, I, E, "Public authorities must state the purpose."),
    "any_usage": Row(I, I, E, "Public authorities must not use the purpose 'any'."),
    "no_client_auth": Row(I, I, I, "A service that signs in to others with this certificate will be refused."),
    "must_staple": Row(W, I, I, "The new box must staple OCSP answers, or Firefox refuses it."),
    "no_sct": Row(W, I, I, "Chrome and Safari refuse public certificates without it."),
    # form
    "malformed": Row(E, E, E, _FORM),
    "not_judged": Row(E, E, E, "Could not be told is not fine; look at the certificate with openssl x509 -text."),
    "malformed_extension": Row(W, E, E, _FORM),
    "unknown_critical": Row(E, E, E, "Clients must refuse a certificate with a critical part that they do not know."),
    "critical_wrong": Row(I, E, E, _FORM),
    "bad_serial": Row(W, E, E, _FORM),
    "bad_key_identifier": Row(I, E, E, _FORM),
    "bad_version": Row(W, E, E, _FORM),
    "bad_algorithm": Row(W, E, E, _FORM),
    "empty_subject": Row(W, E, E, _FORM),
    "duplicate_extension": Row(E, E, E, _FORM),
    "explicit_curve": Row(W, I, E, _FORM),
    "too_many_names": Row(E, E, E, "Comparing them all would take a client too long; most refuse it."),
    "bad_access_information": Row(I, E, E, _FORM),
    "bad_policy": Row(W, E, E, _FORM),
    # revocation
    "revoked": Row(E, E, E, "It was withdrawn; have a new one issued."),
    "bad_crl": Row(W, E, E, "The authority's revocation list cannot be relied on."),
    "verifier_refuses": Row(E, E, E, "The library's verifier refuses it for a reason that no rule here names."),
}


# Notes of reading: always of the lightest weight.
NOTES = {
    "bom": "a byte order mark in front was ignored",
    "duplicates": "certificates were there more than once",
    "empty": "a file is empty",
    "ignored": "something that is no certificate and no key: a request, parameters, a public key, a secret",
    "key_not_encrypted": "the private key in a PKCS#12 file is not encrypted",
    "label": "a PEM label says something else than the bytes",
    "no_integrity": "a PKCS#12 file has no MAC: nothing proves it whole",
    "older_left_out": "of several certificates for the same, the newest valid one was taken",
    "order_changed": "the certificates were not in the order that TLS wants",
    "passphrase_spelling": "the passphrase fits in another spelling than the usual",
    "passphrase_unused": "a passphrase was given, and nothing is encrypted",
    "repaired": "the text was repaired; the note says how",
    "root_included": "the root is among the files; it is written only with --keep-root",
    "text_ignored": "text outside the PEM blocks was ignored",
    "trailing": "bytes after a certificate were ignored",
    "unknown_file": "a file holds nothing that is known",
}
# What is said of what a server presents.
SERVED = {
    "default_without_sni": "clients that send no SNI get another certificate",
    "no_handshake": "one version of TLS, or no SNI, does not work",
    "served_default": "the name that was asked for is not known there",
    "served_duplicate": "a certificate is sent twice",
    "served_order": "the certificates are sent in the wrong order",
    "served_root": "the root is sent too",
    "staple_missing": "the leaf demands a stapled OCSP answer, and none is sent",
}


def appliance_warnings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those for which an appliance's certificate page shows a warning in the certificate's row."""
    return tuple(found for found in findings if found.severity > Severity.INFO and found.code in CODES and CODES[found.code].shown)
