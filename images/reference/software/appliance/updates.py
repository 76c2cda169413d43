"""Where updates come from: the download key, the update server, what is offered, what was downloaded."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .box import Box, write_whole
from .errors import Refused
from .faults import Faults
from .jobs import State
from .packages import Package, find_missing, install, open_package, read_vendor_key, verify_fits, verify_space
from .release import Kind, parse_version
from .store import Store

KEY_MINUTES = 2400


@dataclass(frozen=True)
class Offer:
    """A package that can be had. ``missing``: (kind, version) of the first prerequisite that is not installed."""

    name: str
    kind: str
    version: str
    build: str
    product: str
    requires: dict[str, str]
    eula: str
    size: int
    sha256: str
    missing: tuple[str, str] | None = None


def make_download_key(box: Box, store: Store) -> str:
    """The Appliance Download Key: when it was made, whose it is and what is installed, sealed so that the update server can tell.

    The layout (big-endian): time u32, GUID 16 bytes, base version 3 x u8, site version 3 x u8, first 12 bytes of HMAC-SHA256.
    """
    versions = [store.box.value("select version from installed where kind = ?", kind.value) or "0.0.0" for kind in Kind]
    numbers = [number for version in versions for number in (*parse_version(version), 0, 0, 0)[:3]]
    facts = struct.pack(">I16s6B", int(Faults(store.box).now()), uuid.UUID(store.box.setting("guid")).bytes, *numbers)
    seal = hmac.new((box.factory / "download.key").read_bytes(), facts, hashlib.sha256).digest()[:12]
    text = base64.b32encode(facts + seal).decode().rstrip("=")
    return "-".join(text[at : at + 6] for at in range(0, len(text), 6))


class Updates:
    """Offers and downloads of one box."""

    def __init__(self, box: Box, store: Store) -> None:
        self._box = box
        self._store = store
        self._faults = Faults(store.box)

    def check(self) -> None:
        """Ask the update server what there is; remembered until the next question.

        Raises:
            Refused: no server is set, it does not answer, or it does not take the key.

        """
        answer = json.loads(self._fetch("check"))
        self._store.box.set(offers=json.dumps(answer["packages"]), offers_at=self._faults.now())

    def _fetch(self, path: str) -> bytes:
        server = self._store.box.setting("update_server").rstrip("/")
        if not server.startswith(("http://", "https://")):
            raise Refused("No update server is set.")
        query = urllib.parse.urlencode({"key": make_download_key(self._box, self._store)})
        try:
            with urllib.request.urlopen(f"{server}/{path}?{query}", timeout=60) as answer:  # noqa: S310 - the scheme is checked above
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused("The update server says: {reason}", reason=error.read(500).decode(errors="replace").strip()) from error
        except (OSError, ValueError) as error:
            raise Refused("The update server {server} cannot be reached: {reason}", server=server, reason=str(error)) from error
        return content

    def offers(self) -> list[Offer]:
        """What can be installed: offered by the server at the last question, or downloaded and not installed yet."""
        known = {entry["name"]: entry for entry in json.loads(self._store.box.setting("offers", "[]"))}
        known |= {entry["name"]: entry for entry in self._downloaded()}
        found = [Offer(**entry) for entry in known.values() if self._is_newer(entry)]
        found = [Offer(**(asdict(offer) | {"missing": find_missing(self._store, offer.requires)})) for offer in found]
        return sorted(found, key=lambda offer: (offer.kind, parse_version(offer.version)))

    def _is_newer(self, entry: dict[str, Any]) -> bool:
        installed = self._store.box.value("select version from installed where kind = ?", entry["kind"])
        return installed is None or parse_version(entry["version"]) > parse_version(installed)

    def _downloaded(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self._box.downloads.glob("*.json"))]

    def find_offer(self, name: str) -> Offer:
        found = next((offer for offer in self.offers() if offer.name == name), None)
        if found is None:
            raise Refused("There is no such update.")
        return found

    def keep(self, content: bytes) -> Offer:
        """Keep a package that was uploaded by hand or downloaded.

        Raises:
            Refused: it is not a package of the vendor, or does not fit.

        """
        package = open_package(content, read_vendor_key(self._box))
        verify_fits(self._store, package)
        self._keep(package, content)
        return self.find_offer(package.name)

    def _keep(self, package: Package, content: bytes) -> None:
        entry = {
            "name": package.name,
            "kind": package.kind.value,
            "version": package.version,
            "build": package.build,
            "product": package.product,
            "requires": package.requires,
            "eula": package.eula,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        try:
            verify_space(self._faults)
            write_whole(self._box.downloads / f"{package.name}.pkg", content)
            write_whole(self._box.downloads / f"{package.name}.json", json.dumps(entry).encode())
        except OSError as error:
            raise Refused("The package could not be kept: {reason}.", reason=error.strerror) from error

    def install(self, offer: Offer, step: Callable[..., None]) -> State:
        """Download if need be, check, unpack; then the application restarts from it."""
        path = self._box.downloads / f"{offer.name}.pkg"
        if not path.exists():
            step("Downloading {name}", name=offer.name)
            self._download(offer)
        step("Verifying {name}", name=offer.name)
        package = open_package(path.read_bytes(), read_vendor_key(self._box))
        step("Installing {name}", name=offer.name)
        time.sleep(self._faults.seconds("install-seconds"))
        install(self._box, self._store, package)
        for leftover in (path, path.with_suffix(".json")):
            leftover.unlink(missing_ok=True)
        step("{name} was installed.", name=offer.name)
        return State.RESTARTING

    def _download(self, offer: Offer) -> None:
        content = self._fetch(f"package/{urllib.parse.quote(offer.name)}.pkg")
        if hashlib.sha256(content).hexdigest() != offer.sha256:
            raise Refused("{name} was not downloaded whole.", name=offer.name)
        self._keep(open_package(content, read_vendor_key(self._box)), content)
