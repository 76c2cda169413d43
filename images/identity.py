"""The agent inside a machine that gives a copy of it an identity of its own: what is asked of it, and what it answers.

Its own side is ``guest/usr/local/lib/boxshift/identity.py``.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from images.domain import IDENTITY_PORT
from images.errors import GuestSilentError, IdentityError
from images.hypervisor import Hypervisor
from kit.secret import Secret

VERSION = 2
ENTROPY_BYTES = 256
HELLO_SECONDS, PREPARE_SECONDS, RENEW_SECONDS, REACH_SECONDS = 15.0, 120.0, 90.0, 3.0
# Seconds that a clock may be off, and that asking for it may take, so that both together are less than one; and how often it is asked.
CLOCK_OFF, CLOCK_ASKED, CLOCK_TRIES = 0.3, 0.6, 20


@dataclass(frozen=True)
class Prepared:
    """What a machine that was made ready has of its own. ``host_keys``: names of the files of its SSH host keys."""

    host_keys: tuple[str, ...]


@dataclass(frozen=True)
class Port:
    """A card on a private segment: its hardware address, and its address there with prefix."""

    mac: str
    address: str


@dataclass(frozen=True)
class Wish:
    """What a copy shall be.

    ``cards``: the hardware address of each network card to the outside when it was saved, and its own; ``idle``: the same of cards for
    private segments; ``ports``: of those on a segment the own hardware address, and the address with prefix to take.
    """

    name: str
    uuid: str
    cards: Mapping[str, str]
    host_keys: tuple[str, ...]
    idle: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Identity:
    """What a copy took: the SHA-256 of the certificates that its services made for themselves, in hex."""

    certificates: tuple[str, ...]


def find_agent(hypervisor: Hypervisor, uuid: str, *, factor: float) -> bool:
    """Whether our agent runs inside the machine and speaks as we do. ``factor``: how slow this computer is."""
    try:
        return _ask(hypervisor, uuid, {"ask": "hello"}, seconds=HELLO_SECONDS * factor).get("version") == VERSION
    except (GuestSilentError, IdentityError):
        return False


def prepare(hypervisor: Hypervisor, uuid: str, cards: tuple[str, ...], *, factor: float) -> Prepared:
    """Make the machine ready to be saved: off the network, its free memory empty.

    Raises:
        IdentityError, GuestSilentError: it could not, or does not answer.

    """
    told = _ask(hypervisor, uuid, {"ask": "prepare", "cards": list(cards)}, seconds=PREPARE_SECONDS * factor)
    return Prepared(tuple(str(name) for name in told.get("host_keys", ())))


def renew(hypervisor: Hypervisor, wish: Wish, *, factor: float) -> Identity:
    """Give a restored copy its own identity.

    Raises:
        IdentityError, GuestSilentError: it did not take one; it must not be used.

    """
    keys = {name: make_host_key(name, wish.name) for name in wish.host_keys}
    front = make_certificate(wish.name)
    asked = {
        "ask": "renew",
        "name": wish.name,
        "serial": wish.uuid.upper(),
        "machine_id": wish.uuid.replace("-", ""),
        "cards": dict(wish.cards),
        "idle": dict(wish.idle),
        "ports": [asdict(port) for port in wish.ports],
        "host_keys": {name: {"private": key.private.reveal(), "public": key.public} for name, key in keys.items()},
        "certificate": {"chain": front.public, "key": front.private.reveal()},
        "entropy": base64.b64encode(os.urandom(ENTROPY_BYTES)).decode(),
        "time": time.time(),
    }
    told = _ask(hypervisor, wish.uuid, asked, seconds=RENEW_SECONDS * factor)
    services = told.get("services", {})
    _verify_clock(hypervisor, wish.uuid, told, factor=factor)
    return Identity(tuple(str(one["certificate"]) for one in services.values() if "certificate" in one))


@dataclass(frozen=True)
class HostKey:
    """A key of the copy: the private half, and what is shown of it. SSH: OpenSSH's form and one line; TLS: PEM, and a certificate."""

    private: Secret
    public: str


def make_host_key(name: str, host: str) -> HostKey:
    """A new key for the file ``ssh_host_KIND_key``.

    Raises:
        IdentityError: such keys cannot be made.

    """
    kinds: dict[str, Callable[[], Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {
        "ssh_host_ed25519_key": Ed25519PrivateKey.generate,
        "ssh_host_ecdsa_key": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ssh_host_rsa_key": lambda: rsa.generate_private_key(65537, 3072),
    }
    if name not in kinds:
        raise IdentityError(f"The machine has an SSH host key of a kind that is not known: {name}.")
    key = kinds[name]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return HostKey(Secret(private), f"{public} root@{host}")


def make_certificate(name: str) -> HostKey:
    """A key with a certificate that it signs for itself, both as PEM, for services of the copy that have one from their factory."""
    key = ec.generate_private_key(ec.SECP256R1())
    now, own = datetime.now(UTC), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return HostKey(Secret(private), made.public_bytes(Encoding.PEM).decode())


def plug(hypervisor: Hypervisor, uuid: str, ports: tuple[Port, ...], *, factor: float) -> None:
    """Give a machine's cards on private segments their addresses, now and after every start.

    Raises:
        IdentityError, GuestSilentError: it did not take them.

    """
    _ask(hypervisor, uuid, {"ask": "plug", "ports": [asdict(port) for port in ports]}, seconds=HELLO_SECONDS * factor)


def reach(hypervisor: Hypervisor, uuid: str, mac: str, peers: Sequence[str], *, factor: float) -> Mapping[str, str]:
    """From within: the hardware address of the card that answers for each of ``peers`` on the segment of the card ``mac``; empty: none did.

    Raises:
        IdentityError, GuestSilentError: it does not say.

    """
    asked = {"ask": "reach", "mac": mac, "peers": list(peers), "seconds": REACH_SECONDS * factor}
    told = _ask(hypervisor, uuid, asked, seconds=(REACH_SECONDS + HELLO_SECONDS) * factor).get("found", {})
    return {peer: str(told.get(peer, "")) for peer in peers}


def stir(hypervisor: Hypervisor, uuid: str, *, factor: float) -> None:
    """New randomness and the present time for a machine that was taken back to an earlier state.

    Raises:
        IdentityError, GuestSilentError: it did not take them.

    """
    entropy = base64.b64encode(os.urandom(ENTROPY_BYTES)).decode()
    told = _ask(hypervisor, uuid, {"ask": "stir", "entropy": entropy, "time": time.time()}, seconds=HELLO_SECONDS * factor)
    _verify_clock(hypervisor, uuid, told, factor=factor)


def _verify_clock(hypervisor: Hypervisor, uuid: str, told: Mapping[str, Any], *, factor: float) -> None:
    """The question that set the clock may have waited for seconds on a computer that is busy; then it is moved by what is missing.

    Raises:
        IdentityError: it could not be set right.

    """
    if abs(time.time() - float(told["time"])) <= CLOCK_OFF:
        return
    by = 0.0
    for _ in range(CLOCK_TRIES):
        sent = time.time()
        there = float(_ask(hypervisor, uuid, {"ask": "clock", "by": by}, seconds=HELLO_SECONDS * factor)["time"])
        heard = time.time()
        if sent - CLOCK_OFF <= there <= heard + CLOCK_OFF and heard - sent <= CLOCK_ASKED:
            return
        by = (sent + heard) / 2 - there
    raise IdentityError("The machine's clock could not be set: this computer is too busy to ask what time it is inside.")


def _ask(hypervisor: Hypervisor, uuid: str, question: Mapping[str, object], *, seconds: float) -> Mapping[str, Any]:
    line = json.dumps(question).encode() + b"\n"
    said = hypervisor.ask_port(uuid, IDENTITY_PORT, line, timeout=seconds)
    try:
        answer = json.loads(said)
        good = answer["ok"] is True
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError("The identity agent inside the machine answered in a form that is not known.") from error
    if not good:
        raise IdentityError(f"The machine could not {question['ask']} its identity: {answer.get('error', 'it gave no reason')}.")
    found: Mapping[str, Any] = answer
    return found
