"""Where things are: every page that the driver opens, as menu words, and what it needs there. The driver and `probe` share this."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from migrate.appliances.bomgar.words import Term


class ConsoleName(StrEnum):
    """The two consoles of a box; the value is the landing page."""

    APPLIANCE = "/appliance"
    SITE = "/login"


class NeedKind(StrEnum):
    """What a page is searched for."""

    LINK = "link"
    HEADING = "heading"
    BUTTON = "button"
    FIELD = "field"
    COLUMN = "column"
    FACT = "fact"


@dataclass(frozen=True)
class Need:
    """One word that a page should have. ``optional``: only some versions have it, or only boxes in some state."""

    kind: NeedKind
    term: Term
    optional: bool = False


@dataclass(frozen=True)
class Place:
    """A page: its console, and the menu words that lead there. Several ways for several versions, the newest first."""

    name: str
    console: ConsoleName
    ways: tuple[tuple[Term, ...], ...]
    needs: tuple[Need, ...] = ()


def _needs(kind: NeedKind, *terms: Term, optional: bool = False) -> tuple[Need, ...]:
    return tuple(Need(kind, term, optional) for term in terms)


BASICS = Place(
    "basics",
    ConsoleName.APPLIANCE,
    ((Term.STATUS, Term.BASICS),),
    (
        *_needs(
            NeedKind.FACT, Term.HOSTNAME, Term.SERIAL_NUMBER, Term.APPLIANCE_GUID, Term.BASE_VERSION, Term.BASE_BUILD, Term.SYSTEM_TIME
        ),
        *_needs(NeedKind.BUTTON, Term.RESET, Term.SHUT_DOWN),
        *_needs(NeedKind.BUTTON, Term.REBOOT, optional=True),
    ),
)
CERTIFICATES = Place(
    "certificates",
    ConsoleName.APPLIANCE,
    ((Term.SECURITY, Term.CERTIFICATES),),
    (
        *_needs(NeedKind.HEADING, Term.CERTIFICATE_INSTALLATION, Term.CERTIFICATE_TABLE),
        *_needs(NeedKind.COLUMN, Term.ISSUED_TO, Term.ISSUED_BY, Term.EXPIRES, Term.PRIVATE_KEY, Term.IP_ADDRESSES, Term.WARNINGS),
        *_needs(NeedKind.FIELD, Term.CERTIFICATE_FILE, Term.PASSPHRASE),
        *_needs(NeedKind.BUTTON, Term.UPLOAD),
        *_needs(NeedKind.LINK, Term.ASSIGN_IP, optional=True),
    ),
)
NETWORK = Place(
    "network",
    ConsoleName.APPLIANCE,
    ((Term.NETWORKING, Term.IP_CONFIGURATION),),
    (
        *_needs(NeedKind.COLUMN, Term.IP_ADDRESS, Term.SUBNET_MASK, Term.ENABLED, optional=True),
        *_needs(NeedKind.FIELD, Term.IP_ADDRESS, Term.SUBNET_MASK, Term.ENABLED, optional=True),
        *_needs(NeedKind.BUTTON, Term.SAVE_CHANGES, Term.ADD_ADDRESS, optional=True),
    ),
)
UPDATES = Place(
    "updates",
    ConsoleName.APPLIANCE,
    ((Term.UPDATES,), (Term.SUPPORT, Term.UPDATES)),
    (
        *_needs(NeedKind.BUTTON, Term.CHECK_FOR_UPDATES, Term.UPDATE_SOFTWARE),
        *_needs(NeedKind.FACT, Term.DOWNLOAD_KEY),
        *_needs(NeedKind.FIELD, Term.UPDATE_FILE),
        *_needs(NeedKind.BUTTON, Term.INSTALL_THIS_UPDATE, optional=True),
    ),
)
ADMINISTRATION = Place("appliance administration", ConsoleName.APPLIANCE, ((Term.SECURITY, Term.APPLIANCE_ADMINISTRATION),))
SITE_STATUS = Place(
    "site status",
    ConsoleName.SITE,
    ((Term.STATUS,),),
    (
        *_needs(NeedKind.FACT, Term.PRODUCT_VERSION, Term.PRODUCT_BUILD),
        *_needs(NeedKind.FACT, Term.SITE_NAME, Term.COMPANY, optional=True),
    ),
)
SOFTWARE = Place(
    "software",
    ConsoleName.SITE,
    ((Term.MANAGEMENT, Term.SOFTWARE),),
    (
        *_needs(NeedKind.HEADING, Term.BACKUP_SETTINGS, Term.RESTORE_SETTINGS),
        *_needs(NeedKind.FIELD, Term.BACKUP_PASSWORD, Term.INCLUDE_HISTORY, Term.BACKUP_FILE),
        *_needs(NeedKind.BUTTON, Term.DOWNLOAD_BACKUP, Term.UPLOAD_BACKUP),
        *_needs(NeedKind.HEADING, Term.VAULT_KEY_BACKUP, optional=True),
    ),
)
USERS = Place("users", ConsoleName.SITE, ((Term.USERS_AND_SECURITY, Term.USERS), (Term.USERS,)), _needs(NeedKind.COLUMN, Term.USERNAME))
JUMP_CLIENTS = Place("jump clients", ConsoleName.SITE, ((Term.JUMP, Term.JUMP_CLIENTS), (Term.JUMP_CLIENTS,)))
FILE_STORE = Place(
    "file store",
    ConsoleName.SITE,
    ((Term.PUBLIC_PORTALS, Term.FILE_STORE), (Term.FILE_STORE,)),
    (*_needs(NeedKind.COLUMN, Term.NAME, Term.SIZE), *_needs(NeedKind.FIELD, Term.FILE), *_needs(NeedKind.BUTTON, Term.UPLOAD)),
)
REPORTS = Place("reports", ConsoleName.SITE, ((Term.REPORTS,),))
SITE_SECURITY = Place(
    "site security",
    ConsoleName.SITE,
    ((Term.MANAGEMENT, Term.SECURITY),),
    (*_needs(NeedKind.FIELD, Term.PRE_SHARED_KEY, optional=True), *_needs(NeedKind.BUTTON, Term.SAVE_CHANGES, optional=True)),
)
FAILOVER = Place(
    "failover",
    ConsoleName.SITE,
    ((Term.MANAGEMENT, Term.FAILOVER), (Term.FAILOVER,)),
    (
        *_needs(NeedKind.FACT, Term.FAILOVER_ROLE, Term.HOST_STATUS, Term.PEER_STATUS, Term.LAST_DATA_SYNC, optional=True),
        *_needs(NeedKind.FACT, Term.DATA_SYNC_STATUS, Term.LAST_ROLE_CHANGE, optional=True),
        *_needs(NeedKind.FIELD, Term.CONNECTION_HOST, Term.TLS_PORT, Term.PULL_FIRST, Term.BECOME_ANYWAY, optional=True),
        *_needs(NeedKind.BUTTON, Term.ESTABLISH_FAILOVER, Term.BREAK_FAILOVER, Term.SYNC_NOW, optional=True),
        *_needs(NeedKind.BUTTON, Term.BECOME_PRIMARY, Term.BECOME_BACKUP, Term.FIX_ERROR, optional=True),
        *_needs(NeedKind.COLUMN, Term.SHARED, optional=True),
    ),
)
API_CONFIGURATION = Place("api configuration", ConsoleName.SITE, ((Term.MANAGEMENT, Term.API_CONFIGURATION), (Term.API_CONFIGURATION,)))

PLACES = (
    BASICS, CERTIFICATES, NETWORK, UPDATES, ADMINISTRATION, SITE_STATUS, SOFTWARE, USERS, JUMP_CLIENTS, FILE_STORE, REPORTS,
    SITE_SECURITY, FAILOVER, API_CONFIGURATION,
)  # fmt: skip
