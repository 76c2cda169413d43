"""Scenes for whole migrations; every one on a loopback network of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rig import Rig, open_rig
from theatre import Theatre, find_net, open_theatre

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
