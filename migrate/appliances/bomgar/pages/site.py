"""What the site holds, read from the pages of /login: where the API is not there or does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from migrate.appliances.bomgar.catalogue import JUMP_CLIENTS, REPORTS, SITE_STATUS, USERS
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Row, Table, View
from migrate.appliances.bomgar.pages.failover import read_role
from migrate.appliances.bomgar.words import Term
from migrate.facts import JumpClient, Version


@dataclass(frozen=True)
class SiteStatus:
    """What the Status page says of the site."""

    version: Version
    name: str


def read_status(console: Console) -> SiteStatus:
    """Product version and build, and the site's name ("" where none is set)."""
    view = console.open(SITE_STATUS)
    name = view.find_fact(Term.SITE_NAME) or view.find_fact(Term.PUBLIC_HOST) or ""
    return SiteStatus(Version(view.need_fact(Term.PRODUCT_VERSION), view.need_fact(Term.PRODUCT_BUILD)), name)


def read_upgrade_limit(console: Console) -> int | None:
    """How many Jump Clients may update at a time; None where this version does not say."""
    view = console.find(JUMP_CLIENTS)
    found = view.find_fact(Term.CLIENT_UPGRADES) if view is not None else None
    return int(found) if found is not None and found.isdecimal() else None


def read_failover_role(console: Console) -> str:
    """none, primary or backup, by the Failover page.

    Raises:
        UnexpectedError: the page does not tell.

    """
    return read_role(console).value


def read_users(console: Console) -> tuple[str, ...] | None:
    """The user names of the Users page; None where it has no such table."""
    return _column(console.find(USERS), Term.USERNAME)


def read_sessions(console: Console) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Ids of finished sessions, and of those with a recording. None where the page does not list all of them."""
    view = console.find(REPORTS)
    table = view.find_table(Term.SESSION_ID, Term.RECORDING) if view is not None else None
    total = view.find_fact(Term.SESSIONS) if view is not None else None
    if view is None or table is None or total is None or not total.isdigit():
        return None
    rows = [(table.text(row, view.words, Term.SESSION_ID), table.text(row, view.words, Term.RECORDING)) for row in filled(table)]
    if len(rows) != int(total):
        return None
    return tuple(lsid for lsid, _ in rows), tuple(lsid for lsid, kept in rows if view.words.match(Term.YES, kept))


def read_no_jump_clients(console: Console) -> tuple[JumpClient, ...] | None:
    """An empty tuple where the page lists none; None where it lists some: the page does not tell enough of them."""
    names = _column(console.find(JUMP_CLIENTS), Term.NAME)
    return () if names == () else None


def _column(view: View | None, term: Term) -> tuple[str, ...] | None:
    table = view.find_table(term) if view is not None else None
    if view is None or table is None:
        return None
    return tuple(table.text(row, view.words, term) for row in filled(table))


def filled(table: Table) -> Iterator[Row]:
    """The rows that stand for something: not the one that says, over all columns, that there is nothing."""
    for row in table.rows:
        texts = [cell.text for cell in row.cells]
        if len(texts) < 2 or len(set(texts)) > 1:
            yield row
