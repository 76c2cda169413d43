"""Jump Clients: programs on customers' machines that keep a TLS connection to the site and check in every few seconds."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.secret import Secret
from migrate.demo.journal import Entry, Journal, Kind
from migrate.demo.stub import LookupFailedError, StubResolver
from migrate.demo.wire import Answer, SiteWire, Target

RETRY_SECONDS, RETRY_MOST = 0.5, 16.0
UPDATE_SECONDS = 1.0  # that a client needs to update itself and come back


@dataclass(frozen=True)
class ClientAccount:
    """What a Jump Client proves itself with."""

    client: str
    secret: Secret


@dataclass(frozen=True)
class SwarmSettings:
    """``interval`` between two check-ins of one client, ``timeout`` of one exchange, both in seconds."""

    target: Target
    ca_file: Path
    interval: float
    timeout: float
    version: str


async def run_swarm(
    settings: SwarmSettings, accounts: Sequence[ClientAccount], resolver: StubResolver, journal: Journal, stop: asyncio.Event
) -> None:
    """Run one task for each client until ``stop``."""
    async with asyncio.TaskGroup() as tasks:
        for number, account in enumerate(accounts):
            delay = settings.interval * number / max(1, len(accounts))
            tasks.create_task(_JumpClient(settings, account, resolver, journal).run(stop, delay))


class _JumpClient:
    def __init__(self, settings: SwarmSettings, account: ClientAccount, resolver: StubResolver, journal: Journal) -> None:
        self._settings = settings
        self._account = account
        self._resolver = resolver
        self._journal = journal
        self._address = ""
        self._version = settings.version
        self._updated = False

    async def run(self, stop: asyncio.Event, delay: float) -> None:
        """Check in until ``stop``. A failure closes the connection: the next try resolves the name again."""
        wire, retry = self._open(), RETRY_SECONDS
        try:
            await rest(stop, delay)
            while not stop.is_set():
                good = await self._check_in(wire)
                if not good:
                    self._address = ""
                    await wire.aclose()
                    wire = self._open()
                # Ever longer, and spread a little: clients that lost their box in one moment must not storm it in one moment.
                retry = RETRY_SECONDS if good else min(2 * retry, RETRY_MOST)
                pause = (UPDATE_SECONDS if self._updated else self._settings.interval) if good else retry
                await rest(stop, pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
        finally:
            await wire.aclose()

    def _open(self) -> SiteWire:
        return SiteWire(self._settings.target, self._settings.ca_file, timeout=self._settings.timeout, keep_alive=True)

    async def _check_in(self, wire: SiteWire) -> bool:
        began, start = time.time(), time.monotonic()
        try:
            self._address = self._address or (await self._resolver.resolve())[0]
        except LookupFailedError as failure:
            self._note(began, start, Answer(), f"dns: {failure.sentence}")
            return False
        body = {"client": self._account.client, "secret": self._account.secret.reveal(), "version": self._version}
        answer = await wire.exchange(self._address, "/client/checkin", body)
        error = answer.error or ("" if answer.status == 200 else f"http {answer.status}")
        self._note(began, start, answer, error)
        self._updated = not error and self._take_update(answer.body)
        return not error

    def _take_update(self, body: bytes) -> bool:
        """Become the version that the site offers; the next check-in says so. Whether there was one."""
        try:
            offered = json.loads(body).get("update")
        except (ValueError, AttributeError):
            return False
        self._version = str(offered or self._version)
        return bool(offered)

    def _note(self, began: float, start: float, answer: Answer, error: str) -> None:
        self._journal.write(
            Entry(
                began,
                Kind.CHECKIN,
                not error,
                (time.monotonic() - start) * 1000,
                address=self._address,
                leaf=answer.leaf,
                chain=answer.chain,
                status=answer.status,
                client=self._account.client,
                error=error,
            )
        )


async def rest(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until ``stop``."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await stop.wait()
    except TimeoutError:
        return
