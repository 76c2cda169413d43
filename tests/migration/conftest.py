"""Scenes for whole migrations; every one on a loopback network of its own."""

from __future__ import annotations

import itertools
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rig import Rig, open_rig
from theatre import Theatre, find_net, open_theatre
from zones import NAME as ZONE
from zones import SiteZone

NETS = itertools.count(101)


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys and packages of this session's vendor."""
    return tmp_path_factory.mktemp("vendor")


@pytest.fixture(scope="session")
def nets() -> Iterator[int]:
    """Loopback networks that no other scene of this session has; :func:`theatre.find_net` takes a free one."""
    return NETS


@pytest.fixture
def make_rig(tmp_path: Path, vendor: Path) -> Iterator[Callable[..., Rig]]:
    with ExitStack() as stack:

        def make(**settings: object) -> Rig:
            net = find_net(NETS)
            return stack.enter_context(open_rig(tmp_path / f"scene-{net}", net, vendor=vendor, **settings))  # type: ignore[arg-type]

        yield make


@pytest.fixture(scope="session")
def theatre(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[Theatre]:
    """One scene for many tests: each begins with ``theatre.at(MOMENT)``."""
    with open_theatre(tmp_path_factory.mktemp("theatre"), find_net(NETS), vendor) as found:
        yield found


@pytest.fixture
def site_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteZone]:
    """This process and those that it starts know the zone; its window is open."""
    before = zoneinfo.TZPATH
    zone = SiteZone(tmp_path / "zones" / ZONE)
    zone.file.parent.mkdir(parents=True)
    zone.open_window()
    monkeypatch.setenv("PYTHONTZPATH", ":".join((str(tmp_path / "zones"), *before)))
    zoneinfo.reset_tzpath()
    yield zone
    zoneinfo.reset_tzpath(to=before)
