"""A data sync: the backup fetches from the primary what changed, and puts it in place in one transaction.

Where the two have no common number to go on from (a new pair, or one that worked apart), rows are compared by their digests, and before
anything is overwritten the sessions and recordings that only this site has are given to the primary.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .changes import BLOB, MERGED, Entry, Listing, Row, find_needed, put_in_place, read_row
from .errors import Refused
from .letters import Peer
from .store import SYNCED

if TYPE_CHECKING:
    from .core import Appliance

BATCH_ROWS, BATCH_BYTES = 500, 2 * 1024 * 1024
TELL_EVERY = 0.2  # seconds

Tell = Callable[[int, int], None]


class Pull:
    """One data sync into this site. ``tell`` is given bytes done and bytes in all, often."""

    def __init__(self, box: Appliance, peer: Peer, tell: Tell) -> None:
        self._box = box
        self._peer = peer
        self._tell = tell
        self._done = self._total = 0
        self._told = 0.0

    def run(self) -> int:
        """Make this site what the peer's is; answers how many bytes were moved.

        Raises:
            Refused: the peer does not answer, refuses, or sends what it did not list. This site is as it was before.

        """
        said = self._peer.ask("listing", self._position())
        if said["full"] and self._box.site.has("merges_sessions"):
            self._merge()
            said = self._peer.ask("listing", self._position())
        listing = Listing(said["epoch"], said["seq"], said["full"], tuple(Entry(*entry) for entry in said["entries"]))
        needed = find_needed(self._box.store, listing.entries)
        self._total = sum(entry.size for entry in needed)
        self._count(0)
        for batch in _batches(entry for entry in needed if entry.digest and not self._is_staged(entry)):
            self._fetch(batch)
        self._wait_as_told()
        put_in_place(self._box.store, listing, needed)
        self._box.store.box.set(sync_position=json.dumps([self._source(), listing.epoch, listing.seq]))
        self._tell(self._done, self._total)
        return self._done

    def _source(self) -> str:
        return self._box.failover.pairs.read().peer_guid

    def _position(self) -> dict[str, Any]:
        guid, epoch, seq = json.loads(self._box.store.box.setting("sync_position", '["", "", 0]'))
        return {"epoch": epoch, "since": seq} if guid == self._source() else {"epoch": "", "since": 0}

    def _wait_as_told(self) -> None:
        """What the fault switches do to a data sync."""
        faults, waited = self._box.faults, 0.0
        while waited < faults.seconds("sync-seconds"):
            time.sleep(0.1)
            waited += 0.1
            self._peer.ask("hello")  # a peer that died is noticed here as it is while there is something to fetch
            self._count(0)
        if faults.is_on("sync-fails"):
            raise Refused("The data sync failed; the site is as it was before.")

    def _count(self, size: int) -> None:
        self._done += size
        if time.monotonic() - self._told > TELL_EVERY or not size:
            self._told = time.monotonic()
            self._tell(min(self._done, self._total), self._total)

    # fetching

    def _is_staged(self, entry: Entry) -> bool:
        """Whether an earlier data sync, which was cut off, has fetched it already."""
        found = self._box.store.staging.value("select digest from staged where tbl = ? and key = ?", entry.table, entry.key)
        if found == entry.digest:
            self._count(entry.size)
        return bool(found == entry.digest)

    def _fetch(self, batch: list[Entry]) -> None:
        said = self._peer.ask("rows", {"keys": [[entry.table, entry.key] for entry in batch]})
        rows = {(table, key): Row(table, key, values) for table, key, values in said["rows"]}
        for entry in batch:
            row = rows.get((entry.table, entry.key))
            if row is not None:  # else it was deleted since it was listed
                self._stage(row, self._fetch_content(row))
            self._count(entry.size)

    def _fetch_content(self, row: Row) -> bytes | None:
        if row.missing is None:
            return None
        size, digest = row.missing
        content = bytearray()
        while len(content) < size:
            piece = self._peer.fetch("piece", {"table": row.table, "key": row.key, "at": len(content)})
            if not piece:
                break
            content += piece
            if time.monotonic() - self._told > TELL_EVERY:
                self._told = time.monotonic()
                self._tell(min(self._done + len(content), self._total), self._total)
        if hashlib.sha256(content).hexdigest() != digest:
            raise Refused("{table} {key} changed while it was fetched. Try again.", table=row.table, key=row.key)
        return bytes(content)

    def _stage(self, row: Row, content: bytes | None) -> None:
        values = (row.table, row.key, row.digest, json.dumps(row.values), content)
        self._box.store.staging.run("insert or replace into staged values (?, ?, ?, ?, ?)", *values)

    # merging

    def _merge(self) -> None:
        """Give the peer what it has not."""
        store = self._box.store
        own = {table: [row[0] for row in store.site.rows(f"select lsid from {table}")] for table in MERGED}  # noqa: S608 - our own names
        missing = self._peer.ask("missing", {"have": own})["missing"]
        merged = 0
        for table in MERGED:
            for batch in _full_rows(self._box, table, missing[table]):
                merged += self._peer.ask("merge", {"rows": batch})["merged"]
        if merged:
            self._box.failover.pairs.note("{number} sessions and recordings of this site were merged into the primary site.", number=merged)


def _full_rows(box: Appliance, table: str, keys: list[str]) -> Iterator[list[list[Any]]]:
    """Rows with their whole content, in portions."""
    import base64

    batch: list[list[Any]] = []
    size = 0
    for key in keys:
        row = read_row(box.store.site.connection, table, key)
        if row is None:
            continue
        if row.missing is not None:
            content = box.store.site.value(f"select {BLOB} from {table} where {SYNCED[table]} = ?", key)  # noqa: S608 - our own names
            row.values[BLOB] = {"base64": base64.b64encode(content).decode()}
        batch.append([row.table, row.key, row.values])
        size += len(json.dumps(row.values))
        if size > BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        if size > BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
