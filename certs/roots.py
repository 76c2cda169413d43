"""The roots that a chain may end in: this machine's, or those that a caller gives."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from certs.cert import Cert, folded_name
from certs.errors import CertsError
from certs.files import read_file
from certs.limits import MAX_BYTES
from certs.pem import find_blocks


class Roots:
    """Certificates found by their subject. ``name`` says whose they are."""

    def __init__(self, certs: Iterable[Cert], *, name: str = "given") -> None:
        self.certs = tuple(dict.fromkeys(certs))
        self.name = name
        self._exact: defaultdict[bytes, list[Cert]] = defaultdict(list)
        for cert in self.certs:
            self._exact[cert.raw.subject].append(cert)
        self._all = frozenset(cert.der for cert in self.certs)

    def find(self, subject: bytes) -> list[Cert]:
        """Those with this subject (DER), by RFC 5280's comparison."""
        return self._exact[subject] if subject in self._exact else self._loose.get(folded_name(subject), [])

    @cached_property
    def _loose(self) -> dict[tuple[tuple[str, str], ...], list[Cert]]:
        found: defaultdict[tuple[tuple[str, str], ...], list[Cert]] = defaultdict(list)
        for cert in self.certs:
            found[folded_name(cert.raw.subject)].append(cert)
        return dict(found)

    def find_same(self, cert: Cert) -> Cert | None:
        """The root that is this certificate, or has its name and its key (an older or newer self-signature)."""
        if cert.der in self._all:
            return cert
        return next((root for root in self.find(cert.raw.subject) if root.raw.spki == cert.raw.spki and root.is_self_issued), None)

    def __len__(self) -> int:
        return len(self.certs)


def read_roots(path: Path, *, name: str = "") -> Roots:
    """The roots in a PEM file, or in every file of a folder. What is no certificate is passed over.

    Raises:
        CertsError: it cannot be read, or holds none.

    """
    try:
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    except OSError as error:
        raise CertsError(f"The roots in {path} cannot be read: {error.strerror}.", hint="Give a PEM file or a folder of them.") from error
    texts = [text for text in map(read_file, files) if len(text) <= MAX_BYTES]
    found = [cert for text in texts for cert in _certs(text)]
    if not found:
        raise CertsError(f"There are no certificates in {path}.", hint="Give a PEM file or a folder of them.")
    return Roots(found, name=name or str(path))


def _certs(text: bytes) -> Iterable[Cert]:
    for block in find_blocks(text):
        try:
            yield Cert(block.der)
        except CertsError:
            continue


@lru_cache(maxsize=1)
def system_roots() -> Roots:
    """The roots that this machine trusts, empty where it has none. Read once in a process."""
    known = ssl.get_default_verify_paths()
    for place in (known.cafile, known.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if place and Path(place).is_file():
            return read_roots(Path(place), name="this machine's")
    return Roots((), name="this machine's")


NO_ROOTS = Roots((), name="none")
