"""Names in certificates: distinguished names and alternative names, read leniently and compared as RFC 5280 says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from asn1crypto import core
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

from kit.plain import spell_out

# What the libraries raise for malformed input. Everything that decodes foreign bytes expects these.
MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    RecursionError,
    UnsupportedAlgorithm,
    InternalError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

MOST_SHOWN = 25  # names in one sentence; JSON has all of them


@dataclass(frozen=True)
class AltNames:
    """What a certificate says it is for. ``other`` lists the kinds that TLS servers do not use, as ``kind:value``."""

    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dns or self.addresses or self.other)

    def __str__(self) -> str:
        every = [*self.dns, *self.addresses, *self.other]
        more = [f"and {len(every) - MOST_SHOWN:,} more"] if len(every) > MOST_SHOWN else []
        return spell_out(", ".join([*every[:MOST_SHOWN], *more])) or "no names"


def alt_names(found: core.Asn1Value) -> AltNames:
    """General names as text. Names that are not well-formed are left out."""
    dns: list[str] = []
    addresses: list[str] = []
    other: list[str] = []
    for name in found:
        try:
            if name.name == "dns_name":
                dns.append(name.chosen.contents.decode("ascii", errors="replace"))
            elif name.name == "ip_address":
                addresses.append(str(name.native))
            else:
                other.append(f"{name.name}:{name.chosen.human_friendly if name.name == 'directory_name' else name.native}")
        except MALFORMED:
            continue
    return AltNames(tuple(dns), tuple(addresses), tuple(other))


def name_parts(der: bytes) -> list[tuple[str, str]]:
    """A distinguished name as pairs of kind and text, in the order written; undecodable values as hex."""
    parts: list[tuple[str, str]] = []
    try:
        for relative in asn1.Name.load(der).chosen:
            for pair in relative:
                try:
                    parts.append((str(pair["type"].native), str(pair["value"].native)))
                except MALFORMED:
                    parts.append((str(pair["type"].native), pair["value"].contents.hex()))
    except MALFORMED:
        return [*parts, ("malformed", der.hex())]
    return parts


_SHORT = {
    "common_name": "CN",
    "organization_name": "O",
    "organizational_unit_name": "OU",
    "country_name": "C",
    "state_or_province_name": "ST",
    "locality_name": "L",
    "domain_component": "DC",
    "email_address": "E",
}


def name_text(der: bytes) -> str:
    """A distinguished name as one line, in the order written; what would steer a terminal is spelt out."""
    return spell_out(", ".join(f"{_SHORT.get(kind, kind)}={value}" for kind, value in name_parts(der)))


def same_name(one: bytes, other: bytes) -> bool:
    """Whether two distinguished names are equal by RFC 5280: letter case and runs of spaces do not count."""
    return one == other or (len(one) < 65536 and len(other) < 65536 and folded_name(one) == folded_name(other))


@lru_cache(maxsize=4096)
def folded_name(der: bytes) -> tuple[tuple[str, str], ...]:
    """A distinguished name in the form in which equal names are equal."""
    return tuple((kind, " ".join(value.split()).casefold()) for kind, value in name_parts(der))


def as_address(text: str) -> IPv4Address | IPv6Address | None:
    """``text`` as an IP address, None where it is none."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None
