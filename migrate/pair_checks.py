"""Findings about a failover pair, from what both boxes say. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kit.findings import Finding, Severity
from migrate.facts import FailoverFacts, FailoverRole, Identity, Version, WorkState

UNKNOWN_PEER = "peer-unknown"
ANEW = "boxshift failover break, then establish, which sets the plan's key on both."


@dataclass(frozen=True)
class HalfFacts:
    """One box of a pair, read once. ``clock_offset`` in seconds."""

    identity: Identity
    base: Version
    site: Version
    failover: FailoverFacts
    clock_offset: float


@dataclass(frozen=True)
class PairFacts:
    """Both boxes; None where one could not be read, and ``notes`` says why, by ``a`` and ``b``."""

    a: HalfFacts | None
    b: HalfFacts | None
    notes: dict[str, str]

    def halves(self) -> Iterator[tuple[str, HalfFacts]]:
        """Those that could be read."""
        yield from ((name, half) for name, half in (("a", self.a), ("b", self.b)) if half is not None)

    def find(self, role: FailoverRole) -> tuple[str, ...]:
        """The boxes in that role."""
        return tuple(name for name, half in self.halves() if half.failover.role is role)

    def is_led_by(self, name: str) -> bool:
        """Whether that box is the primary and the other one its backup."""
        return self.find(FailoverRole.PRIMARY) == (name,) and len(self.find(FailoverRole.BACKUP)) == 1

    @property
    def state(self) -> str:
        """The pair in a word or two."""
        roles = {name: half.failover.role for name, half in self.halves()}
        if len(roles) < 2:
            return "not wholly known"
        if roles["a"] is roles["b"]:
            return {FailoverRole.NONE: "no relationship", FailoverRole.PRIMARY: "conflict: both primary"}.get(
                roles["a"], "conflict: both backup"
            )
        if FailoverRole.NONE in roles.values():
            return "one-sided: only one box knows of the relationship"
        return f"{self.find(FailoverRole.PRIMARY)[0]} primary, {self.find(FailoverRole.BACKUP)[0]} backup"


def check_pair(pair: PairFacts) -> tuple[Finding, ...]:
    """Everything that stands against using the pair as one."""
    found = [
        Finding("box-unread", Severity.BLOCKER, f"Box {name} could not be read: {note}", "Reach it first.", name)
        for name, note in pair.notes.items()
    ]
    if pair.a is not None and pair.b is not None:
        found += [*_same(pair.a, pair.b), *_versions(pair.a, pair.b), *_shared(pair.a, pair.b)]
    found += [*_roles(pair), *(finding for name, half in pair.halves() for finding in _work(name, half))]
    return tuple(sorted(found, key=lambda finding: finding.severity.rank))


def check_joined(pair: PairFacts) -> tuple[Finding, ...]:
    """The same for the boxes of a migration (``a`` the old one, ``b`` the new one) before the new one takes the role over."""
    found = check_pair(pair)
    if pair.is_led_by("a") or any(one.severity is Severity.BLOCKER for one in found):
        return found
    sentence = f"The old box is not the primary with the new one as its backup: {pair.state}."
    hint = "Somebody changed the pair since the new box joined it: boxshift failover swap or establish, or boxshift rollback."
    return (Finding("pair-not-ready", Severity.BLOCKER, sentence, hint, "pair"), *found)


def _same(a: HalfFacts, b: HalfFacts) -> Iterator[Finding]:
    if a.identity.guid and a.identity.guid == b.identity.guid:
        yield Finding("same-box", Severity.BLOCKER, f"Both addresses lead to the box {a.identity.guid}.", "Correct the plan.", "b")


def _versions(a: HalfFacts, b: HalfFacts) -> Iterator[Finding]:
    for what, one, other in (("site", a.site, b.site), ("base", a.base, b.base)):
        if one != other:
            severity = Severity.BLOCKER if what == "site" else Severity.WARNING
            sentence = f"The boxes run different {what} software: a {one.version or '(none)'}, b {other.version or '(none)'}."
            yield Finding("versions-differ", severity, sentence, "Both need the same package before they can be a pair.", "b")


def _shared(a: HalfFacts, b: HalfFacts) -> Iterator[Finding]:
    ticked = [{row.address for row in half.failover.shared if row.shared} for half in (a, b)]
    if ticked[0] != ticked[1]:
        names = ", ".join(sorted(ticked[0] ^ ticked[1]))
        yield Finding("shared-differs", Severity.WARNING, f"Only one box shares {names}.", "boxshift failover establish ticks them.", "b")
    # The same address that neither shares is each box's own, in networks that do not know each other.
    theirs = {row.address: row for row in b.failover.shared if row.enabled}
    ours = {row.address: row for row in a.failover.shared if row.enabled}
    both = [address for address, row in ours.items() if address in theirs and (row.shared or theirs[address].shared)]
    if both:
        yield Finding(
            "shared-on-both",
            Severity.BLOCKER,
            f"Both boxes have {', '.join(both)} enabled.",
            "Disable it on the one that is no primary.",
            "b",
        )


def _roles(pair: PairFacts) -> Iterator[Finding]:
    if pair.state.startswith("conflict"):
        yield Finding(
            "conflict",
            Severity.BLOCKER,
            f"The pair is in {pair.state}.",
            "boxshift failover resolve lets the boxes decide, as their page offers; or break the relationship and establish it anew.",
            "pair",
        )
    if pair.state.startswith("one-sided"):
        yield Finding("one-sided", Severity.BLOCKER, "Only one box knows of the relationship.", "boxshift failover break ends it.", "pair")


def _work(name: str, half: HalfFacts) -> Iterator[Finding]:
    facts = half.failover
    for what, state in (("data sync", facts.sync), ("change of roles", facts.role_change)):
        if state is WorkState.RUNNING:
            hint = "The same command waits for its end; failover swap --primary says which box is meant."
            yield Finding("pair-at-work", Severity.NOTE, f"A {what} is running at box {name}.", hint, name)
    if facts.sync is WorkState.FAILED:
        note = facts.sync_note or "it does not say why"
        yield Finding("sync-failed", Severity.WARNING, f"The last data sync of {name} failed: {note}", "boxshift failover sync", name)
    if facts.role_change is WorkState.FAILED:
        note = facts.role_change_note or "it does not say why"
        hint = "The roles are as they stand here. failover swap --primary, with the box that is meant, tries again."
        yield Finding("role-change-failed", Severity.WARNING, f"The last change of roles of {name} failed: {note}", hint, name)
    if facts.role is FailoverRole.BACKUP and facts.last_sync is None:
        yield Finding(
            "never-synced", Severity.WARNING, f"Box {name} is the backup and has never been synced.", "boxshift failover sync", name
        )
    if facts.role is not FailoverRole.NONE and facts.peer_role is None and facts.peer_note:
        sentence = f"Box {name} does not reach the other: {facts.peer_note}"
        yield Finding(UNKNOWN_PEER, Severity.WARNING, sentence, "Mend the way between them. Where their keys differ: " + ANEW, name)
