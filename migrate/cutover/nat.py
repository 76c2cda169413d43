"""Cutover by NAT: the gateway's rule that leads visitors to the box is replaced (nftables, over SSH).

The rule is found by the address and the port that it leads to, and replaced in one transaction of the kernel: there is no moment
without a rule. What else the rule says stays. It is read back, and connections that were open to the other box are ended, where the
gateway has the program conntrack, so that they come to the new place at once instead of hanging. A counter of the rule begins anew: what
it shows after a switch are visitors of the new place.

nftables has no "replace if it is still so". A rule keeps its handle when somebody else replaces it, so the handle alone proves nothing:
one shell on the gateway compares the rule's whole chain with what was read, and only then begins the transaction. What is left of the race
is the few milliseconds between these two programs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import ip_address

from kit.errors import ChangedError
from migrate.cutover.contract import Change, CutoverState, Side, Witness
from migrate.cutover.instant import InstantCutover
from migrate.cutover.nat_values import (
    NatAnswerError,
    NatChangedError,
    NatCutoverPlan,
    NatForbiddenError,
    NatRuleError,
    Rule,
    Target,
    parse_rules,
)
from migrate.cutover.ssh import Gateway, Said

IS_OTHERWISE = 75  # the script's status where the chain is no longer what was read
# Its first line of input is the chain as it must be; the rest is the transaction. It prints the chain as it is then, so that a slow link
# is crossed once. Arguments: family, table, chain, then nft itself.
REPLACE = f"""\
IFS= read -r wanted
family=$1 table=$2 chain=$3
shift 3
[ "$("$@" -s -j list chain "$family" "$table" "$chain" </dev/null)" = "$wanted" ] || exit {IS_OTHERWISE}
"$@" -j -f - && "$@" -s -j list chain "$family" "$table" "$chain" </dev/null
"""
FORBIDDEN = re.compile(r"not permitted|permission denied|must be root|password is required|not allowed|not in the sudoers", re.IGNORECASE)
MISSING = re.compile(r"not found|no such file", re.IGNORECASE)
ENDED = re.compile(r"([0-9]+) flow entries have been deleted")


@dataclass(frozen=True)
class Look:
    """The rules that lead to one of the two boxes, and how many others name the old one."""

    targets: tuple[Target, ...]
    others: int


class NatCutover(InstantCutover):
    """Moves one rule from the old box to the new one. ``connect`` gives a fresh login on the gateway, ``where`` says which that is."""

    def __init__(
        self,
        plan: NatCutoverPlan,
        connect: Callable[[], AbstractContextManager[Gateway]],
        *,
        where: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(seconds=plan.seconds, clock=clock)
        self.plan = plan
        self._connect = connect
        self._where = where

    def read_state(self) -> CutoverState:
        """What the gateway's rules say now."""
        with self._connect() as gateway:
            return self._state(self._look(gateway))

    def verify_ready(self) -> CutoverState:
        """Exactly one rule, it leads to the old box, and we may replace it: tried by ``nft --check``, which changes nothing.

        Raises:
            NatRuleError: no such rule, several, one in a form that is not known, or it leads to the new box already.
            NatForbiddenError, NatAnswerError, GatewayUnreachableError, GatewayKeyError, GatewayLoginError

        """
        with self._connect() as gateway:
            look = self._look(gateway)
            rule = self._pick(look)
            self._nft(gateway, "-c", "-j", "-f", "-", stdin=rule.render_replacement(self.plan.new))
            note = self._find_conntrack(gateway)
        return self._state(look, note)

    def _swing(self, side: Side) -> Change:
        asked_at = self._clock()
        with self._connect() as gateway:
            state = self._state(look := self._look(gateway))
            if state.side not in (Side.OLD, Side.NEW):
                raise self._changed(state)
            if state.side is not side:
                self._replace(gateway, look.targets[0].rule, self._address(side))
            # A run that was killed right after the change has not done this yet, so it is done whoever acted.
            ended = self._end_connections(gateway, self._address(Side.OLD if side is Side.NEW else Side.NEW))
            after = self._state(self._look(gateway))
            if after.side is not side:
                raise self._changed(after)
        return Change(side, asked_at, after.read_at, (), state.side is not side, (*_notes(after), ended))

    def _changed(self, state: CutoverState) -> ChangedError:
        shown = "; ".join(f"{one.where} leads to {', '.join(one.shows) or 'neither'}" for one in state.witnesses)
        return NatChangedError(
            f"Visitors on port {self.plan.port} are no longer led to the box they should be led to: {shown}.",
            hint="Find out who changed the gateway's rules, then check the plan again.",
        )

    # looking

    def _look(self, gateway: Gateway) -> Look:
        rules = parse_rules(self._nft(gateway, "-j", "list", "ruleset"))
        targets = tuple(found for rule in rules if (found := rule.find_target(self.plan)) is not None)
        mine = [one.rule for one in targets]
        return Look(targets, sum(rule.names(self.plan.old) and rule not in mine for rule in rules))

    def _state(self, look: Look, note: str = "") -> CutoverState:
        where = f"gateway {self._where}"
        found = tuple(
            Witness(
                f"{where}, rule {one.rule.place}", self._side(one), (one.address or "a place that cannot be told",), note=_count(one.rule)
            )
            for one in look.targets
        )
        side = found[0].side if len(found) == 1 else Side.ELSEWHERE
        notes = [note] if note else []
        if look.others:
            notes.append(f"{look.others} other rule(s) name {self.plan.old}; they stay as they are.")
        if notes and found:
            found = (Witness(found[0].where, found[0].side, found[0].shows, note=" ".join([found[0].note, *notes])), *found[1:])
        return CutoverState(side, found or (Witness(where, Side.ELSEWHERE, ()),), (), self._clock())

    def _side(self, target: Target) -> Side:
        return {self.plan.old: Side.OLD, self.plan.new: Side.NEW}.get(target.address or "", Side.ELSEWHERE)

    def _address(self, side: Side) -> str:
        return self.plan.new if side is Side.NEW else self.plan.old

    def _pick(self, look: Look) -> Rule:
        """The one rule that leads to the old box."""
        plan, places = self.plan, "; ".join(one.rule.place for one in look.targets)
        if not look.targets:
            raise NatRuleError(
                f"No rule of the gateway {self._where} leads to {plan.old} on port {plan.port}.",
                hint="Check old.service and site.port in the plan. Rules that iptables made are not seen: use cutover.method: command.",
            )
        if len(look.targets) > 1:
            raise NatRuleError(
                f"Several rules of the gateway {self._where} lead to the boxes on port {plan.port}: {places}.",
                hint="Some visitors would stay behind. Leave one rule (it may hold a set of addresses), or use cutover.method: command.",
                rules=places,
            )
        target = look.targets[0]
        if target.address is None:
            raise NatRuleError(
                f"The rule {places} of the gateway {self._where} leads to a box in a form that is not known (a map, a range, a named set).",
                hint="Write it with a plain address and port, or use cutover.method: command.",
            )
        if target.address == plan.new:
            raise NatRuleError(
                f"The rule {places} of the gateway {self._where} leads to the new box already.", hint="There is nothing to switch."
            )
        return target.rule

    # acting

    def _replace(self, gateway: Gateway, rule: Rule, address: str) -> None:
        """Replace it where its chain still says what was read, and read it back."""
        listing = self._nft(gateway, "-s", "-j", "list", "chain", rule.family, rule.table, rule.chain)
        before = _find(listing, rule)
        if before is None or before.find_target(self.plan) is None:
            raise self._somebody_else(rule)
        argv = ["sh", "-c", REPLACE, "boxshift", rule.family, rule.table, rule.chain, *self._program("nft")]
        said = gateway.run(argv, stdin=f"{listing.strip()}\n{before.render_replacement(address)}\n")
        if said.status == IS_OTHERWISE:
            raise self._somebody_else(rule)
        if _find(self._judge(said).out, rule) != before.moved(address):
            raise NatAnswerError(
                f"The rule {rule.place} of the gateway {self._where} is not what was asked for after it was replaced.",
                hint="Look at it on the gateway: nft -a list ruleset. Somebody else may have changed it in the same moment.",
            )

    def _somebody_else(self, rule: Rule) -> NatChangedError:
        return NatChangedError(
            f"The rule {rule.place} of the gateway {self._where}, or its chain, was changed by somebody else. Nothing was overwritten.",
            hint="Find out who changed the gateway's rules, then check the plan again.",
        )

    def _end_connections(self, gateway: Gateway, address: str) -> str:
        """So that nobody talks on to the box that is left; a sentence says what came of it."""
        family = "ipv6" if ip_address(address).version == 6 else "ipv4"
        argv = ["-D", "-f", family, "-p", "tcp", "--reply-src", address, "--reply-port-src", str(self.plan.port)]
        said = gateway.run(self._program("conntrack", *argv))
        if found := ENDED.search(said.err + said.out):
            return f"{found[1]} open connection(s) to {address} ended on the gateway."
        return f"Connections that were open to {address} were NOT ended on the gateway, and may hang: {_explain(said)}"

    def _find_conntrack(self, gateway: Gateway) -> str:
        said = gateway.run(self._program("conntrack", "--version"))
        return "" if said.status == 0 else f"Connections that are open at the switch may hang: {_explain(said)}"

    def _program(self, name: str, *words: str) -> list[str]:
        return ["env", "LC_ALL=C", *(("sudo", "-n") if self.plan.sudo else ()), name, *words]

    def _nft(self, gateway: Gateway, *words: str, stdin: str = "") -> str:
        return self._judge(gateway.run(self._program("nft", *words), stdin=stdin)).out

    def _judge(self, said: Said) -> Said:
        if said.status == 0:
            return said
        if FORBIDDEN.search(said.err):
            raise NatForbiddenError(
                f"The gateway {self._where} does not let us read or change its rules: {said.last_words}",
                hint="Log in as root, or let this user run nft and conntrack by sudo without a password and set cutover.nat.sudo.",
            )
        if said.status == 127 or "command not found" in said.err:
            raise NatAnswerError(
                f"The gateway {self._where} cannot run nft: {said.last_words}", hint="Use cutover.method: command for other gateways."
            )
        raise NatAnswerError(f"nft on the gateway {self._where} ended with status {said.status}: {said.last_words}")


def _find(listing: str, rule: Rule) -> Rule | None:
    return next((one for one in parse_rules(listing) if one.handle == rule.handle), None)


def _explain(said: Said) -> str:
    missing = said.status == 127 or MISSING.search(said.err)
    return "it has no program conntrack." if missing else f"conntrack says: {said.last_words}"


def _count(rule: Rule) -> str:
    return "The rule has no counter of its own." if rule.packets is None else f"The rule has counted {rule.packets} packets."


def _notes(state: CutoverState) -> tuple[str, ...]:
    return tuple(one.note for one in state.witnesses if one.note)
