"""One worker per SQLite file. The kernel drops the lock with the process, however it ends: what it says is always true."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from migrate.engine.model import WorkerBusyError

PATIENCE = 1.0  # seconds; those who only look hold the lock for a moment


@dataclass(frozen=True)
class Holder:
    """The worker that holds the file: its engine's id, its process, its machine."""

    worker: str
    pid: int
    host: str

    @property
    def shown(self) -> str:
        """For people."""
        return f"process {self.pid} on {self.host}"


def lock_path(file: Path) -> Path:
    """The lock file beside a database file."""
    return file.with_name(file.name + ".lock")


class WorkerLock:
    """Held from the moment it is made until :meth:`release` or the end of the process."""

    def __init__(self, file: Path, worker: str) -> None:
        self._handle = os.open(lock_path(file), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + PATIENCE
        while not _take(self._handle, fcntl.LOCK_EX):
            if time.monotonic() > end:
                holder = _read(self._handle)
                os.close(self._handle)
                who = holder.shown if holder else "another process"
                raise WorkerBusyError(
                    f"{who} is already working on {file}.",
                    hint="Let it go on, and use status, approve and the like from here; or stop it first.",
                    pid=holder.pid if holder else None,
                )
            time.sleep(0.02)
        line = json.dumps({"worker": worker, "pid": os.getpid(), "host": socket.gethostname()}).encode()
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, line, 0)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._handle >= 0:
            with suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = -1


def find_holder(file: Path) -> Holder | None:
    """Who holds the file now; None where nobody does."""
    try:
        handle = os.open(lock_path(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _take(handle, fcntl.LOCK_SH):
            return None
        return _read(handle) or Holder("", 0, socket.gethostname())
    finally:
        os.close(handle)


def _take(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(handle: int) -> Holder | None:
    try:
        record = json.loads(os.pread(handle, 4096, 0))
        return Holder(str(record["worker"]), int(record["pid"]), str(record["host"]))
    except (ValueError, KeyError, TypeError):
        return None
