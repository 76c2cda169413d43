"""What a NAT cutover is asked to do, how it can fail, and the rules of nftables as ``nft --json`` tells them (libnftables-json(5))."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pydantic import BaseModel, ValidationError

from kit.errors import ChangedError, RefusedError, RejectedError, UnexpectedError
from kit.plain import spell_out


class NatForbiddenError(RejectedError):
    """The gateway lets us in, and does not let us read or change its rules."""

    code = "nat-forbidden"


class NatRuleError(RefusedError):
    """There is not exactly one rule that can be switched."""

    code = "nat-rule"


class NatChangedError(ChangedError):
    """Somebody else changed the rule."""

    code = "nat-changed"


class NatAnswerError(UnexpectedError):
    """What the gateway's nft said could not be understood, or proves nothing."""

    code = "nat-answer"


@dataclass(frozen=True)
class NatCutoverPlan:
    """The rule leads to ``old``:``port`` and shall lead to ``new``. ``sudo``: programs are run with ``sudo -n``. ``seconds``: expected."""

    old: str
    new: str
    port: int
    sudo: bool = False
    seconds: float = 3.0


class _Rule(BaseModel):
    family: str
    table: str
    chain: str
    handle: int
    comment: str | None = None
    expr: list[Any] = []


class _Map(BaseModel):
    family: str
    table: str
    name: str
    elem: Any = None


class _Item(BaseModel):
    rule: _Rule | None = None
    map: _Map | None = None


class _Listing(BaseModel):
    nftables: list[_Item]


@dataclass(frozen=True)
class Rule:
    """One rule. ``expr``: its statements as JSON, just as nft gave them; ``also``: the elements of the named maps of its table."""

    family: str
    table: str
    chain: str
    handle: int
    comment: str | None
    expr: str
    also: str = "[]"

    @property
    def place(self) -> str:
        """``ip nat prerouting handle 5``."""
        return spell_out(f"{self.family} {self.table} {self.chain} handle {self.handle}")

    @property
    def packets(self) -> int | None:
        """What its counter says; None where it has none."""
        for name, body in self._statements():
            if name == "counter" and isinstance(body, dict):
                return int(body.get("packets", 0))
        return None

    def names(self, address: str) -> bool:
        """Whether the address stands anywhere in it."""
        return _names(json.loads(self.expr), address)

    def find_target(self, plan: NatCutoverPlan) -> Target | None:
        """Whether it leads connections for one of the two boxes, on the service's port; None where it has nothing to do with that."""
        dnat = next((body for name, body in self._statements() if name == "dnat"), None)
        if not isinstance(dnat, dict):
            return None
        addr = dnat.get("addr")
        boxes = (plan.old, plan.new)
        if isinstance(addr, str):
            address = next((box for box in boxes if _same(addr, box)), None)
            reaches = address is not None and self._reaches(dnat, plan.port)
            return Target(self, address if reaches is True else None) if reaches is not False else None
        told = [addr, json.loads(self.also)] if '"@' in json.dumps(addr) else addr
        return Target(self, None) if any(_names(told, box) for box in boxes) else None

    def render_replacement(self, address: str) -> str:
        """The transaction that makes it lead to ``address``; everything else of it stays."""
        return json.dumps({"nftables": [{"replace": {"rule": self._as_json() | {"handle": self.handle, "expr": self._moved(address)}}}]})

    def moved(self, address: str) -> Rule:
        """The same rule leading to ``address``."""
        return Rule(self.family, self.table, self.chain, self.handle, self.comment, json.dumps(self._moved(address)), self.also)

    def _as_json(self) -> dict[str, Any]:
        comment = {} if self.comment is None else {"comment": self.comment}
        return {"family": self.family, "table": self.table, "chain": self.chain} | comment

    def _moved(self, address: str) -> list[Any]:
        statements: list[Any] = deepcopy(json.loads(self.expr))
        for one in statements:
            if isinstance(one, dict) and isinstance(one.get("dnat"), dict):
                one["dnat"]["addr"] = str(ip_address(address))  # as nft will say it
        return statements

    def _statements(self) -> Iterator[tuple[str, Any]]:
        for one in json.loads(self.expr):
            if isinstance(one, dict):
                yield from one.items()

    def _reaches(self, dnat: dict[str, Any], port: int) -> bool | None:
        """Whether TCP connections come to that port of the box; None where it cannot be told."""
        answers = [_is_tcp(body) for name, body in self._statements() if name == "match"]
        if "port" in dnat:
            answers.append(_holds(dnat["port"], port))
        else:
            answers += [_admits(body, port) for name, body in self._statements() if name == "match"]
        if False in answers:
            return False
        return None if None in answers else True


@dataclass(frozen=True)
class Target:
    """A rule that leads to a box. ``address`` None: in a form that is not known."""

    rule: Rule
    address: str | None


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules in what ``nft --json list`` printed.

    Raises:
        NatAnswerError: it is in no form that is known.

    """
    try:
        items = _Listing.model_validate_json(text).nftables
    except ValidationError:
        raise NatAnswerError(
            "What the gateway's nft said is no list of rules in JSON.",
            hint="It must be nftables 0.9.3 or newer, built with JSON, and the login shell must print nothing of its own.",
        ) from None
    rules = []
    for one in (item.rule for item in items if item.rule is not None):
        also = [item.map.elem for item in items if item.map and (item.map.family, item.map.table) == (one.family, one.table)]
        rules.append(Rule(one.family, one.table, one.chain, one.handle, one.comment, json.dumps(one.expr), json.dumps(also)))
    return tuple(rules)


def _is_tcp(match: Any) -> bool | None:
    """False where the match lets no TCP through; True where it says nothing against it."""
    left, right, op = _sides(match)
    if left == {"meta": {"key": "l4proto"}} or _field(left) in {("ip", "protocol"), ("ip6", "nexthdr")}:
        held = _holds(right, "tcp")
        return None if held is None else held is not bool(op == "!=")
    return _field(left)[0] not in {"udp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "esp", "ah"}


def _admits(match: Any, port: int) -> bool | None:
    """Whether a match lets the destination port through; True where it is about something else."""
    left, right, op = _sides(match)
    if _field(left) not in {("tcp", "dport"), ("th", "dport")}:
        return True
    held = _holds(right, port)
    if held is None or op not in {"==", "!=", "in"}:
        return None
    return held is not bool(op == "!=")


def _sides(match: Any) -> tuple[Any, Any, Any]:
    return (match.get("left"), match.get("right"), match.get("op")) if isinstance(match, dict) else (None, None, None)


def _field(left: Any) -> tuple[Any, Any]:
    payload = left.get("payload") if isinstance(left, dict) else None
    return (payload.get("protocol"), payload.get("field")) if isinstance(payload, dict) else (None, None)


def _holds(right: Any, wanted: int | str) -> bool | None:
    """Whether a value, a range or a set holds what is wanted; None where its form is not known."""
    match right:
        case int() | str() if type(right) is type(wanted) and not str(right).startswith("@"):
            return bool(right == wanted)
        case {"range": [int(first), int(last)]} if isinstance(wanted, int):
            return first <= wanted <= last
        case {"set": list(items)}:
            answers = [_holds(item, wanted) for item in items]
            return True if True in answers else (None if None in answers else False)
    return None


def _names(tree: Any, address: str) -> bool:
    if isinstance(tree, str):
        return _same(tree, address)
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(_names(child, address) for child in children)


def _same(text: str, address: str) -> bool:
    with suppress(ValueError):
        return ip_address(text) == ip_address(address)
    return False
