"""One TLS handshake, for what the server shows in it: nothing is trusted, nothing is resumed. The only user of pyOpenSSL's connections."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field
from enum import Enum

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from certs.cert import Cert
from certs.errors import CertsError, HandshakeError, NoAnswerError


class Version(Enum):
    """A TLS version that is asked for."""

    TLS12 = "TLSv1.2"
    TLS13 = "TLSv1.3"

    @property
    def number(self) -> int:
        return SSL.TLS1_2_VERSION if self is Version.TLS12 else SSL.TLS1_3_VERSION


@dataclass(frozen=True)
class Presented:
    """What one handshake showed: the certificates in the order sent, and the stapled OCSP answer (DER, empty where there was none).

    ``server_name`` is the SNI sent, "" for none. ``failure`` says why there was no handshake; then ``certs`` is empty.
    """

    server_name: str
    version: str
    certs: tuple[Cert, ...] = ()
    staple: bytes = field(default=b"", repr=False)
    failure: str = ""

    @property
    def leaf(self) -> Cert | None:
        return self.certs[0] if self.certs else None

    @property
    def ders(self) -> tuple[bytes, ...]:
        """Every certificate as DER, as it was sent."""
        return tuple(cert.der for cert in self.certs)


def connect(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection.

    Raises:
        NoAnswerError: nothing answers in time, or the name does not resolve.

    """
    try:
        return socket.create_connection((address, port), timeout=timeout)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
        raise NoAnswerError(
            f"Nothing answers at {address} port {port}: {reason}.",
            hint="Is the service up, and does a firewall let it through?",
            address=address,
            port=port,
        ) from error


def shake_hands(link: socket.socket, *, server_name: str, version: Version | None, timeout: float) -> Presented:
    """Do one handshake on a connection, without trusting or resuming anything, and say what was shown. Closes the connection.

    Raises:
        HandshakeError: no TLS comes about, with the reason that OpenSSL gives.
        CertsError: what was sent is no certificate.

    """
    staples: list[bytes] = []
    context = _context(version, staples)
    connection = SSL.Connection(context, link)
    if server_name:
        connection.set_tlsext_host_name(server_name.encode("ascii", errors="replace"))
    connection.request_ocsp()
    connection.set_connect_state()
    link.setblocking(False)
    try:
        _complete(connection, link, time.monotonic() + timeout)
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        certs = tuple(Cert(cert.public_bytes(Encoding.DER)) for cert in chain)
        return Presented(server_name, connection.get_protocol_version_name(), certs, staples[0] if staples else b"")
    except ValueError as error:
        raise CertsError(f"What the server sent is no certificate: {error}.", hint="Look at its configuration.") from error
    finally:
        link.close()


def _context(version: Version | None, staples: list[bytes]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    # An old box with a weak certificate must still show it; nothing secret travels on this connection.
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(version.number if version else SSL.TLS1_VERSION)
    if version:
        context.set_max_proto_version(version.number)

    def keep(_connection: SSL.Connection, answer: bytes, _data: object) -> bool:
        if answer:
            staples.append(answer)
        return True

    context.set_ocsp_client_callback(keep)
    return context


def _complete(connection: SSL.Connection, link: socket.socket, end: float) -> None:
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            _wait(link, end, write=False)
        except SSL.WantWriteError:
            _wait(link, end, write=True)
        except SSL.Error as error:
            raise HandshakeError(
                f"No TLS comes about: {_reason(error)}.", hint="Is it the right port, and does it want STARTTLS?"
            ) from error
        except OSError as error:
            raise HandshakeError(f"The connection broke during the handshake: {error.strerror or error}.", hint="Try again.") from error
        else:
            return


def _wait(link: socket.socket, end: float, *, write: bool) -> None:
    left = end - time.monotonic()
    ready = select.select([] if write else [link], [link] if write else [], [], max(left, 0))
    if left <= 0 or not any(ready):
        raise HandshakeError("The server accepts connections and does not finish a handshake in time.", hint="Is it the right port?")


def _reason(error: SSL.Error) -> str:
    if isinstance(error, SSL.SysCallError):
        return "the server closed the connection" if error.args and error.args[0] == -1 else str(error.args[-1])
    if isinstance(error, SSL.ZeroReturnError):
        return "the server closed the connection"
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in queue if entry) or "the server closed the connection"
