"""A real BIND 9 on a loopback port: the name server of demonstrations, rehearsals and tests.

It serves one zone that a TSIG key may change, as a normal user or as root, from a folder of its own. A secondary, on another port,
follows it by NOTIFY and zone transfer.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import dns.name

from kit.errors import FailedError
from kit.files import write_private
from kit.process import Child, need_program, run
from kit.secret import Secret
from kit.waiting import wait_for
from migrate.cutover.dns_values import NameServer, TsigAlgorithm, TsigKey, parse_dns_name
from migrate.cutover.dns_wire import ask

# BIND listens on addresses that an interface has been given; of 127.0.0.0/8 that is only this one.
LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
REFRESH = 3  # seconds after which a secondary asks by itself, where it was down when it was notified
PORTS_TRIED = 20
APPARMOR_PROFILE = Path("/etc/apparmor.d/usr.sbin.named")
APPARMOR_ENABLED = Path("/sys/module/apparmor/parameters/enabled")


@dataclass(frozen=True)
class ZoneRecord:
    """One record, ``name`` relative to the zone (``@`` is the zone itself), ``ttl`` in seconds."""

    name: str
    ttl: int
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.name} {self.ttl} {self.kind} {self.value}"


def make_tsig_key(name: str = "boxshift-cutover", algorithm: TsigAlgorithm = TsigAlgorithm.HMAC_SHA256) -> TsigKey:
    """A fresh key of 256 random bits."""
    return TsigKey(name, Secret(base64.b64encode(secrets.token_bytes(32)).decode()), algorithm)


class DemoNameServer:
    """BIND with one zone, for the length of a ``with`` block.

    ``folder`` is made, mode 0700, and may be used again: then the zone is as it was left. ``port`` 0 takes a free one. ``secondary``
    adds a second authoritative server; without ``notify`` that one learns of no change. ``policy`` replaces the zone's
    ``allow-update`` of the key, as BIND writes it.
    """

    def __init__(
        self,
        folder: Path,
        records: Sequence[ZoneRecord],
        *,
        zone: str = "example.test",
        port: int = 0,
        key: TsigKey | None = None,
        secondary: bool = False,
        notify: bool = True,
        policy: str | None = None,
    ) -> None:
        parse_dns_name(zone)
        self.folder = folder
        self.zone = zone.rstrip(".")
        self.key = key or make_tsig_key()
        self._records = tuple(records)
        self._notify = notify
        self._policy = policy
        self._stack = ExitStack()
        self._children: dict[NameServer, Child] = {}
        self.primary = NameServer(LOOPBACK, port or _free_port(), f"ns1.{self.zone}")
        self.secondary = NameServer(LOOPBACK, _free_port(), f"ns2.{self.zone}") if secondary else None

    @property
    def servers(self) -> tuple[NameServer, ...]:
        """The servers of the zone's NS records, the primary first."""
        return (self.primary,) if self.secondary is None else (self.primary, self.secondary)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until every server answers for the zone.

        Raises:
            ToolError: BIND is not installed, or refuses its configuration.
            DeadlineError: a server did not come up; says what it logged last.

        """
        try:
            for server in self.servers:
                self.start_one(server)
        except BaseException:
            self.stop()
            raise

    def start_one(self, server: NameServer) -> None:
        """Start one of :attr:`servers` and wait until it answers."""
        named = need_program("named", package="bind9")
        room = self._write_room(server)
        run([need_program("named-checkconf", package="bind9-utils"), room / "named.conf"], timeout=30)
        child = Child([_unconfined(named, self.folder), "-g", "-n", "1", "-c", room / "named.conf"], log=room / "named.log", cwd=room)
        self._children[server] = self._stack.enter_context(child)
        _wait_until_serving(child, server, self.zone)

    def stop_one(self, server: NameServer) -> None:
        """End one of :attr:`servers`; it may be started again."""
        self._children[server].stop()

    def stop(self) -> None:
        """End every server."""
        self._stack.close()

    def _write_room(self, server: NameServer) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = self.folder / ("primary" if server == self.primary else "secondary")
        room.mkdir(mode=0o700, exist_ok=True)
        write_private(room / "tsig.key", self._key_text().encode())
        write_private(room / "named.conf", self._config_text(server, room).encode())
        if server == self.primary and not (room / "zone.db").exists():
            write_private(room / "zone.db", self._zone_text().encode())
        return room

    def _key_text(self) -> str:
        return f'key "{self.key.name}" {{\n  algorithm {self.key.algorithm};\n  secret "{self.key.secret.reveal()}";\n}};\n'

    def _config_text(self, server: NameServer, room: Path) -> str:
        zone = self._primary_zone() if server == self.primary else self._secondary_zone()
        return f"""\
include "{room}/tsig.key";
controls {{ }};
options {{
  directory "{room}";
  pid-file none;
  session-keyfile none;
  listen-on port {server.port} {{ {server.address}; }};
  listen-on-v6 {{ none; }};
  recursion no;
  dnssec-validation no;
  empty-zones-enable no;
  allow-query {{ 127.0.0.0/8; }};
  allow-transfer {{ key "{self.key.name}"; }};
  notify-delay 0;
  max-cache-size 8M;
}};
zone "{self.zone}" {{
{zone}
}};
"""

    def _primary_zone(self) -> str:
        policy = self._policy or f'allow-update {{ key "{self.key.name}"; }};'
        other = self.secondary
        notify = (
            f'notify explicit; also-notify {{ {other.address} port {other.port} key "{self.key.name}"; }};'
            if other is not None and self._notify
            else "notify no;"
        )
        return f'  type primary; file "zone.db"; {policy} {notify}'

    def _secondary_zone(self) -> str:
        source = f'{self.primary.address} port {self.primary.port} key "{self.key.name}";'
        pace = "notify no; min-refresh-time 1; min-retry-time 1;"
        return f'  type secondary; file "zone.db"; masterfile-format text; {pace} primaries {{ {source} }};'

    def _zone_text(self) -> str:
        origin = dns.name.from_text(self.zone)
        lines = [
            f"$ORIGIN {origin}",
            "$TTL 300",
            f"@ IN SOA ns1.{origin} hostmaster.{origin} 1 {REFRESH if self._notify else 3600} 1 86400 5",
            *(f"@ 300 NS {server.name}." for server in self.servers),
            *(f"{server.name}. 300 A {server.address}" for server in self.servers),
            *map(str, self._records),
        ]
        return "\n".join(lines) + "\n"


def _wait_until_serving(child: Child, server: NameServer, zone: str) -> None:
    def probe() -> bool:
        if not ask(server, parse_dns_name(zone), "SOA", timeout=0.2).values:
            raise FailedError(f"{server} has no SOA record of {zone} yet.")
        return True

    def give_up() -> str | None:
        return None if child.status is None else f"BIND ended with status {child.status}; it said: {child.said()}"

    wait_for(probe, what=f"the name server {server} to serve {zone}", timeout=START_SECONDS, poll=0.1, give_up=give_up)


def _free_port() -> int:
    """A port that is free for UDP and TCP at this moment."""
    for _ in range(PORTS_TRIED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind((LOOPBACK, 0))
                port: int = stream.getsockname()[1]
                datagram.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise FailedError(f"No free port was found on {LOOPBACK}.", hint="Something on this machine holds very many ports.")


def _unconfined(named: Path, folder: Path) -> Path:
    """The program to start: on machines where AppArmor keeps ``/usr/sbin/named`` to the system's own folders, a copy in ours.

    That profile goes by path and belongs to the system's name server, which ours is not.
    """
    confined = APPARMOR_PROFILE.exists() and APPARMOR_ENABLED.exists() and APPARMOR_ENABLED.read_text().startswith("Y")
    if not confined:
        return named
    copy = folder / "named"
    if not copy.exists():
        shutil.copy(named, copy)
        copy.chmod(0o700)
    return copy
