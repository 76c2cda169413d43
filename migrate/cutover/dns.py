"""Cutover by DNS: the site's address record is changed by signed dynamic updates (RFC 2136, RFC 8945).

Every update carries prerequisites: the record must be exactly what was read, or the server changes nothing. What it did is read back
from every authoritative server, asked as visitors' resolvers ask it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

import dns.exception
import dns.flags
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.update

from kit.progress import Progress, Silent
from kit.waiting import wait_for
from migrate.cutover.contract import Change, Cutover, CutoverState, Preparation, Side, Witness
from migrate.cutover.dns_values import (
    DnsAnswerError,
    DnsChangedError,
    DnsCutoverPlan,
    DnsRecordError,
    DnsZoneError,
    Move,
    NameServer,
    parse_dns_name,
)
from migrate.cutover.dns_wire import Answer, ask, ask_raw, send_update

UPDATE_SECONDS = 1.0  # a signed update and its reading back, on a server that is near
NAP = 5.0  # progress is told this often while a TTL runs out


class DnsCutover(Cutover):
    """Moves one name from the old address to the new one.

    ``clock`` gives Unix seconds; ``nap`` sleeps.
    """

    def __init__(self, plan: DnsCutoverPlan, *, clock: Callable[[], float] = time.time, nap: Callable[[float], None] = time.sleep) -> None:
        self.plan = plan
        self._name = parse_dns_name(plan.name)
        self._clock = clock
        self._nap = nap
        self._ttl = plan.ttl  # what the servers were last seen to give

    # reading

    def read_state(self) -> CutoverState:
        """What the update server and every authoritative server say now."""
        readings = [self._read(server) for server in self.servers]
        witnesses = tuple(self._witness(server, answers) for server, answers in zip(self.servers, readings, strict=True))
        ttls = tuple(max(answer.ttl for answer in column) for column in zip(*readings, strict=True))
        return CutoverState(_common_side(witnesses), witnesses, ttls, self._clock())

    @cached_property
    def zone(self) -> dns.name.Name:
        """The zone that holds the name, as the plan says or as its SOA record tells.

        Raises:
            DnsZoneError: the server serves no such zone.

        """
        start = parse_dns_name(self.plan.zone) if self.plan.zone is not None else self._name
        found = self._find_zone(start)
        if found is None or (self.plan.zone is not None and found != start):
            raise DnsZoneError(
                f"The name server {self.plan.server} does not serve a zone {_text(start)}."
                if self.plan.zone is not None
                else f"The name server {self.plan.server} does not serve the zone of {self.plan.name}.",
                hint="Give the address of the zone's primary server, and check the zone's name.",
            )
        return found

    @cached_property
    def servers(self) -> tuple[NameServer, ...]:
        """Who is asked: first the server that takes updates, then every server of the zone's NS records, then those the plan adds.

        Raises:
            DnsAnswerError: a server's address cannot be found, so what it says could not be told.

        """
        names = ask(self.plan.server, self.zone, "NS", timeout=self.plan.timeout).values
        if not names:
            raise DnsAnswerError(f"The zone {_text(self.zone)} has no NS records.", hint="Look into the zone.")
        given = {parse_dns_name(server.name): server for server in self.plan.authoritative if server.name}
        found = [self.plan.server]
        for text in names:
            name = dns.name.from_text(text)
            found += [given[name]] if name in given else self._find_servers(name)
        found += self.plan.authoritative
        # One server may be known by address only here and by name there: it is asked once, and shown with its name.
        unique: dict[tuple[str, int], NameServer] = {}
        for server in found:
            place = (server.address, server.port)
            if place not in unique or not unique[place].name:
                unique[place] = server
        return tuple(unique.values())

    # the contract

    def verify_ready(self) -> CutoverState:
        """The record can be switched, and the key may change it: tried by writing what is there already.

        Raises:
            DnsRecordError: not exactly the old box's address, everywhere.
            DnsZoneError, DnsKeyRefusedError, DnsUpdateRefusedError, DnsUnreachableError, DnsAnswerError

        """
        self._verify_form()
        state = self.read_state()
        if state.side is not Side.OLD:
            shown = "; ".join(f"{witness.where}: {_list(witness.shows)}" for witness in state.witnesses)
            already = state.side is Side.NEW
            raise DnsRecordError(
                f"{self.plan.name} does not point to the old box on every name server ({shown}).",
                hint="It points to the new box already: there is nothing to switch." if already else "Check the addresses in the plan.",
                shows=shown,
            )
        self._verify_permission()
        return state

    def prepare(self, before: CutoverState | None = None) -> Preparation:
        """Lower the TTL on every server. Where it is low already, nothing is sent."""
        side, answers = self._read_mine()
        current = tuple(answer.ttl for answer in answers)
        low = tuple(min(ttl, self.plan.ttl) for ttl in current)
        if low != current:
            self._update(expected=side, wanted=side, ttls=low)
        state = self._wait_for_all(side, low)
        return Preparation(before.ttls if before is not None else current, low, state.read_at)

    def wait_until_settled(self, moment: Preparation | Change, progress: Progress | None = None) -> CutoverState:
        """Wait for the rest of the TTL of before, then look again."""
        told = progress or Silent()
        label = f"resolvers forget the former answer for {self.plan.name}"
        total = moment.settles_at - moment.at
        while (left := moment.settles_at - self._clock()) > 0:
            told.update(label, total - left, total)
            self._nap(min(left, NAP))
        told.update(label, total, total)
        state = self.read_state()
        wanted = (moment.side,) if isinstance(moment, Change) else (Side.OLD, Side.NEW)
        if state.side not in wanted:
            raise self._changed(f"{self.plan.name} no longer points where it did: {_shown(state)}.")
        if isinstance(moment, Preparation) and any(now > low for now, low in zip(state.ttls, moment.ttls, strict=True)):
            raise self._changed(f"The TTL of {self.plan.name} was raised again, to {state.ttl} s, while we waited.")
        return state

    def switch(self) -> Change:
        """Point the name at the new box."""
        return self._swing(Side.NEW)

    def switch_back(self) -> Change:
        """Point the name at the old box."""
        return self._swing(Side.OLD)

    def restore(self, preparation: Preparation) -> CutoverState:
        """Give the record its former TTL back, on whichever box it points to."""
        side, answers = self._read_mine()
        if tuple(answer.ttl for answer in answers) != preparation.old_ttls:
            self._update(expected=side, wanted=side, ttls=preparation.old_ttls)
        return self._wait_for_all(side, preparation.old_ttls)

    def seconds_to_recover(self) -> float:
        """The TTL and one update: the TTL during the cutover, or the one that our last act here left (restored, it is long again)."""
        return self._ttl + UPDATE_SECONDS

    def outage_estimate(self) -> float:
        """A resolver that asked right before the switch keeps the old box's address for the whole TTL."""
        return self.plan.ttl + UPDATE_SECONDS

    # how

    def _swing(self, side: Side) -> Change:
        asked_at = self._clock()
        current, answers = self._read_mine()
        ttls = tuple(answer.ttl for answer in answers)
        if current is not side:
            self._update(expected=current, wanted=side, ttls=ttls)
        state = self._wait_for_all(side, ttls)
        return Change(side, asked_at, state.read_at, ttls, acted=current is not side)

    def _read(self, server: NameServer) -> tuple[Answer, ...]:
        return tuple(ask(server, self._name, move.kind, timeout=self.plan.timeout) for move in self.plan.moves)

    def _read_mine(self) -> tuple[Side, tuple[Answer, ...]]:
        """What the server says that takes the updates; it must be one of the two boxes."""
        answers = self._read(self.plan.server)
        side = self._side(answers)
        if side not in (Side.OLD, Side.NEW):
            raise self._changed(f"{self.plan.name} points to {_list(_values(answers))}, neither to the old box nor to the new one.")
        return side, answers

    def _side(self, answers: tuple[Answer, ...]) -> Side:
        shown = [answer.values for answer in answers]
        if shown == [(move.old,) for move in self.plan.moves]:
            return Side.OLD
        return Side.NEW if shown == [(move.new,) for move in self.plan.moves] else Side.ELSEWHERE

    def _witness(self, server: NameServer, answers: tuple[Answer, ...]) -> Witness:
        return Witness(str(server), self._side(answers), _values(answers), tuple(answer.ttl for answer in answers))

    def _send(self, *, expected: Side, wanted: Side, ttls: tuple[int, ...]) -> None:
        """One atomic update of all moved records, made only where each of them is exactly as expected."""
        update = dns.update.UpdateMessage(self.zone)
        for move, ttl in zip(self.plan.moves, ttls, strict=True):
            update.present(self._name, move.kind, _address(move, expected))
            update.replace(self._name, ttl, move.kind, _address(move, wanted))
        send_update(self.plan.server, update, self.plan.key, timeout=self.plan.timeout)

    def _update(self, *, expected: Side, wanted: Side, ttls: tuple[int, ...]) -> None:
        """Send it. A refused prerequisite is looked at once more: an update of ours whose answer was lost shows what we want by now."""
        try:
            self._send(expected=expected, wanted=wanted, ttls=ttls)
        except DnsChangedError:
            answers = self._read(self.plan.server)
            if self._side(answers) is wanted and tuple(answer.ttl for answer in answers) == ttls:
                return
            raise self._changed(
                f"{self.plan.name} was changed by somebody else: it shows {_list(_values(answers))}. It was not overwritten."
            ) from None

    def _wait_for_all(self, side: Side, ttls: tuple[int, ...]) -> CutoverState:
        wanted = _list(tuple(_address(move, side) for move in self.plan.moves))

        def probe() -> CutoverState | None:
            state = self.read_state()
            if state.witnesses[0].side is not side:
                raise self._changed(f"{self.plan.name} was changed by somebody else: {_shown(state)}.")
            behind = [witness for witness in state.witnesses if witness.side is not side or witness.ttls != ttls]
            if behind:
                raise DnsAnswerError(
                    "; ".join(f"{one.where} shows {_list(one.shows)} for {max(one.ttls, default=0)} s" for one in behind),
                    hint="Check that the secondary servers are notified and may transfer the zone.",
                )
            return state

        what = f"every name server of {_text(self.zone)} to show {wanted} for {max(ttls)} s"
        state = wait_for(probe, what=what, timeout=self.plan.spread_timeout, poll=0.5)
        self._ttl = state.ttl
        return state

    def _verify_form(self) -> None:
        """The update server holds exactly one plain address for each family, and none that the plan leaves behind."""
        _ = self.zone  # a wrong server is a clearer error than a missing record
        moved = {move.kind for move in self.plan.moves}
        for kind in ("A", "AAAA"):
            answer = ask(self.plan.server, self._name, kind, timeout=self.plan.timeout)
            _verify_answer(self.plan.name, kind, answer, moved=kind in moved)

    def _verify_permission(self) -> None:
        _, answers = self._read_mine()
        try:
            self._send(expected=Side.OLD, wanted=Side.OLD, ttls=tuple(answer.ttl for answer in answers))
        except DnsChangedError:
            if self._side(self._read(self.plan.server)) is Side.OLD:
                raise DnsRecordError(
                    f"{self.plan.name} has no record of its own: a wildcard answers for it.",
                    hint=f"Add an address record for {self.plan.name} to the zone.",
                ) from None
            raise

    def _find_zone(self, start: dns.name.Name) -> dns.name.Name | None:
        response = ask_raw(self.plan.server, start, "SOA", timeout=self.plan.timeout)
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not response.flags & dns.flags.AA:
            return None
        owners = [rrset.name for rrset in (*response.answer, *response.authority) if rrset.rdtype == dns.rdatatype.SOA]
        return next((owner for owner in owners if start.is_subdomain(owner)), None)

    def _find_servers(self, name: dns.name.Name) -> list[NameServer]:
        """By the zone itself where it holds the name, else by this machine's resolver."""
        for kind in ("A", "AAAA"):
            values = ask(self.plan.server, name, kind, timeout=self.plan.timeout).values if name.is_subdomain(self.zone) else ()
            values = values or _look_up(name, kind, self.plan.timeout)
            if values:
                return [NameServer(value, 53, _text(name)) for value in values]
        raise DnsAnswerError(
            f"The address of the name server {_text(name)} cannot be found, so what it says could not be told.",
            hint="Give its address and port in the plan, under authoritative.",
        )

    def _changed(self, sentence: str) -> DnsChangedError:
        return DnsChangedError(sentence, hint="Find out who changed it, then check the plan again.")


def _verify_answer(name: str, kind: str, answer: Answer, *, moved: bool) -> None:
    if answer.alias is not None:
        raise DnsRecordError(
            f"{name} is an alias (CNAME) of {answer.alias}.",
            hint=f"Put {answer.alias} and its zone into the plan instead, if only this site uses it; or replace the alias by an address.",
        )
    if moved and not answer.values:
        raise DnsRecordError(f"{name} has no {kind} record.", hint="Check the site's name and the address family in the plan.")
    if moved and len(answer.values) > 1:
        raise DnsRecordError(
            f"{name} has several {kind} records: {_list(answer.values)}.",
            hint="Some visitors would stay with the others. Leave only the old box's address, or use another cutover.",
        )
    if not moved and answer.values:
        raise DnsRecordError(
            f"{name} also has the {kind} record {_list(answer.values)}, which the plan does not move.",
            hint=f"Visitors who use it would stay behind. Give the new box's {kind} address too, or remove the record.",
        )


def _look_up(name: dns.name.Name, kind: str, timeout: float) -> tuple[str, ...]:
    try:
        return tuple(sorted(item.to_text() for item in dns.resolver.resolve(name, kind, lifetime=timeout)))
    except (dns.exception.DNSException, OSError):
        return ()


def _common_side(witnesses: tuple[Witness, ...]) -> Side:
    sides = {witness.side for witness in witnesses}
    if len(sides) == 1:
        return sides.pop()
    return Side.SPLIT if sides == {Side.OLD, Side.NEW} else Side.ELSEWHERE


def _address(move: Move, side: Side) -> str:
    return move.new if side is Side.NEW else move.old


def _values(answers: tuple[Answer, ...]) -> tuple[str, ...]:
    return tuple(value for answer in answers for value in ((f"the alias {answer.alias}",) if answer.alias else answer.values))


def _shown(state: CutoverState) -> str:
    return "; ".join(f"{witness.where} shows {_list(witness.shows)}" for witness in state.witnesses)


def _list(values: tuple[str, ...]) -> str:
    return ", ".join(values) or "nothing"


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
