"""What to say before TLS: SMTP, IMAP, LDAP, PostgreSQL and XMPP, each up to the moment when the handshake begins."""

from __future__ import annotations

import socket
import time

from asn1crypto import core

from certs.errors import CertsError, HandshakeError
from certs.protocols import Protocol

MAX_REPLY = 65536
_POSTGRES_REQUEST = bytes.fromhex("0000000804d2162f")
_LDAP_STARTTLS = b"1.3.6.1.4.1.1466.20037"


def ask_for_tls(link: socket.socket, protocol: Protocol, host: str, timeout: float) -> None:
    """Bring a fresh connection to the point where TLS begins. ``host`` is the name the service may want to hear.

    Raises:
        HandshakeError: the service refuses, answers nonsense, or does not answer in ``timeout`` seconds.

    """
    talk = _Talk(link, time.monotonic() + timeout)
    try:
        _SPEAKERS[protocol](talk, host)
    except CertsError:
        raise
    except (OSError, ValueError, UnicodeError) as error:
        raise HandshakeError(f"The {protocol.value} service does not get as far as TLS: {error}.", hint="Is it the right port?") from error


class _Talk:
    """A conversation with a deadline."""

    def __init__(self, link: socket.socket, end: float) -> None:
        self._link, self._end, self._kept = link, end, b""

    def say(self, text: bytes) -> None:
        self._link.settimeout(self._left())
        self._link.sendall(text)

    def hear(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        while len(self._kept) < size:
            self._more()
        found, self._kept = self._kept[:size], self._kept[size:]
        return found

    def hear_until(self, *marks: bytes) -> bytes:
        """Everything up to and with the first of ``marks``."""
        while True:
            ends = [self._kept.find(mark) + len(mark) for mark in marks if mark in self._kept]
            if ends:
                return self.hear(min(ends))
            self._more()

    def _more(self) -> None:
        self._link.settimeout(self._left())
        # One byte too many would swallow the beginning of TLS; the other side waits for our hello, so there is none yet.
        piece = self._link.recv(4096)
        if not piece:
            raise HandshakeError("The service closed the connection before TLS.", hint="Is it the right port?")
        self._kept += piece
        if len(self._kept) > MAX_REPLY:
            raise HandshakeError("The service says too much before TLS.", hint="Is it the right port?")

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise HandshakeError("The service does not get as far as TLS in time.", hint="Is it the right port?")
        return left


def _speak_nothing(_talk: _Talk, _host: str) -> None:
    return


def _speak_smtp(talk: _Talk, _host: str) -> None:
    _smtp_reply(talk, b"220")
    talk.say(b"EHLO boxshift.invalid\r\n")
    offered = _smtp_reply(talk, b"250")
    if b"STARTTLS" not in offered.upper():
        raise _refused("SMTP", "it does not offer STARTTLS")
    talk.say(b"STARTTLS\r\n")
    _smtp_reply(talk, b"220")


def _smtp_reply(talk: _Talk, code: bytes) -> bytes:
    said = b""
    while True:
        line = talk.hear_until(b"\n")
        said += line
        if line[3:4] != b"-":
            break
    if not line.startswith(code):
        raise _refused("SMTP", line.decode("utf-8", errors="replace").strip())
    return said


def _speak_imap(talk: _Talk, _host: str) -> None:
    talk.hear_until(b"\n")
    talk.say(b"a1 STARTTLS\r\n")
    while True:
        line = talk.hear_until(b"\n")
        if line.startswith(b"a1 "):
            break
    if not line.upper().startswith(b"A1 OK"):
        raise _refused("IMAP", line.decode("utf-8", errors="replace").strip())


def _speak_postgres(talk: _Talk, _host: str) -> None:
    talk.say(_POSTGRES_REQUEST)
    if talk.hear(1) != b"S":
        raise _refused("PostgreSQL", "TLS is off")


def _speak_ldap(talk: _Talk, _host: str) -> None:
    talk.say(_LdapRequest({"id": 1, "operation": {"name": _LDAP_STARTTLS}}).dump())
    head = talk.hear(2)
    size = head[1] if head[1] < 0x80 else int.from_bytes(talk.hear(head[1] & 0x7F), "big")
    answer = talk.hear(min(size, MAX_REPLY))
    if b"\x0a\x01\x00" not in answer:
        raise _refused("LDAP", "it answers with an error")


class _Extended(core.Sequence):  # type: ignore[misc]
    _fields = [("name", core.OctetString, {"implicit": 0})]  # noqa: RUF012 - asn1crypto's way


class _LdapRequest(core.Sequence):  # type: ignore[misc]
    """RFC 4511, 4.14: an extended request that names StartTLS."""

    _fields = [("id", core.Integer), ("operation", _Extended, {"implicit": ("application", 23)})]  # noqa: RUF012 - asn1crypto's way


def _speak_xmpp(talk: _Talk, host: str) -> None:
    streams = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
    opening = f"<?xml version='1.0'?><stream:stream to='{_xml(host)}' {streams}>"
    talk.say(opening.encode())
    features = talk.hear_until(b"</stream:features>", b"</stream:stream>", b"</features>")
    if b"starttls" not in features:
        raise _refused("XMPP", "it does not offer STARTTLS")
    talk.say(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    if b"proceed" not in talk.hear_until(b"/>", b">"):
        raise _refused("XMPP", "it does not proceed")


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")


def _refused(service: str, why: str) -> HandshakeError:
    return HandshakeError(f"The {service} service refuses TLS: {why}.", hint="Turn on STARTTLS there, or use its TLS port.")


_SPEAKERS = {
    Protocol.TLS: _speak_nothing,
    Protocol.SMTP: _speak_smtp,
    Protocol.IMAP: _speak_imap,
    Protocol.LDAP: _speak_ldap,
    Protocol.POSTGRES: _speak_postgres,
    Protocol.XMPP: _speak_xmpp,
}
