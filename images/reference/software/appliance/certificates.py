"""The certificates of the box: stored, judged, bound to addresses."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from .box import Box, Skin, write_whole
from .bundles import common_name, covers, host_names, is_chain_complete, is_self_signed, public_bytes, read_chain, read_upload
from .errors import Refused
from .faults import Faults
from .store import Store


@dataclass(frozen=True)
class Held:
    """A certificate of the box. ``chain``: the leaf, then the rest in the order it was given. ``addresses``: where it is served."""

    id: int
    chain: tuple[x509.Certificate, ...]
    has_key: bool
    built_in: bool
    addresses: tuple[str, ...]

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]


class Certificates:
    """What is stored, and what each address serves."""

    def __init__(self, box: Box, store: Store) -> None:
        self._box = box
        self._store = store
        self._faults = Faults(store.box)

    def rows(self) -> list[Held]:
        """All, the oldest first."""
        return [self._held(row) for row in self._store.box.rows("select * from certificate order by id")]

    def read(self, number: int) -> Held:
        row = self._store.box.find_row("select * from certificate where id = ?", number)
        if row is None:
            raise Refused("There is no such certificate.")
        return self._held(row)

    def _held(self, row: Any) -> Held:
        bound = self._store.box.rows("select address from address where certificate = ? order by address", row["id"])
        chain = read_chain(row["chain"].encode())
        return Held(row["id"], chain, bool(row["has_key"]), bool(row["built_in"]), tuple(one["address"] for one in bound))

    def read_key(self, held: Held) -> Any:
        return load_pem_private_key(self.key_path(held.id).read_bytes(), None)

    def key_path(self, number: int) -> Any:
        return self._box.keys / f"{number}.key"

    def chain_path(self, number: int) -> Any:
        return self._box.keys / f"{number}.pem"

    def add_upload(self, content: bytes, passphrase: str) -> Held:
        """Import a file; a certificate that is here already is completed by what the file adds."""
        if self._faults.is_on("refuse-certificates"):
            raise Refused("The certificate store cannot be written.")
        upload = read_upload(content, passphrase)
        if not upload.chain:
            return self._attach_key(upload.key)
        same = next((held for held in self.rows() if held.leaf == upload.chain[0]), None)
        if same is None:
            return self.add(upload.chain, upload.key)
        chain = upload.chain if len(upload.chain) > 1 else same.chain
        self._save(same.id, chain, upload.key)
        return self.read(same.id)

    def _attach_key(self, key: Any) -> Held:
        wanted = public_bytes(key.public_key())
        held = next((one for one in self.rows() if public_bytes(one.leaf.public_key()) == wanted), None)
        if held is None:
            raise Refused("The private key does not belong to any certificate of this appliance.")
        self._save(held.id, held.chain, key)
        return self.read(held.id)

    def add(self, chain: tuple[x509.Certificate, ...], key: Any | None, *, built_in: bool = False) -> Held:
        """Store a certificate with its chain, and its key if there is one."""
        with self._store.box.transaction() as connection:
            number = connection.execute(
                "insert into certificate (chain, has_key, built_in, added) values ('', 0, ?, ?)", (int(built_in), self._faults.now())
            ).lastrowid
            self._save(int(number or 0), chain, key)
        return self.read(int(number or 0))

    def factory(self) -> int:
        """The number of the certificate that the box was born with."""
        return int(self._store.box.value("select id from certificate where built_in = 1 order by id"))

    def write_files(self, number: int, chain: str, key: str, *, durable: bool = True) -> None:
        """What the web server reads of a certificate, as PEM; nothing of it is looked at. ``key`` empty: the one that is there stays."""
        # nginx reads the factory certificate at each handshake, as a user who may read nothing else: see `core.create`.
        mode = 0o640 if self._box.skin is Skin.MACHINE and number == self.factory() else 0o600
        write_whole(self.chain_path(number), chain.encode(), mode, durable=durable)
        if key:
            write_whole(self.key_path(number), key.encode(), mode, durable=durable)

    def note_files(self, number: int, chain: str) -> None:
        """Write down what :meth:`write_files` wrote."""
        has_key = int(self.key_path(number).exists())
        self._store.box.run("update certificate set chain = ?, has_key = ? where id = ?", chain, has_key, number)

    def _save(self, number: int, chain: tuple[x509.Certificate, ...], key: Any | None) -> None:
        text = b"".join(one.public_bytes(Encoding.PEM) for one in chain).decode()
        private = b"" if key is None else key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.write_files(number, text, private.decode())
        self.note_files(number, text)

    def remove(self, held: Held) -> None:
        if held.built_in:
            raise Refused("The factory certificate cannot be deleted.")
        if held.addresses:
            raise Refused("The certificate is in use on {addresses}.", addresses=", ".join(held.addresses))
        self._store.box.run("delete from certificate where id = ?", held.id)
        self.key_path(held.id).unlink(missing_ok=True)
        self.chain_path(held.id).unlink(missing_ok=True)

    def check(self, held: Held) -> list[tuple[str, dict[str, object]]]:
        """What is wrong with it: English sentences (keys of their translations) with their facts; empty where nothing is."""
        now = self._faults.now()
        found: list[tuple[str, dict[str, object]]] = []
        if now > _seconds(held.leaf, "after"):
            found.append(("Expired", {}))
        if now < _seconds(held.leaf, "before"):
            found.append(("Not yet valid", {}))
        if is_self_signed(held.leaf):
            found.append(("Self-signed", {}))
        elif not is_chain_complete(held.chain):
            found.append(("The certificate chain is incomplete", {}))
        host = self._store.site.setting("public_host")
        if host and not covers(held.leaf, host):
            found.append(("Does not cover {host}", {"host": host}))
        return found

    def assign(self, held: Held, addresses: tuple[str, ...]) -> None:
        """Serve it on exactly these addresses (of those it served, the others fall back to the factory certificate)."""
        if not held.has_key:
            raise Refused("A certificate without its private key cannot be assigned to an address.")
        with self._store.box.transaction() as connection:
            connection.execute("update address set certificate = null where certificate = ?", (held.id,))
            for address in addresses:
                connection.execute("update address set certificate = ? where address = ?", (held.id, address))

    def select(self) -> None:
        """What newer versions do by themselves: every address serves the best certificate there is."""
        able = [held for held in self.rows() if held.has_key]
        best = max(able, key=lambda held: (not held.built_in, not self.check(held), _seconds(held.leaf, "before"), held.id))
        self._store.box.run("update address set certificate = ?", None if best.built_in else best.id)

    def for_address(self, number: int | None) -> Held:
        """The one to serve where an address names ``number``; the factory certificate where it names none."""
        return self.read(number if number is not None else self.factory())

    def add_factory(self, host: str) -> Held:
        """The self-signed certificate that every box is born with."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.fromtimestamp(self._faults.now(), dt.UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=3650))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        return self.add((certificate,), key, built_in=True)


def _seconds(certificate: x509.Certificate, which: str) -> float:
    """When its validity begins or ends, in seconds; the attribute with a time zone exists only in newer libraries."""
    aware = getattr(certificate, f"not_valid_{which}_utc", None)
    moment: dt.datetime = aware if aware is not None else getattr(certificate, f"not_valid_{which}").replace(tzinfo=dt.UTC)
    return moment.timestamp()


def expires(held: Held) -> str:
    """When it expires, as ISO 8601 in UTC."""
    return dt.datetime.fromtimestamp(_seconds(held.leaf, "after"), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(held: Held) -> tuple[str, str, str, str]:
    """Issued to, issued by, expires, alternative names."""
    return common_name(held.leaf), common_name(held.leaf, issuer=True), expires(held), ", ".join(host_names(held.leaf))
