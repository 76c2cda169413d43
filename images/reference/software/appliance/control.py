"""How the running software asks its supervisor for something, and how the supervisor hears it."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

CONTROL = "run/control"
APPLICATION = "run/app.sock"
GENERATION = "run/generation"


class Order(Enum):
    """RESTART: the application, which then runs from what is installed. The others are what they say."""

    RESTART = "restart"
    RESET = "reset"
    POWER_OFF = "power-off"
    REBOOT = "reboot"


def tell(order: Order) -> None:
    """Ask the supervisor; it acts as soon as the sender's answer is out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(order.value.encode(), CONTROL)


def listen() -> socket.socket:
    """The supervisor's ear."""
    Path(CONTROL).unlink(missing_ok=True)
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(CONTROL)
    Path(CONTROL).chmod(0o600)
    return ear


def note_start() -> None:
    """Said by the application when it starts, so that one run of it can be told from the next."""
    Path(GENERATION).write_text(uuid.uuid4().hex)


def restart_and_wait(seconds: float = 120.0) -> None:
    """Ask for a restart of the application and return when the new one answers on its socket.

    Raises:
        TimeoutError: it did not come up.

    """
    before = Path(GENERATION).read_text()
    tell(Order.RESTART)
    end = time.monotonic() + seconds
    while not _is_new(before):
        if time.monotonic() > end:
            raise TimeoutError("the application did not restart in time")
        time.sleep(0.05)


@contextmanager
def wake_application() -> Iterator[None]:
    """Ask the application something, so that it follows a change, and do not wait for what it says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
        out.connect(APPLICATION)
        out.sendall(b"GET /get_mech_list HTTP/1.0\r\n\r\n")
        yield


def _is_new(before: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
            out.connect(APPLICATION)
            out.sendall(b"GET /get_mech_list HTTP/1.0\r\n\r\n")
            return bool(out.recv(1)) and Path(GENERATION).read_text() != before
    except OSError:
        return False
