"""Boxes for the tests: real ones, as local processes on loopback addresses that belong to this test process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Browser

from images.local_appliance import LocalAppliance, LocalUpdateServer
from images.reference.packages import make_vendor

PASSWORD = "a!b@c$ 'd\"e\\;ñ"
_numbers = itertools.count(1)


def next_address() -> str:
    """A loopback address that no other test process uses. Those with 0 and 1 in the third place are the rigs'."""
    return f"127.{64 + os.getpid() % 128}.{2 + os.getpid() // 128 % 250}.{next(_numbers)}"


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vendor(tmp_path_factory.mktemp("vendor"))


Maker = Callable[..., LocalAppliance]


def _maker(folder: Path, vendor: Path) -> Iterator[Maker]:
    made: list[LocalAppliance] = []

    def make(profile: str = "current", **more: object) -> LocalAppliance:
        box = LocalAppliance(folder / f"box{len(made)}", next_address(), (next_address(),), profile=profile, vendor=vendor, **more)
        made.append(box)
        box.start()
        return box

    yield make
    for box in made:
        box.stop()


@pytest.fixture
def make_box(tmp_path: Path, vendor: Path) -> Iterator[Maker]:
    yield from _maker(tmp_path, vendor)


@pytest.fixture(scope="module")
def shared_boxes(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[Maker]:
    yield from _maker(tmp_path_factory.mktemp("boxes"), vendor)


@pytest.fixture
def shop(tmp_path: Path, vendor: Path) -> Iterator[LocalUpdateServer]:
    with LocalUpdateServer(vendor, tmp_path / "shop", 8550, next_address()) as server:
        yield server


#: What a filled site holds in these tests: small, and hostile where it can be.
SEED: dict[str, object] = {
    "site_name": "Support <i>\"ñ'",
    "public_host": "support.example.test",
    "company": "Acme & <b>Söhne</b>",
    "users": 10,
    "sessions": 120,
    "recordings": 7,
    "file_items": 60,
    "jump_clients": 25,
    "site_password": PASSWORD,
    "appliance_password": PASSWORD,
    "api_client_id": "automation",
    "api_client_secret": PASSWORD + "-api",
    "jump_client_secret": PASSWORD + "-jump",
    "preshared_key": PASSWORD + "-psk",
    "vault": True,
}


def look(box: LocalAppliance, console: str, language: str = "en") -> Browser:
    """A browser that is logged in to a filled box."""
    return Browser(box.url, console, language).log_in(PASSWORD)
