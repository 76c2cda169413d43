"""What is true of an appliance now: one read, one typed answer. Values only; the families read them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PackageKind(StrEnum):
    """The two kinds of package: the box's operating system, and the site's software."""

    BASE = "base"
    SITE = "site"


@dataclass(frozen=True)
class Identity:
    """Who a box is. ``guid`` and ``serial`` as the box says them; fingerprints as its addresses show them (lower-case hex).

    ``tls_spki_sha256`` is of the key that the administration address serves; ``ssh_host_key_sha256`` is None where the box has no SSH.
    """

    guid: str
    serial: str
    hostname: str
    tls_spki_sha256: str
    ssh_host_key_sha256: str | None = None


@dataclass(frozen=True)
class Version:
    """What is installed, in the box's own words: ``22.1.4`` and ``95320``. ``version`` is empty where nothing is installed."""

    version: str
    build: str


@dataclass(frozen=True)
class ClockReading:
    """The box's clock against ours: ``offset`` = box minus this machine, ``uncertainty`` (round trip and resolution), both seconds."""

    offset: float
    uncertainty: float


@dataclass(frozen=True)
class BoxAddress:
    """One IP address as the box's own page shows it."""

    address: str
    prefix: int
    enabled: bool


@dataclass(frozen=True)
class CertificateRow:
    """One row of the box's certificate table. ``addresses``: where it is served. ``warnings``: the words the page shows on it."""

    issued_to: str
    issued_by: str
    expires: str
    names: tuple[str, ...]
    has_key: bool
    addresses: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class FileItem:
    """One file-store item, ``size`` in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class JumpClient:
    """One Jump Client as the configuration API tells it. ``last_seen`` in Unix seconds, None where it never was."""

    number: int
    name: str
    connected: bool
    lost: bool
    needs_update: bool
    last_seen: float | None


@dataclass(frozen=True)
class PackageOffer:
    """One package on the Updates page. ``missing``: which prerequisite keeps it greyed out, in the page's words; empty when it can go."""

    name: str
    kind: PackageKind
    version: str
    build: str
    missing: str = ""


class FailoverRole(StrEnum):
    """The part of a site in a failover pair."""

    NONE = "none"
    PRIMARY = "primary"
    BACKUP = "backup"


class WorkState(StrEnum):
    """How the last data sync, or the last change of roles, stands."""

    NEVER = "never"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class SharedAddress:
    """One address that could be shared: whether it is ticked so on this box, and whether it is enabled here now."""

    address: str
    shared: bool
    enabled: bool


@dataclass(frozen=True)
class FailoverFacts:
    """A box's failover page as read once. ``peer``: where the peer answers, as the page shows it; "" where there is none.

    ``peer_role`` is None where it is not known, and ``peer_note`` says why in the page's words. Times are Unix seconds of the box's
    clock: ``sync_ended`` of the last data sync however it ended, ``last_sync`` of the last good one; None: never, or not told.
    """

    role: FailoverRole
    peer: str
    peer_role: FailoverRole | None
    peer_note: str
    conflict: bool
    sync: WorkState
    sync_note: str
    sync_percent: int | None
    sync_ended: float | None
    last_sync: float | None
    role_change: WorkState
    role_change_note: str
    shared: tuple[SharedAddress, ...]


@dataclass(frozen=True)
class SiteContent:
    """What the site holds, counted, and named where comparing needs names. ``sessions`` are the ids of finished sessions.

    ``None`` means "could not be read", never zero.
    """

    users: tuple[str, ...] | None
    sessions: tuple[str, ...] | None
    recordings: tuple[str, ...] | None
    files: tuple[FileItem, ...] | None
    jump_clients: tuple[JumpClient, ...] | None


@dataclass(frozen=True)
class ApplianceFacts:
    """One reading of a whole box. ``read_at`` in Unix seconds of this machine; ``failover_role`` is none, primary or backup."""

    identity: Identity
    site: Version
    base: Version
    site_name: str
    healthy: bool
    health_note: str
    failover_role: str
    clock: ClockReading
    addresses: tuple[BoxAddress, ...]
    certificates: tuple[CertificateRow, ...]
    content: SiteContent
    read_at: float
