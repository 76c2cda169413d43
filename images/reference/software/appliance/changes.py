"""What a data sync moves: which rows changed since when, by the numbers that triggers give; rows and their digests; putting them in place.

Rows travel as JSON, bytes in them as base64. Recordings and files that are large travel in pieces of bytes instead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .pairs import OWN_SETTINGS
from .store import SYNCED, Store

BLOB = "content"  # the column of recordings and files that may be large
INLINE = 64 * 1024  # bytes of it that travel inside a row
PIECE = 512 * 1024
MERGED = ("session", "recording")  # what is brought together when two sites worked apart


@dataclass(frozen=True)
class Entry:
    """One row as it is at the source; ``digest`` empty where it is gone. ``size`` in bytes, as far as rows have one."""

    table: str
    key: str | int
    digest: str
    size: int


@dataclass(frozen=True)
class Listing:
    """What changed since a number; ``full``: all rows there are. ``epoch`` and ``seq`` are where the next one goes on."""

    epoch: str
    seq: int
    full: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Row:
    """``values``: columns as JSON takes them; a large content is not in it, but described by its size and digest."""

    table: str
    key: str | int
    values: dict[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(_described(self.values), sort_keys=True).encode()).hexdigest()

    @property
    def missing(self) -> tuple[int, str] | None:
        """Size and digest of the content that travels in pieces; None where all is here."""
        content = self.values.get(BLOB)
        return (content["size"], content["sha256"]) if isinstance(content, dict) and "size" in content else None


def _described(values: dict[str, Any]) -> dict[str, Any]:
    """The same digest for a row, however its content travels."""
    return {name: _facts(base64.b64decode(v["base64"])) if isinstance(v, dict) and "base64" in v else v for name, v in values.items()}


def _facts(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _is_ours(table: str, key: object) -> bool:
    return table == "setting" and key in OWN_SETTINGS


def read_row(connection: sqlite3.Connection, table: str, key: str | int) -> Row | None:
    """A row as it travels; None where there is none (or where it belongs to this box alone)."""
    if _is_ours(table, key):
        return None
    found = connection.execute(f"select * from {table} where {SYNCED[table]} = ?", (key,)).fetchone()  # noqa: S608 - our own names
    return None if found is None else _row(table, found)


def _row(table: str, found: sqlite3.Row) -> Row:
    values: dict[str, Any] = {}
    for name in found.keys():  # noqa: SIM118 - a sqlite row
        value = found[name]
        if isinstance(value, bytes):
            is_large = name == BLOB and len(value) > INLINE
            value = _facts(value) if is_large else {"base64": base64.b64encode(value).decode()}
        values[name] = value
    return Row(table, found[SYNCED[table]], values)


def _size(row: Row) -> int:
    missing = row.missing
    return (missing[0] if missing else 0) + len(json.dumps(row.values))


def list_changes(store: Store, epoch: str, since: int) -> Listing:
    """What a peer that has all up to ``since`` of this ``epoch`` lacks; all rows where that is not a number of this site."""
    connection = store.site.connection
    connection.execute("begin")  # one snapshot
    try:
        own = str(connection.execute("select epoch from change_log").fetchone()[0])
        last = int(connection.execute("select coalesce(max(seq), 0) from change").fetchone()[0])
        is_full = epoch != own or not 0 < since <= last
        found = _all_rows(connection) if is_full else _changed_rows(connection, since)
        return Listing(own, last, is_full, tuple(found))
    finally:
        connection.execute("rollback")


def _all_rows(connection: sqlite3.Connection) -> Iterator[Entry]:
    for table, key in SYNCED.items():
        for found in connection.execute(f"select * from {table}"):  # noqa: S608 - our own names
            if not _is_ours(table, found[key]):
                row = _row(table, found)
                yield Entry(table, row.key, row.digest, _size(row))


def _changed_rows(connection: sqlite3.Connection, since: int) -> Iterator[Entry]:
    for tbl, key in connection.execute("select tbl, key from change where seq > ? order by seq", (since,)).fetchall():
        if not _is_ours(tbl, key):
            row = read_row(connection, tbl, key)
            yield Entry(tbl, key, row.digest, _size(row)) if row is not None else Entry(tbl, key, "", 0)


def read_position(store: Store) -> tuple[str, int]:
    """The epoch of this site and the number of its last change."""
    row = store.site.find_row("select epoch, (select coalesce(max(seq), 0) from change) as seq from change_log")
    return (str(row["epoch"]), int(row["seq"])) if row is not None else ("", 0)


def find_needed(store: Store, entries: Iterable[Entry]) -> list[Entry]:
    """Those that this site does not have, or has otherwise."""
    connection = store.site.connection
    needed = []
    for entry in entries:
        row = read_row(connection, entry.table, entry.key) if entry.table in SYNCED else None
        if entry.table in SYNCED and (row.digest if row is not None else "") != entry.digest:
            needed.append(entry)
    return needed


def read_piece(store: Store, table: str, key: str | int, at: int) -> bytes:
    """A piece of a large content; empty at its end."""
    if table not in ("recording", "file_item"):
        return b""
    sql = f"select substr({BLOB}, ?, ?) from {table} where {SYNCED[table]} = ?"  # noqa: S608 - our own names
    return bytes(store.site.value(sql, at + 1, PIECE, key) or b"")


def put_in_place(store: Store, listing: Listing, needed: Iterable[Entry]) -> None:
    """What was staged becomes the site's content, in one transaction: whole or not at all."""
    with store.site.transaction() as connection:
        if listing.full:
            _delete_others(connection, listing)
        for entry in needed:
            if not entry.digest:
                connection.execute(f"delete from {entry.table} where {SYNCED[entry.table]} = ?", (entry.key,))  # noqa: S608 - our own names
        for entry in needed:
            if entry.digest:
                _put(connection, store, entry)
    store.staging.run("delete from staged")


def _delete_others(connection: sqlite3.Connection, listing: Listing) -> None:
    for table, key in SYNCED.items():
        listed = {entry.key for entry in listing.entries if entry.table == table}
        here = [row[0] for row in connection.execute(f"select {key} from {table}")]  # noqa: S608 - our own names
        gone = [(one,) for one in here if one not in listed and not _is_ours(table, one)]
        connection.executemany(f"delete from {table} where {key} = ?", gone)  # noqa: S608 - our own names


def _put(connection: sqlite3.Connection, store: Store, entry: Entry) -> None:
    staged = store.staging.find_row("select row, content from staged where tbl = ? and key = ?", entry.table, entry.key)
    if staged is None:  # it was deleted at the source after the listing; the next one tells
        return
    write_row(connection, entry.table, json.loads(staged["row"]), staged["content"])


def write_row(connection: sqlite3.Connection, table: str, values: dict[str, Any], content: bytes | None, *, how: str = "replace") -> int:
    """Insert a row; ``how`` says what happens to one that is there: replace or ignore. Answers how many were written."""
    columns = [row["name"] for row in connection.execute(f"pragma table_info({table})")]
    unpacked = [content if name == BLOB and content is not None else unpack(values[name]) for name in columns]
    sql = f"insert or {how} into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"  # noqa: S608 - our own names
    return connection.execute(sql, unpacked).rowcount


def unpack(value: Any) -> Any:
    """A value of a row as the database takes it."""
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
