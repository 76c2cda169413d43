"""A small real HTTPS site with a private root, for the visitor's tests: it can be slow, refuse, or lose its acknowledgement."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pki:
    """Files: ``root`` in PEM, ``chain`` (leaf, intermediate, key) for a server; ``leaf`` in DER."""

    root: Path
    chain: Path
    ders: tuple[bytes, ...]


def make_pki(folder: Path, site: str) -> Pki:
    now = dt.datetime.now(dt.UTC)

    def issue(name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None, *, authority: bool):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer_name, signer = issuer or (subject, key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(signer, hashes.SHA256()), key

    root, root_key = issue("root", None, authority=True)
    middle, middle_key = issue("middle", (root.subject, root_key), authority=True)
    leaf, leaf_key = issue(site, (middle.subject, middle_key), authority=False)
    pem = serialization.Encoding.PEM
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    key_text = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem) + middle.public_bytes(pem) + key_text)
    der = serialization.Encoding.DER
    return Pki(folder / "root.pem", folder / "chain.pem", (leaf.public_bytes(der), middle.public_bytes(der)))


@dataclass
class Site:
    """What the site has seen, and how it behaves. ``stored`` outlives a server: two boxes may share it."""

    stored: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    checkins: list[str] = field(default_factory=list)
    connections: int = 0
    status: int = 0
    lose_acknowledgements: int = 0
    delay: float = 0.0


class SiteServer(ThreadingHTTPServer):
    """``with SiteServer(...)``: serves on ``address``:``port`` until the block ends; connections die with it."""

    daemon_threads = True

    def __init__(self, address: str, port: int, pki: Pki, site: Site, secret: str) -> None:
        super().__init__((address, port), _Handler)
        self.site, self.secret = site, secret
        self.open: list[ssl.SSLSocket] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(pki.chain)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def finish_request(self, request, client_address) -> None:
        request.settimeout(5)
        with self._tls.wrap_socket(request, server_side=True) as wrapped:
            self.site.connections += 1
            self.open.append(wrapped)
            super().finish_request(wrapped, client_address)

    def handle_error(self, request, client_address) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SiteServer

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, status: int, body: bytes = b"{}") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        site = self.server.site
        site.hosts.add(self.headers["Host"])
        time.sleep(site.delay)
        self._answer(site.status or 200, b"welcome")

    def do_POST(self) -> None:
        site = self.server.site
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["secret"] != self.server.secret:
            return self._answer(403)
        if site.status:
            return self._answer(site.status)
        if self.path == "/client/checkin":
            site.checkins.append(body["client"])
            return self._answer(200, b'{"update": null}')
        if body["lsid"] not in site.stored:
            site.stored.append(body["lsid"])
        if site.lose_acknowledgements > 0:
            site.lose_acknowledgements -= 1
            self.close_connection = True
            return None
        return self._answer(201, json.dumps({"lsid": body["lsid"]}).encode())
