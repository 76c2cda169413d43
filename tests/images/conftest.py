from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, store_image
from far_stand import Far, open_far

from images.home import Home, ensure_home


@pytest.fixture
def home() -> Iterator[Home]:
    """A state folder that QEMU's user can reach, unlike pytest's own folders; its path short enough for sockets."""
    root = Path(tempfile.mkdtemp(prefix="boxshift-t-", dir="/var/tmp"))
    root.chmod(0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield ensure_home(Home(root / "home"))
    finally:
        shutil.rmtree(root)


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    return FakeHypervisor()


@pytest.fixture
def machines(home: Home, hypervisor: FakeHypervisor) -> FakeMachines:
    """Machines on a fake hypervisor, with one image named ``tiny``."""
    made = FakeMachines(home, hypervisor)
    store_image(made.store)
    return made


@pytest.fixture(scope="session")
def far() -> Iterator[Far]:
    """Another computer's hypervisor, and a home on this one."""
    with open_far() as opened:
        yield opened
