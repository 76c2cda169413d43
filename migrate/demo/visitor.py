"""The visitor: a program of its own that uses the site all through a run and notes every answer.

``python -m migrate.demo.visitor CONFIG`` resolves the site's name at the given name server, opens new TLS connections with full
verification at a steady rate, and hands in a finished session every few requests. A session that was not acknowledged is handed in
again, under the same id, as a request of its own; only an answer of 201 counts as written. Beside it runs a swarm of Jump Clients. It
ends on SIGTERM, after what is under way.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from kit.errors import BoxshiftError, FailedError
from kit.process import Child
from kit.waiting import wait_for
from migrate.demo.client_wire import Limits
from migrate.demo.journal import Entry, Journal, Kind, VisitorSummary, read_entries, read_journal
from migrate.demo.jump_client import ClientAccount, Swarm, SwarmSettings, Tally, run_clients
from migrate.demo.stub import LookupFailedError, StubResolver
from migrate.demo.visitor_config import VisitorConfig, read_config, write_config
from migrate.demo.wire import Answer, SiteWire, Target, read_trust

START_SECONDS = 60.0


@dataclass(frozen=True)
class SessionDraft:
    """A finished session that is not acknowledged yet. Times in Unix seconds."""

    lsid: str
    account: ClientAccount
    customer: str
    started: int
    ended: int


@dataclass
class _Visitor:
    config: VisitorConfig
    journal: Journal
    resolver: StubResolver
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: deque[SessionDraft] = field(default_factory=deque)

    async def run(self) -> None:
        """Send requests at the rate asked for until told to stop; then wait for what is under way."""
        loop = asyncio.get_running_loop()
        target = Target(self.config.site, self.config.port)
        wire = SiteWire(target, self.config.ca_file, timeout=self.config.timeout, keep_alive=False)
        due, number = loop.time(), 0
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self.stop.is_set():
                    number += 1
                    tasks.create_task(self._visit(wire, number))
                    # A machine that stood still for a while is not followed by a burst.
                    due = max(due + 1 / self.config.rate, loop.time())
                    await rest(self.stop, due - loop.time())
        finally:
            await wire.aclose()

    async def _visit(self, wire: SiteWire, number: int) -> None:
        draft = self._next_draft(number) if self.config.clients and number % self.config.session_every == 0 else None
        began, start, address = time.time(), time.monotonic(), ""
        try:
            address = (await self.resolver.resolve())[0]
            path, body = ("/client/session", _session_body(draft)) if draft is not None else (self.config.page, None)
            answer = await wire.exchange(address, path, body)
            error = answer.error or _judge(answer, draft)
        except LookupFailedError as failure:
            answer, error = Answer(), f"dns: {failure.sentence}"
        if draft is not None and error:
            self.waiting.append(draft)
        self.journal.write(
            Entry(
                began,
                Kind.SESSION if draft is not None else Kind.PAGE,
                not error,
                (time.monotonic() - start) * 1000,
                address=address,
                leaf=answer.leaf,
                chain=answer.chain,
                status=answer.status,
                client=draft.account.client if draft is not None else "",
                lsid=draft.lsid if draft is not None else "",
                error=error,
            )
        )

    def _next_draft(self, number: int) -> SessionDraft:
        if self.waiting:
            return self.waiting.popleft()
        account = self.config.clients[number % len(self.config.clients)]
        now = int(time.time())
        return SessionDraft(uuid.uuid4().hex, account, f"Visitor {number} ñ <&>", now - 60 - number % 600, now)


def _session_body(draft: SessionDraft) -> dict[str, str | int]:
    return {
        "client": draft.account.client,
        "secret": draft.account.secret.reveal(),
        "lsid": draft.lsid,
        "customer": draft.customer,
        "started": draft.started,
        "ended": draft.ended,
    }


def _judge(answer: Answer, draft: SessionDraft | None) -> str:
    """Why an answer is no good; empty where it is."""
    if draft is None:
        return "" if 200 <= answer.status < 400 else f"http {answer.status}"
    # 409: an earlier try of this session is on the box, though its acknowledgement was lost. It is no loss, and not counted as written.
    if answer.status == 409:
        return ""
    if answer.status != 201:
        return f"http {answer.status}"
    try:
        acknowledged = json.loads(answer.body)["lsid"]
    except (ValueError, KeyError, TypeError):
        return "http 201 without the session's id"
    return "" if acknowledged == draft.lsid else "http 201 for another session"


async def run_visitor(config: VisitorConfig) -> None:
    """Everything the program does, until SIGTERM or SIGINT."""
    with Journal(config.journal) as journal:
        resolver = StubResolver(config.site, config.name_servers, timeout=config.timeout, journal=journal)
        visitor = _Visitor(config, journal, resolver)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, visitor.stop.set)
        settings = SwarmSettings(Target(config.site, config.port), config.checkin_every, config.timeout, config.client_version)
        limits = Limits(settings.connects_per_second, settings.at_once)
        swarm = Swarm(settings, read_trust(config.ca_file), resolver, journal, limits, Tally())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(visitor.run())
            tasks.create_task(run_clients(swarm, config.clients, visitor.stop))
        journal.write(Entry(time.time(), Kind.END, ok=True))


class VisitorProgram:
    """The visitor as a process beside us, for the length of a ``with`` block. ``folder`` takes its configuration and its log."""

    def __init__(self, config: VisitorConfig, folder: Path) -> None:
        self.config = config
        self._path = folder / "visitor.json"
        self._log = folder / "visitor.log"
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait for its first good answer.

        Raises:
            DeadlineError: none came; says what it saw.

        """
        write_config(self.config, self._path)
        self._child = Child([sys.executable, "-m", "migrate.demo.visitor", self._path], log=self._log)
        try:
            wait_for(self._first_good, what="the visitor's first good answer", timeout=START_SECONDS, give_up=self._gone)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Tell it to end, and wait for what it has under way."""
        if self._child is not None:
            self._child.stop(grace=self.config.timeout * 2 + 10)

    def summary(self) -> VisitorSummary:
        """What it has seen so far."""
        return read_journal(self.config.journal)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _first_good(self) -> Entry | None:
        if not self.config.journal.exists():
            return None
        last = None
        for last in read_entries(self.config.journal):
            if last.ok and last.kind in (Kind.PAGE, Kind.SESSION):
                return last
        if last is not None:
            raise FailedError(last.error or "only lookups so far")
        return None

    def _gone(self) -> str | None:
        if self._child is None or self._child.status is None:
            return None
        return f"the visitor ended with status {self._child.status}; it said: {self._child.said()}"


async def rest(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until ``stop``."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await stop.wait()
    except TimeoutError:
        return


def main(arguments: Sequence[str]) -> int:
    """Run it; the exit status is 0 after an ordered end, 2 for a wrong configuration."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m migrate.demo.visitor CONFIG\n")
        return 2
    status = 0
    try:
        asyncio.run(run_visitor(read_config(Path(arguments[0]))))
    except* BoxshiftError as group:
        first = _first(group)
        sys.stderr.write(f"{first} {first.hint}\n")
        status = 2
    return status


def _first(group: BaseExceptionGroup[BoxshiftError]) -> BoxshiftError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
