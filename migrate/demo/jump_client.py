"""Jump Clients as a site sees them: active ones stay connected, passive ones come now and then; both update themselves when they may."""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from kit.secret import Secret
from migrate.demo.client_wire import Ask, ClientWire, Limits, Reply
from migrate.demo.journal import Entry, Journal, Kind
from migrate.demo.stub import LookupFailedError
from migrate.demo.wire import Target

RETRY_SECONDS, RETRY_MOST = 0.5, 16.0
DOWNLOAD_TRIES = 20  # of one update, each from where the last one was cut off


@dataclass(frozen=True)
class ClientAccount:
    """What a Jump Client proves itself with. A ``passive`` one is connected only while it checks in."""

    client: str
    secret: Secret
    passive: bool = False


@dataclass(frozen=True)
class SwarmSettings:
    """How the clients behave; all times in seconds.

    ``interval`` between two check-ins of an active client, ``passive_interval`` of a passive one; ``timeout`` of one exchange;
    ``update_takes``: what a client needs to install what it has fetched; ``spread``: within how long those come back who lost the site in
    one moment. ``version``: what they run at first.
    """

    target: Target
    interval: float
    timeout: float
    version: str
    passive_interval: float = 3600.0
    update_takes: float = 1.0
    spread: float = 1.0
    connects_per_second: float = 100.0
    at_once: int = 64


class Resolver(Protocol):
    """Where the site is now."""

    async def resolve(self) -> tuple[str, ...]:
        """Its addresses.

        Raises:
            LookupFailedError: nobody knows.

        """
        ...


@dataclass(frozen=True)
class Offer:
    """What the site answers to a check-in. ``update`` None: nothing to do, or (with ``retry`` seconds) not yet. ``seconds``: the lease."""

    update: str | None = None
    size: int = 0
    sha256: str = ""
    seconds: float = 60.0
    retry: float = 0.0


_OFFER = TypeAdapter(Offer)


@dataclass
class Tally:
    """What the clients of a swarm have done so far. ``holding``: who has a slot now, by the clients' own eyes."""

    checkins: int = 0
    failures: int = 0
    refused: int = 0
    cut: int = 0
    bytes: int = 0
    updates: int = 0
    holding: int = 0
    most_holding: int = 0
    versions: dict[str, int] = field(default_factory=dict)

    def hold(self, *, more: bool) -> None:
        self.holding += 1 if more else -1
        self.most_holding = max(self.most_holding, self.holding)

    def move(self, old: str, new: str) -> None:
        """A client has told the site that it runs ``new``; before it had told ``old``."""
        if old != new:
            self.versions[new] = self.versions.get(new, 0) + 1
            self.versions[old] = self.versions.get(old, 0) - 1


@dataclass(frozen=True)
class Swarm:
    """What all clients share."""

    settings: SwarmSettings
    trust: ssl.SSLContext
    resolver: Resolver
    journal: Journal
    limits: Limits
    tally: Tally


class _Alarm:
    """Sleep that somebody may end."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def rest(self, seconds: float) -> bool:
        """Sleep; whether it was cut short."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._waiter
        except TimeoutError:
            return False
        finally:
            self._waiter = None
        return True

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class JumpClient:
    """One client, until it is told to stop."""

    def __init__(self, account: ClientAccount, swarm: Swarm) -> None:
        self._account = account
        self._swarm = swarm
        self._address = ""
        self._version = swarm.settings.version
        self._told = ""
        self._lease = 0.0  # until when it may go on updating, by the loop's clock; 0 without a slot
        self._retry = RETRY_SECONDS
        self._stopping = self._idle = False
        self._alarm = _Alarm()
        settings = swarm.settings
        self._wire = ClientWire(settings.target, swarm.trust, swarm.limits, timeout=settings.timeout, ended=self._lose)

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping = True
        self._alarm.ring()

    async def run(self, delay: float) -> None:
        """Check in, update, rest."""
        try:
            await self._alarm.rest(delay)
            while not self._stopping:
                offer = await self._check_in()
                if offer is None:
                    await self._back_off()
                elif offer.update:
                    await self._update(offer)
                elif offer.retry:
                    self._swarm.tally.refused += 1
                    await self._alarm.rest(offer.retry * random.uniform(1.0, 1.1))  # noqa: S311 - spreads load, guards nothing
                else:
                    await self._rest()
        finally:
            self._let_go()
            self._wire.close()

    def _lose(self) -> None:
        """The site has ended the connection. It may be elsewhere by now."""
        self._address = ""
        if self._idle:
            self._alarm.ring()

    async def _rest(self) -> None:
        settings = self._swarm.settings
        if self._account.passive:
            self._wire.close()
            await self._alarm.rest(settings.passive_interval * random.uniform(0.8, 1.2))  # noqa: S311 - as above
            return
        self._idle = self._wire.is_open  # a site that closes after each answer is asked at the interval
        cut = await self._alarm.rest(settings.interval * random.uniform(0.8, 1.2))  # noqa: S311 - as above
        self._idle = False
        if cut and not self._stopping:
            await self._alarm.rest(settings.spread * random.random())  # noqa: S311 - as above

    async def _back_off(self) -> None:
        """Ever longer, and spread a little: clients that lost their box in one moment must not storm it in one moment."""
        self._address = ""
        self._retry = min(2 * self._retry, RETRY_MOST)
        await self._alarm.rest(self._retry * random.uniform(1.0, 1.3))  # noqa: S311 - as above

    async def _check_in(self) -> Offer | None:
        """What the site says; None where it did not answer as it should."""
        body = {"client": self._account.client, "secret": self._account.secret.reveal(), "version": self._version}
        asked = asyncio.get_running_loop().time()
        began, reply = time.time(), await self._ask(Ask("/client/checkin", body))
        offer = _parse_offer(reply)
        error = reply.error or ("" if offer is not None else f"http {reply.status}")
        self._note(Kind.CHECKIN, began, reply, error, version=self._version, update=(offer and offer.update) or "")
        tally = self._swarm.tally
        tally.checkins += 1
        tally.failures += bool(error)
        if offer is None:
            if reply.retry:
                self._retry = max(self._retry, reply.retry / 2)  # as long as the site says, not shorter
            return None
        tally.move(self._told, self._version)
        self._told, self._retry = self._version, RETRY_SECONDS
        if offer.update:
            self._hold(asked + offer.seconds)
        else:
            self._let_go()
        return offer

    async def _update(self, offer: Offer) -> None:
        """Fetch, compare, install; the next check-in tells the site. Whoever is late asks for a slot again."""
        loop, takes = asyncio.get_running_loop(), self._swarm.settings.update_takes
        if offer.size and not await self._fetch(offer):
            await self._back_off()
            self._let_go()
            return
        await self._alarm.rest(takes)
        if loop.time() < self._lease and not self._stopping:
            self._version = str(offer.update)
            self._swarm.tally.updates += 1
        self._let_go()

    async def _fetch(self, offer: Offer) -> bool:
        """All of the update, on from where it was cut off; whether it is what was promised."""
        loop, got = asyncio.get_running_loop(), b""
        for _ in range(DOWNLOAD_TRIES):
            if loop.time() + self._swarm.settings.update_takes >= self._lease or self._stopping:
                return False
            asked, began = loop.time(), time.time()
            account = (self._account.client, self._account.secret.reveal())
            reply = await self._ask(Ask("/client/update", account=account, start=len(got)))
            good = reply.status in (200, 206)
            got = got + reply.body if reply.status == 206 else reply.body if good else got
            error = reply.error or ("" if good else f"http {reply.status}")
            self._note(Kind.UPDATE, began, reply, error, size=len(reply.body) if good else 0)
            self._swarm.tally.bytes += len(reply.body) if good else 0
            if good:
                self._lease = max(self._lease, asked + offer.seconds)
            if len(got) >= offer.size:
                return hashlib.sha256(got).hexdigest() == offer.sha256
            self._swarm.tally.cut += 1
            await self._alarm.rest(max(reply.retry, RETRY_SECONDS))
        return False

    async def _ask(self, ask: Ask) -> Reply:
        try:
            self._address = self._address or (await self._swarm.resolver.resolve())[0]
        except LookupFailedError as failure:
            return Reply(error=f"dns: {failure.sentence}")
        return await self._wire.exchange(self._address, ask)

    def _hold(self, until: float) -> None:
        if not self._lease:
            self._swarm.tally.hold(more=True)
        self._lease = until

    def _let_go(self) -> None:
        if self._lease:
            self._swarm.tally.hold(more=False)
        self._lease = 0.0

    def _note(self, kind: Kind, began: float, reply: Reply, error: str, **more: str | int) -> None:
        self._swarm.journal.write(
            Entry(
                began,
                kind,
                not error,
                (time.time() - began) * 1000,
                address=self._address,
                leaf=reply.leaf,
                chain=reply.chain,
                status=reply.status,
                client=self._account.client,
                error=error,
                **more,  # type: ignore[arg-type]
            )
        )


def _parse_offer(reply: Reply) -> Offer | None:
    if reply.error or reply.status != 200:
        return None
    try:
        return _OFFER.validate_json(reply.body)
    except ValidationError:
        return None


async def run_clients(swarm: Swarm, accounts: Sequence[ClientAccount], stop: asyncio.Event) -> None:
    """Run one task for each client until ``stop``; the first check-ins are spread as connections are, and over no more than an interval."""
    clients = [JumpClient(account, swarm) for account in accounts]
    settings = swarm.settings
    apart = min(settings.interval / max(1, len(clients)), 1 / settings.connects_per_second)
    async with asyncio.TaskGroup() as tasks:
        for number, client in enumerate(clients):
            tasks.create_task(client.run(apart * number))
        await stop.wait()
        for client in clients:
            client.stop()
