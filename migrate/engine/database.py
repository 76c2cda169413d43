"""Opening the run database: a SQLite file that is private and durable, or PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from kit.errors import FailedError, UnreachableError, UsageError
from kit.secret import Secret

BUSY_MS = 30_000
LEAST_FREE = 2**20  # bytes without which SQLite cannot make its side files
LONGEST = 480  # bytes of a path; SQLite takes no more than 512, and its side files have longer names


class RunDatabaseError(FailedError):
    """The run database could not be read or written."""

    code = "run-database"


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the database says into one of our errors; also a decorator. What a server says is left out: it may repeat values.

    Raises:
        RunDatabaseError: a full disk, a lost server, a broken file.

    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        origin = getattr(error, "orig", None)
        said = str(origin) if isinstance(origin, sqlite3.Error) else type(origin or error).__name__
        hint = "Free space on this machine, then go on." if "full" in said else "Check the file or the server, then go on."
        raise RunDatabaseError(f"The run database cannot be used: {said}.", hint=hint) from None


def _file_error(error: sa.exc.SQLAlchemyError, file: Path) -> RunDatabaseError:
    """SQLite does not always say that the disk is full: its side files cannot be made then either."""
    said = str(getattr(error, "orig", None) or type(error).__name__)
    try:
        full = "full" in said or shutil.disk_usage(file.parent).free < LEAST_FREE
    except OSError:
        full = False
    reason = "there is no space left on its disk" if full else said
    hint = "Free space on this machine, then go on." if full else "Look at the disk, and at who may write there; then go on."
    return RunDatabaseError(f"The run database {file} cannot be used: {reason}.", hint=hint)


@dataclass(frozen=True)
class Address:
    """Where the run database is. ``file`` is None for a server. The URL may hold a password and so is kept as a secret."""

    url: Secret
    file: Path | None

    @property
    def shown(self) -> str:
        """For people: the file, or the server without its password."""
        return str(self.file) if self.file else sa.make_url(self.url.reveal()).render_as_string(hide_password=True)


def parse_address(text: str | Path | Secret) -> Address:
    """``/path/to/runs.sqlite``, ``sqlite:////path/to/runs.sqlite`` or ``postgresql://…``.

    Raises:
        UsageError: none of these.

    """
    plain = text.reveal() if isinstance(text, Secret) else str(text)
    # What follows is a path as it is: a folder's name may hold "?" or "%", which an URL would take apart.
    path = plain.removeprefix("sqlite:///")
    if path not in ("", ":memory:") and (path != plain or "://" not in plain):
        return Address(Secret(f"sqlite:///{Path(path).absolute()}"), Path(path).absolute())
    try:
        url = sa.make_url(plain)
    except sa.exc.ArgumentError:
        raise UsageError("The address of the run database cannot be read.", hint="A path, or postgresql://USER@HOST/NAME.") from None
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        return Address(Secret(url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)), None)
    raise UsageError(f"The run database cannot be kept in {kind}.", hint="Give a path for SQLite, or postgresql://USER@HOST/NAME.")


def ensure_file(file: Path) -> None:
    """The file exists and only its owner can read it, from its first byte on. SQLite gives its side files the same mode.

    Raises:
        FailedError: it cannot be made, or is a symbolic link.
        UsageError: its path is longer than SQLite takes.

    """
    if len(os.fsencode(file)) > LONGEST:
        raise UsageError(
            f"The path of the run database has {len(os.fsencode(file))} bytes, and {LONGEST} at most are possible.",
            hint="Keep the plan in a folder with a shorter path.",
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        raise FailedError(f"{file} could not be made: {error.strerror}.", hint="Choose another folder for runs.") from error


def open_engine(address: Address) -> sa.Engine:
    """A SQLAlchemy engine with the settings that durable steps need. It connects lazily.

    Statement parameters never appear in exception texts: they may be values of steps.
    """
    settings: dict[str, Any] = {"hide_parameters": True, "pool_size": 10, "max_overflow": 30, "pool_timeout": 60}
    if address.file is None:
        return sa.create_engine(address.url.reveal(), pool_pre_ping=True, **settings)
    url = sa.URL.create("sqlite", database=str(address.file))
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False}, **settings)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def verify_reachable(engine: sa.Engine, address: Address) -> None:
    """Raise unless the database answers.

    Raises:
        UnreachableError: it does not.
        RunDatabaseError: it is a file, and cannot be used.

    """
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except sa.exc.SQLAlchemyError as error:
        if address.file is not None:
            raise _file_error(error, address.file) from None
        raise UnreachableError(
            f"The run database {address.shown} cannot be opened ({type(error).__name__}).",
            hint="Check that the server runs and the account may use it.",
        ) from None
