from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import Toy
from workbench import Bench

from kit.process import Child, run
from migrate.engine import Engine


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, str(tmp_path / "runs.sqlite"))
    yield made
    for child in made.children:
        child.stop(grace=2.0)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture
def engine(tmp_path: Path, toy: Toy) -> Iterator[Engine]:
    with Engine(tmp_path / "runs.sqlite", toy, log=tmp_path / "engine.log") as made:
        yield made


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private PostgreSQL on a unix socket, run as the postgres user where we are root; answers the URL of its default database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    bin_folder = programs[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="boxshift-pg-", dir="/tmp"))  # a socket's path must be short
    prefix = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    run([*prefix, bin_folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"], timeout=120, cwd=folder)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "max_connections=200"]
    with Child(
        [*prefix, bin_folder / "postgres", "-D", data, *options], log=tmp_path_factory.mktemp("pg") / "pg.log", cwd=folder
    ) as server:
        ready = [bin_folder / "pg_isready", "-q", "-h", folder]
        end = time.monotonic() + 90
        while run(ready, timeout=30, accept=(0, 1, 2)).status != 0:
            assert time.monotonic() < end, server.said()
            time.sleep(0.1)
        yield f"postgresql://postgres@/postgres?host={folder}"
    shutil.rmtree(folder)


@pytest.fixture
def server_database(cluster: str) -> str:
    """The URL of a fresh database on the private server."""
    import sqlalchemy as sa

    name = f"runs_{time.time_ns()}"
    admin = sa.create_engine(cluster.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return cluster.replace("@/postgres?", f"@/{name}?")


@pytest.fixture
def server_bench(tmp_path: Path, server_database: str) -> Iterator[Bench]:
    made = Bench(tmp_path, server_database)
    yield made
    for child in made.children:
        child.stop(grace=2.0)
