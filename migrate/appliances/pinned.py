"""TLS to a box that is known by its key: the pin is checked inside the handshake, before a single byte of HTTP is sent."""

from __future__ import annotations

import hashlib
import ssl
import threading

from asn1crypto import x509

from kit.errors import UnexpectedError
from migrate.appliances.errors import WrongKeyError


class Pin:
    """The keys that a box may serve, as SHA-256 of their SPKIs (lower-case hex). None given: the first one seen is taken, and only it.

    One object is shared by all connections to one box, also of several threads.
    """

    def __init__(self, *keys: str) -> None:
        self._keys = {key.lower() for key in keys}
        self._also: set[str] = set()
        self._seen: str | None = None
        self._lock = threading.Lock()

    @property
    def seen(self) -> str | None:
        """The key of the last handshake; None before the first."""
        return self._seen

    @property
    def keys(self) -> tuple[str, ...]:
        """All that are taken."""
        with self._lock:
            return tuple(sorted(self._keys | self._also)) if self._keys else ()

    def allow(self, key: str) -> None:
        """Take this key too from now on: one that we ourselves give to the box, and that it may come to serve."""
        with self._lock:
            self._also.add(key.lower())

    def check(self, certificate: bytes | None) -> None:
        """Compare with what this handshake proved, or learn it.

        Raises:
            WrongKeyError: another key is served there.
            UnexpectedError: no certificate, or none that can be read.

        """
        key = read_fingerprint(certificate)
        with self._lock:
            if not self._keys:
                self._keys = {key}
            good = key in self._keys | self._also
            if good:
                self._seen = key
        if not good:
            raise WrongKeyError(
                "The box serves another TLS key than the one it was known by; nothing was sent to it.",
                hint="Find out whether the box was replaced, reset or given a new certificate before going on.",
                known=", ".join(self.keys),
                seen=key,
            )


def read_fingerprint(certificate: bytes | None) -> str:
    """SHA-256 over the certificate's SubjectPublicKeyInfo as it is encoded there, lower-case hex.

    Raises:
        UnexpectedError: this is no certificate.

    """
    if not certificate:
        raise UnexpectedError("The box serves no certificate.")
    try:
        return hashlib.sha256(x509.Certificate.load(certificate).public_key.dump()).hexdigest()
    except (ValueError, TypeError, KeyError) as error:
        raise UnexpectedError(f"The certificate that the box serves cannot be read: {error}.") from error


class _PinnedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is the standard library's
        super().do_handshake(block)
        context = self.context
        if isinstance(context, PinnedContext):
            context.pin.check(self.getpeercert(binary_form=True))


class PinnedContext(ssl.SSLContext):
    """A client context that trusts one key instead of authorities: boxes are reached by address, often with their factory certificate."""

    sslsocket_class = _PinnedSocket
    pin: Pin


def make_context(pin: Pin) -> PinnedContext:
    """A context whose every connection, also each reconnection, is checked against the pin."""
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no authority is asked: the key itself is compared
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.pin = pin
    return context
