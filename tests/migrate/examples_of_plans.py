"""A plan as an operator would write it, and the facts of two boxes that fit it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from migrate.facts import (
    ApplianceFacts,
    BoxAddress,
    CertificateRow,
    ClockReading,
    FileItem,
    Identity,
    JumpClient,
    SiteContent,
    Version,
)
from migrate.pair_plan import PairUpgradePlan
from migrate.plan import Plan
from migrate.plan_file import LoadedPlan, parse_any_plan, parse_plan
from migrate.upgrade_plan import UpgradePlan

PIN = "ab" * 32
PLAN = f"""\
boxshift: 1
site:
  name: support.example.test
  port: 8443
old:
  address: 127.0.1.11
  port: 8443
  pin: {PIN}
  guid: 0000-1111
  serial: 00123456
  expect:
    site: 22.10
    base: 5.3.0
  service:
    address: 10.0.2.20
    prefix: 24
    reached_at: 127.0.0.11
  accounts:
    site:
      user: admin
      password: env:OLD_SITE
    appliance: {{user: admin, password: "file:secrets.yaml#old"}}
    api: {{client_id: 0012, secret: keyring:boxshift/api}}
new:
  address: 127.0.1.12
  port: 8443
  machine:
    name: support-new
    image: reference
  service:
    address: 10.0.2.20
    reached_at: 127.0.0.12
  accounts:
    site: {{password: prompt}}
    appliance: {{password: prompt}}
certificate:
  safety_passphrase: env:SAFETY
backup:
  password: env:BACKUP
packages: {{accept_eula: true}}
cutover:
  dns:
    server: 127.0.0.53
    key_name: cutover
    key: env:TSIG
"""


def line_of(text: str, part: str) -> int:
    """The first line of ``text`` that holds ``part``, 1 the first."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def make_plan(*changes: tuple[str, str], more: str = "") -> Plan:
    """The plan with some text replaced, and more at the end."""
    text = PLAN
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return parse_plan((text + more).encode(), "plan.yaml")


def make_loaded(*changes: tuple[str, str], more: str = "") -> LoadedPlan:
    return LoadedPlan(make_plan(*changes, more=more), Path("/somewhere/plan.yaml"), "0" * 64)


UPGRADE = f"""\
boxshift: 1
procedure: upgrade
site: {{name: support.example.test, port: 8443}}
box:
  address: 127.0.1.11
  port: 8443
  pin: {PIN}
  service: {{address: 10.0.2.20, reached_at: 127.0.0.11}}
  accounts:
    site: {{password: env:SITE}}
    appliance: {{password: env:APPLIANCE}}
    api: {{client_id: boxshift, secret: env:API}}
certificate: {{safety_passphrase: env:SAFETY}}
backup: {{password: env:BACKUP}}
packages: {{accept_eula: true}}
clients: {{wait: updated}}
"""


def make_upgrade_plan(*changes: tuple[str, str]) -> UpgradePlan:
    """The plan of an upgrade with some text replaced."""
    text = UPGRADE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    plan = parse_any_plan(text.encode(), "plan.yaml")
    assert isinstance(plan, UpgradePlan)
    return plan


def make_loaded_upgrade(*changes: tuple[str, str]) -> LoadedPlan[UpgradePlan]:
    return LoadedPlan(make_upgrade_plan(*changes), Path("/somewhere/plan.yaml"), "0" * 64)


PAIR_UPGRADE = f"""\
boxshift: 1
procedure: pair-upgrade
site: {{name: support.example.test, port: 8443}}
a:
  address: 127.0.1.11
  port: 8443
  pin: {PIN}
  service: {{address: 10.0.2.20, reached_at: 127.0.0.11}}
  accounts:
    site: {{password: env:SITE}}
    appliance: {{password: env:APPLIANCE}}
    api: {{client_id: boxshift, secret: env:API}}
b:
  address: 127.0.1.12
  port: 8443
  pin: {PIN}
  service: {{address: 10.0.2.20, reached_at: 127.0.0.11}}
  accounts:
    site: {{password: env:SITE}}
    appliance: {{password: env:APPLIANCE}}
    api: {{client_id: boxshift, secret: env:API}}
shared: [10.0.2.20]
method: async
pre_shared_key: env:PSK
certificate: {{safety_passphrase: env:SAFETY}}
backup: {{password: env:BACKUP}}
packages: {{accept_eula: true}}
"""


def make_loaded_pair_upgrade(*changes: tuple[str, str]) -> LoadedPlan[PairUpgradePlan]:
    text = PAIR_UPGRADE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    plan = parse_any_plan(text.encode(), "plan.yaml")
    assert isinstance(plan, PairUpgradePlan)
    return LoadedPlan(plan, Path("/somewhere/plan.yaml"), "0" * 64)


CONTENT = SiteContent(
    users=("ann", "bob"),
    sessions=("s1", "s2", "s3"),
    recordings=(),
    files=(FileItem("small.txt", 100),),
    jump_clients=(JumpClient(1, "pc-1", connected=True, lost=False, needs_update=False, last_seen=1.0),),
)

OLD = ApplianceFacts(
    identity=Identity("0000-1111", "00123456", "old.example.test", PIN),
    site=Version("22.10", "95320"),
    base=Version("5.3.0", "1"),
    site_name="support.example.test",
    healthy=True,
    health_note="fine",
    failover_role="none",
    clock=ClockReading(0.5, 0.5),
    addresses=(BoxAddress("10.0.2.15", 24, enabled=True), BoxAddress("10.0.2.20", 24, enabled=True)),
    certificates=(CertificateRow("support.example.test", "Sub CA", "2027-01-01", ("support.example.test",), True, ("10.0.2.20",), ()),),
    content=CONTENT,
    read_at=1.0,
)

NEW = replace(
    OLD,
    identity=Identity("2222-3333", "00999999", "new.example.test", "cd" * 32),
    site=Version("21.1.1", "1"),
    base=Version("5.1.0", "1"),
    content=SiteContent((), (), (), (), ()),
)
