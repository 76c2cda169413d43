"""The demo's secrets: hostile characters on purpose, so that every run proves that none of them is mangled or seen."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

from kit.files import write_private
from kit.secret import Secret

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


def make_hostile() -> Secret:
    """A random password with everything in it that shells, forms, YAML and URLs stumble over."""
    return Secret(f"{HOSTILE}{secrets.token_hex(6)}")


@dataclass(frozen=True)
class DemoSecrets:
    """Every secret of a demo, by the name that the plan's references use."""

    old_site: Secret
    old_appliance: Secret
    old_api: Secret
    new_site: Secret
    new_appliance: Secret
    backup: Secret
    safety_copy: Secret
    jump_clients: Secret
    pair: Secret
    tsig: Secret

    @staticmethod
    def make(tsig: Secret) -> DemoSecrets:
        """All new; the TSIG secret is the name server's."""
        made = {field.name: make_hostile() for field in fields(DemoSecrets) if field.name != "tsig"}
        return DemoSecrets(tsig=tsig, **made)

    def write(self, path: Path) -> None:
        """As the secrets file that the plan refers to. JSON strings are YAML."""
        lines = [f"{field.name}: {json.dumps(getattr(self, field.name).reveal())}" for field in fields(self)]
        write_private(path, ("\n".join(lines) + "\n").encode())

    def all(self) -> tuple[Secret, ...]:
        """Each of them, for a search that must find none."""
        return tuple(getattr(self, field.name) for field in fields(self))
