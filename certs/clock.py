"""How far a box's clock is off, read from the Date that its web server puts on every answer."""

from __future__ import annotations

import http.client
import io
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from certs.errors import HandshakeError
from certs.tls import connect

MAX_HEAD = 65536  # bytes


def read_clock_offset(host: str, port: int = 443, *, address: str | None = None, timeout: float = 10.0) -> timedelta:
    """How far the box's clock is ahead of this machine's (negative: behind), to the second.

    Nothing is trusted and nothing secret is sent: the certificate may be the very thing that is in doubt.

    Raises:
        NoAnswerError: nothing answers.
        HandshakeError: no TLS, no HTTP, or no date in the answer.

    """
    link = connect(address or host, port, timeout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with context.wrap_socket(link, server_hostname=host) as wrapped:
            wrapped.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii", errors="replace"))
            stated = _read_date(wrapped, time.monotonic() + timeout)
            now = datetime.now(UTC)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HandshakeError(f"The clock of {host} cannot be read: {error}.", hint="Compare the clocks by hand.") from error
    finally:
        link.close()
    try:
        told = parsedate_to_datetime(stated or "")
    except (ValueError, TypeError) as error:
        raise HandshakeError(f"{host} does not say what time it is.", hint="Compare the clocks by hand.") from error
    off = told.astimezone(UTC) - now
    # The header has whole seconds: less than two is agreement.
    return timedelta() if abs(off) < timedelta(seconds=2) else timedelta(seconds=round(off.total_seconds()))


def _read_date(link: ssl.SSLSocket, end: float) -> str:
    """The Date header, "" where there is none. All of the answer's head has to come before ``end``: a box may also dribble."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        link.settimeout(max(end - time.monotonic(), 0.001))
        piece = link.recv(4096)
        if not piece:
            break
        head += piece
    status, _, rest = head.partition(b"\r\n")
    if not status.startswith(b"HTTP/"):
        raise ValueError("the answer is not HTTP")
    return str(http.client.parse_headers(io.BytesIO(rest)).get("Date", ""))
