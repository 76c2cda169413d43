"""One process at a time: lock files that a killed process gives up by dying."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.errors import DeadlineError
from kit.waiting import wait_for

_BOOT_ID, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@contextmanager
def hold(path: Path, *, what: str, timeout: float) -> Iterator[None]:
    """Hold the lock file ``path``; ``what`` says in an error what another process is at. ``timeout`` in seconds.

    Raises:
        DeadlineError: another process held it all the time.

    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        wait_for(lambda: _try_lock(handle), what=f"another boxshift process to finish: {what}", timeout=timeout, poll=0.1)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file now."""
    try:
        with hold(path, what="", timeout=0):
            return False
    except DeadlineError:
        return True


def read_self() -> str:
    """Which process we are, as no other is or will be: boot, PID namespace, pid and when it started."""
    pid = os.getpid()
    return f"{_BOOT_ID.read_text().strip()} {_NAMESPACE.readlink()} {pid} {_started(pid)}"


def is_alive(process: str) -> bool:
    """Whether the process that :func:`read_self` described still runs; one of another PID namespace cannot be seen, and counts as alive."""
    boot, namespace, pid, started = process.split()
    try:
        if boot != _BOOT_ID.read_text().strip():
            return False
        return namespace != str(_NAMESPACE.readlink()) or _started(int(pid)) == started
    except (FileNotFoundError, ProcessLookupError):
        return False


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _try_lock(handle: int) -> bool | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True
