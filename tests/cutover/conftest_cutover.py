# Fixtures are imported by conftest.py; the rest is plain functions for the tests of this folder.
from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_stand import GatewayStand, start_gateway

from kit.secret import Secret
from migrate.cutover.dns import DnsCutover
from migrate.cutover.dns_values import DnsCutoverPlan, Move, TsigAlgorithm, TsigKey
from migrate.demo.nameserver import DemoNameServer, ZoneRecord

OLD, NEW = "127.0.0.11", "127.0.0.12"
SITE = "support.example.test"
HOSTILE = "a!b@c$ 'd\"e\\;ñ"


def make_key(algorithm: TsigAlgorithm = TsigAlgorithm.HMAC_SHA256, name: str = "cutover") -> TsigKey:
    return TsigKey(name, Secret(base64.b64encode(HOSTILE.encode() * 3).decode()), algorithm)


def make_plan(lab: DemoNameServer, /, **changes: object) -> DnsCutoverPlan:
    values: dict[str, object] = {
        "name": SITE,
        "moves": (Move(OLD, NEW),),
        "server": lab.primary,
        "key": lab.key,
        "ttl": 2,
        "authoritative": lab.servers,
        "timeout": 2.0,
        "spread_timeout": 20.0,
    }
    return DnsCutoverPlan(**{**values, **changes})  # type: ignore[arg-type]


def make_cutover(lab: DemoNameServer, /, **changes: object) -> DnsCutover:
    return DnsCutover(make_plan(lab, **changes))


Serve = Callable[..., DemoNameServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts name servers that end with the test: ``serve("support 300 A 127.0.0.11", ..., secondary=...)``."""
    with ExitStack() as stack:
        count = iter(range(100))

        def start(*lines: str, **settings: object) -> DemoNameServer:
            records = [ZoneRecord(name, int(ttl), kind, value) for name, ttl, kind, value in (line.split(" ", 3) for line in lines)]
            settings.setdefault("key", make_key())
            return stack.enter_context(DemoNameServer(tmp_path / f"dns{next(count)}", records, **settings))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def gateway_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStand]:
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    with start_gateway(tmp_path_factory.mktemp("gateway"), HOSTILE) as stand:
        yield stand


@pytest.fixture
def gateway(gateway_of_the_session: GatewayStand) -> GatewayStand:
    """As at the beginning: its rules lead to the old box, sshd runs, nothing hinders nft."""
    stand = gateway_of_the_session
    stand.load()
    for name in ("listing", "before", "after"):
        (stand.folder / "odd" / name).unlink(missing_ok=True)
    if stand.sshd is None or stand.sshd.status is not None:
        stand.start_sshd()
    return stand
