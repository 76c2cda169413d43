"""The visitor's journal: one JSON line for everything it did, and what the lines add up to.

Lines are written with one call each and flushed by the kernel, so a killed visitor loses at most the line it was writing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter, ValidationError

from kit.errors import FailedError, UnexpectedError


class Kind(StrEnum):
    """What a line is about."""

    PAGE = "page"  # a visitor looks at the site
    SESSION = "session"  # a client hands in a finished session
    CHECKIN = "checkin"  # a Jump Client of the swarm says that it is there
    UPDATE = "update"  # a Jump Client fetches its update
    LOOKUP = "lookup"  # the name server was asked
    END = "end"  # the visitor was told to end, and everything under way has ended


VISITS = (Kind.PAGE, Kind.SESSION)


@dataclass(frozen=True)
class Entry:
    """One line. ``at``: Unix seconds when it began; ``ms``: how long it took.

    ``leaf``: SHA-256 (hex) of the served leaf; ``chain``: :func:`digest_chain` of everything served. ``lsid`` on sessions. ``error``
    is empty where ``ok``. ``version``: what a client said that it runs; ``update``: what it was told to become, with which it holds a slot;
    ``size``: bytes of an update that came.
    """

    at: float
    kind: Kind
    ok: bool
    ms: float = 0.0
    address: str = ""
    leaf: str = ""
    chain: str = ""
    status: int = 0
    client: str = ""
    lsid: str = ""
    error: str = ""
    version: str = ""
    update: str = ""
    size: int = 0

    @property
    def answered_at(self) -> float:
        """Unix seconds when it was over."""
        return self.at + self.ms / 1000


@dataclass(frozen=True)
class Outage:
    """From the last good answer before failures to the first good one after them, in Unix seconds; ``failures`` requests in between.

    ``over`` is False where no good answer has come yet: then ``until`` is the end of the last failure.
    """

    since: float
    until: float
    failures: int
    over: bool

    @property
    def seconds(self) -> float:
        return max(0.0, self.until - self.since)


@dataclass(frozen=True)
class VisitorSummary:
    """What a journal adds up to.

    ``requests_*`` are visits (pages and sessions); the swarm's check-ins are counted on their own. ``records_written``: session ids
    acknowledged with 201, in order. ``downtime_seconds``: the sum of ``outages``. ``good_by_address``, ``lost_by_address``: visits.
    ``leaves`` and ``chains``: digests served, in the order of their first sight. ``ended``: the visitor ended in order.
    """

    requests_sent: int
    requests_lost: int
    records_written: tuple[str, ...]
    outages: tuple[Outage, ...]
    downtime_seconds: float
    checkins_sent: int
    checkins_lost: int
    clients_seen: tuple[str, ...]
    lookups: int
    good_by_address: tuple[tuple[str, int], ...]
    lost_by_address: tuple[tuple[str, int], ...]
    leaves: tuple[str, ...]
    chains: tuple[str, ...]
    errors: tuple[tuple[str, int], ...]
    slowest_ms: float
    began_at: float | None
    ended_at: float | None
    ended: bool


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
_DEFAULTS = {field.name: field.default for field in fields(Entry)}


class Journal:
    """Appends entries to a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, entry: Entry) -> None:
        """Append one line, whole.

        Raises:
            FailedError: the disk is full.

        """
        known = {name: value for name, value in asdict(entry).items() if value != _DEFAULTS[name]}
        line = (json.dumps(known) + "\n").encode()
        try:
            if os.write(self._file, line) != len(line):
                raise FailedError("A line of the visitor's journal could not be written whole.", hint="Free space on this machine.")
        except OSError as error:
            raise FailedError(
                f"The visitor's journal could not be written: {error.strerror}.", hint="Free space on this machine."
            ) from error

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def digest_chain(chain: Sequence[bytes]) -> str:
    """SHA-256 (hex) over the DER of every served certificate, in served order; empty text for no certificate."""
    return hashlib.sha256(b"".join(chain)).hexdigest() if chain else ""


def read_entries(path: Path) -> Iterator[Entry]:
    """The lines of a journal. A last line without its end is one that is being written, and is left out.

    Raises:
        UnexpectedError: a line that is none.

    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _ENTRY.validate_json(line)
            except ValidationError:
                raise UnexpectedError(
                    f"Line {number} of the visitor's journal {path} cannot be read.", hint="Was the file altered?"
                ) from None


def read_journal(path: Path) -> VisitorSummary:
    """What the journal adds up to so far; the visitor may still be writing it.

    Raises:
        UnexpectedError: a line that is none.

    """
    return summarise(read_entries(path))


def summarise(entries: Iterable[Entry]) -> VisitorSummary:
    """What entries add up to."""
    lines = sorted(entries, key=lambda entry: entry.at)
    visits = [entry for entry in lines if entry.kind in VISITS]
    checkins = [entry for entry in lines if entry.kind is Kind.CHECKIN]
    ends = [entry.at for entry in lines if entry.kind is Kind.END]
    outages = find_outages(visits)
    return VisitorSummary(
        requests_sent=len(visits),
        requests_lost=sum(not entry.ok for entry in visits),
        records_written=tuple(dict.fromkeys(e.lsid for e in visits if e.kind is Kind.SESSION and e.ok and e.status == 201)),
        outages=outages,
        downtime_seconds=sum(outage.seconds for outage in outages),
        checkins_sent=len(checkins),
        checkins_lost=sum(not entry.ok for entry in checkins),
        clients_seen=tuple(sorted({entry.client for entry in checkins if entry.ok})),
        lookups=sum(entry.kind is Kind.LOOKUP for entry in lines),
        good_by_address=_count(entry.address for entry in visits if entry.ok),
        lost_by_address=_count(entry.address for entry in visits if not entry.ok),
        leaves=tuple(dict.fromkeys(entry.leaf for entry in lines if entry.leaf)),
        chains=tuple(dict.fromkeys(entry.chain for entry in lines if entry.chain)),
        errors=_count(entry.error for entry in visits if not entry.ok),
        slowest_ms=max((entry.ms for entry in visits if entry.ok), default=0.0),
        began_at=lines[0].at if lines else None,
        ended_at=ends[-1] if ends else (lines[-1].answered_at if lines else None),
        ended=bool(ends),
    )


def find_outages(visits: Sequence[Entry]) -> tuple[Outage, ...]:
    """Runs of failed requests, in the order they were sent, each with the good answers around it.

    Requests overlap: one that was sent before the first failure may be answered after it. An outage is never shorter than nothing.
    """
    outages: list[Outage] = []
    good: Entry | None = None
    failed: list[Entry] = []
    for entry in visits:
        if not entry.ok:
            failed.append(entry)
            continue
        if failed:
            outages.append(_outage(good, failed, entry))
            failed = []
        good = entry
    if failed:
        outages.append(_outage(good, failed, None))
    return tuple(outages)


def _outage(before: Entry | None, failed: Sequence[Entry], after: Entry | None) -> Outage:
    since = before.answered_at if before is not None else failed[0].at
    until = after.answered_at if after is not None else max(entry.answered_at for entry in failed)
    return Outage(min(since, until), until, len(failed), over=after is not None)


def _count(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(words).items()))
