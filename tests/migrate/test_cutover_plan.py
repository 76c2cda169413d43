"""The plan's part about the cutover: one section for each way, what a runbook makes of it, and the adapter it leads to."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples_of_plans import PLAN, line_of, make_loaded, make_plan

from kit.errors import UsageError
from kit.secret import Secret
from migrate.cutover.command import CommandCutover
from migrate.cutover.contract import Cutover
from migrate.cutover.dns import DnsCutover
from migrate.cutover.nat import NatCutover
from migrate.cutover.shared_ip import SharedIpCutover
from migrate.plan_file import LoadedPlan, PlanError, parse_plan
from migrate.runbooks.migration import plan_migration
from migrate.wiring.boxes import PlannedBoxes, Stopwatch
from migrate.wiring.cutovers import make_cutover
from migrate.wiring.references import verify_secrets

HOST_KEY = "SHA256:" + "a" * 43
DNS = PLAN[PLAN.index("  dns:\n") :]
NAT = f"""\
  method: nat
  nat:
    gateway: 127.0.0.1
    host_key: {HOST_KEY}
    password: env:GATEWAY
    public: 127.0.0.80
"""
COMMAND = """\
  method: command
  command:
    check: [./gateway, show]
    switch: [./gateway, new]
    switch_back: [./gateway, old]
    secret: env:GATEWAY
    seconds: 20s
"""
SHARED = "  method: shared-ip\n"
ON_A_NETWORK = (
    ("    image: reference\n", "    image: reference\n    network: lan\n"),
    ("10.0.2.20\n    reached_at: 127.0.0.12", "10.0.2.22\n    reached_at: 127.0.0.12"),
)
# Nodes about answers that visitors keep.
TTL_NODES = {"lower-ttl", "wait-for-old-ttl", "restore-ttl"}


def faults_of(text: str) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        parse_plan(text.encode(), "plan.yaml")
    return caught.value.faults


def with_cutover(section: str) -> str:
    return PLAN.replace(DNS, section)


def load(section: str) -> LoadedPlan:
    return make_loaded((DNS, section), *(ON_A_NETWORK if section == SHARED else ()))


def test_a_plan_that_says_nothing_switches_by_dns() -> None:
    cutover = make_plan().cutover
    assert (cutover.method, cutover.kept, cutover.seconds, cutover.public) == ("dns", 60.0, 1.0, None)


def test_a_gateway_and_commands_say_how_long_they_take() -> None:
    nat, command = load(NAT).plan.cutover, load(COMMAND).plan.cutover
    assert (nat.kept, nat.seconds, nat.public) == (0.0, 3.0, "127.0.0.80")
    assert (command.kept, command.seconds, command.public) == (0.0, 20.0, None)


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        (with_cutover("  data: none\n"), "cutover:", "cutover.dns: is missing"),
        (with_cutover("  method: nat\n"), "cutover:", "cutover.nat: is missing"),
        (with_cutover("  method: command\n"), "cutover:", "cutover.command: is missing"),
        (with_cutover(DNS + NAT), "dns:", "cutover.dns: does not belong to method: nat"),
        (with_cutover(NAT.replace("method: nat", "method: dns")), "nat:", "cutover.nat: does not belong to method: dns"),
        (with_cutover("  method: bgp\n" + DNS), "bgp", "cutover.method: Input should be"),
        (with_cutover(NAT.replace(HOST_KEY, "MD5:00")), "host_key", "cutover.nat.host_key: String should match"),
        (with_cutover(NAT.replace("    password: env:GATEWAY\n", "")), "nat:\n", "cutover.nat: needs either password or key"),
        (with_cutover(NAT + "    key: id_ed25519\n"), "nat:\n", "cutover.nat: needs either password or key"),
        (with_cutover(NAT + "    passphrase: env:X\n"), "nat:\n", "cutover.nat: has a passphrase, but no key"),
        (with_cutover(NAT.replace("env:GATEWAY", "hunter2")), "password: hunter2", "cutover.nat.password: is not a reference to a secret"),
        (with_cutover(COMMAND.replace("[./gateway, show]", "./gateway show")), "check", "cutover.command.check: "),
        (with_cutover(COMMAND.replace("[./gateway, show]", "[]")), "check", "cutover.command.check: "),
        (with_cutover(COMMAND + "    timeout: 0\n"), "timeout", "cutover.command.timeout: "),
        (with_cutover(NAT).replace("reached_at: 127.0.0.12", "reached_at: 127.0.0.11"), "boxshift", "a switch by nat needs two"),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_line(text: str, part: str, words: str) -> None:
    line = max(number for number, one in enumerate(text.splitlines(), 1) if part.strip() in one)
    line = line_of(text, part.strip()) if part in {"boxshift", "cutover:"} else line
    assert any(words in fault and fault.startswith(f"line {line}:") for fault in faults_of(text)), (line, faults_of(text))


def test_a_missing_section_is_told_together_with_other_faults() -> None:
    text = with_cutover("  method: nat\n  not_before: soon\n  probes: {good_in_a_row: 0}\n")
    assert len(faults_of(text)) == 3


def test_an_address_is_shared_on_one_network_beside_an_address_of_the_new_box_alone() -> None:
    plan = load(SHARED).plan
    assert (plan.cutover.kept, plan.cutover.seconds, plan.entrance) == (0.0, 10.0, "127.0.0.11")
    assert make_plan().entrance == "127.0.0.12"
    assert load(NAT).plan.entrance == "127.0.0.80"
    text, (network, own) = with_cutover(SHARED), ON_A_NETWORK
    assert "both boxes on one network" in str(faults_of(text.replace(*own)))
    assert "an address of the new box's own" in str(faults_of(text.replace(*network)))
    pair = "  data: failover\n  failover: {pre_shared_key: env:X, old: {host: 127.0.1.11}, new: {host: 127.0.1.12}}\n"
    assert "`data: failover` needs a method of its own" in str(faults_of(text.replace(*network).replace(*own) + pair))


@pytest.mark.parametrize("section", [NAT, COMMAND, SHARED], ids=["nat", "command", "shared-ip"])
def test_a_runbook_waits_for_no_ttl_where_nobody_keeps_an_answer(section: str) -> None:
    by_dns, other = plan_migration(make_loaded()), plan_migration(load(section))
    assert [node.name for node in by_dns.nodes() if node.name not in TTL_NODES] == [node.name for node in other.nodes()]
    assert not any("TTL" in told for phase in other.phases for told in (phase.title, *(node.title for node in phase.nodes)))
    assert other.node("blockers-live").after == ("approve-cutover",)
    assert other.node("switch").outage == load(section).plan.cutover.seconds
    assert other.node("wait-for-swing").outage == 0
    assert other.outage() < by_dns.outage()


def make(loaded: LoadedPlan, folder: Path, secret: str = "c2VjcmV0") -> Cutover:
    def reveal(_reference: str, _what: str) -> Secret:
        return Secret(secret)

    return make_cutover(loaded.plan, folder, reveal, PlannedBoxes(loaded.plan, {}, reveal, Stopwatch(), 1.0))


def test_a_plan_becomes_the_adapter_that_it_asks_for(tmp_path: Path) -> None:
    assert isinstance(make(make_loaded(), tmp_path), DnsCutover)
    nat = make(load(NAT), tmp_path)
    assert isinstance(nat, NatCutover)
    assert (nat.plan.old, nat.plan.new, nat.plan.port) == ("127.0.0.11", "127.0.0.12", 8443)
    command = make(load(COMMAND), tmp_path)
    assert isinstance(command, CommandCutover)
    assert (command.plan.folder, command.plan.check) == (tmp_path, ("./gateway", "show"))
    shared = make(load(SHARED), tmp_path)
    assert isinstance(shared, SharedIpCutover)
    assert (shared.plan.address, shared.plan.entrance, shared.plan.new) == ("10.0.2.20", "127.0.0.11", "127.0.0.12")


@pytest.mark.parametrize("section", [None, NAT, COMMAND, SHARED], ids=["dns", "nat", "command", "shared-ip"])
def test_the_estimate_of_the_runbook_is_the_cutover_s_own(section: str | None, tmp_path: Path) -> None:
    loaded = make_loaded() if section is None else load(section)
    book = plan_migration(loaded)
    assert book.node("switch").outage + book.node("wait-for-swing").outage == make(loaded, tmp_path).outage_estimate()


@pytest.mark.parametrize(("section", "name"), [(NAT, "GATEWAY"), (COMMAND, "GATEWAY"), (DNS, "TSIG")], ids=["nat", "command", "dns"])
def test_the_secret_of_a_cutover_is_looked_for_before_anything_begins(section: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("OLD_SITE", "SAFETY", "BACKUP", "TSIG", "GATEWAY", "API"):
        monkeypatch.setenv(known, "x")
    monkeypatch.delenv(name)
    with pytest.raises(UsageError) as caught:
        verify_secrets(make_loaded((DNS, section), ("keyring:boxshift/api", "env:API")))
    assert name in f"{caught.value} {caught.value.facts.get('faults')}"
