"""What a DNS cutover is asked to do, and how it can fail."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

import dns.exception
import dns.name

from kit.errors import ChangedError, RefusedError, RejectedError, UnexpectedError, UnreachableError, UsageError
from kit.secret import Secret


class DnsPlanError(UsageError):
    """A name, an address or a key in the plan is not one."""

    code = "dns-plan"


class DnsUnreachableError(UnreachableError):
    """A name server does not answer."""

    code = "dns-unreachable"


class DnsKeyRefusedError(RejectedError):
    """The name server does not accept our TSIG key, or our signature, or our clock."""

    code = "dns-key-refused"


class DnsUpdateRefusedError(RejectedError):
    """The name server knows us, and does not let us change this record."""

    code = "dns-update-refused"


class DnsZoneError(RefusedError):
    """The server is not authoritative for the zone, or the name lies outside it."""

    code = "dns-zone"


class DnsRecordError(RefusedError):
    """The record is not in a form that can be switched: a CNAME, several addresses, none, or another box's."""

    code = "dns-record"


class DnsChangedError(ChangedError):
    """Somebody else changed the record."""

    code = "dns-changed"


class DnsAnswerError(UnexpectedError):
    """A name server's answer could not be understood, or proves nothing."""

    code = "dns-answer"


class TsigAlgorithm(StrEnum):
    """How updates are signed (RFC 8945); MD5 and SHA-1 are left out on purpose."""

    HMAC_SHA224 = "hmac-sha224"
    HMAC_SHA256 = "hmac-sha256"
    HMAC_SHA384 = "hmac-sha384"
    HMAC_SHA512 = "hmac-sha512"


@dataclass(frozen=True)
class TsigKey:
    """A key shared with the name server. ``secret`` in base64, as ``tsig-keygen`` writes it.

    Raises:
        DnsPlanError: the secret is not base64, or the name is none.

    """

    name: str
    secret: Secret
    algorithm: TsigAlgorithm = TsigAlgorithm.HMAC_SHA256

    def __post_init__(self) -> None:
        parse_dns_name(self.name)
        try:
            good = bool(base64.b64decode("".join(self.secret.reveal().split()), validate=True))
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise DnsPlanError(
                f"The secret of the TSIG key {self.name} is not base64 text.",
                hint="Give only what stands between the quotation marks after the word secret in the key file.",
            )


_KEY_FILE = re.compile(r'key\s+"?(?P<name>[^"\s{]+)"?\s*\{(?P<body>[^}]*)\}')
_KEY_FIELD = re.compile(r'(algorithm|secret)\s+"?([^";\s]+)"?\s*;')


def parse_tsig_key(text: Secret) -> TsigKey:
    """The key in a file as ``tsig-keygen`` writes it and BIND includes it.

    Raises:
        DnsPlanError: no such key in it, or an algorithm that is too weak or unknown.

    """
    found = _KEY_FILE.search(text.reveal())
    fields = dict(_KEY_FIELD.findall(found["body"])) if found else {}
    if found is None or "secret" not in fields:
        raise DnsPlanError("The TSIG key file holds no key.", hint='It should read: key "NAME" { algorithm hmac-sha256; secret "…"; };')
    word = fields.get("algorithm", "hmac-sha256").lower().rstrip(".")
    if word not in set(TsigAlgorithm):
        raise DnsPlanError(
            f"The TSIG key {found['name']} uses {word}, which is not supported.",
            hint=f"Make a new key with one of {', '.join(TsigAlgorithm)}: tsig-keygen -a hmac-sha256 {found['name']}",
        )
    return TsigKey(found["name"], Secret(fields["secret"]), TsigAlgorithm(word))


@dataclass(frozen=True)
class NameServer:
    """One name server by address. ``name`` is its name in the zone's NS records, empty where it has none there."""

    address: str
    port: int = 53
    name: str = ""

    def __post_init__(self) -> None:
        parse_address(self.address)
        if not 0 < self.port < 65536:
            raise DnsPlanError(f"{self.port} is not a port.", hint="Name servers listen on port 53 unless somebody chose another.")

    def __str__(self) -> str:
        where = f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
        return f"{self.name.rstrip('.')} ({where})" if self.name else where


@dataclass(frozen=True)
class Move:
    """One address that is replaced by another of the same family: an A record, or an AAAA record.

    Raises:
        DnsPlanError: not two different addresses of one family.

    """

    old: str
    new: str

    def __post_init__(self) -> None:
        old, new = parse_address(self.old), parse_address(self.new)
        if ip_address(old).version != ip_address(new).version:
            raise DnsPlanError(f"{old} and {new} are not of one family.", hint="Pair IPv4 with IPv4 and IPv6 with IPv6.")
        if old == new:
            raise DnsPlanError(f"The old and the new address are both {old}.", hint="A DNS cutover needs two addresses.")
        object.__setattr__(self, "old", old)
        object.__setattr__(self, "new", new)

    @property
    def kind(self) -> str:
        """``A`` or ``AAAA``."""
        return "A" if ip_address(self.old).version == 4 else "AAAA"


@dataclass(frozen=True)
class DnsCutoverPlan:
    """What to move and where. Times in seconds.

    ``server`` takes the updates. ``zone`` is found by its SOA record where it is None. ``ttl`` holds during the cutover.
    ``authoritative`` gives an address and a port to names of the zone's NS records that cannot be looked up from here, and adds
    servers that the NS records do not name. ``spread_timeout``: how long the secondaries may take to follow.

    Raises:
        DnsPlanError: it contradicts itself.

    """

    name: str
    moves: tuple[Move, ...]
    server: NameServer
    key: TsigKey
    zone: str | None = None
    ttl: int = 30
    authoritative: tuple[NameServer, ...] = ()
    timeout: float = 5.0
    spread_timeout: float = 300.0

    def __post_init__(self) -> None:
        name = parse_dns_name(self.name)
        if self.zone is not None and not name.is_subdomain(parse_dns_name(self.zone)):
            raise DnsPlanError(f"{self.name} does not lie in the zone {self.zone}.", hint="Leave the zone out: it is then found by itself.")
        kinds = [move.kind for move in self.moves]
        if not kinds or len(kinds) != len(set(kinds)):
            raise DnsPlanError(f"{self.name} needs one move for each address family, at most one A and one AAAA.")
        if not 0 < self.ttl <= 86400:
            raise DnsPlanError(
                f"A TTL of {self.ttl} s during the cutover is not sensible.", hint="30 s is usual; at least 1, at most a day."
            )


def parse_dns_name(text: str) -> dns.name.Name:
    """An absolute DNS name, international ones too.

    Raises:
        DnsPlanError: it is not one.

    """
    try:
        return dns.name.from_text(text) if text.strip() else _bad_name(text)
    except (dns.exception.DNSException, UnicodeError):
        return _bad_name(text)


def _bad_name(text: str) -> dns.name.Name:
    raise DnsPlanError(f"{text!r} is not a DNS name.", hint="Write it as in support.example.com.")


def parse_address(text: str) -> str:
    """An IP address in its shortest usual form.

    Raises:
        DnsPlanError: it is not one.

    """
    try:
        return str(ip_address(text))
    except ValueError:
        raise DnsPlanError(f"{text!r} is not an IP address.", hint="Names are not looked up here: give the address itself.") from None
