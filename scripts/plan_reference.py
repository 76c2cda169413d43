"""The reference of the plan file, from its models. Called by scripts/plan-reference."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from migrate.pair_plan import PairPlan, PairUpgradePlan
from migrate.plan import Plan
from migrate.plan_file import MAX_BYTES
from migrate.plan_values import AdminAddress, ClockTime, Duration, HostName, IpAddress, Moment, Name, Pin, Port, SecretRef, VersionText
from migrate.upgrade_plan import UpgradePlan

WORDS: tuple[tuple[object, str], ...] = (
    (AdminAddress, "IP address or host name"),
    (Duration, "duration"),
    (HostName, "host name"),
    (IpAddress, "IP address"),
    (Moment, "date and time with offset"),
    (Name, "text"),
    (Pin, "SHA-256 in hex"),
    (Port, "port number"),
    (SecretRef, "reference to a secret"),
    (ClockTime, "clock time"),
    (VersionText, "version"),
    (str, "text"),
    (int, "whole number"),
    (date, "date"),
    (float, "number"),
    (bool, "`true` or `false`"),
    (Path, "path"),
)
SECONDS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

HEAD = f"""\
# The plan file

<!-- Written by scripts/plan-reference from migrate/plan.py; do not edit by hand. -->

A plan says what one migration is about: which box is replaced by which, what moves, and how traffic is switched. It is YAML in UTF-8,
at most {MAX_BYTES // 1000} kB. `boxshift init` writes a first one, `boxshift plan` shows the runbook it leads to, `boxshift check` reads
both boxes and changes nothing. A plan with faults is refused with exit status 2, and all its faults are told at once, each with its line.

Paths are relative to the folder of the plan. Unknown settings are refused. A setting that stands twice is refused. Values are taken as
the text they are, so `22.10` stays 22.10 and `0012` stays 0012; only an empty value, `~` and `null` mean "not given". Anchors and aliases
may spare typing; tags and merge keys are refused.

## Secrets

A plan never holds a secret, only a reference that is resolved at the last moment:

| form | where the secret comes from |
| --- | --- |
| `env:NAME` | the environment variable |
| `file:PATH#KEY` | the text under KEY in a YAML file that only its owner can open (mode 0600) |
| `keyring:SERVICE/USER` | the keyring of this machine |
| `prompt` | asked for at the terminal |

## Durations

A number of seconds, or a number with a unit: `90`, `90s`, `30m`, `24h`, `7d`; at most 90 days.

## A whole plan

```yaml
boxshift: 1
site:
  name: support.example.com
old:
  address: 192.0.2.10
  pin: {"3f" * 32}
  expect: {{site: 22.1.4, base: 5.3.0}}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#old_site"}}
    appliance: {{password: "file:secrets.yaml#old_appliance"}}
    api: {{client_id: boxshift, secret: "file:secrets.yaml#old_api"}}
new:
  address: 192.0.2.11
  machine: {{hypervisor: "qemu:///system", name: support-new, image: vendor-22, memory_mib: 4096, cpus: 2}}
  service: {{address: 192.0.2.21}}
  accounts:
    site: {{password: "file:secrets.yaml#new_site"}}
    appliance: {{password: "file:secrets.yaml#new_appliance"}}
certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
backup:
  password: "file:secrets.yaml#backup"
packages:
  accept_eula: true
cutover:
  not_before: 2027-02-28T22:00:00+01:00
  dns:
    server: 192.0.2.53
    key_name: boxshift
    key: "file:secrets.yaml#tsig"
watch: {{soak: 2h}}
retire: {{hold: 7d}}
```

## Settings
"""


@dataclass(frozen=True)
class Row:
    """One setting, ``name`` dotted from its section."""

    name: str
    form: str
    default: str
    meaning: str


UPGRADE_HEAD = f"""\
# The plan file of an upgrade

<!-- Written by scripts/plan-reference from migrate/upgrade_plan.py; do not edit by hand. -->

A plan with `procedure: upgrade` says which box is upgraded, to which versions, when packages may be installed, and how long its clients are
waited for. The form of the file, references to secrets and durations are those of [a migration's plan](plan.md).
[Upgrade a box](../how-to/upgrade.md) shows its use.

## A whole plan

```yaml
boxshift: 1
procedure: upgrade
site:
  name: support.example.com
box:
  address: 192.0.2.10
  pin: {"3f" * 32}
  expect: {{site: 21.1.1, base: 5.1.0}}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#site"}}
    appliance: {{password: "file:secrets.yaml#appliance"}}
    api: {{client_id: boxshift, secret: "file:secrets.yaml#api"}}
certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
backup:
  password: "file:secrets.yaml#backup"
packages:
  accept_eula: true
  target: {{site: 22.1.4}}
clients: {{wait: updated, at_most: 24h}}
window: {{zone: Europe/Madrid, days: [sat, sun], opens: "22:00", closes: "04:00", not_on: [2026-12-26]}}
```

## Settings
"""
PAIR_HEAD = f"""\
# The plan file of a failover pair

<!-- Written by scripts/plan-reference from migrate/pair_plan.py; do not edit by hand. -->

A plan with `procedure: pair` tells `boxshift failover` of two boxes: how each is reached, how they reach each other, and what they share.
The form of the file, references to secrets and durations are those of [a migration's plan](plan.md).
[Look after a failover pair](../how-to/failover-pair.md) shows its use.

## A whole plan

```yaml
boxshift: 1
procedure: pair
site:
  name: support.example.com
a:
  address: 192.0.2.10
  pin: {"3f" * 32}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#a_site"}}
    appliance: {{password: "file:secrets.yaml#a_appliance"}}
b:
  address: 192.0.2.11
  pin: {"4e" * 32}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#b_site"}}
    appliance: {{password: "file:secrets.yaml#b_appliance"}}
shared: [192.0.2.20]
pre_shared_key: "file:secrets.yaml#pair"
certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
backup:
  password: "file:secrets.yaml#backup"
```

## Settings
"""
PAIR_UPGRADE_HEAD = f"""\
# The plan file of a pair's upgrade

<!-- Written by scripts/plan-reference from migrate/pair_plan.py; do not edit by hand. -->

A plan with `procedure: pair-upgrade` names both boxes of a failover pair, which of them is upgraded first, and all that
[the upgrade of one box](upgrade-plan.md) asks for. `boxshift failover` takes it too. The form of the file, references to
secrets and durations are those of [a migration's plan](plan.md). [Upgrade a failover pair](../how-to/upgrade-a-pair.md) shows its use.

## A whole plan

```yaml
boxshift: 1
procedure: pair-upgrade
method: async
site:
  name: support.example.com
a:
  address: 192.0.2.10
  pin: {"3f" * 32}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#a_site"}}
    appliance: {{password: "file:secrets.yaml#a_appliance"}}
    api: {{client_id: boxshift, secret: "file:secrets.yaml#api"}}
b:
  address: 192.0.2.11
  pin: {"4e" * 32}
  service: {{address: 192.0.2.20}}
  accounts:
    site: {{password: "file:secrets.yaml#b_site"}}
    appliance: {{password: "file:secrets.yaml#b_appliance"}}
    api: {{client_id: boxshift, secret: "file:secrets.yaml#api"}}
shared: [192.0.2.20]
pre_shared_key: "file:secrets.yaml#pair"
certificate:
  safety_passphrase: "file:secrets.yaml#safety_copy"
backup:
  password: "file:secrets.yaml#backup"
packages:
  accept_eula: true
  target: {{site: 22.1.4}}
window: {{zone: Europe/Madrid, days: [sat, sun], opens: "22:00", closes: "04:00"}}
```

## Settings
"""
PAGES: dict[str, tuple[str, type[BaseModel]]] = {
    "plan.md": (HEAD, Plan),
    "upgrade-plan.md": (UPGRADE_HEAD, UpgradePlan),
    "pair-plan.md": (PAIR_HEAD, PairPlan),
    "pair-upgrade-plan.md": (PAIR_UPGRADE_HEAD, PairUpgradePlan),
}


def render_reference(page: str) -> str:
    """A whole page."""
    head, plan = PAGES[page]
    parts = [head]
    hints = get_type_hints(plan, include_extras=True)
    for name, info in plan.model_fields.items():
        model = find_model(hints[name])
        if model is None:
            parts.append(f"### {name}\n\n{render_table([make_row(name, info, hints[name])])}")
            continue
        needed = "" if info.is_required() else " May be left out."
        parts.append(f"### {name}\n\n{first_line(model)}{needed}\n\n{render_table(rows_of(model, ''))}")
    return "\n".join(parts)


def rows_of(model: type[BaseModel], prefix: str) -> Iterator[Row]:
    """Its settings, those of inner models after the line that names them."""
    hints = get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        inner = find_model(hints[name])
        if inner is None:
            yield make_row(prefix + name, info, hints[name])
            continue
        many = get_origin(hints[name]) is tuple
        meaning = info.description or first_line(inner)
        yield Row(prefix + name, "list of settings" if many else "settings", render_default(info, hints[name]), meaning)
        yield from rows_of(inner, f"{prefix}{name}{'[]' if many else ''}.")


def make_row(name: str, info: FieldInfo, hint: object) -> Row:
    """The row of a plain setting."""
    if not info.description:
        raise SystemExit(f"The setting {name} has no description in migrate/plan.py.")
    return Row(name, render_form(hint) + render_limits(info), render_default(info, hint), info.description)


def find_model(hint: object) -> type[BaseModel] | None:
    """The model inside an annotation, None where it holds a plain value."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((model for part in get_args(hint) if (model := find_model(part)) is not None), None)


def render_form(hint: object) -> str:
    """What may stand there, in words."""
    for known, word in WORDS:
        if hint == known:
            return word
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return " or ".join(f"`{part.value}`" for part in hint)
    if origin is Annotated:
        return render_form(parts[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in {Union, types.UnionType}:
        return " or ".join(render_form(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {render_form(parts[0])}".replace("list of list of text", "list of programs, each a list of words")
    raise SystemExit(f"There are no words for {hint}.")


def render_limits(info: FieldInfo) -> str:
    """``, 1 to 64``."""
    low = next((one.ge for one in info.metadata if hasattr(one, "ge")), None)
    high = next((one.le for one in info.metadata if hasattr(one, "le")), None)
    is_plain = low is not None and high is not None and high != SECONDS[0][0] * 90
    return f", {low} to {high}" if is_plain else ""


def render_default(info: FieldInfo, hint: object) -> str:
    """The default as it would be written in the file."""
    if info.is_required():
        return "**needed**"
    value: Any = info.default if info.default is not PydanticUndefined else None
    if value in (None, "", ()):
        return ""
    if hint == Duration:
        size, unit = next((size, unit) for size, unit in SECONDS if value >= size and value % size == 0)
        return f"`{value / size:g}{unit}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def render_table(rows: typing.Iterable[Row]) -> str:
    """A Markdown table."""
    lines = ["| setting | form | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{row.name}` | {row.form} | {row.default} | {row.meaning} |" for row in rows]
    return "\n".join(lines) + "\n"


def first_line(model: type[BaseModel]) -> str:
    """What the model says of itself."""
    return (model.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.stdout.write(render_reference(sys.argv[1]))
