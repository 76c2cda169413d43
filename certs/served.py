"""What an address really serves, and whether that is what it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from certs.bundle import Bundle
from certs.cert import Cert, as_address
from certs.errors import CertsError, HandshakeError, NotServedError
from certs.protocols import Protocol
from certs.rules.names import covers
from certs.starttls import ask_for_tls
from certs.tls import Presented, Version, connect, shake_hands
from kit.waiting import wait_for


class Verdict(Enum):
    """How what is served compares with what was expected."""

    SAME = "same"
    LEAF_SAME_CHAIN_DIFFERS = "leaf same, chain differs"
    STAPLE_MISSING = "staple missing"
    OLD = "old certificate"
    OTHER_KEY = "other key"
    DEFAULT = "default certificate"
    OTHER = "another certificate"
    NOTHING = "nothing served"

    @property
    def is_same(self) -> bool:
        return self is Verdict.SAME


@dataclass(frozen=True)
class Served:
    """What one address presented in several handshakes. ``presented`` begins with the newest version that worked, SNI sent."""

    host: str
    port: int
    address: str
    presented: tuple[Presented, ...]

    @property
    def best(self) -> Presented | None:
        """The handshake that tells most: SNI sent, newest version; None where none worked."""
        worked = [each for each in self.presented if each.certs]
        named = [each for each in worked if each.server_name]
        return next(iter(named or worked), None)

    @property
    def certs(self) -> tuple[Cert, ...]:
        """What was sent there, in order; empty where nothing was."""
        return self.best.certs if self.best else ()

    @property
    def versions(self) -> tuple[str, ...]:
        """The TLS versions that worked."""
        return tuple(dict.fromkeys(each.version for each in self.presented if each.certs))

    @property
    def spki_sha256(self) -> str:
        """Fingerprint of the served leaf's public key, lower-case hex; "" where nothing was served."""
        return self.certs[0].spki_sha256 if self.certs else ""

    @property
    def without_name(self) -> Presented | None:
        """What a client that sends no SNI gets; None where that was not tried or did not work."""
        return next((each for each in self.presented if each.certs and not each.server_name), None)


@dataclass(frozen=True)
class Comparison:
    """The verdict, one sentence, and the differences certificate by certificate."""

    verdict: Verdict
    sentence: str
    differences: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return self.verdict.is_same


def read_served(
    host: str,
    port: int = 443,
    *,
    address: str | None = None,
    server_name: str | None = None,
    timeout: float = 10.0,
    protocol: Protocol = Protocol.TLS,
    versions: Sequence[Version] = (Version.TLS13, Version.TLS12),
    without_sni: bool = True,
) -> Served:
    """Connect and look: TLS 1.3 and 1.2, with SNI and without, each on its own connection, nothing resumed.

    ``address`` is where to connect when ``host`` does not resolve there yet (a new box before the switch). ``server_name`` is the SNI
    (``host`` where None; none is sent for an IP address). ``timeout`` in seconds for each handshake. ``protocol`` is what to speak
    before TLS.

    Raises:
        NoAnswerError: nothing answers at all.
        HandshakeError: it answers, and not one handshake succeeds.

    """
    where = address or host
    name = host if server_name is None else server_name
    name = "" if as_address(name) is not None else name
    asked = [(name, version) for version in versions]
    if name and without_sni:
        asked += [("", version) for version in versions]
    found = tuple(_look(Place(host, where, port, protocol), each, version, timeout) for each, version in asked)
    if not any(each.certs for each in found):
        raise HandshakeError(
            f"{where} port {port} answers, and no TLS comes about: {found[0].failure}",
            hint="Is it the right port, and does it want STARTTLS?",
        )
    return Served(host, port, where, found)


@dataclass(frozen=True)
class Place:
    """Whose name is asked for, where to connect, and what is spoken there before TLS."""

    host: str
    address: str
    port: int
    protocol: Protocol


def _look(place: Place, name: str, version: Version, timeout: float) -> Presented:
    link = connect(place.address, place.port, timeout)
    try:
        ask_for_tls(link, place.protocol, place.host, timeout)
        return shake_hands(link, server_name=name, version=version, timeout=timeout)
    except CertsError as error:
        return Presented(name, version.value, failure=error.sentence)
    finally:
        link.close()


def read_pin(host: str, port: int = 443, *, address: str | None = None, timeout: float = 10.0) -> str:
    """SHA-256 (lower-case hex) of the public key that an address serves: what a pin is compared with.

    Raises:
        NoAnswerError, HandshakeError: as :func:`read_served`.

    """
    return read_served(host, port, address=address, timeout=timeout, without_sni=False).spki_sha256


def compare_served(served: Served, bundle: Bundle, *, old: Cert | None = None) -> Comparison:
    """Every handshake against the bundle, certificate by certificate, byte by byte; the gravest difference is the verdict.

    ``old`` is the certificate that was served before, so that a box that did not reload is told apart from a wrong one. Handshakes
    without SNI are not held against the server: they may show a default certificate, and :attr:`Served.without_name` tells.
    """
    named = [each for each in served.presented if each.certs and each.server_name] or [each for each in served.presented if each.certs]
    if not named:
        return Comparison(Verdict.NOTHING, f"{served.address} port {served.port} serves nothing.")
    judged = [(_compare_one(each, bundle, served, old), each) for each in named]
    (verdict, sentence), _ = max(judged, key=lambda pair: _GRAVITY.index(pair[0][0]))
    differences = tuple(dict.fromkeys(line for _, each in judged for line in _differences(each, bundle)))
    return Comparison(verdict, sentence, differences)


_GRAVITY = [
    Verdict.SAME,
    Verdict.STAPLE_MISSING,
    Verdict.LEAF_SAME_CHAIN_DIFFERS,
    Verdict.OTHER_KEY,
    Verdict.OLD,
    Verdict.OTHER,
    Verdict.DEFAULT,
    Verdict.NOTHING,
]


def _compare_one(shown: Presented, bundle: Bundle, served: Served, old: Cert | None) -> tuple[Verdict, str]:
    leaf, want, where = shown.certs[0], bundle.leaf, f"{served.address} ({shown.version})"
    if leaf == want:
        return _compare_chain(shown, bundle, where)
    if old is not None and leaf == old:
        return Verdict.OLD, f"{where} still serves the old certificate {leaf} ({leaf.sha256[:12]})."
    if shown.server_name and not covers(leaf, shown.server_name) and covers(want, shown.server_name):
        return Verdict.DEFAULT, f"{where} serves a default certificate, {leaf}, which does not cover {shown.server_name}."
    if _is_older(leaf, want):
        return (
            Verdict.OLD,
            f"{where} serves an older certificate for the same name ({leaf.sha256[:12]}, valid until {leaf.not_after:%Y-%m-%d}).",
        )
    if leaf.spki_sha256 != want.spki_sha256 and leaf.names == want.names:
        return Verdict.OTHER_KEY, f"{where} serves a certificate for the same names with another key ({leaf.spki_sha256[:12]})."
    return Verdict.OTHER, f"{where} serves another certificate: {leaf} ({leaf.sha256[:12]})."


def _is_older(leaf: Cert, want: Cert) -> bool:
    if not (leaf.not_after and want.not_after and leaf.not_before and want.not_before):
        return False
    shared = set(leaf.names.dns) & set(want.names.dns)
    return bool(shared) and leaf.not_before < want.not_before and leaf.not_after < want.not_after


def _compare_chain(shown: Presented, bundle: Bundle, where: str) -> tuple[Verdict, str]:
    if shown.certs != bundle.certs:
        return Verdict.LEAF_SAME_CHAIN_DIFFERS, f"{where} serves the right leaf with another chain: {_differences(shown, bundle)[0]}"
    if bundle.leaf.must_staple and not shown.staple:
        return Verdict.STAPLE_MISSING, f"{where} serves the right chain without the stapled OCSP answer that the leaf demands."
    return Verdict.SAME, f"{where} serves exactly what is expected."


def _differences(shown: Presented, bundle: Bundle) -> list[str]:
    got, want = shown.certs, bundle.certs
    if got == want:
        return []
    twice = [cert for number, cert in enumerate(got) if cert in got[:number]]
    found = [f"{cert} is sent twice." for cert in twice]
    extra = [cert for cert in dict.fromkeys(got) if cert not in want]
    found += [
        f"The root {cert} is sent too." if cert.is_self_issued else f"{cert} ({cert.sha256[:12]}) is sent and not expected."
        for cert in extra
    ]
    found += [f"{cert} ({cert.sha256[:12]}) is missing." for cert in want if cert not in got]
    common = [cert for cert in dict.fromkeys(got) if cert in want]
    if common != [cert for cert in want if cert in got]:
        found.append("The order is " + " → ".join(map(str, got)) + ", which TLS forbids.")
    return found


def wait_for_served(
    host: str,
    port: int,
    bundle: Bundle,
    *,
    address: str | None = None,
    old: Cert | None = None,
    timeout: float = 60.0,
    protocol: Protocol = Protocol.TLS,
    tell: Callable[[str], None] | None = None,
) -> Served:
    """Look again until exactly the bundle is served, while a box reloads. ``timeout`` in seconds for all of it.

    ``tell`` hears what is seen instead, each time that changes.

    Raises:
        kit.errors.DeadlineError: it did not come; says what was served last.

    """
    told = ""

    def probe() -> Served:
        nonlocal told
        try:
            served = read_served(host, port, address=address, protocol=protocol, timeout=min(max(timeout, 1.0), 10.0))
            verify_served(served, bundle, old=old)
        except CertsError as error:
            if tell is not None and error.sentence != told:
                tell(error.sentence)
            told = error.sentence
            raise
        return served

    return wait_for(probe, what=f"{bundle.leaf} at {address or host} port {port}", timeout=timeout, poll=1.0)


def verify_served(served: Served, bundle: Bundle, *, old: Cert | None = None) -> Comparison:
    """Raise unless exactly the bundle is served.

    Raises:
        NotServedError: something else is; ``facts["verdict"]`` says what.

    """
    compared = compare_served(served, bundle, old=old)
    if not compared.is_same:
        raise NotServedError(
            compared.sentence,
            hint=" ".join(compared.differences[:3]),
            verdict=compared.verdict.value,
            address=served.address,
            port=served.port,
        )
    return compared
