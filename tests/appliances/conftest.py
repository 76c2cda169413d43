"""Fixtures of this room: boxes of every kind that the contract suite runs over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stands import MAKERS, ON_MACHINE, PARAMS, Stand, close_machine, local_stand, shop


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of the contract run on every kind of local box, and on a virtual machine in their class's ``language``."""
    for fixture, scope in (("stand", "class"), ("new_stand", "function")):
        if fixture in metafunc.fixturenames:
            language = getattr(metafunc.cls, "language", None)
            kinds = [*PARAMS, ON_MACHINE[language]] if language else PARAMS
            metafunc.parametrize(fixture, kinds, indirect=True, scope=scope)


@pytest.fixture(scope="session", autouse=True)
def _no_machine_left() -> Iterator[None]:
    yield
    close_machine()


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's keys and packages."""
    from images.reference.packages import make_vendor

    return make_vendor(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="session")
def update_server(vendor: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shop(vendor, tmp_path_factory.mktemp("shop")) as server:
        yield server.url


@pytest.fixture
def new_stand(request: pytest.FixtureRequest, vendor: Path, update_server: str, tmp_path: Path) -> Iterator[Stand]:
    """A new box of each kind, in factory state, for this test alone."""
    maker, profile, language = request.param
    with MAKERS[maker](profile, language, tmp_path / "box", vendor, update_server) as made:
        yield made


@pytest.fixture(scope="class")
def stand(request: pytest.FixtureRequest, vendor: Path, update_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A box of each kind that the tests of a class share, settled; what a test changes, the next one must not mind."""
    maker, profile, language = request.param
    with MAKERS[maker](profile, language, tmp_path_factory.mktemp("box"), vendor, update_server, settled=True) as made:
        yield made


@pytest.fixture
def one_stand(vendor: Path, update_server: str, tmp_path: Path) -> Iterator[Stand]:
    """A new local box of the current kind, in English: for what has nothing to do with words and versions."""
    with local_stand("current", "en", tmp_path / "box", vendor, update_server) as made:
        yield made


@pytest.fixture(scope="module")
def worn_stand(vendor: Path, update_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A settled local box that the tests of a file share."""
    with local_stand("current", "en", tmp_path_factory.mktemp("worn"), vendor, update_server) as made:
        made.settle(users=3)
        yield made
