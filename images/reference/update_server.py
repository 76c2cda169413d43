"""The update server of a lab: sells packages for a download key, and lists each only until that box has downloaded it.

``GET /`` a page to type a key into · ``GET /check?key=…`` what that box can get, as JSON · ``GET /package/NAME.pkg?key=…`` one package.
Run it: ``python update_server.py --vendor FOLDER --state FILE --port 8550``. It imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import html
import json
import struct
import threading
import time
import uuid
import zipfile
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY_SECONDS = 2400 * 60
AHEAD_SECONDS = 300  # how far a box's clock may be ahead


class Refused(Exception):  # noqa: N818 - it reads as what it says
    """The key or the question is not taken; the sentence goes to whoever asked."""


@dataclass(frozen=True)
class Key:
    """What a download key says. Versions as numbers."""

    guid: str
    base: tuple[int, ...]
    site: tuple[int, ...]

    def installed(self, kind: str) -> tuple[int, ...]:
        return self.base if kind == "base" else self.site


def parse_key(text: str, secret: bytes, now: float) -> Key:
    """Read a download key.

    Raises:
        Refused: it is not a key of a box of this vendor, or not of this time.

    """
    packed = text.replace("-", "").strip().upper()
    try:
        raw = base64.b32decode(packed + "=" * (-len(packed) % 8))
        facts, seal = raw[:-12], raw[-12:]
        made, guid, *versions = struct.unpack(">I16s6B", facts)
    except (binascii.Error, struct.error, ValueError) as error:
        raise Refused("This is not a download key.") from error
    if not hmac.compare_digest(seal, hmac.new(secret, facts, hashlib.sha256).digest()[:12]):
        raise Refused("This download key was not made by an appliance of this vendor.")
    if not now - KEY_SECONDS <= made <= now + AHEAD_SECONDS:
        raise Refused("The download key is not valid at this time. Check the clock of the appliance, or make a new key.")
    return Key(str(uuid.UUID(bytes=guid)), tuple(versions[:3]), tuple(versions[3:]))


class Shop:
    """The packages, and which box has downloaded which."""

    def __init__(self, vendor: Path, state: Path) -> None:
        self._packages = vendor / "packages"
        self._secret = (vendor / "download.key").read_bytes()
        self._state = state
        self._lock = threading.Lock()

    def read_key(self, text: str) -> Key:
        return parse_key(text, self._secret, time.time())

    def offers(self, key: Key) -> list[dict[str, Any]]:
        """What this box can still get: newer than it has, and not downloaded yet."""
        sold = self._sold().get(key.guid, [])
        found = []
        for path in sorted(self._packages.glob("*.pkg")):
            entry = _describe(path)
            if entry["name"] not in sold and _version(entry["version"]) > key.installed(entry["kind"]):
                found.append(entry)
        return found

    def find_package(self, key: Key, name: str) -> bytes:
        """The package, if it is still offered to this box.

        Raises:
            Refused: it is not.

        """
        if name not in [entry["name"] for entry in self.offers(key)]:
            raise Refused("This package is not available for this appliance (any more).")
        return (self._packages / f"{name}.pkg").read_bytes()

    def note_sold(self, key: Key, name: str) -> None:
        """From now on it is not offered to this box again."""
        with self._lock:
            sold = self._sold()
            sold.setdefault(key.guid, []).append(name)
            temporary = self._state.with_suffix(".new")
            temporary.write_text(json.dumps(sold))
            temporary.replace(self._state)

    def _sold(self) -> dict[str, list[str]]:
        return json.loads(self._state.read_text()) if self._state.exists() else {}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        facts = json.loads(archive.read("package.json"))
    wanted = ("kind", "version", "build", "product", "requires", "eula")
    return {key: facts[key] for key in wanted} | {
        "name": f"{facts['kind']}-{facts['version']}",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


class Answering(BaseHTTPRequestHandler):
    """One request."""

    shop: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        text = parse_qs(asked.query).get("key", [""])[0]
        try:
            if asked.path == "/":
                self._send(200, "text/html; charset=utf-8", self._page(text).encode())
            elif asked.path == "/check":
                offers = self.shop.offers(self.shop.read_key(text))
                self._send(200, "application/json", json.dumps({"packages": offers}).encode())
            elif asked.path.startswith("/package/") and asked.path.endswith(".pkg"):
                self._sell(unquote(asked.path.removeprefix("/package/").removesuffix(".pkg")), text)
            else:
                self._send(404, "text/plain; charset=utf-8", b"There is nothing here.\n")
        except Refused as refused:
            self._send(403, "text/plain; charset=utf-8", f"{refused}\n".encode())

    def _sell(self, name: str, text: str) -> None:
        key = self.shop.read_key(text)
        self._send(200, "application/octet-stream", self.shop.find_package(key, name))
        self.shop.note_sold(key, name)  # only when it was sent whole: a broken connection raises before

    def _page(self, text: str) -> str:
        found = ""
        if text:
            shown = html.escape(text, quote=True)
            links = [
                f'<li><a href="/package/{html.escape(one["name"])}.pkg?key={shown}">{html.escape(one["name"])}</a></li>'
                for one in self.shop.offers(self.shop.read_key(text))
            ]
            found = f"<ul>{''.join(links)}</ul>" if links else "<p>There is nothing to download.</p>"
        form = '<form><label>Appliance Download Key <input name="key" size="80"></label> <button>Check for Updates</button></form>'
        head = "<head><meta charset='utf-8'><title>Updates</title></head>"
        return f"<!DOCTYPE html><html>{head}<body><h1>Updates</h1>{form}{found}</body></html>"

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Requests carry keys, so they are not logged."""


def main() -> None:
    """Sell until ended."""
    parser = argparse.ArgumentParser(description="The update server of a lab.")
    parser.add_argument("--vendor", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    Answering.shop = Shop(asked.vendor, asked.state)
    ThreadingHTTPServer((asked.address, asked.port), Answering).serve_forever()


if __name__ == "__main__":
    main()
