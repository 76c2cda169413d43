"""The words a person sees on the pages, by language. The words themselves are data: ``words/*.yaml``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

from ruamel.yaml import YAML

from kit.errors import UsageError

_WORD = r"[^\W_]+"
COMPLETE = ("en", "es")  # languages whose file names every term; the others know some and serve `probe`


class Term(StrEnum):
    """One thing that pages have a word for. The value is its name in the word files."""

    # menus of /appliance
    STATUS = "status"
    BASICS = "basics"
    USERS = "users"
    NETWORKING = "networking"
    IP_CONFIGURATION = "ip-configuration"
    SECURITY = "security"
    CERTIFICATES = "certificates"
    APPLIANCE_ADMINISTRATION = "appliance-administration"
    UPDATES = "updates"
    SUPPORT = "support"
    UTILITIES = "utilities"
    # menus of /login
    MANAGEMENT = "management"
    SOFTWARE = "software"
    FAILOVER = "failover"
    API_CONFIGURATION = "api-configuration"
    USERS_AND_SECURITY = "users-and-security"
    JUMP = "jump"
    JUMP_CLIENTS = "jump-clients"
    PUBLIC_PORTALS = "public-portals"
    FILE_STORE = "file-store"
    REPORTS = "reports"
    # logging in
    USERNAME = "username"
    PASSWORD = "password"  # noqa: S105 - the name of a label
    LOG_IN = "log-in"
    LOG_OUT = "log-out"
    CURRENT_PASSWORD = "current-password"  # noqa: S105 - the name of a label
    NEW_PASSWORD = "new-password"  # noqa: S105 - the name of a label
    CONFIRM_PASSWORD = "confirm-password"  # noqa: S105 - the name of a label
    CHANGE_PASSWORD = "change-password"  # noqa: S105 - the name of a label
    ACCEPT_AGREEMENT = "accept-agreement"
    LOCKED_OUT = "locked-out"
    # Status > Basics
    HOSTNAME = "hostname"
    SERIAL_NUMBER = "serial-number"
    APPLIANCE_GUID = "appliance-guid"
    BASE_VERSION = "base-version"
    BASE_BUILD = "base-build"
    SYSTEM_TIME = "system-time"
    RESET = "reset"
    SHUT_DOWN = "shut-down"
    REBOOT = "reboot"
    CONFIRM = "confirm"
    # Security > Certificates
    CERTIFICATE_INSTALLATION = "certificate-installation"
    CERTIFICATE_FILE = "certificate-file"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a label
    CONFIRM_PASSPHRASE = "confirm-passphrase"  # noqa: S105 - the name of a label
    UPLOAD = "upload"
    IMPORT = "import"
    CERTIFICATE_TABLE = "certificate-table"
    ISSUED_TO = "issued-to"
    ISSUED_BY = "issued-by"
    EXPIRES = "expires"
    ALTERNATIVE_NAMES = "alternative-names"
    PRIVATE_KEY = "private-key"
    IP_ADDRESSES = "ip-addresses"
    WARNINGS = "warnings"
    YES = "yes"
    NO = "no"
    NONE = "none"
    ACTION = "action"
    APPLY = "apply"
    EXPORT = "export"
    CERTIFICATE = "certificate"
    CERTIFICATE_CHAIN = "certificate-chain"
    ASSIGN_IP = "assign-ip"
    SAVE_CONFIGURATION = "save-configuration"
    # Networking > IP Configuration
    IP_ADDRESS = "ip-address"
    SUBNET_MASK = "subnet-mask"
    ENABLED = "enabled"
    ADD_ADDRESS = "add-address"
    SAVE_CHANGES = "save-changes"
    EDIT = "edit"
    # Updates
    CHECK_FOR_UPDATES = "check-for-updates"
    DOWNLOAD_KEY = "download-key"
    UPDATE_SERVER = "update-server"
    AVAILABLE_UPDATES = "available-updates"
    INSTALL_THIS_UPDATE = "install-this-update"
    INSTALLED = "installed"
    NAME = "name"
    VERSION = "version"
    BUILD = "build"
    KIND = "kind"
    REQUIRES = "requires"
    ACCEPT_EULA = "accept-eula"
    CONTINUE = "continue"
    MANUAL_INSTALLATION = "manual-installation"
    UPDATE_FILE = "update-file"
    UPDATE_SOFTWARE = "update-software"
    BASE_PACKAGE = "base-package"
    PROGRESS = "progress"
    IN_PROGRESS = "in-progress"
    LAST_INSTALLATION = "last-installation"
    DETAILS = "details"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    # /login > Status
    PRODUCT_VERSION = "product-version"
    PRODUCT_BUILD = "product-build"
    SITE_NAME = "site-name"
    COMPANY = "company"
    PUBLIC_HOST = "public-host"
    # Management > Software Management
    BACKUP_SETTINGS = "backup-settings"
    BACKUP_PASSWORD = "backup-password"  # noqa: S105 - the name of a label
    INCLUDE_HISTORY = "include-history"
    DOWNLOAD_BACKUP = "download-backup"
    RESTORE_SETTINGS = "restore-settings"
    BACKUP_FILE = "backup-file"
    UPLOAD_BACKUP = "upload-backup"
    LAST_RESTORE = "last-restore"
    VAULT_KEY_BACKUP = "vault-key-backup"
    VAULT_KEY_PASSWORD = "vault-key-password"  # noqa: S105 - the name of a label
    VAULT_KEY_FILE = "vault-key-file"
    VAULT_KEY_FINGERPRINT = "vault-key-fingerprint"
    DOWNLOAD_VAULT_KEY = "download-vault-key"
    UPLOAD_VAULT_KEY = "upload-vault-key"
    # File Store, Users, Reports, Failover
    FILE = "file"
    SIZE = "size"
    DOWNLOAD = "download"
    SESSIONS = "sessions"
    SESSION_ID = "session-id"
    RECORDING = "recording"
    CLIENT_UPGRADES = "client-upgrades"
    FAILOVER_ROLE = "failover-role"
    PRIMARY = "primary"
    BACKUP = "backup"
    BREAK_FAILOVER = "break-failover"
    ESTABLISH_FAILOVER = "establish-failover"
    CONNECTION_HOST = "connection-host"
    TLS_PORT = "tls-port"
    PRE_SHARED_KEY = "pre-shared-key"
    IS_SET = "is-set"
    HOST_STATUS = "host-status"
    PEER_STATUS = "peer-status"
    PEER_HOST = "peer-host"
    LAST_DATA_SYNC = "last-data-sync"
    DATA_SYNC_STATUS = "data-sync-status"
    DATA_SYNC_DETAILS = "data-sync-details"
    DATA_SYNC_ENDED = "data-sync-ended"
    DATA_SYNC_PROGRESS = "data-sync-progress"
    LAST_ROLE_CHANGE = "last-role-change"
    ROLE_CHANGE_DETAILS = "role-change-details"
    WELL = "well"
    SYNC_NOW = "sync-now"
    BECOME_PRIMARY = "become-primary"
    BECOME_BACKUP = "become-backup"
    PULL_FIRST = "pull-first"
    BECOME_ANYWAY = "become-anyway"
    FIX_ERROR = "fix-error"
    CONFLICT_NOTE = "conflict-note"
    SHARED = "shared"


@dataclass(frozen=True)
class Words:
    """The words of one language, or of all languages at once where ``language`` is None."""

    language: str | None
    table: Mapping[Term, tuple[str, ...]]

    def match(self, term: Term, text: str) -> bool:
        """Whether ``text`` is one of the term's words: same letters, whatever case, accents and spaces."""
        return fold(text) in _folded(self.table.get(term, ()))

    def match_any(self, term: Term, texts: Iterable[str]) -> bool:
        """Whether one of the texts is."""
        return any(self.match(term, text) for text in texts)

    def find_phrase(self, term: Term, text: str) -> bool:
        """Whether one of the term's words stands, as whole words, somewhere in ``text``."""
        inside = _spelled(fold(text))
        return any(_spelled(word) in inside for word in _folded(self.table.get(term, ())))

    def name(self, term: Term) -> str:
        """The term's first word, for sentences."""
        words = self.table.get(term, ())
        return words[0] if words else term.value

    def knows(self, term: Term) -> bool:
        """Whether this language has a word for it."""
        return bool(self.table.get(term))


def fold(text: str) -> str:
    """As compared: lower case, without accents, spaces evened out, without what decorates a label's end (``:``, ``*``, arrows)."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    plain = re.sub(r"\s*::\s*", " :: ", plain.casefold())
    return re.sub(r"\s+", " ", plain).strip(" :*.…▲▼▴▾↑↓→»>")


def _spelled(folded: str) -> str:
    """Its words alone, with a space around each."""
    return f" {' '.join(re.findall(_WORD, folded))} "


@cache
def _folded(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(word) for word in words)


def find_languages() -> tuple[str, ...]:
    """The languages that a word file is there for."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")))


@cache
def load_words(language: str | None = None, *, partial: bool = False) -> Words:
    """The words of a language; of all complete languages together where None.

    ``partial`` takes also a language that has only some words, and English for the rest: for looking, not for changing a box.

    Raises:
        UsageError: there is no such language, or it is not complete.

    """
    if language is None:
        return Words(None, _merge(*COMPLETE))
    if language in COMPLETE:
        return Words(language, _read(language))
    if language in find_languages() and partial:
        return Words(language, _merge(language, "en"))
    known = ", ".join(find_languages() if partial else COMPLETE)
    raise UsageError(f"There are no words, or not all, for the language {language!r}.", hint=f"Known: {known}.")


def _merge(*languages: str) -> dict[Term, tuple[str, ...]]:
    merged: dict[Term, tuple[str, ...]] = {}
    for language in languages:
        for term, words in _read(language).items():
            merged[term] = tuple(dict.fromkeys(merged.get(term, ()) + words))
    return merged


def _read(language: str) -> dict[Term, tuple[str, ...]]:
    raw = YAML(typ="safe", pure=True).load((_folder() / f"{language}.yaml").read_text(encoding="utf-8"))
    table: dict[Term, tuple[str, ...]] = {}
    for key, value in raw.items():
        words = (value,) if isinstance(value, str) else tuple(value)
        if not words or not all(isinstance(word, str) and fold(word) for word in words):
            raise ValueError(f"{language}.yaml: {key} needs words")
        table[Term(key)] = words
    missing = [term.value for term in Term if term not in table]
    if language in COMPLETE and missing:
        raise ValueError(f"{language}.yaml has no words for {', '.join(missing)}")
    return table


def _folder() -> resources.abc.Traversable:
    return resources.files("migrate.appliances.bomgar") / "words"
