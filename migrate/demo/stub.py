"""A stub resolver as operating systems have one: asks the given name server, keeps an answer for its TTL, and not a second longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from kit.errors import UnreachableError
from migrate.cutover.dns_values import NameServer, parse_dns_name
from migrate.demo.journal import Entry, Journal, Kind


class LookupFailedError(UnreachableError):
    """The name could not be resolved."""

    code = "lookup-failed"


class StubResolver:
    """IPv4 addresses of one name. Several callers at once cause one question. ``clock`` in seconds, monotonic."""

    def __init__(
        self,
        name: str,
        servers: Sequence[NameServer],
        *,
        timeout: float,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = parse_dns_name(name)
        self._servers = tuple(servers)
        self._timeout = timeout
        self._journal = journal
        self._clock = clock
        self._kept: tuple[str, ...] = ()
        self._until = 0.0
        self._asking: asyncio.Task[tuple[tuple[str, ...], str]] | None = None

    async def resolve(self) -> tuple[str, ...]:
        """The addresses, kept or fresh. Callers that come while a question is under way share its outcome.

        Raises:
            LookupFailedError: no server gave one.

        """
        if not self._kept or self._clock() >= self._until:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
            found, error = await asyncio.shield(self._asking)
            if error:
                raise LookupFailedError(error)
            return found
        return self._kept

    async def _ask(self) -> tuple[tuple[str, ...], str]:
        self._kept = ()
        asked, began = self._clock(), time.time()
        try:
            kept, ttl, error = await self._ask_any()
        finally:
            self._asking = None
        self._kept, self._until = kept, asked + ttl
        if self._journal is not None:
            took = (self._clock() - asked) * 1000
            self._journal.write(Entry(began, Kind.LOOKUP, not error, took, address=", ".join(kept), error=error))
        return kept, error

    async def _ask_any(self) -> tuple[tuple[str, ...], int, str]:
        error = "no name server given"
        for server in self._servers:
            query = dns.message.make_query(self._name, "A")
            try:
                response, _ = await dns.asyncquery.udp_with_fallback(query, server.address, timeout=self._timeout, port=server.port)
                chain = _query_answer(response).resolve_chaining()
            except dns.exception.Timeout:
                error = f"{server} does not answer"
            except (dns.exception.DNSException, OSError) as trouble:
                error = f"{server}: {type(trouble).__name__}"
            else:
                if chain.answer is not None:
                    return tuple(item.to_text() for item in chain.answer), chain.minimum_ttl, ""
                error = f"{server} gives no address ({dns.rcode.to_text(response.rcode())})"
        return (), 0, error


def _query_answer(response: dns.message.Message) -> dns.message.QueryMessage:
    if not isinstance(response, dns.message.QueryMessage):
        raise dns.exception.FormError
    return response
