"""One client's one connection to the site: kept open, verified, and heard when the other side ends it.

Thousands of them live in one process, so each is no more than a TLS transport and a parser.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import h11

from migrate.demo.wire import Target, digest_served

RECORD = 16 * 1024  # the most that one TLS record holds
LARGEST = 64 * 1024 * 1024  # bytes of one answer


@dataclass(frozen=True)
class Ask:
    """One request. ``body`` goes as JSON; ``account``: for HTTP's basic authentication; ``start``: the byte to resume from."""

    path: str
    body: object = None
    account: tuple[str, str] | None = None
    start: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back, as far as it did. ``error`` is empty where it came whole; ``retry``: the seconds of ``Retry-After``, 0 without."""

    status: int = 0
    body: bytes = b""
    leaf: str = ""
    chain: str = ""
    retry: float = 0.0
    error: str = ""


class Limits:
    """What a swarm may put on the site: new connections a second, exchanges under way at once."""

    def __init__(self, connects_per_second: float, at_once: int) -> None:
        self._apart = 1.0 / connects_per_second
        self._free = 0.0
        self._places = asyncio.Semaphore(at_once)

    async def turn(self) -> None:
        """Wait until another connection may be opened."""
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now) + self._apart
        await asyncio.sleep(self._free - self._apart - now)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Around one exchange."""
        async with self._places:
            yield


class _Line(asyncio.Protocol):
    """A TLS connection as the event loop sees it. asyncio's own would keep half a megabyte for each, which thousands cannot have."""

    def __init__(self, trust: ssl.SSLContext, site: str, ended: Callable[[], None]) -> None:
        self.http = h11.Connection(h11.CLIENT)
        self.is_over = self._is_up = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname=site)
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        # In parts, since what such a buffer has once held it keeps as room.
        for at in range(0, len(data), RECORD):
            self._incoming.write(data[at : at + RECORD])
            if self._is_up:
                self._drain()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_over = True
        self._wake()
        self._ended()

    def abort(self) -> None:
        """Close it without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def shake_hands(self) -> None:
        """Until the site has proved its name.

        Raises:
            OSError: it has not, or the connection ended.

        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                await self._more()
            else:
                self._is_up = True
                self._flush()
                self._drain()
                return

    def send(self, content: bytes) -> None:
        """Encrypt and send."""
        self.tls.write(content)
        self._flush()

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """The next part of the answer.

        Raises:
            h11.RemoteProtocolError: the connection ended in the middle.

        """
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.is_over:
                self.http.receive_data(b"")
            else:
                await self._more()
        return cast("h11.Event | type[h11.PAUSED]", event)

    def _drain(self) -> None:
        """Decrypt what has come. The end, also one without a farewell, closes the connection, and so does what nobody asked for."""
        while True:
            try:
                content = self.tls.read(RECORD)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError:
                content = b""
            if not content or self.http.our_state is h11.IDLE:
                self.abort()
                return
            self.http.receive_data(content)

    async def _more(self) -> None:
        if self.is_over:
            raise ConnectionResetError("the connection ended")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        content = self._outgoing.read()
        if content and self._transport is not None:
            self._transport.write(content)


class ClientWire:
    """The connection of one client. ``ended`` is called when the other side has closed it. ``timeout`` in seconds for one exchange."""

    def __init__(self, target: Target, trust: ssl.SSLContext, limits: Limits, *, timeout: float, ended: Callable[[], None]) -> None:
        self._target = target
        self._trust = trust
        self._limits = limits
        self._timeout = timeout
        self._ended = ended
        self._line: _Line | None = None
        self._served = ("", "")
        self._address = ""

    @property
    def is_open(self) -> bool:
        return self._line is not None and not self._line.is_over

    async def exchange(self, address: str, ask: Ask) -> Reply:
        """One request on the connection, which is opened if it is not, or leads elsewhere. Never raises for what the other side does."""
        if address != self._address:
            self.close()
        if not self.is_open:
            await self._limits.turn()
        got = _Got()
        async with self._limits.place():
            try:
                async with asyncio.timeout(self._timeout):
                    line = self._line if self._line is not None and self.is_open else await self._connect(address)
                    self._send(line, ask)
                    await self._receive(line, got)
            except TimeoutError:
                got.error = "timeout: no answer in time"
            except (OSError, h11.ProtocolError) as error:
                got.error = _reason(error)
        if got.error or got.closing:
            self.close()
        return Reply(got.status, bytes(got.body), *self._served, got.retry, got.error)

    async def _connect(self, address: str) -> _Line:
        self.close()
        self._address, self._served = address, ("", "")
        loop = asyncio.get_running_loop()
        line = self._line = _Line(self._trust, self._target.site, lambda: self._hear_end(line))
        await loop.create_connection(lambda: line, address, self._target.port)
        await line.shake_hands()
        self._served = digest_served(line.tls)
        return line

    def _send(self, line: _Line, ask: Ask) -> None:
        content = b"" if ask.body is None else json.dumps(ask.body).encode()
        headers = [("Host", self._target.host)]
        if ask.account is not None:
            headers.append(("Authorization", f"Basic {base64.b64encode(':'.join(ask.account).encode()).decode()}"))
        if ask.start:
            headers.append(("Range", f"bytes={ask.start}-"))
        if ask.body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        method = "GET" if ask.body is None else "POST"
        events = [h11.Request(method=method, target=ask.path, headers=headers), *([h11.Data(data=content)] if content else [])]
        sent = b"".join(line.http.send(event) or b"" for event in [*events, h11.EndOfMessage()])
        line.send(sent)

    async def _receive(self, line: _Line, got: _Got) -> None:
        while not isinstance(event := await line.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                got.status = event.status_code
                wanted = dict(event.headers).get(b"retry-after", b"")
                got.retry = float(wanted) if wanted.isdigit() else 0.0
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection ended before the answer")
            elif isinstance(event, h11.Data):
                got.body += event.data
                if len(got.body) > LARGEST:
                    raise h11.RemoteProtocolError("an answer that is far too long")
        if line.http.our_state is h11.DONE and line.http.their_state is h11.DONE:
            line.http.start_next_cycle()
        else:
            got.closing = True

    def _hear_end(self, line: _Line) -> None:
        if line is self._line:
            self._ended()

    def close(self) -> None:
        """Let go of the connection; nobody is told."""
        line, self._line = self._line, None
        if line is not None:
            line.abort()


class _Got:
    """What of an answer has come so far."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.retry = 0.0
        self.error = ""
        self.closing = False


def _reason(error: Exception) -> str:
    kind = "tls" if isinstance(error, ssl.SSLError) else "connect" if isinstance(error, OSError) else "http"
    return f"{kind}: {type(error).__name__}: {error}"[:200]
