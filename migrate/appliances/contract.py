"""The contract that every appliance family fulfils, and what each method may raise.

A family gives an :class:`Appliance`: one box, reached through its administration address. Every method may raise

* ``UnreachableError``: nothing answers; the engine retries with a deadline, then fails the node;
* ``RejectedError``: it answers and refuses; never retried (a second wrong password may lock the account);
* ``UnexpectedError``: a page or an answer is not in a known form; never taken for success;
* ``DeadlineError``: the box did not finish in time.

Every method that changes the box reads the state back before it returns, and may be called again after a crash: what is done already is
seen and not done twice. Nothing here takes a "force" but :meth:`Failover.set_failover_role`, where it is the box's own word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kit.progress import Progress
from kit.secret import Secret
from migrate.facts import (
    ApplianceFacts,
    BoxAddress,
    CertificateRow,
    ClockReading,
    FailoverFacts,
    FailoverRole,
    FileItem,
    Identity,
    JumpClient,
    PackageOffer,
    SiteContent,
    Version,
)


@dataclass(frozen=True)
class Account:
    """A user name and its password on one console."""

    user: str
    password: Secret


@dataclass(frozen=True)
class ApiAccount:
    """An API account: OAuth client id and secret."""

    client_id: str
    secret: Secret


@dataclass(frozen=True)
class Credentials:
    """What opens a box. ``site`` is for /login, ``appliance`` for /appliance; ``api`` None where the box has no API account (yet)."""

    site: Account
    appliance: Account
    api: ApiAccount | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a box is administered: ``host`` (address or name) and ``port`` from this machine.

    ``pins`` are the SHA-256 values (lower-case hex) of the SPKIs that this box may serve: its own, and, once the site's certificate has
    been moved there, that one's. Empty means: learn it at this first contact and tell it in the identity; every later contact of the
    same run is given it. A key outside the pins ends the connection before anything is sent. ``inside`` is the address as the box
    itself names it, where a forward leads there; "" where it is ``host``, or is not known.
    """

    host: str
    port: int
    pins: tuple[str, ...] = ()
    inside: str = ""


@dataclass(frozen=True)
class PairPlace:
    """Where one box of a failover pair answers the other: an address of its own, never the name that the pair shares."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class BackupReceipt:
    """A backup as it lies on disk, read back: ``size`` in bytes, digest, and what the file itself says it is of.

    ``verified`` lists what was looked at (complete length, container opened, payload digest, …). ``site`` is None where the format
    does not tell.
    """

    path: Path
    size: int
    sha256: str
    site: Version | None
    guid: str | None
    encrypted: bool | None
    verified: tuple[str, ...]


class Inventory(Protocol):
    """Reads, and changes nothing."""

    def read_identity(self) -> Identity: ...

    def read_clock(self) -> ClockReading: ...

    def read_facts(self) -> ApplianceFacts: ...

    def read_content(self) -> SiteContent: ...

    def read_versions(self) -> tuple[Version, Version]:
        """The base and the site, in this order."""
        ...

    def read_health(self) -> tuple[bool, str]: ...

    def read_jump_clients(self) -> tuple[JumpClient, ...] | None:
        """None where they could not be read. Part of the content too; alone it is quick enough to be asked every few seconds."""
        ...

    def read_upgrade_limit(self) -> int | None:
        """How many Jump Clients the box lets update at a time; None where it does not say."""
        ...


class Access(Protocol):
    """Logging in."""

    def ensure_first_login(self, factory: Credentials) -> None:
        """On a new box: both consoles' factory passwords are changed to this box's own. Where they are changed already: nothing."""
        ...

    def verify_access(self) -> None:
        """All credentials open what they should. At most one failed try for each."""
        ...


class Backups(Protocol):
    """The site's backup, out and in."""

    def take_backup(self, target: Path, password: Secret | None, *, history: bool, progress: Progress) -> BackupReceipt: ...

    def verify_backup(self, path: Path, password: Secret | None) -> BackupReceipt:
        """Read a backup file back: whole, unaltered, opens with the password as far as can be told without the box."""
        ...

    def restore_backup(self, path: Path, password: Secret | None, *, progress: Progress) -> None:
        """Afterwards the site's own accounts are those of the backup."""
        ...

    def take_vault_key(self, target: Path, password: Secret) -> bool:
        """False where this box has no vault key to save."""
        ...

    def restore_vault_key(self, path: Path, password: Secret) -> None: ...


class Extras(Protocol):
    """What backups do not hold."""

    def take_file(self, item: FileItem, target: Path) -> None: ...

    def upload_file(self, path: Path, name: str) -> None: ...

    def take_recording(self, session: str, target: Path) -> None: ...


class Certificates(Protocol):
    """The box's certificates. Keys cross only as bytes in memory, encrypted with a passphrase of this run's."""

    def read_certificates(self) -> tuple[CertificateRow, ...]: ...

    def export_certificate(self, row: CertificateRow, passphrase: Secret) -> bytes:
        """Certificate, chain and private key in the box's own export format; removes nothing."""
        ...

    def import_certificate(self, content: bytes, filename: str, passphrase: Secret) -> None: ...

    def assign_certificate(self, row: CertificateRow, addresses: Sequence[str]) -> bool:
        """Serve the certificate on the addresses. False where this version chooses by itself (then the caller checks what is served)."""
        ...


class Packages(Protocol):
    """What is installed and what could be."""

    def read_download_key(self) -> Secret | None: ...

    def read_offers(self) -> tuple[PackageOffer, ...]:
        """Asks the box to check for updates, then reads the list, the greyed-out ones included. Refused while it installs something."""
        ...

    def finish_installation(self, *, progress: Progress) -> None:
        """Waits for the end of an installation that was begun before; at once where none runs. Raises where it failed."""
        ...

    def install_offer(self, offer: PackageOffer, *, progress: Progress, accept_eula: bool) -> Version: ...

    def install_file(self, path: Path, *, progress: Progress, accept_eula: bool) -> Version: ...


class Network(Protocol):
    """The box's own addresses."""

    def read_addresses(self) -> tuple[BoxAddress, ...]: ...

    def ensure_address(self, wanted: BoxAddress) -> None:
        """There with this prefix, enabled or disabled as wanted. Refuses to disable the administration address."""
        ...

    def prepare_address(self, wanted: BoxAddress) -> Callable[[], None]:
        """The same in two parts, for whom every moment counts: all that can go ahead now, and the change with the call."""
        ...


class Failover(Protocol):
    """The box's part in a failover pair.

    After a data sync the backup has the site's accounts of the primary: its driver needs their credentials then.
    """

    def read_failover(self) -> FailoverFacts: ...

    def is_pre_shared_key_set(self) -> bool | None:
        """None where the box does not tell. The key itself is never shown."""
        ...

    def set_pre_shared_key(self, key: Secret) -> None:
        """That a key is set is read back; whether it is the peer's shows when a relationship is established."""
        ...

    def establish_failover(self, peer: PairPlace, reverse: PairPlace) -> FailoverFacts:
        """The box becomes the primary, the one at ``peer`` the backup; ``reverse`` is where that one reaches this one."""
        ...

    def break_failover(self) -> FailoverFacts: ...

    def share_addresses(self, addresses: Sequence[str]) -> FailoverFacts:
        """Exactly these are ticked as shared on this box."""
        ...

    def sync_now(self, *, progress: Progress) -> FailoverFacts:
        """Returns at the real end of a data sync that began after the call; one that fails is a FailedError."""
        ...

    def set_failover_role(self, role: FailoverRole, *, data_sync_first: bool, force: bool = False, progress: Progress) -> FailoverFacts:
        """Returns when the role is changed, also after a data sync of hours; a change that fails is a FailedError."""
        ...

    def resolve_conflict(self) -> FailoverFacts:
        """Where both have the same role: the box decides which of them keeps it."""
        ...


class Power(Protocol):
    """The end of a box. The caller passes who it believes the box to be; a difference stops it before anything is touched."""

    def reset_to_factory(self, expected: Identity, guard: Callable[[], None]) -> None:
        """``guard`` is called when the identity has been compared and nothing is pressed yet; it may still raise."""
        ...

    def verify_reset(self, before: Identity, factory: Credentials) -> ApplianceFacts:
        """Looks that GUID, site, certificate and users of ``before`` are gone; raises if any is still there."""
        ...

    def shut_down(self, expected: Identity) -> None:
        """Returns when nothing answers any more."""
        ...


class Appliance(Inventory, Access, Backups, Extras, Certificates, Packages, Network, Failover, Power, Protocol):
    """One box. Drivers are closed after use; they hold connections and cookies only."""

    def with_credentials(self, credentials: Credentials) -> Appliance:
        """The same box, opened with other credentials (after a restore, after a reset)."""
        ...

    def close(self) -> None: ...
