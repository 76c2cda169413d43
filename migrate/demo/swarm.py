"""The client swarm: a program of its own that is thousands of Jump Clients of one site.

``python -m migrate.demo.swarm CONFIG`` runs them until all have told the site that they run the version ``until``, or the time is over,
or SIGTERM comes; then it prints what they did as one JSON object. docs/how-to/client-swarm.md explains the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kit.errors import BoxshiftError, RefusedError, UsageError
from kit.secret import Secret
from migrate.cutover.dns_values import NameServer
from migrate.demo.client_wire import Limits
from migrate.demo.config_file import read_private
from migrate.demo.journal import Entry, Journal, Kind
from migrate.demo.jump_client import ClientAccount, Resolver, Swarm, SwarmSettings, Tally, run_clients
from migrate.demo.stub import StubResolver
from migrate.demo.wire import Target, read_trust

SPARE_FILES = 64  # open files beside the clients' connections
EXIT_MISSING = 4
LOOK = 0.2  # seconds between two looks whether all are done


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class _Server(_Strict):
    address: str
    port: Annotated[int, Field(gt=0, lt=65536)]


class SwarmConfig(_Strict):
    """The file. Clients share one secret; every ``passive_every``-th is passive (0: none). Times in seconds."""

    site: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 443
    ca_file: Path
    address: str = ""
    name_servers: tuple[_Server, ...] = ()
    journal: Path
    clients: Annotated[tuple[str, ...], Field(min_length=1)]
    secret: str
    version: str = ""
    until: str = ""
    seconds: Annotated[float, Field(gt=0)] = 86400.0
    passive_every: Annotated[int, Field(ge=0)] = 0
    checkin_every: Annotated[float, Field(gt=0)] = 120.0
    passive_checkin_every: Annotated[float, Field(gt=0)] = 3600.0
    update_takes: Annotated[float, Field(ge=0)] = 1.0
    spread: Annotated[float, Field(ge=0)] = 1.0
    timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    connects_per_second: Annotated[float, Field(gt=0)] = 100.0
    at_once: Annotated[int, Field(gt=0)] = 64

    def settings(self) -> SwarmSettings:
        """How the clients behave."""
        return SwarmSettings(
            Target(self.site, self.port),
            self.checkin_every,
            self.timeout,
            self.version,
            self.passive_checkin_every,
            self.update_takes,
            self.spread,
            self.connects_per_second,
            self.at_once,
        )

    def accounts(self) -> tuple[ClientAccount, ...]:
        """The clients."""
        secret, every = Secret(self.secret), self.passive_every
        return tuple(ClientAccount(name, secret, passive=every > 0 and at % every == every - 1) for at, name in enumerate(self.clients))


@dataclass(frozen=True)
class _Fixed(Resolver):
    """A site whose address is known."""

    address: str

    async def resolve(self) -> tuple[str, ...]:
        return (self.address,)


def read_swarm_config(path: Path) -> SwarmConfig:
    """Read it.

    Raises:
        As :func:`read_private`; also UsageError: it names no site, or two.

    """
    config = read_private(path, SwarmConfig, "a swarm's")
    if bool(config.address) == bool(config.name_servers):
        raise UsageError(f"{path} is not a swarm's configuration: it must name either address or name_servers.")
    return config


def raise_file_limit(clients: int) -> None:
    """Each client has a connection.

    Raises:
        RefusedError: this process may not have so many.

    """
    wanted = clients + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RefusedError(
            f"{clients} clients need {wanted} open files, and this process may have {hard}.", hint="Raise the hard limit: ulimit -Hn."
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def run_swarm(config: SwarmConfig) -> tuple[Tally, int]:
    """Run it to its end; what the clients did, and how many have not reached ``until``."""
    accounts, tally, stop = config.accounts(), Tally(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with Journal(config.journal) as journal:
        servers = [NameServer(one.address, one.port) for one in config.name_servers]
        resolver: Resolver = _Fixed(config.address)
        if servers:
            resolver = StubResolver(config.site, servers, timeout=config.timeout, journal=journal)
        limits = Limits(config.connects_per_second, config.at_once)
        swarm = Swarm(config.settings(), read_trust(config.ca_file), resolver, journal, limits, tally)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(config, tally, stop))
            tasks.create_task(run_clients(swarm, accounts, stop))
        journal.write(Entry(time.time(), Kind.END, ok=True))
    return tally, _missing(config, tally)


async def _watch(config: SwarmConfig, tally: Tally, stop: asyncio.Event) -> None:
    """Stop when all are done, or the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + config.seconds
    while not stop.is_set() and loop.time() < end and (not config.until or _missing(config, tally)):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK)
    stop.set()


def _missing(config: SwarmConfig, tally: Tally) -> int:
    return len(config.clients) - tally.versions.get(config.until, 0) if config.until else 0


def main(arguments: Sequence[str]) -> int:
    """Run it; 0 after an ordered end, 2 for a wrong configuration, 4 where clients have not reached the version asked for."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m migrate.demo.swarm CONFIG\n")
        return 2
    try:
        config = read_swarm_config(Path(arguments[0]))
        raise_file_limit(len(config.clients))
        began = time.monotonic()
        tally, missing = asyncio.run(run_swarm(config))
    except* BoxshiftError as group:
        first = _first(group)
        sys.stderr.write(f"{first} {first.hint}\n")
        return_code = 2
    else:
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"clients": len(config.clients), "missing": missing, "seconds": round(time.monotonic() - began, 1)}
        figures |= {"cpu_seconds": round(used.ru_utime + used.ru_stime, 1), "peak_kib": used.ru_maxrss}
        sys.stdout.write(json.dumps(figures | asdict(tally)) + "\n")
        return_code = EXIT_MISSING if missing else 0
    return return_code


def _first(group: BaseExceptionGroup[BoxshiftError]) -> BoxshiftError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
