"""Accounts of the two consoles: passwords, lock-out, forced change; and the logins ("visits") that they open."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
from base64 import b64decode, b64encode
from dataclasses import dataclass

from .errors import Refused
from .faults import Faults
from .store import Database, Store

IDLE = 600.0  # seconds until an unused login ends
LOCKED = 1800.0  # seconds an account stays locked after too many failures
SHORTEST = 8
NO_PASSWORD = "!"  # noqa: S105 - no password fits this: the account signs in elsewhere
FACTORY_NAME, FACTORY_PASSWORD = "admin", "password"
_COST = {"n": 2**13, "r": 8, "p": 1}


@dataclass(frozen=True)
class Visit:
    """An open login: whose, and the hidden token its forms carry."""

    token: str
    console: str
    account: str
    form_token: str
    notice: str
    must_change: bool
    language: str


def hash_password(password: str) -> str:
    """The form in which a password is kept: scrypt with a salt."""
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST)
    return f"{b64encode(salt).decode()}${b64encode(digest).decode()}"


def is_password(password: str, stored: str) -> bool:
    """Whether ``stored`` was made from this password."""
    if stored == NO_PASSWORD:
        return False
    salt, digest = (b64decode(part) for part in stored.split("$"))
    return hmac.compare_digest(hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST), digest)


def hash_token(token: str) -> str:
    """For secrets that are long and random already."""
    return hashlib.sha256(token.encode()).hexdigest()


class Accounts:
    """The accounts of one console ("appliance" or "login")."""

    def __init__(self, console: str, store: Store) -> None:
        self.console = console
        self._visits = store.box
        self._database: Database = store.box if console == "appliance" else store.site
        self._settings = store.box
        self._faults = Faults(store.box)

    def rows(self) -> list[sqlite3.Row]:
        return self._database.rows("select * from account order by name")

    def add(self, name: str, display: str, password: str | None, *, must_change: bool = False, language: str = "") -> None:
        """``password`` None: an account that cannot log in here."""
        if not name.strip():
            raise Refused("A user name is needed.")
        stored = NO_PASSWORD if password is None else hash_password(password)
        if self._database.value("select 1 from account where name = ?", name):
            raise Refused("There is a user {name} already.", name=name)
        self._database.run(
            "insert into account (name, display, password, must_change, language) values (?, ?, ?, ?, ?)",
            *(name, display or name, stored, int(must_change), language),
        )

    def remove(self, name: str) -> None:
        if self._database.value("select count(*) from account where password <> ?", NO_PASSWORD) == 1 and self._can_log_in(name):
            raise Refused("The last user who can log in cannot be deleted.")
        self._database.run("delete from account where name = ?", name)
        self._visits.run("delete from visit where console = ? and account = ?", self.console, name)

    def _can_log_in(self, name: str) -> bool:
        return bool(self._database.value("select password from account where name = ?", name) != NO_PASSWORD)

    def unlock(self, name: str) -> None:
        self._database.run("update account set failed = 0, locked_until = 0 where name = ?", name)

    def set_language(self, name: str, language: str) -> None:
        self._database.run("update account set language = ? where name = ?", language, name)

    def log_in(self, name: str, password: str) -> str:
        """Open a visit; answers its token, for the cookie.

        Raises:
            Refused: wrong name or password, or the account is locked.

        """
        row = self._database.find_row("select * from account where name = ?", name)
        now = self._faults.now()
        if row is not None and row["locked_until"] > now:
            raise Refused("This account is locked after too many failed logins.")
        # A name that does not exist costs as much time as a wrong password.
        good = is_password(password, row["password"] if row is not None and row["password"] != NO_PASSWORD else _decoy())
        if row is None or not good or not row["enabled"]:
            self._count_failure(row, now)
            raise Refused("The user name or password is wrong.")
        self.unlock(name)
        return self._open(name, now)

    def _count_failure(self, row: sqlite3.Row | None, now: float) -> None:
        if row is None:
            return
        limit = int(self._settings.setting("lockout_limit", "5"))
        failed = row["failed"] + 1
        until = now + LOCKED if limit and failed >= limit else 0
        self._database.run("update account set failed = ?, locked_until = ? where name = ?", failed, until, row["name"])

    def _open(self, name: str, now: float) -> str:
        token = secrets.token_urlsafe(32)
        self._visits.run(
            "insert into visit (token, console, account, form_token, seen) values (?, ?, ?, ?, ?)",
            *(hash_token(token), self.console, name, secrets.token_urlsafe(16), now),
        )
        return token

    def find_visit(self, token: str) -> Visit | None:
        """The open visit of this cookie; None where it ended, is unknown, or belongs to the other console."""
        row = self._visits.find_row("select * from visit where token = ? and console = ?", hash_token(token), self.console)
        if row is None:
            return None
        now = self._faults.now()
        account = self._database.find_row("select * from account where name = ?", row["account"])
        if account is None or abs(now - row["seen"]) > self._faults.seconds("session-seconds", IDLE) or self._ends_now():
            self._visits.run("delete from visit where token = ?", row["token"])
            return None
        if now - row["seen"] > 1 or row["notice"]:
            self._visits.run("update visit set seen = ?, notice = '' where token = ?", now, row["token"])
        return Visit(
            row["token"], self.console, row["account"], row["form_token"], row["notice"], bool(account["must_change"]), account["language"]
        )

    def _ends_now(self) -> bool:
        if not self._faults.is_on("end-sessions"):
            return False
        self._faults.switch("end-sessions", "off")
        self._visits.run("delete from visit")
        return True

    def log_out(self, visit: Visit) -> None:
        self._visits.run("delete from visit where token = ?", visit.token)

    def leave_notice(self, visit: Visit, notice: str) -> None:
        """A sentence for the next page this visit sees."""
        self._visits.run("update visit set notice = ? where token = ?", notice, visit.token)

    def change_password(self, visit: Visit, old: str, new: str, again: str) -> None:
        """Change the own password; other logins of this account end.

        Raises:
            Refused: the old one is wrong, or the new one will not do.

        """
        stored = self._database.value("select password from account where name = ?", visit.account)
        if not is_password(old, stored):
            raise Refused("The current password is wrong.")
        if new != again:
            raise Refused("The two new passwords are not the same.")
        if len(new) < SHORTEST or new == old or new.lower() == FACTORY_PASSWORD:
            raise Refused("The new password must have {shortest} characters or more and be another one than before.", shortest=SHORTEST)
        self._database.run("update account set password = ?, must_change = 0 where name = ?", hash_password(new), visit.account)
        self._visits.run("delete from visit where console = ? and account = ? and token <> ?", self.console, visit.account, visit.token)

    def set_password(self, name: str, password: str) -> None:
        """For seeding: no questions asked."""
        self._database.run("update account set password = ?, must_change = 0 where name = ?", hash_password(password), name)


_decoys: list[str] = []


def _decoy() -> str:
    if not _decoys:
        _decoys.append(hash_password(secrets.token_hex(8)))
    return _decoys[0]
