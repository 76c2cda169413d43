"""The one way out to other programs. Nothing else imports subprocess."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from kit.errors import DeadlineError, ToolError
from kit.secret import Secret, scrub

TAIL = 2000


@dataclass(frozen=True)
class Completed:
    """What a finished program left: its exit status and its two outputs as bytes."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.out.decode(errors="replace")


def find_program(name: str) -> Path | None:
    """Where the program is, also in the sbin folders that a user's PATH lacks; None where it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]))
    return Path(found) if found else None


def need_program(name: str, *, package: str) -> Path:
    """Where the program is.

    Raises:
        ToolError: it is not installed; the hint names the Debian package.

    """
    found = find_program(name)
    if found is None:
        raise ToolError(f"The program {name} is not installed.", hint=f"Install the Debian package {package}.", program=name)
    return found


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | Secret | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    accept: Sequence[int] = (0,),
) -> Completed:
    """Run a program to its end.

    ``stdin`` is what it reads (nothing where None: its input is closed); secrets go there, never into ``argv``. ``timeout`` in
    seconds; then the program and its children are killed. ``env`` is added to this process's environment. ``accept`` lists the exit
    statuses that are no failure.

    Raises:
        ToolError: it is not there, or ended with another status; carries the tail of what it said.
        DeadlineError: it was killed at the timeout.

    """
    words = _words(argv)
    given = stdin.to_bytes() if isinstance(stdin, Secret) else stdin
    hide = (stdin,) if isinstance(stdin, Secret) else ()
    child = _start(words, stdin=given is not None, env=env, cwd=cwd, out=subprocess.PIPE, err=subprocess.PIPE)
    try:
        out, err = child.communicate(given, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        _kill_group(child)
        raise DeadlineError(
            f"{words[0]} did not end within {timeout:g} s.", program=words[0], said=_tail(late.stderr or b"", hide)
        ) from None
    except BaseException:
        _kill_group(child)
        raise
    if child.returncode not in accept:
        said = _tail(err or out, hide)
        last = said.splitlines()[-1] if said else "it said nothing"
        raise ToolError(f"{words[0]} ended with status {child.returncode}: {last}", program=words[0], status=child.returncode, said=said)
    return Completed(child.returncode, out, err)


class Child:
    """A program that keeps running beside us: a server, a daemon. Ends with the ``with`` block, by its own pid."""

    def __init__(self, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.argv = _words(argv)
        self.log = log
        with log.open("ab") as sink:
            self._child = _start(self.argv, stdin=False, env=env, cwd=cwd, out=sink, err=sink)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal that ended it), None while it runs."""
        if self._child.returncode is not None:
            return self._child.returncode
        # Not reaped before stop(): until then its process group cannot become somebody else's.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def said(self) -> str:
        """The tail of its log."""
        return _tail(self.log.read_bytes()[-TAIL:], ())

    def stop(self, *, grace: float = 10.0) -> None:
        """Ask it to end (SIGTERM to its group), kill after ``grace`` seconds; what it started and left behind is killed too."""
        if self._child.returncode is not None:
            return
        _signal_group(self._child, signal.SIGTERM)
        end = time.monotonic() + grace
        while self.status is None and time.monotonic() < end:
            time.sleep(0.02)
        _kill_group(self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _words(argv: Sequence[str | Path]) -> list[str]:
    if any(isinstance(word, Secret) for word in argv):
        raise TypeError("a Secret never goes into argv")
    return [str(word) for word in argv]


def _start(
    words: list[str], *, stdin: bool, env: Mapping[str, str] | None, cwd: Path | None, out: int | IO[bytes], err: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **env} if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise ToolError(f"The program {words[0]} is not installed.", program=words[0]) from missing
    except OSError as error:
        raise ToolError(f"{words[0]} could not be started: {error.strerror}.", program=words[0]) from error


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _tail(raw: bytes, hide: Sequence[Secret]) -> str:
    # Scrubbed before it is cut: a secret that the cut halves would not be found.
    return scrub(raw.decode(errors="replace"), *hide)[-TAIL:].strip()
