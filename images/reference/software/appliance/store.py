"""SQLite databases: ``box.db`` for what belongs to the box, ``site.db`` for what belongs to the site and travels in backups."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .box import Box

ACCOUNT = """
create table if not exists account (
    name text primary key, display text not null, password text not null, must_change integer not null default 0,
    language text not null default '', failed integer not null default 0, locked_until real not null default 0,
    enabled integer not null default 1);
"""

BOX_SCHEMA = (
    ACCOUNT
    + """
create table if not exists setting (name text primary key, value text not null);
create table if not exists fault (name text primary key, value text not null);
create table if not exists visit (
    token text primary key, console text not null, account text not null, form_token text not null,
    seen real not null, notice text not null default '');
create table if not exists api_token (token text primary key, account text not null, issued real not null);
create table if not exists certificate (
    id integer primary key, chain text not null, has_key integer not null, built_in integer not null default 0, added real not null);
create table if not exists address (
    address text primary key, prefix integer not null, enabled integer not null, kind text not null, certificate integer);
create table if not exists installed (
    kind text primary key, version text not null, build text not null, folder text not null, at real not null);
create table if not exists job (
    id integer primary key, kind text not null, state text not null, step text not null, facts text not null default '{}',
    started real not null, ended real);
create table if not exists presence (client text primary key, seen real not null);
create table if not exists client_upgrade (
    id integer primary key, client text not null, version text not null, granted real not null, until real not null, ended real);
create index if not exists client_upgrade_open on client_upgrade (client) where ended is null;
create table if not exists download (name text primary key, at real not null);
create table if not exists failover_work (
    id integer primary key, kind text not null, state text not null, step text not null, facts text not null default '{}',
    started real not null, heard real not null, ended real, done integer not null default 0, total integer not null default 0);
create table if not exists failover_event (id integer primary key, at real not null, step text not null, facts text not null);
"""
)

#: What a data sync of a failover pair moves: table -> its key. Triggers number every change, so that only changes are moved.
SYNCED = {
    "account": "name",
    "setting": "name",
    "api_account": "client_id",
    "jump_client": "id",
    "session": "lsid",
    "recording": "lsid",
    "file_item": "id",
    "vault_account": "id",
}
CHANGES = """
create table if not exists change_log (epoch text not null);
insert into change_log select lower(hex(randomblob(16))) where not exists (select 1 from change_log);
create table if not exists change (seq integer primary key autoincrement, tbl text not null, key not null, unique (tbl, key));
"""
# Deleting first, and not "insert or replace": inside a trigger the conflict clause of the statement outside counts.
TRIGGER = """
create trigger if not exists {table}_{event} after {event} on {table} begin
    delete from change where tbl = '{table}' and key = {row}.{key};
    insert into change (tbl, key) values ('{table}', {row}.{key});
end;
"""


def _triggers() -> str:
    events = (("insert", "new"), ("update", "new"), ("delete", "old"))
    return "".join(TRIGGER.format(table=table, event=event, row=row, key=key) for table, key in SYNCED.items() for event, row in events)


SITE_SCHEMA = (
    ACCOUNT
    + """
create table if not exists setting (name text primary key, value text not null);
create table if not exists api_account (
    client_id text primary key, name text not null, secret text not null, permissions text not null, enabled integer not null default 1);
create table if not exists jump_client (
    id integer primary key, client text unique not null, secret text not null, name text not null, hostname text not null,
    jump_group text not null, comments text not null, version text not null, last_connect real, last_disconnect real);
create table if not exists session (
    lsid text primary key, customer text not null, client text not null, representative text not null,
    started integer not null, ended integer not null);
create index if not exists session_ended on session (ended);
create table if not exists recording (lsid text primary key, content blob not null);
create table if not exists file_item (id integer primary key, name text unique not null, content blob not null);
create table if not exists vault_account (id integer primary key, name text not null, username text not null, sealed blob not null);
"""
    + CHANGES
    + _triggers()
)

#: What a data sync has fetched and not yet put in place, so that one that was cut off does not fetch it again.
STAGING_SCHEMA = """
create table if not exists staged (
    tbl text not null, key not null, digest text not null, row text not null, content blob, primary key (tbl, key));
"""


class Database:
    """One file. A connection belongs to the thread that opened it; a write is on the disk when its transaction has ended."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._here = threading.local()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread, opened at first use (and anew after a fork)."""
        if getattr(self._here, "pid", None) != os.getpid():
            self._here.connection, self._here.pid = self._open(), os.getpid()
        return self._here.connection  # type: ignore[no-any-return]

    def _open(self) -> sqlite3.Connection:
        fresh = not self.path.exists()
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        if fresh:
            self.path.chmod(0o600)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        if fresh:
            connection.executescript(self._schema)
        return connection

    def close(self) -> None:
        """Close this thread's connection; before a fork, so that no two processes share one."""
        if getattr(self._here, "pid", None) == os.getpid():
            self._here.connection.close()
            self._here.pid = None

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk at the end, unless it need not be. Nests: the outermost one commits."""
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        if not durable:
            connection.execute("pragma synchronous = normal")
        connection.execute("begin immediate")
        try:
            yield connection
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        finally:
            if not durable:
                connection.execute("pragma synchronous = full")

    def run(self, sql: str, *values: object) -> int:
        """One statement; answers how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def run_many(self, sql: str, values: Sequence[Sequence[object]]) -> None:
        self.connection.executemany(sql, values)

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return self.connection.execute(sql, values).fetchall()

    def find_row(self, sql: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row, None where there is no row."""
        row = self.find_row(sql, *values)
        return None if row is None else row[0]

    def setting(self, name: str, default: str = "") -> str:
        found = self.value("select value from setting where name = ?", name)
        return default if found is None else str(found)

    def set(self, **values: object) -> None:
        """Write settings, each as text."""
        with self.transaction() as connection:
            connection.executemany(
                "insert into setting values (?, ?) on conflict (name) do update set value = excluded.value",
                [(name, str(value)) for name, value in values.items()],
            )

    def hold_growth(self, *, hold: bool) -> None:
        """Let the file not grow any more in this thread (SQLite then says that the disk is full), or let it again."""
        pages = self.value("pragma page_count") if hold else 2**31
        self.connection.execute(f"pragma max_page_count = {pages}")


class Store:
    """Both databases of a box."""

    def __init__(self, box: Box) -> None:
        self.box = Database(box.data / "box.db", BOX_SCHEMA)
        self.site = Database(box.data / "site.db", SITE_SCHEMA)
        self.staging = Database(box.data / "staging.db", STAGING_SCHEMA)

    def hold_growth(self, *, hold: bool) -> None:
        self.box.hold_growth(hold=hold)
        self.site.hold_growth(hold=hold)

    def close(self) -> None:
        self.box.close()
        self.site.close()
        self.staging.close()

    @property
    def is_new(self) -> bool:
        """Whether the box is still without its factory state."""
        return not self.box.path.exists() or not self.box.setting("guid")
