"""Programs on a gateway, run over SSH: the adapter to paramiko.

The host key is compared with the plan's before anything else is sent. No agent, no known_hosts, no key that the plan does not name.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import socket
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import paramiko
from paramiko.ssh_exception import AuthenticationException, PasswordRequiredException, SSHException

from kit.errors import RejectedError, UnexpectedError, UnreachableError, UsageError
from kit.plain import spell_out
from kit.secret import Secret

T = TypeVar("T")
LOOK = "Look at its address and port, and whether its SSH server lets this machine in."
MOST = 16 * 2**20  # bytes that a program may say


class GatewayUnreachableError(UnreachableError):
    """The gateway does not answer, or the connection broke."""

    code = "gateway-unreachable"


class GatewayKeyError(RejectedError):
    """Another host key than the plan's: no password and no command was sent."""

    code = "gateway-key"


class GatewayLoginError(RejectedError):
    """The gateway does not let this user in."""

    code = "gateway-login"


@dataclass(frozen=True)
class SshPlace:
    """Where to log in and as whom. ``host_key``: ``SHA256:…`` as ``ssh-keygen -l`` prints it. Either a password or a key file."""

    address: str
    port: int
    user: str
    host_key: str
    password: Secret | None = None
    key: Path | None = None
    passphrase: Secret | None = None
    timeout: float = 30.0

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Said:
    """What a program over there left. Its words are foreign text, made safe to show."""

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line, of standard error if there is one."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return spell_out(lines[-1])[:300] if lines else "it said nothing"


class Gateway(Protocol):
    """A machine on which programs run."""

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Said:
        """Run a program to its end, whatever its exit status."""
        ...


class SshGateway:
    """A logged-in connection; ends with the ``with`` block.

    Raises:
        GatewayUnreachableError, GatewayKeyError, GatewayLoginError
        UsageError: the key file cannot be used.

    """

    def __init__(self, place: SshPlace) -> None:
        self._place = place
        own = _read_key(place) if place.key is not None else None
        self._transport = self._guarded(self._connect)
        try:
            self._guarded(lambda: self._log_in(own))
        except BaseException:
            self._transport.close()
            raise

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Said:
        """Run a program; every word reaches it as it is. The shell over there sees quoted words only."""
        return self._guarded(lambda: self._run(shlex.join(argv), stdin.encode()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def _connect(self) -> paramiko.Transport:
        place = self._place
        wire = socket.create_connection((place.address, place.port), place.timeout)
        transport = paramiko.Transport(wire)
        transport.set_log_channel("boxshift.ssh")
        transport.logger.disabled = True  # it would print tracebacks of what is translated here
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = place.timeout
        try:
            transport.start_client(timeout=place.timeout)
            seen = render_fingerprint(transport.get_remote_server_key())
        except BaseException:
            transport.close()
            raise
        if seen != place.host_key:
            transport.close()
            raise GatewayKeyError(
                f"The gateway {place} has another host key than the plan says: {seen}.",
                hint="Another machine answers there, or its key was changed or is of another type. Compare on the gateway itself: "
                "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                seen=seen,
            )
        return transport

    def _log_in(self, own: paramiko.PKey | None) -> None:
        place = self._place
        try:
            if own is not None:
                more = self._transport.auth_publickey(place.user, own)
            else:
                more = self._transport.auth_password(place.user, place.password.reveal() if place.password else "")
        except AuthenticationException as refused:
            what = "this key" if own is not None else "this password"
            hint = "Look at its authorized_keys." if own is not None else "Correct the password; some gateways take keys only."
            raise GatewayLoginError(f"The gateway {place} does not let {place.user} in with {what}.", hint=hint) from refused
        if more:
            raise GatewayLoginError(f"The gateway {place} wants more than one proof of {place.user}: {', '.join(more)}.")

    def _run(self, command: str, stdin: bytes) -> Said:
        end = time.monotonic() + self._place.timeout
        with self._transport.open_session(timeout=self._place.timeout) as channel:
            channel.settimeout(self._place.timeout)
            channel.exec_command(command)
            with suppress(OSError):  # a program that ends without reading says why in its answer
                channel.sendall(stdin)
                channel.shutdown_write()
            out = self._read(channel, channel.recv, end)
            err = self._read(channel, channel.recv_stderr, end)
            if not channel.status_event.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError
            status = channel.recv_exit_status()
        if status < 0:
            raise GatewayUnreachableError(f"The connection to the gateway {self._place} broke before {command.split(maxsplit=1)[0]} ended.")
        return Said(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def _read(self, channel: paramiko.Channel, receive: Callable[[int], bytes], end: float) -> bytes:
        parts: list[bytes] = []
        while sum(map(len, parts)) <= MOST:
            channel.settimeout(max(0.01, end - time.monotonic()))
            part = receive(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
        raise UnexpectedError(f"The gateway {self._place} says more than {MOST // 2**20} MiB.")

    def _guarded(self, act: Callable[[], T]) -> T:
        """Foreign errors become ours here and nowhere else."""
        place = self._place
        try:
            return act()
        except TimeoutError as late:
            raise GatewayUnreachableError(f"The gateway {place} did not answer within {place.timeout:g} s.", hint=LOOK) from late
        except (SSHException, OSError, EOFError) as trouble:
            words = spell_out(str(trouble))[:200] or type(trouble).__name__
            raise GatewayUnreachableError(
                f"The gateway {place} cannot be reached over SSH: {words}.",
                hint=LOOK,
            ) from trouble


def render_fingerprint(key: paramiko.PKey) -> str:
    """``SHA256:…`` as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def _read_key(place: SshPlace) -> paramiko.PKey:
    path = Path(place.key or "")
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"The key file {path} can be read by others.", hint=f"chmod 600 {path}")
        found = _parse_key(str(path), place.passphrase.reveal() if place.passphrase else None)
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.", hint="cutover.nat.key names a private key.") from error
    except PasswordRequiredException as locked:
        raise UsageError(f"The key file {path} is encrypted.", hint="Give cutover.nat.passphrase.") from locked
    if found is None:
        raise UsageError(
            f"The key file {path} cannot be used.",
            hint="It holds no private key of type Ed25519, ECDSA or RSA, or its passphrase is another.",
        )
    return found


def _parse_key(path: str, passphrase: str | None) -> paramiko.PKey | None:
    kinds: tuple[type[paramiko.PKey], ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
    for kind in kinds:
        try:
            return kind.from_private_key_file(path, passphrase)
        except PasswordRequiredException:
            raise
        except (SSHException, ValueError):
            continue  # of another kind, or the passphrase is wrong
    return None
