"""How two boxes of a pair talk: requests over TLS that are sealed with the inter-appliance pre-shared key, and sealed answers.

The key itself is never sent. The seal of a request covers the certificate that the sender saw, so that nobody can stand in between with
another one; certificates of boxes are often self-signed, and the key is what the two have in common. A seal has its time and a word
used once, so that no request can be played again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import http.client
import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from .errors import Busy, Refused
from .pairs import Door
from .widgets import Say

if TYPE_CHECKING:
    from .core import Appliance

WINDOW = 300.0  # seconds that the clocks of two boxes may differ
PREFIX = "X-Failover-"
CONNECT_TIMEOUT = 5.0
BROKEN_OFF = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)


class PeerSilent(Refused):
    """The peer cannot be reached, or does not answer."""


class KeysDiffer(Refused):
    """The peer has another key, or none."""


KEYS = {
    "key": Say("The Inter-appliance Communication Pre-shared Keys of the two sites are not the same."),
    "no-key": Say("No Inter-appliance Communication Pre-shared Key is set on the peer site."),
}


@functools.lru_cache(maxsize=4)
def derive_key(preshared: str) -> bytes:
    """The sealing key; costly, so that a seal that somebody saw does not give the words away."""
    return hashlib.scrypt(preshared.encode(), salt=b"inter-appliance communication", n=2**13, r=8, p=1, dklen=32)


def read_key(box: Appliance) -> bytes:
    """The sealing key of this site.

    Raises:
        Refused: none is set.

    """
    preshared = box.store.site.setting("preshared_key")
    if not preshared:
        raise Refused("Set the Inter-appliance Communication Pre-shared Key first: Management > Security.")
    return derive_key(preshared)


def seal(key: bytes, *parts: str | bytes) -> str:
    """What only the holder of the key can write over these parts."""
    digests = [hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest() for part in parts]
    return hmac.new(key, b"".join(digests), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Letter:
    """A request whose seal is right: who sent it, and what it says."""

    guid: str
    nonce: str
    content: dict[str, Any]


class Unsealed(Exception):  # noqa: N818 - it says what the letter is
    """The seal is not right; ``code`` is one of :data:`KEYS`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Peer:
    """The other box, asked over one connection that is opened anew when it was closed in between."""

    def __init__(self, box: Appliance, door: Door, *, timeout: float = 60.0) -> None:
        self._box = box
        self._door = door
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None
        self._certificate = b""

    def ask(self, word: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a letter; answers what came back.

        Raises:
            PeerSilent: nothing came back.
            KeysDiffer: the two have not the same key.
            Refused: what the peer says.

        """
        return json.loads(self.fetch(word, content))  # type: ignore[no-any-return]

    def fetch(self, word: str, content: dict[str, Any] | None = None) -> bytes:
        """As :meth:`ask`, for answers that are bytes."""
        if self._box.faults.is_on("peer-silent"):
            raise self._silent("the fault switch says so")
        key = read_key(self._box)
        body = json.dumps(content or {}).encode()
        try:
            return self._send(key, word, body)
        except BROKEN_OFF:
            self.close()  # the peer's web server closes connections when it takes a new configuration; a letter may be sent twice
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        try:
            return self._send(key, word, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> PeerSilent:
        self.close()
        return self._silent(str(error) or type(error).__name__)

    def _silent(self, reason: str) -> PeerSilent:
        return PeerSilent("The peer site {peer} cannot be reached: {reason}.", peer=self._door, reason=reason)

    def _open(self) -> http.client.HTTPSConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the seal binds the certificate instead
        connection = http.client.HTTPSConnection(self._door.host, self._door.port, timeout=CONNECT_TIMEOUT, context=context)
        connection.connect()
        connection.sock.settimeout(self._timeout)
        self._certificate = connection.sock.getpeercert(binary_form=True) or b""
        return connection

    def _send(self, key: bytes, word: str, body: bytes) -> bytes:
        if self._connection is None:
            self._connection = self._open()
        sent, nonce, guid = repr(self._box.faults.now()), secrets.token_hex(16), self._box.guid
        headers = {
            PREFIX + "Guid": guid,
            PREFIX + "Time": sent,
            PREFIX + "Nonce": nonce,
            PREFIX + "Seal": seal(key, "ask", word, guid, sent, nonce, self._certificate, body),
            "Content-Type": "application/json",
        }
        self._connection.request("POST", f"/failover/{word}", body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        expected = seal(key, "answer", nonce, str(answer.status), content)
        if not hmac.compare_digest(expected, answer.headers.get(PREFIX + "Seal", "")):
            raise self._unsealed(answer.status, content)
        if answer.status != 200:
            said = json.loads(content)
            raise (Busy if answer.status == 503 else Refused)(said["sentence"], **said["facts"])
        return content

    def _unsealed(self, status: int, content: bytes) -> Refused:
        """What an answer without the right seal may be taken for: never for more than a reason why there is none."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return KeysDiffer(KEYS[json.loads(content)["error"]].text)
        if status == 200:
            return KeysDiffer(KEYS["key"].text)
        return self._silent(f"HTTP {status}")

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Reader:
    """Opens letters: looks at seal, time and that each comes once."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._read: dict[str, float] = {}
        self._lock = threading.Lock()

    def open(self, word: str, headers: Any, body: bytes) -> tuple[bytes, Letter]:
        """The letter, and the key for the answer.

        Raises:
            Unsealed: this site has no key, or the sender has another one (or saw another certificate than ours).
            Refused: the clocks of the two boxes differ too much, or the letter came before.

        """
        preshared = self._box.store.site.setting("preshared_key")
        if not preshared:
            raise Unsealed("no-key")
        key = derive_key(preshared)
        guid, sent, nonce = (headers.get(PREFIX + name, "") for name in ("Guid", "Time", "Nonce"))
        expected = seal(key, "ask", word, guid, sent, nonce, self._served(headers.get("X-Served-On", "")), body)
        if not hmac.compare_digest(expected, headers.get(PREFIX + "Seal", "")):
            raise Unsealed("key")
        return key, Letter(guid, nonce, json.loads(body) | {"sent": float(sent)})

    def verify_fresh(self, letter: Letter) -> None:
        """It is of now, and the first of its kind.

        Raises:
            Refused: it is not.

        """
        away = letter.content["sent"] - self._box.faults.now()
        if abs(away) > WINDOW:
            raise Refused("The clocks of the two appliances differ by {seconds} seconds.", seconds=int(abs(away)))
        now = time.monotonic()
        with self._lock:
            for old in [nonce for nonce, at in self._read.items() if at < now - 2 * WINDOW]:
                del self._read[old]
            if letter.nonce in self._read:
                raise Refused("This letter came before.")
            self._read[letter.nonce] = now

    def _served(self, address: str) -> bytes:
        """The certificate that is served on this address."""
        row = next((one for one in self._box.network.rows() if one.address == address), None)
        leaf = self._box.certificates.for_address(row.certificate if row is not None else None).leaf
        return leaf.public_bytes(Encoding.DER)
