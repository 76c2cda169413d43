"""A copy of a saved machine asks for an identity of its own: a socket that the machine's agent knows, and what the box makes anew.

The application goes on running in a copy: at its next request it takes up what :func:`renew` wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flask import Flask

from .box import Box, Hardware, read_hardware, save_hardware
from .certificates import Certificates
from .store import Store

FOLDER = Path("/run/boxshift/identity.d")
STAMP = "identity"
FOLLOW = "boxshift-identity"  # among an application's extensions: what takes up another identity
PATIENCE = 5.0  # seconds for the agent to say what it wants


def listen_for_identity() -> socket.socket | None:
    """The socket; None on a machine without the agent."""
    if not FOLDER.is_dir():  # the agent's service makes it, and starts before the box
        return None
    path = FOLDER / "appliance.sock"
    path.unlink(missing_ok=True)
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ear.bind(str(path))
    path.chmod(0o600)
    ear.listen(1)
    return ear


class Asked:
    """One question and its answer: ``ask`` is ``prepare`` or ``renew``; ``facts`` are told when all went well."""

    def __init__(self, ear: socket.socket) -> None:
        self._link, _ = ear.accept()
        self.ask = self.name = self.serial = self.chain = self.key = ""
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._link.settimeout(PATIENCE)
        with self._link.makefile("rb") as lines:
            said = json.loads(lines.readline(65536))
        self.ask, self.name, self.serial = str(said["ask"]), str(said.get("name", "")), str(said.get("serial", ""))
        given = said.get("certificate", {})
        self.chain, self.key = str(given.get("chain", "")), str(given.get("key", ""))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        told = {"ok": True, **self.facts} if error is None else {"ok": False, "error": str(error)}
        with self._link:
            self._link.sendall(json.dumps(told).encode() + b"\n")
        return isinstance(error, Exception)


class Renewing:
    """The application, which is told when the box has taken another identity."""

    def __init__(self, box: Box, build: Callable[[], Flask]) -> None:
        self._stamp_file = box.root / STAMP
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._application = build()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._stamp != self._read_stamp():
            with self._lock:
                stamp = self._read_stamp()
                if self._stamp != stamp:
                    stir()
                    self._application.extensions[FOLLOW]()
                    self._stamp = stamp
        return self._application(environ, start_response)

    def _read_stamp(self) -> int:
        try:
            return self._stamp_file.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def stir() -> None:
    """OpenSSL keeps a generator of its own in every process, which a copy of the process shares: give it new randomness."""
    ssl.RAND_add(os.urandom(64), 64.0)


def renew(box: Box, asked: Asked) -> None:
    """Make anew what no two boxes may share: factory certificate, GUID, serial, names of fields, open visits and tokens.

    The certificate and its key were made outside, where that is quick, and nothing of them is looked at: whoever may ask made the
    machine. Nothing waits for the disk: a copy that is interrupted here is thrown away, and the agent brings all to the disk at the end.
    """
    stir()
    store = Store(box)
    certificates = Certificates(box, store)
    number, guid = certificates.factory(), str(uuid.uuid4())
    certificates.write_files(number, asked.chain, asked.key, durable=False)
    with store.box.transaction(durable=False) as connection:
        for table in ("visit", "api_token"):
            connection.execute(f"delete from {table}")  # noqa: S608 - our own names
        store.box.set(page_secret=os.urandom(16).hex(), guid=guid, hostname=asked.name)
        certificates.note_files(number, asked.chain)
    save_hardware(box, Hardware(asked.serial, read_hardware(box).resets), durable=False)
    asked.facts = {"guid": guid, "certificate": hashlib.sha256(ssl.PEM_cert_to_DER_cert(asked.chain)).hexdigest()}
    (box.root / STAMP).write_text(asked.serial)  # the application sees that it is newer, whatever stands in it
    store.close()
