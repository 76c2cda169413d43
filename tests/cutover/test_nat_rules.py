"""Which rules of nftables are about the service: judged from what ``nft --json`` prints."""

from __future__ import annotations

import json

import pytest
from gateway_stand import ELSE, NEW, NEW6, OLD, OLD6, PORT, GatewayStand

from migrate.cutover.nat_values import NatAnswerError, NatCutoverPlan, Rule, parse_rules

PLAN = NatCutoverPlan(OLD, NEW, PORT)
KNOWN, UNKNOWN, NOTHING = "leads to the old box", "in a form that is not known", "about something else"


def judge(rule: Rule, plan: NatCutoverPlan = PLAN) -> str:
    target = rule.find_target(plan)
    if target is None:
        return NOTHING
    return UNKNOWN if target.address is None else KNOWN


def read_rule(gateway: GatewayStand, text: str, family: str = "inet") -> Rule:
    """What the gateway's own nft says of it."""
    gateway.load(f"""
        table {family} t {{
            map boxes {{
                type inet_service : ipv4_addr
                elements = {{ {PORT} : {OLD} }}
            }}
            set ports {{
                type inet_service
                elements = {{ {PORT} }}
            }}
            chain c {{
                type nat hook prerouting priority dstnat
                {text}
            }}
        }}""")
    (rule,) = parse_rules(gateway.nft("-j", "list", "ruleset"))
    return rule


@pytest.mark.process
@pytest.mark.network
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"tcp dport {PORT} dnat ip to {OLD}", KNOWN),
        (f"tcp dport {{ 80, {PORT} }} dnat ip to {OLD}", KNOWN),
        (f"tcp dport {{ 80, 400-500 }} dnat ip to {OLD}", KNOWN),
        (f"tcp dport 400-500 dnat ip to {OLD}", KNOWN),
        (f"tcp dport != 22 dnat ip to {OLD}", KNOWN),
        (f"tcp dport 8443 dnat ip to {OLD}:{PORT}", KNOWN),
        (f"ip daddr 198.51.100.1 dnat ip to {OLD}", KNOWN),
        (f"meta l4proto {{ tcp, udp }} th dport {PORT} dnat ip to {OLD}", KNOWN),
        (f"meta l4proto tcp log prefix 'to {OLD}' dnat ip to {OLD} persistent".replace("'", '"'), KNOWN),
        (f"udp dport {PORT} dnat ip to {OLD}", NOTHING),
        (f"meta l4proto udp dnat ip to {OLD}", NOTHING),
        (f"meta l4proto != tcp dnat ip to {OLD}", NOTHING),
        (f"tcp dport 80 dnat ip to {OLD}", NOTHING),
        (f"tcp dport != {PORT} dnat ip to {OLD}", NOTHING),
        (f"tcp dport {PORT} dnat ip to {OLD}:8443", NOTHING),
        (f"tcp dport {PORT} dnat ip to {ELSE}", NOTHING),
        (f"ip saddr {OLD} tcp dport {PORT} redirect to :8443", NOTHING),
        (f"tcp dport @ports dnat ip to {OLD}", UNKNOWN),
        ("dnat ip to tcp dport map @boxes", UNKNOWN),
        (f"tcp dport {PORT} dnat ip to ip saddr map {{ 192.0.2.1 : {OLD} }}", UNKNOWN),
        (f"tcp dport {PORT} dnat ip to {OLD}-{NEW}", UNKNOWN),
    ],
)  # fmt: skip
def test_a_rule_is_judged_by_where_it_leads_and_for_which_port(gateway: GatewayStand, text: str, said: str) -> None:
    assert judge(read_rule(gateway, text)) == said


@pytest.mark.process
@pytest.mark.network
def test_ipv6_is_judged_in_whatever_form_it_is_written(gateway: GatewayStand) -> None:
    rule = read_rule(gateway, f"tcp dport {PORT} dnat to [{OLD6}]:{PORT}", "ip6")
    assert judge(rule, NatCutoverPlan("fd00:0009:1:0::11", NEW6, PORT)) == KNOWN


def make_rule(*statements: object) -> Rule:
    return Rule("ip", "nat", "pre", 5, "a 'b' \"c\\", json.dumps(statements))


def test_a_replacement_says_the_same_but_for_the_address() -> None:
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": PORT}}
    rule = make_rule(match, {"counter": None}, {"dnat": {"addr": OLD, "port": PORT, "flags": "persistent"}})
    said = json.loads(rule.render_replacement(NEW))["nftables"]
    assert said == [
        {
            "replace": {
                "rule": {
                    "family": "ip",
                    "table": "nat",
                    "chain": "pre",
                    "handle": 5,
                    "comment": "a 'b' \"c\\",
                    "expr": [match, {"counter": None}, {"dnat": {"addr": NEW, "port": PORT, "flags": "persistent"}}],
                }
            }
        }
    ]
    assert rule.moved(NEW).moved(OLD) == rule


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"rule": {"family": "ip"}}]}', "table ip nat {", '{"nftables": 3}'])
def test_what_is_no_list_of_rules_is_not_taken_for_an_empty_one(text: str) -> None:
    with pytest.raises(NatAnswerError, match="no list of rules"):
        parse_rules(text)


@pytest.mark.parametrize(
    "statements",
    [
        (),
        ("x",),
        ({"match": 3},),
        ({"dnat": None},),
        ({"dnat": {}},),
        ({"match": {"left": [], "right": {}}}, {"dnat": {"addr": {"odd": OLD}}}),
    ],
)
def test_odd_statements_break_nothing(statements: tuple[object, ...]) -> None:
    rule = make_rule(*statements)
    assert judge(rule) == (UNKNOWN if OLD in rule.expr else NOTHING)
