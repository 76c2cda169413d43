"""The plan and secrets files that ``boxshift init`` writes: a start that a person edits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from migrate.plan_values import ASK


@dataclass(frozen=True)
class Start:
    """What is known when a plan is begun. ``image`` empty: the new box stands already."""

    site: str
    port: int
    old: str
    old_port: int
    old_pin: str
    new: str
    new_port: int
    new_pin: str
    image: str
    dns_server: str


def render_plan(start: Start) -> str:
    """The plan file, with a line of explanation where one helps."""
    return f"""\
# A migration by boxshift. docs/reference/plan.md explains every setting; `boxshift check` looks at both boxes and changes nothing.
boxshift: 1
site:
  name: {_text(start.site)}
  port: {start.port}
{_render_box("old", "old_", start)}new:
  address: {_text(start.new or ASK)}
  port: {start.new_port}
{_render_new_box(start)}
  service:
    address: {ASK}
    prefix: 24
  accounts:
    site: {{user: admin, password: "file:secrets.yaml#new_site"}}
    appliance: {{user: admin, password: "file:secrets.yaml#new_appliance"}}
certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
  # roots: private-root.pem            # if a private CA signed the site's certificate
backup:
  password: "file:secrets.yaml#backup"
packages:
  source: box
  accept_eula: false                   # set to true when you accept the vendor's licence
cutover:
  method: dns                          # or nat, command, shared-ip: docs/how-to/nat-gateway.md, shared-address.md
  data: resync                         # nothing written until the switch is lost
  dns:
    server: {_text(start.dns_server or ASK)}
    key_name: {ASK}
    key: "file:secrets.yaml#tsig"
    ttl: 60
watch: {{soak: 1h}}
retire: {{hold: 24h}}
"""


def render_upgrade_plan(start: Start) -> str:
    """The plan file of an upgrade; of ``start`` only the old box counts."""
    return f"""\
# The upgrade of a box by boxshift. docs/reference/upgrade-plan.md explains every setting; `boxshift check` changes nothing.
boxshift: 1
procedure: upgrade
site:
  name: {_text(start.site)}
  port: {start.port}
{_render_box("box", "", start)}certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
  # roots: private-root.pem            # if a private CA signed the site's certificate
backup:
  password: "file:secrets.yaml#backup"
packages:
  source: box
  accept_eula: false                   # set to true when you accept the vendor's licence
  longest: 1h                          # the longest that one package may take
clients: {{wait: updated, at_most: 24h}}
# window: {{zone: Europe/Madrid, days: [sat, sun], opens: "22:00", closes: "04:00"}}
"""


def _render_box(key: str, prefix: str, start: Start) -> str:
    """The box that is there already. ``prefix``: what the names of its secrets begin with."""
    return f"""\
{key}:
  address: {_text(start.old)}          # administration address
  port: {start.old_port}
  # SHA-256 of the key it serves: compare it with what the box itself says
  pin: {_text(start.old_pin or ASK)}
  service:
    address: {ASK}                     # where visitors reach it, as Networking > IP Configuration names it
    prefix: 24
  accounts:
    site: {{user: admin, password: "file:secrets.yaml#{prefix}site"}}
    appliance: {{user: admin, password: "file:secrets.yaml#{prefix}appliance"}}
    api: {{client_id: {ASK}, secret: "file:secrets.yaml#{prefix}api"}}
"""


def _render_new_box(start: Start) -> str:
    if start.image:
        name = start.site.split(".")[0] + "-new"
        return f"  machine: {{hypervisor: 'qemu:///system', name: {_text(name)}, image: {_text(start.image)}, memory_mib: 2048, cpus: 2}}"
    return f"  pin: {_text(start.new_pin or ASK)}"


def render_secrets(asked: Sequence[str], made: dict[str, str]) -> str:
    """The secrets file: what boxshift could choose is chosen, the rest is for the operator to fill in."""
    lines = ["# Secrets of plan.yaml. Keep this file 0600 and out of version control."]
    lines += [f"{name}: ''" for name in asked]
    lines += [f"{name}: {_text(value)}" for name, value in made.items()]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A YAML scalar that cannot be anything but this text (JSON strings are YAML)."""
    return json.dumps(value, ensure_ascii=False)
