"""A TLS server that says exactly what a test wants, and remembers every byte it was told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pki import Bundle, make_bundle

from migrate.appliances.contract import Endpoint
from migrate.appliances.pinned import read_fingerprint


@dataclass
class Scripted:
    """``answer`` gets a request's bytes and gives what is sent back (in pieces); the connection is closed then."""

    endpoint: Endpoint
    fingerprint: str
    told: list[bytes] = field(default_factory=list)
    connections: int = 0


def page(body: str, status: str = "200 OK", kind: str = "text/html", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@contextlib.contextmanager
def scripted(answer: Callable[[bytes], bytes], folder: Path, bundle: Bundle | None = None) -> Iterator[Scripted]:
    bundle = bundle or make_bundle()
    files = folder / "chain.pem", folder / "key.pem"
    files[0].write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in bundle.chain))
    files[1].write_bytes(bundle.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    listener = socket.create_server(("127.0.0.1", 0))
    fingerprint = read_fingerprint(bundle.chain[0].public_bytes(Encoding.DER))
    server = Scripted(Endpoint("127.0.0.1", listener.getsockname()[1], (fingerprint,)), fingerprint)

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as tls:
                request = _read(tls)
                server.told.append(request)
                if request:
                    tls.sendall(answer(request))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _read(tls: ssl.SSLSocket) -> bytes:
    told = b""
    while b"\r\n\r\n" not in told:
        piece = tls.recv(65536)
        if not piece:
            return told
        told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += tls.recv(65536)
    return head + b"\r\n\r\n" + body
