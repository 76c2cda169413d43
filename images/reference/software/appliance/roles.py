"""Changes of roles in a failover pair, and conflicts.

The backup leads: it pulls while the primary goes on serving, lets the primary hold its writers, pulls the rest, lets it step down, and
only then becomes the primary itself. Whatever dies in between, no two sites take data at once, and what is named on the page can be
tried again.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .changes import read_position
from .errors import Refused
from .letters import Peer, PeerSilent
from .pairs import Kind, Pair, Role
from .widgets import Say

if TYPE_CHECKING:
    from .core import Appliance

log = logging.getLogger(__name__)
HOLD = 20.0  # seconds that the primary refuses to take data without a word from the backup
PATIENCE = 60.0


class Roles:
    """Who is the primary."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._pairs = box.failover.pairs

    def change(self, role: Role, *, sync_first: bool, force: bool = False) -> bool:
        """Become the primary or the backup; the peer takes the other role. Answers True where it is done, False where it has begun.

        Raises:
            Refused: it cannot be; says why. Nothing is changed then.

        """
        pair, _ = self._pairs.need()
        self._box.jobs.verify_idle()
        if pair.role is role and not self._pairs.is_conflict():
            raise Refused("This site has that role already.")
        if role is Role.PRIMARY:
            return self._become_primary(sync_first=sync_first)
        said = self._box.failover.look()
        if said is None and not force:
            problem = self._pairs.read_seen().problem
            raise Refused(problem.text, **problem.facts) if problem is not None else Refused("The peer site does not answer.")
        if said is None or said["role"] == "primary":
            self.step_down({})
            return True
        return self._let_take(sync_first=sync_first)

    def _let_take(self, *, sync_first: bool) -> bool:
        """Let the peer become the primary; the work is written down before it is asked, since it may end before the answer is here."""
        works = self._box.failover.works
        works.start(Kind.AWAIT, "Running")
        try:
            done = bool(self._ask("take", {"sync_first": sync_first})["done"])
        except Refused as refused:
            works.end_awaited("failed", refused.sentence, **refused.facts)
            raise
        if done:
            works.end_awaited("finished", "This site became the backup.")
        return done

    def _ask(self, word: str, content: dict[str, Any]) -> dict[str, Any]:
        _, door = self._pairs.need()
        peer = Peer(self._box, door, timeout=PATIENCE)
        try:
            return peer.ask(word, content)
        finally:
            peer.close()

    def take(self, said: dict[str, Any]) -> dict[str, Any]:
        """Asked by the peer, which wants to be the backup: become the primary."""
        if self._box.failover.role is Role.PRIMARY:
            return {"done": True}
        return {"done": self._become_primary(sync_first=bool(said["sync_first"]))}

    def _become_primary(self, *, sync_first: bool) -> bool:
        if sync_first:
            self._box.failover.begin(Kind.ROLE, self._take_over_or_tell)
        else:
            self._box.failover.carry_out_now(Kind.ROLE, lambda: self._take_over(sync_first=False))
        return not sync_first

    def _take_over_or_tell(self) -> Say:
        """With a data sync first; the peer, which may have asked for it, is told why it did not come to it."""
        try:
            return self._take_over(sync_first=True)
        except Refused as refused:
            facts = {name: str(value) for name, value in refused.facts.items()}
            try:
                self._ask("not_taken", {"step": refused.sentence, "facts": facts})
            except Refused as silent:
                log.warning("the peer could not be told that the roles stay: %s", silent)
            raise

    def _take_over(self, *, sync_first: bool) -> Say:
        pair, door = self._pairs.need()
        peer = Peer(self._box, door, timeout=PATIENCE)
        token = str(uuid.uuid4())
        try:
            said = self._find_peer(peer, pair, needed=sync_first)
            if said is not None:
                facts: dict[str, Any] = {"token": "", "position": None}
                if sync_first and _has_later_data(pair, said):
                    self._sync_twice(peer, token)
                    facts = {"token": token, "position": [self._box.guid, *read_position(self._box.store)]}
                self._let_step_down(peer, facts)
        finally:
            peer.close()
        self._be_primary(max(pair.term, said["term"] if said is not None else 0) + 1)
        if said is None:
            return Say("This site is the primary site now; the peer site could not be told.")
        return Say("This site is the primary site now.")

    def _find_peer(self, peer: Peer, pair: Pair, *, needed: bool) -> dict[str, Any] | None:
        try:
            said = peer.ask("hello")
        except PeerSilent:
            if needed:
                raise
            return None
        self._box.failover.verify_ours(pair, said)
        return said

    def _sync_twice(self, peer: Peer, token: str) -> None:
        """First while the primary goes on serving; then the rest, while it takes nothing."""
        self._box.failover.pull(peer)
        held_at = 0.0

        def hold() -> None:
            nonlocal held_at
            if time.monotonic() - held_at > HOLD / 4:
                peer.ask("hold", {"token": token, "seconds": HOLD})
                held_at = time.monotonic()

        try:
            hold()
            self._box.failover.pull(peer, hold)
        except Refused:
            self._release(peer, token)
            raise

    def _release(self, peer: Peer, token: str) -> None:
        try:
            peer.ask("release", {"token": token})
        except Refused as refused:
            log.warning("the primary site could not be released; it goes on by itself after %s s: %s", HOLD, refused)

    def _let_step_down(self, peer: Peer, facts: dict[str, Any]) -> None:
        try:
            peer.ask("step_down", facts)
        except PeerSilent as silent:
            raise Refused(
                "It is not known whether the peer site stepped down: {peer} does not answer. This site is still the backup; try again.",
                peer=silent.facts.get("peer", ""),
            ) from silent

    def _be_primary(self, term: int) -> None:
        self._pairs.save(replace(self._pairs.read(), role=Role.PRIMARY, term=term))
        self._pairs.save_seen(Role.BACKUP, None)
        self._pairs.note("This site became the primary.")
        self.follow_addresses()

    def follow_addresses(self) -> None:
        """Shared addresses; where one is not free, the role counts all the same, and the box goes on trying."""
        try:
            self._box.failover.sharing.follow()
        except Refused as refused:
            self._pairs.note(refused.sentence, **refused.facts)

    def step_down(self, said: dict[str, Any]) -> dict[str, Any]:
        """Become the backup. ``token``: who holds the writers since the last data sync; ``position``: where the next one goes on.

        Raises:
            Refused: the writers are not held any more, so that data may have come since. Nothing was changed.

        """
        pair, _ = self._pairs.need()
        gate, token = self._box.failover.gate, said.get("token") or str(uuid.uuid4())
        if pair.role is Role.BACKUP:
            gate.release(token)
            return {"role": "backup"}
        self._box.jobs.verify_idle()
        if not said.get("token"):
            gate.hold(token, HOLD)
        if not gate.keep(token):
            raise Refused("The primary site may have taken data since the data sync. Nothing was changed; try again.")
        try:
            time.sleep(self._box.faults.seconds("step-down-seconds"))
            self._save_backup(pair, said.get("position"))
            self._box.failover.sharing.follow()
        finally:
            gate.release(token)
        return {"role": "backup"}

    def _save_backup(self, pair: Pair, position: list[Any] | None) -> None:
        """Without a position the next data sync compares everything, and merges first; it is due at once."""
        self._pairs.save(replace(pair, role=Role.BACKUP))
        now, box = self._box.faults.now(), self._box.store.box
        box.set(sync_due=now if position is None else now + 60 * max(pair.interval, 1))
        if position is None:
            box.run("delete from setting where name = 'sync_position'")
        else:
            box.set(sync_position=json.dumps(position))
        self._pairs.save_seen(None, None)
        self._pairs.note("This site became the backup.")
        self._box.failover.works.end_awaited("finished", "This site became the backup.")

    # conflicts

    def fix(self) -> None:
        """Fix This Error: one of the two that have the same role takes the other one.

        Raises:
            Refused: there is no conflict, or the peer does not answer.

        """
        pair, _ = self._pairs.need()
        said = self._box.failover.look()
        if said is None:
            problem = self._pairs.read_seen().problem
            raise Refused(problem.text, **problem.facts) if problem is not None else Refused("The peer site does not answer.")
        if said["role"] != pair.role.value:
            raise Refused("There is no conflict.")
        is_winner = self._is_primary_by_right(pair, said)
        if pair.role is Role.PRIMARY:
            if is_winner:
                self._ask("step_down", {})
                self._be_primary(max(pair.term, said["term"]) + 1)
            else:
                self.step_down({})
        elif is_winner:
            self._become_primary(sync_first=False)
        else:
            self._ask("take", {"sync_first": False})
        self._box.failover.look()
        self._pairs.note(
            "The conflict was resolved; the primary site is {hostname}.", hostname=self._box.hostname if is_winner else said["hostname"]
        )

    def _is_primary_by_right(self, pair: Pair, said: dict[str, Any]) -> bool:
        """Who holds the shared address; else who the site's name leads to; else who became primary last."""
        ours, theirs = self._box.failover.sharing.enabled(), said["shared"]
        if bool(ours) != bool(theirs):
            return bool(ours)
        led = _resolve(self._box.store.site.setting("public_host"))
        here = bool(led & {row.address for row in self._box.network.rows() if row.enabled})
        there = bool(led & set(said["addresses"]))
        if here != there:
            return here
        return (pair.term, self._box.guid) > (said["term"], said["guid"])


def _has_later_data(pair: Pair, said: dict[str, Any]) -> bool:
    """Whether the peer was the primary after this site was (it is, unless both were left as backups)."""
    return said["role"] == "primary" or int(said["term"]) > pair.term


def _resolve(name: str) -> set[str]:
    if not name:
        return set()
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)}
    except OSError:
        return set()
