"""The one place that talks DNS: messages out and in, and foreign errors made ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from migrate.cutover.dns_values import (
    DnsAnswerError,
    DnsChangedError,
    DnsKeyRefusedError,
    DnsUnreachableError,
    DnsUpdateRefusedError,
    DnsZoneError,
    NameServer,
    TsigKey,
    parse_address,
)

TRIES = 2  # datagrams get lost; a second one costs little

_PEER_SAYS: tuple[tuple[type[dns.exception.DNSException], str, str, str], ...] = (
    (
        dns.tsig.PeerBadKey,
        "BADKEY",
        "does not know the TSIG key",
        "Compare the key's name and algorithm with the server's key statement.",
    ),
    (dns.tsig.PeerBadSignature, "BADSIG", "finds the signature wrong", "The key's secret or algorithm differs from the server's."),
    (dns.tsig.PeerBadTime, "BADTIME", "finds the signature too old or too new", "Set the clocks of this machine and of the name server."),
    (dns.tsig.PeerBadTruncation, "BADTRUNC", "finds the signature too short", "Use a key with hmac-sha256 or hmac-sha512."),
    (dns.tsig.PeerError, "TSIG", "refuses the signature", "Look into the name server's log."),
)


@dataclass(frozen=True)
class Answer:
    """What a server says of one name and type: ``values`` as text, sorted; ``ttl`` in seconds; ``alias`` where a CNAME stands there."""

    values: tuple[str, ...]
    ttl: int
    alias: str | None = None


def ask(server: NameServer, name: dns.name.Name, kind: str, *, timeout: float) -> Answer:
    """What an authoritative server says of ``name``. It is asked as visitors' resolvers ask it: without a key, without recursion.

    Raises:
        DnsUnreachableError: no answer.
        DnsZoneError: it answers without authority.
        DnsAnswerError: it answers with an error.

    """
    response = ask_raw(server, name, kind, timeout=timeout)
    code = response.rcode()
    if code == dns.rcode.REFUSED:
        raise DnsZoneError(
            f"The name server {server} does not serve {_text(name)}.",
            hint="Check its address in the plan, and whether it lets this machine ask.",
        )
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise DnsAnswerError(
            f"The name server {server} answers {dns.rcode.to_text(code)} for {_text(name)}.", hint="Look into the name server's log."
        )
    if not response.flags & dns.flags.AA:
        raise DnsZoneError(
            f"The name server {server} answers for {_text(name)} without being authoritative.",
            hint="The zone's NS records name it, or the plan does, but it does not serve the zone.",
        )
    return _parse_answer(response, name, kind)


def ask_raw(server: NameServer, name: dns.name.Name, kind: str, *, timeout: float) -> dns.message.Message:
    """The server's whole response; TCP where a datagram is too small."""
    query = dns.message.make_query(name, kind, flags=0)

    def send() -> dns.message.Message:
        return dns.query.udp_with_fallback(query, server.address, timeout=timeout, port=server.port)[0]

    for attempt in range(TRIES):
        try:
            return _translated(server, send)
        except DnsUnreachableError:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def send_update(server: NameServer, update: dns.update.UpdateMessage, key: TsigKey, *, timeout: float) -> None:
    """Send a signed update over TCP and see it accepted, in a signed answer.

    Raises:
        DnsChangedError: a prerequisite does not hold; nothing was changed.
        DnsKeyRefusedError: key, signature or clock.
        DnsUpdateRefusedError: the key may not do this, or the server does not take updates for the zone.
        DnsZoneError: the name lies outside the server's zone.
        DnsUnreachableError: no answer. The update may have been made or not: read it back.
        DnsAnswerError: any other answer, or one that is not signed.

    """
    wire_key = dns.tsig.Key(key.name, key.secret.reveal(), key.algorithm.value)
    update.use_tsig(wire_key, algorithm=wire_key.algorithm)
    response = _translated(server, lambda: dns.query.tcp(update, server.address, timeout=timeout, port=server.port), key=key)
    _verify_update_answer(server, response, key)


def _verify_update_answer(server: NameServer, response: dns.message.Message, key: TsigKey) -> None:
    code = response.rcode()
    said = dns.rcode.to_text(code)
    if code == dns.rcode.NOERROR:
        if not response.had_tsig:
            raise DnsAnswerError(
                f"The name server {server} says the update is done, but does not sign it.", hint="Something between here and it answers."
            )
        return
    if code in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
        raise DnsChangedError(
            "The record on the name server is not what was expected, so nothing was changed.",
            hint="Find out who changed it, then check the plan again.",
            server=str(server),
            said=said,
        )
    if code == dns.rcode.NOTZONE:
        raise DnsZoneError(
            f"The name server {server} says that the name lies outside the zone.",
            hint="Leave the zone out of the plan: it is then found by itself.",
        )
    if code in (dns.rcode.REFUSED, dns.rcode.NOTAUTH):
        raise DnsUpdateRefusedError(
            f"The name server {server} does not let the key {key.name} change this record ({said}).",
            hint="On BIND: allow-update or update-policy of the zone must name this key; updates go to the primary, not to a secondary.",
            said=said,
        )
    raise DnsAnswerError(f"The name server {server} answers the update with {said}.", hint="Look into the name server's log.", said=said)


def _translated(server: NameServer, send: Callable[[], dns.message.Message], *, key: TsigKey | None = None) -> dns.message.Message:
    try:
        return send()
    except dns.tsig.PeerError as refusal:
        raise _key_refusal(server, refusal, key) from None
    except (dns.tsig.BadSignature, dns.tsig.BadKey, dns.tsig.BadTime, dns.tsig.BadAlgorithm, dns.message.UnknownTSIGKey) as error:
        raise DnsAnswerError(
            f"The answer of the name server {server} is signed wrongly: {type(error).__name__}.",
            hint="Compare the key's secret and algorithm on both sides, and the clocks.",
        ) from None
    except (dns.exception.Timeout, EOFError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no answer in time"
        raise DnsUnreachableError(
            f"The name server {server} does not answer: {reason}.", hint="Check its address, its port (UDP and TCP) and firewalls."
        ) from error
    except (dns.exception.DNSException, ValueError) as error:
        raise DnsAnswerError(
            f"The answer of the name server {server} is not DNS that can be read: {type(error).__name__}.",
            hint="Check that a name server listens there.",
        ) from error


def _key_refusal(server: NameServer, refusal: dns.tsig.PeerError, key: TsigKey | None) -> DnsKeyRefusedError:
    name = key.name if key else ""
    for kind, said, words, hint in _PEER_SAYS:
        if isinstance(refusal, kind):
            return DnsKeyRefusedError(f"The name server {server} {words} of the update (key {name}, {said}).", hint=hint, said=said)
    return DnsKeyRefusedError(f"The name server {server} refuses the key {name}.", hint="Look into the name server's log.", said="TSIG")


def _parse_answer(response: dns.message.Message, name: dns.name.Name, kind: str) -> Answer:
    wanted = dns.rdatatype.from_text(kind)
    values: dns.rrset.RRset | None = None
    for rrset in response.answer:
        if rrset.name != name:
            continue
        if rrset.rdtype == dns.rdatatype.CNAME and wanted != dns.rdatatype.CNAME:
            return Answer((), rrset.ttl, alias=_text(rrset[0].target))
        if rrset.rdtype == wanted:
            values = rrset
    if values is None:
        return Answer((), 0)
    texts = (item.to_text() for item in values)
    return Answer(tuple(sorted(parse_address(text) if kind in ("A", "AAAA") else text for text in texts)), values.ttl)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
