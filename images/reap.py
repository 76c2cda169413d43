"""What of ours is over, or was left by a process that died: found, told, removed. Nothing of anybody else is touched.

A domain is ours only where two records agree: the mark in its metadata, and the ledger (what it has, or what was removed from it) or the
claim among its files, in this home or in our pool on the hypervisor.
Machines of migrations are never reaped: only what a lab or a template asked for.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from images import lab, template
from images.domain import Mark
from images.errors import NotOursError
from images.hypervisor import DomainFacts
from images.ledger import Entry, EntryState, LabEntry
from images.locking import is_alive
from images.machine import Machines

LOOKS = 5
SETTLE_SECONDS = 0.5


class Kind(enum.Enum):
    """What is to be removed."""

    MACHINE = "machine"  # in the ledger
    LOST = "lost machine"  # a domain with our mark, which its folder claims or which was removed; the ledger does not have it
    FOLDER = "folder"  # of a machine that neither ledger nor hypervisor knows
    RECORD = "record"  # in the ledger, of an appliance that was never made
    TEMPLATE = "template"  # half made, damaged, or of an image that is gone
    STORED = "copy on the hypervisor"  # of an image that is gone or was never sent in full; or our pool there, when it is empty


@dataclass(frozen=True)
class Leftover:
    """One thing to remove. ``key``: the machine's name, the folder's name or the request; ``uuid``: of the domain, where there is one."""

    kind: Kind
    key: str
    reason: str
    uuid: str = ""


def plan_reap(machines: Machines, *, now: float | None = None) -> tuple[Leftover, ...]:
    """All that may be removed now; ``now`` in seconds since 1970. Changes nothing."""
    moment = time.time() if now is None else now
    # Files and domains first: whatever of these belongs to a machine that is just being made has its entry before.
    claims = machines.place.list_claims()
    domains = {domain.uuid: domain for domain in machines.hypervisor.list_domains()}
    entries = {entry.uuid: entry for entry in machines.ledger.list_entries()}
    known, used = machines.ledger.list_lab(), frozenset(entry.image for entry in entries.values())
    removed = machines.ledger.list_removed()
    return (
        *_find_machines(entries, known, moment),
        *_find_lost(entries, domains, claims, removed),
        *_find_folders(entries, domains, claims, {} if machines.place.is_here else removed),
        *_find_records(entries, known),
        *(Leftover(Kind.TEMPLATE, name, reason) for name, reason in template.find_over(machines)),
        *(Leftover(Kind.STORED, key, reason) for key, reason in machines.place.list_over(used, idle=not entries and not known)),
    )


def reap(machines: Machines) -> tuple[Leftover, ...]:
    """Remove all that may be removed now, and say what that was.

    Looks again after removing something: what a killed process had asked the daemon for may come to be only then.

    Raises:
        As :func:`apply_reap`.

    """
    removed: list[Leftover] = []
    for _ in range(LOOKS):
        found = plan_reap(machines)
        if not found:
            break
        for one in found:
            apply_reap(machines, one)
        removed += found
        time.sleep(SETTLE_SECONDS)
    return tuple(removed)


def apply_reap(machines: Machines, one: Leftover) -> None:
    """Remove it, where it is still what it was.

    Raises:
        NotOursError: the domain of that name is not the one that was found.

    """
    if one.kind is Kind.MACHINE:
        machines.ensure_removed(one.key)
    elif one.kind is Kind.LOST:
        _remove_lost(machines, one)
    elif one.kind is Kind.FOLDER:
        # What was a machine's may have become a template's since.
        if one.key in machines.place.list_claims():
            machines.place.remove(one.key)
    elif one.kind is Kind.RECORD:
        machines.ledger.forget_lab(one.key)
    elif one.kind is Kind.STORED:
        machines.place.remove_over(one.key)
    else:
        template.remove_over(machines, one.key)


def _find_machines(entries: dict[str, Entry], known: dict[str, LabEntry], now: float) -> Iterator[Leftover]:
    for entry in entries.values():
        record = known.get(entry.request)
        if entry.request.startswith(template.REQUEST):
            maker = entry.request.rpartition("@")[2]
            if not is_alive(maker):
                yield Leftover(Kind.MACHINE, entry.name, "the process that made this template is gone", entry.uuid)
        elif entry.state is EntryState.REMOVING and entry.request.startswith(lab.REQUEST):
            yield Leftover(Kind.MACHINE, entry.name, "its removal was cut off", entry.uuid)
        elif record is not None and record.expires is not None and record.expires <= now:
            yield Leftover(Kind.MACHINE, entry.name, f"its time was over {now - record.expires:.0f} s ago", entry.uuid)
        elif record is not None and record.ready_seconds is None and not is_alive(record.maker):
            yield Leftover(Kind.MACHINE, entry.name, "the process that made it is gone, and it never was ready", entry.uuid)


def _find_lost(
    entries: dict[str, Entry], domains: dict[str, DomainFacts], claims: Mapping[str, Mark | None], removed: Mapping[str, Mark]
) -> Iterator[Leftover]:
    for domain in domains.values():
        if domain.uuid in entries:
            continue
        if _was_removed(domain, removed):
            yield Leftover(Kind.LOST, domain.name, "it was removed, and came to be after that: its maker was killed", domain.uuid)
        elif _is_claimed(domain, claims):
            yield Leftover(
                Kind.LOST, domain.name, "its folder and its mark say that it is ours, and the ledger does not know it", domain.uuid
            )


def _was_removed(domain: DomainFacts, removed: Mapping[str, Mark]) -> bool:
    return domain.mark is not None and removed.get(domain.uuid) == domain.mark


def _is_ours(machines: Machines, domain: DomainFacts) -> bool:
    return _was_removed(domain, machines.ledger.list_removed()) or _is_claimed(domain, machines.place.list_claims())


def _is_claimed(domain: DomainFacts, claims: Mapping[str, Mark | None]) -> bool:
    claim = claims.get(domain.uuid)
    return claim is not None and claim == domain.mark and _is_disposable(claim)


def _is_disposable(mark: Mark) -> bool:
    return mark.request.startswith((lab.REQUEST, template.REQUEST))


def _find_folders(
    entries: dict[str, Entry], domains: dict[str, DomainFacts], claims: Mapping[str, Mark | None], removed: Mapping[str, Mark]
) -> Iterator[Leftover]:
    """Files are made after their ledger entry and removed before it, so that those without an entry are over."""
    for machine, claim in claims.items():
        known = claim or removed.get(machine)  # a volume that a killed process had asked for may come to be after its claim was deleted
        if known is not None and _is_disposable(known) and machine not in entries and machine not in domains:
            yield Leftover(Kind.FOLDER, machine, "neither the ledger nor the hypervisor knows its machine", machine)


def _find_records(entries: dict[str, Entry], known: dict[str, LabEntry]) -> Iterator[Leftover]:
    requests = {entry.request for entry in entries.values()}
    for record in known.values():
        if record.request not in requests and not is_alive(record.maker):
            yield Leftover(Kind.RECORD, record.request, "its machine was never made")


def _remove_lost(machines: Machines, one: Leftover) -> None:
    with machines.only(one.key):
        domain = machines.hypervisor.find_domain(one.key)
        if domain is not None and (domain.uuid != one.uuid or not _is_ours(machines, domain)):
            raise NotOursError(f"The domain {one.key} is another one than before; it is left alone.")
        if domain is not None:
            if not domain.power.is_off:
                machines.hypervisor.destroy(domain.uuid)
            machines.hypervisor.undefine(domain.uuid)
        machines.place.remove(one.uuid)
