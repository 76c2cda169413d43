"""A failover pair: establishing and breaking it, data syncs, changes of roles, conflicts. What the pages, the API and the peer ask for."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import Busy, Refused
from .gate import Gate
from .letters import Letter, Peer, PeerSilent, read_key
from .pairs import Door, Kind, Pair, Pairs, Role, Works
from .pulling import Pull
from .sharing import Sharing
from .widgets import Say

if TYPE_CHECKING:
    from .core import Appliance

log = logging.getLogger(__name__)
FIRST_SYNC = 60.0  # seconds after the pair was established
QUICK = 5.0  # seconds for a look at the peer
RUNNING = "A data sync or a role change is running. Try again when it has ended."
SYNCED_WELL = "The data sync has ended well."


class Failover:
    """One box's part in a pair."""

    def __init__(self, box: Appliance) -> None:
        self.box = box
        self.pairs = Pairs(box.store)
        self.works = Works(box.store)
        self.gate = Gate()
        self.sharing = Sharing(box)
        self._turn = threading.Lock()  # one data sync or role change led by this box at a time

    @property
    def role(self) -> Role:
        return Role(self.box.store.site.setting("failover_role", "none"))

    def verify_serving(self) -> None:
        """Clients of the site are answered here.

        Raises:
            Busy: this is the backup of a pair.

        """
        if self.role is Role.BACKUP:
            raise Busy("This site is the backup of a failover pair; the primary site answers.")

    # looking at each other

    def describe(self) -> dict[str, Any]:
        """What a peer is told of this box."""
        pair = self.pairs.read()
        return {
            "guid": self.box.guid,
            "hostname": self.box.hostname,
            "role": pair.role.value,
            "peer_guid": pair.peer_guid,
            "term": pair.term,
            "version": f"{self.box.site.version} ({self.box.site.build})",
            "shared": self.sharing.enabled(),
            "addresses": [row.address for row in self.box.network.rows() if row.enabled],
        }

    def look(self) -> dict[str, Any] | None:
        """Ask the peer who it is, and note it; None where it does not tell."""
        pair, door = self.pairs.need()
        peer = Peer(self.box, door, timeout=QUICK)
        try:
            said = peer.ask("hello")
            self.verify_ours(pair, said)
        except Refused as problem:
            self.pairs.save_seen(None, problem)
            return None
        finally:
            peer.close()
        self.pairs.save_seen(Role(said["role"]), None)
        return said

    def is_conflict(self) -> bool:
        """Whether both have the same role; a role that was seen before a change is looked at again."""
        if self.pairs.is_conflict():
            self.look()
        return self.pairs.is_conflict()

    def verify_ours(self, pair: Pair, said: dict[str, Any]) -> None:
        if said["guid"] != pair.peer_guid:
            raise Refused("At the peer's address another appliance answers: {hostname}.", hostname=said["hostname"])
        if said["role"] == "none" or said["peer_guid"] != self.box.guid:
            raise Refused("The peer site does not know this relationship (any more).")

    def verify_same_version(self, theirs: str) -> None:
        """Both run the same package.

        Raises:
            Refused: they do not.

        """
        ours = f"{self.box.site.version} ({self.box.site.build})"
        if theirs != ours:
            raise Refused("The two sites do not run the same software: {ours} here, {theirs} at the peer site.", ours=ours, theirs=theirs)

    # establishing and breaking

    def establish(self, peer: Door, reverse: Door) -> None:
        """Become the primary of a pair with the site at ``peer``, which reaches this one at ``reverse``.

        Raises:
            Refused: it cannot be; both sites are as they were.

        """
        self.box.jobs.verify_idle()
        pair = self.pairs.read()
        if pair.role is not Role.NONE:
            raise Refused("This appliance is in a failover pair already.")
        read_key(self.box)
        shared_name = self.box.store.site.setting("public_host")
        for door in (peer, reverse):
            if shared_name and door.host.lower() == shared_name.lower():
                raise Refused("{host} is the name that both sites share; give the appliance's own address.", host=door.host)
        there = Peer(self.box, peer)
        try:
            said = there.ask("hello")
            self._verify_new(peer, said)
            term = max(pair.term, said["term"]) + 1
            facts = {"primary": [reverse.host, reverse.port], "peer": [peer.host, peer.port], "term": term}
            there.ask("join", facts | {"version": self.describe()["version"]})
        finally:
            there.close()
        self._begin_pair(replace(pair, role=Role.PRIMARY, peer=peer, reverse=reverse, peer_guid=said["guid"], term=term))

    def _verify_new(self, door: Door, said: dict[str, Any]) -> None:
        if said["guid"] == self.box.guid:
            raise Refused("{peer} is this appliance itself.", peer=door)
        self.verify_same_version(said["version"])
        if said["role"] == "primary" or (said["role"] == "backup" and said["peer_guid"] != self.box.guid):
            raise Refused("The site at {peer} is in a failover pair already: break that relationship first.", peer=door)

    def _begin_pair(self, pair: Pair) -> None:
        self.box.store.box.run("delete from setting where name in ('failover_seen', 'sync_position')")
        due = self.box.faults.now() + self.box.faults.seconds("first-sync-seconds", FIRST_SYNC)
        self.box.store.box.set(sync_due=due)
        self.pairs.save(pair)
        self.pairs.note("The relationship was established.")

    def join(self, letter: Letter) -> dict[str, Any]:
        """Asked by the site that becomes the primary: be its backup."""
        said = letter.content
        self.box.jobs.verify_idle()
        pair = self.pairs.read()
        if pair.role is Role.PRIMARY or (pair.role is Role.BACKUP and pair.peer_guid != letter.guid):
            raise Refused("This site is in a failover pair already: break that relationship first.")
        self.verify_same_version(said["version"])
        primary, own = Door(*said["primary"]), Door(*said["peer"])
        back = Peer(self.box, primary, timeout=QUICK)
        try:
            answer = back.ask("hello")
        except PeerSilent as silent:
            raise Refused("The new backup site cannot reach the primary site at {door}.", door=primary) from silent
        finally:
            back.close()
        if answer["guid"] != letter.guid:
            raise Refused("At {door}, given as this primary site, another appliance answers.", door=primary)
        self._begin_pair(replace(pair, role=Role.BACKUP, peer=primary, reverse=own, peer_guid=letter.guid, term=said["term"] - 1))
        self.sharing.follow()
        return {}

    def break_up(self) -> bool:
        """End the relationship, here and at the peer; answers whether the peer could be told."""
        _, door = self.pairs.need()
        self._verify_idle()
        peer = Peer(self.box, door, timeout=QUICK)
        try:
            peer.ask("leave")
            told = True
        except Refused as refused:
            log.warning("the peer could not be told of the end: %s", refused)
            told = False
        finally:
            peer.close()
        self._end_pair()
        return told

    def left(self) -> dict[str, Any]:
        """Asked by the peer: the relationship has ended."""
        self._verify_idle()
        self._end_pair()
        return {}

    def _end_pair(self) -> None:
        self.pairs.forget()
        self.pairs.note("The relationship was broken.")

    def _verify_idle(self) -> None:
        running = self.works.find_running(*Kind)
        if running is not None:
            raise Busy(RUNNING)

    # data syncs

    def start_sync(self) -> None:
        """Sync Now: the backup pulls; the primary asks it to.

        Raises:
            Refused: not in a pair, in a conflict, or the peer does not answer.

        """
        pair, door = self.pairs.need()
        if self.is_conflict():
            raise Refused("Resolve the conflict first.")
        if pair.role is Role.PRIMARY:
            peer = Peer(self.box, door, timeout=QUICK)
            try:
                peer.ask("pull")
            finally:
                peer.close()
            return
        if self.works.find_running(Kind.PULL) is None:
            self.begin(Kind.PULL, self._sync)

    def begin(self, kind: Kind, work: Callable[[], Say]) -> None:
        """Run ``work`` beside the requests; it answers the sentence that is written down when it has ended well.

        Raises:
            Busy: something else is running.

        """
        number = self._take_turn(kind)
        threading.Thread(target=self._carry_out, args=(number, work), name=kind.value, daemon=True).start()

    def carry_out_now(self, kind: Kind, work: Callable[[], Say]) -> None:
        """As :meth:`begin`, within the request.

        Raises:
            Refused: what ``work`` raises.

        """
        number = self._take_turn(kind)
        try:
            said = work()
            self.works.end(number, "finished", said.text, **said.facts)
        except Refused as refused:
            self.works.end(number, "failed", refused.sentence, **refused.facts)
            raise
        finally:
            self._turn.release()

    def _take_turn(self, kind: Kind) -> int:
        self.box.jobs.verify_idle()
        if not self._turn.acquire(blocking=False):
            raise Busy(RUNNING)
        try:
            return self.works.start(kind, "Running")
        except BaseException:
            self._turn.release()
            raise

    def _carry_out(self, number: int, work: Callable[[], Say]) -> None:
        try:
            said = work()
            self.works.end(number, "finished", said.text, **said.facts)
        except Refused as refused:
            self.works.end(number, "failed", refused.sentence, **refused.facts)
            self.pairs.note(refused.sentence, **refused.facts)
        except Exception:
            log.exception("failover work %s failed", number)
            self.works.end(number, "failed", "It failed for a reason that is in the appliance's log.")
        finally:
            self._turn.release()
            self.box.store.close()

    def _sync(self) -> Say:
        pair, door = self.pairs.need()
        if pair.role is not Role.BACKUP:
            raise Refused("Only a backup site takes data.")
        self.box.store.box.set(sync_due=self.box.faults.now() + 60 * max(pair.interval, 1))
        peer = Peer(self.box, door)
        try:
            running = self.works.find_running(Kind.PULL)
            self._pull(peer, running.id if running is not None else 0, lambda: None)
        finally:
            peer.close()
        return Say(SYNCED_WELL)

    def pull(self, peer: Peer, each: Callable[[], None] = lambda: None) -> None:
        """A data sync as part of a change of roles; ``each`` is called as often as progress is told."""
        number = self.works.start(Kind.PULL, "Running")
        try:
            self._pull(peer, number, each)
        except Refused as refused:
            self.works.end(number, "failed", refused.sentence, **refused.facts)
            raise
        except BaseException:
            self.works.end(number, "failed", "It failed for a reason that is in the appliance's log.")
            raise
        self.works.end(number, "finished", SYNCED_WELL)

    def _pull(self, peer: Peer, number: int, each: Callable[[], None]) -> None:
        """Pull, and tell the peer how it goes."""
        name = str(uuid.uuid4())
        said = peer.ask("begin", {"sync": name, "version": self.describe()["version"]})
        self.verify_ours(self.pairs.read(), said)

        def tell(done: int, total: int) -> None:
            self.works.count(number, done, total)
            peer.ask("progress", {"sync": name, "done": done, "total": total})
            each()

        try:
            Pull(self.box, peer, tell).run()
        except Refused as refused:
            self._tell_end(peer, {"sync": name, "state": "failed", "step": refused.sentence, "facts": _texts(refused)})
            raise
        self._tell_end(peer, {"sync": name, "state": "finished", "step": SYNCED_WELL, "facts": {}})
        self.box.store.box.set(last_sync=self.box.faults.now())

    def _tell_end(self, peer: Peer, facts: dict[str, Any]) -> None:
        try:
            peer.ask("end", facts)
        except Refused as refused:
            log.warning("the primary site could not be told how the data sync ended: %s", refused)


def _texts(refused: Refused) -> dict[str, str]:
    return {name: str(value) for name, value in refused.facts.items()}
