"""nginx in front: a TLS server on every enabled address with the certificate that is assigned to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from .box import Box, Skin, write_whole
from .certificates import Certificates
from .control import APPLICATION
from .errors import Refused
from .network import Address, Network
from .programs import ProgramError, run

FRAME = """\
{user}worker_processes 1;
worker_shutdown_timeout 5s;
daemon off;
pid "{run}/nginx.pid";
error_log "{log}/nginx.log" warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  server_tokens off;
  client_max_body_size 512m;
  client_body_buffer_size 256k;
  client_body_temp_path "{run}/body";
  proxy_temp_path "{run}/proxy";
  fastcgi_temp_path "{run}/unused";
  uwsgi_temp_path "{run}/unused";
  scgi_temp_path "{run}/unused";
  keepalive_timeout 30s;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
  proxy_http_version 1.0;
  proxy_read_timeout 300s;
  proxy_set_header Host $http_host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  proxy_set_header X-Served-On $server_addr;
  map "" $at_each_handshake {{ default ""; }}
{servers}}}
"""
SERVER = """\
  server {{
    listen {listen} ssl;
    ssl_certificate "{chain}";
    ssl_certificate_key "{key}";
    location / {{ proxy_pass http://unix:{socket}:; error_page 502 504 =503 @starting; }}
    location /client/ {{
      keepalive_timeout 600s;
      proxy_pass http://unix:{socket}:;
      error_page 502 504 =503 @starting;
    }}
    location {inside} {{ internal; keepalive_timeout 600s; alias "{updates}/"; }}
    location @starting {{ default_type text/plain; add_header Retry-After 2 always; return 503 "The appliance software is starting.\\n"; }}
  }}
"""
INSIDE = "/updates-of-clients/"  # the application hands these files out by naming them; nobody can ask for one
LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


@dataclass(frozen=True)
class Front:
    """The configuration of nginx, written from what the box knows, and proved by looking at what is served."""

    box: Box
    network: Network
    certificates: Certificates

    @property
    def path(self) -> str:
        return str(self.box.run / "nginx.conf")

    def write(self) -> None:
        """Write the configuration (the running nginx does not notice)."""
        servers = "".join(self._render(row) for row in self.network.rows() if row.enabled)
        user = "" if os.getuid() else ("user root root;\n" if self.box.skin is Skin.LOCAL else "user www-data;\n")
        text = FRAME.format(user=user, run=self.box.run, log=self.box.log, servers=servers)
        write_whole(self.box.run / "nginx.conf", text.encode())

    def _render(self, row: Address) -> str:
        number = self.certificates.for_address(row.certificate).id
        # A file name with a variable in it is read at each handshake: a copy of this box serves its own certificate without a reload.
        late = "$at_each_handshake" if number == self.certificates.factory() else ""
        host = f"[{row.address}]" if ":" in row.address else row.address
        return SERVER.format(
            listen=f"{host}:{self.box.port}",
            chain=f"{self.certificates.chain_path(number)}{late}",
            key=f"{self.certificates.key_path(number)}{late}",
            socket=APPLICATION,
            inside=INSIDE,
            updates=self.box.run / "updates",
        )

    def apply(self, *, timeout: float = 30.0) -> None:
        """Make nginx follow, and return only when every enabled address serves its certificate and no other address answers.

        Raises:
            Refused: nginx does not take the configuration, or did not follow in time.

        """
        before = (self.box.run / "nginx.conf").read_bytes()
        self.write()
        try:
            run(["nginx", "-e", str(self.box.log / "nginx.log"), "-p", str(self.box.root), "-c", self.path, "-t", "-q"])
        except ProgramError as error:
            write_whole(self.box.run / "nginx.conf", before)
            raise Refused("The web server does not accept the change: {reason}", reason=str(error)) from error
        master = int((self.box.run / "nginx.pid").read_text())
        old = find_children(master)
        os.kill(master, signal.SIGHUP)
        end = time.monotonic() + timeout
        while (late := self._find_late(master, old)) is not None:
            if time.monotonic() > end:
                raise Refused("The web server did not follow in time on {address}.", address=late)
            time.sleep(0.005)

    def _find_late(self, master: int, old: set[int]) -> str | None:
        """The first address that is not yet as it should be; the old workers must have stopped taking connections before all else."""
        if any(is_taking_connections(worker) for worker in old):
            return self.network.rows()[0].address
        for row in self.network.rows():
            if row.enabled:
                wanted = self.certificates.for_address(row.certificate).leaf
                if self._served(row.address) != wanted.public_bytes(Encoding.DER):
                    return row.address
            elif self.box.skin is Skin.LOCAL and is_listening(master, row.address, self.box.port):
                return row.address
        return None

    def _served(self, address: str) -> bytes | None:
        """The certificate that is served there now, None where nothing answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection((address, self.box.port), 5) as plain, context.wrap_socket(plain) as tls:
                return tls.getpeercert(binary_form=True)
        except OSError:
            return None


def find_children(parent: int) -> set[int]:
    """Process ids of the children of a process with one thread."""
    return {int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def is_listening(process: int, address: str, port: int) -> bool:
    """Whether this process listens there; another box may do so on an address that the two share."""
    kind, ip = ("tcp6", 4) if ":" in address else ("tcp", 1)
    packed = socket.inet_pton(socket.AF_INET6 if ip == 4 else socket.AF_INET, address)
    words = [packed[at * 4 : at * 4 + 4][::-1] for at in range(ip)]  # as the kernel writes them on little-endian machines
    place = f"{b''.join(words).hex().upper()}:{port:04X}"
    rows = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == place and row[3] == LISTEN}
    return any(str(found) in sockets for found in _open_files(process))


def _open_files(process: int) -> Iterator[str]:
    for path in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(path.readlink())


def end_workers(master: int) -> set[int]:
    """End the workers of nginx, which starts others in their place; answers those that end."""
    old = find_children(master)
    for worker in old:
        os.kill(worker, signal.SIGTERM)
    return old


def wait_for_workers(master: int, old: set[int], *, timeout: float = 20.0) -> None:
    """Return when others are in the place of the ``old`` workers.

    Raises:
        TimeoutError: they are not.

    """
    end = time.monotonic() + timeout
    while not (now := find_children(master)) or now & old:
        if time.monotonic() > end:
            raise TimeoutError("the web server did not replace its workers in time")
        time.sleep(0.03)  # looking costs an emulated machine more than waiting


def is_taking_connections(worker: int) -> bool:
    """Whether this worker of nginx still accepts: when it stops, it says so in its title, and closes its listening sockets."""
    try:
        return b"shutting down" not in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
