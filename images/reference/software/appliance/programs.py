"""The one way out to other programs of the box: nginx, ip, systemctl, hostnamectl."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


class ProgramError(Exception):
    """A program failed; its last words are the message."""


def run(argv: Sequence[str], *, timeout: float = 60) -> str:
    """Run a program to its end and answer what it said.

    Raises:
        ProgramError: it is not there, did not end in time, or ended badly.

    """
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramError(f"{argv[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ProgramError(f"{argv[0]}: {said[-1] if said else 'failed'}")
    return done.stdout.decode(errors="replace")


def start(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that keeps running until it is ended, or until this process dies; its output goes to the end of ``log``."""
    with log.open("ab") as sink:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, preexec_fn=die_with_parent)  # noqa: PLW1509 - no threads here


def die_with_parent() -> None:
    """Let the kernel end this process (SIGTERM) when its parent dies, however that dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
