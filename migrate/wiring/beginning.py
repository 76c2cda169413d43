"""Beginning a plan: reads the keys that the boxes serve, so that a person can compare them, and writes both files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from certs.write import generate_passphrase
from kit.errors import FailedError, UsageError
from kit.files import write_private
from migrate.plan_values import ASK
from migrate.wiring.probing import parse_url
from migrate.wiring.template import Start, render_plan, render_secrets, render_upgrade_plan

HTTPS = 443


@dataclass(frozen=True)
class Begun:
    """What was written (or would be). ``pins`` by address; a box that did not answer has none."""

    plan: Path
    secrets: Path
    text: str
    pins: dict[str, str]


def begin(folder: Path, *, site: str, old: str, new: str, image: str, dns: str, dry_run: bool, say: Callable[[str], None]) -> Begun:
    """Write ``plan.yaml`` and ``secrets.yaml`` of a migration into ``folder``.

    Raises:
        UsageError: a file is there already; nothing is overwritten.

    """
    verify_free(folder, dry_run=dry_run)
    pins: dict[str, str] = {}
    (old_host, old_port), (new_host, new_port) = _place(old), _place(new)
    for host, port, wanted in ((old_host, old_port, True), (new_host, new_port, not image)):
        if wanted and host not in {"", ASK} and (pin := _read_pin(host, port, say)):
            pins[host] = pin
    text = render_plan(
        Start(site, HTTPS, old_host, old_port, pins.get(old_host, ""), new_host, new_port, pins.get(new_host, ""), image, dns)
    )
    secrets = render_secrets(
        ("old_site", "old_appliance", "old_api", "tsig"), make_secrets("backup", "safety_copy", "new_site", "new_appliance")
    )
    return write_begun(folder, text, secrets, pins, dry_run=dry_run)


def begin_upgrade(folder: Path, *, site: str, box: str, dry_run: bool, say: Callable[[str], None]) -> Begun:
    """The same for an upgrade of the box at ``box``."""
    verify_free(folder, dry_run=dry_run)
    host, port = _place(box)
    pin = _read_pin(host, port, say)
    text = render_upgrade_plan(Start(site, HTTPS, host, port, pin, "", HTTPS, "", "", ""))
    secrets = render_secrets(("site", "appliance", "api"), make_secrets("backup", "safety_copy"))
    return write_begun(folder, text, secrets, {host: pin} if pin else {}, dry_run=dry_run)


def make_secrets(*names: str) -> dict[str, str]:
    """What boxshift can choose itself."""
    return {name: generate_passphrase().reveal() for name in names}


def verify_free(folder: Path, *, dry_run: bool) -> None:
    """Nothing is overwritten. Raises UsageError where a file is there already."""
    for path in (folder / "plan.yaml", folder / "secrets.yaml"):
        if path.exists() and not dry_run:
            raise UsageError(f"{path} is there already.", hint="Edit it, or begin in another folder.")


def write_begun(folder: Path, text: str, secrets: str, pins: dict[str, str], *, dry_run: bool) -> Begun:
    """Write both files, mode 0600."""
    begun = Begun(folder / "plan.yaml", folder / "secrets.yaml", text, pins)
    if not dry_run:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made: {error.strerror}.") from error
        write_private(begun.secrets, secrets.encode())
        write_private(begun.plan, text.encode())
    return begun


def _read_pin(host: str, port: int, say: Callable[[str], None]) -> str:
    from certs.served import read_served

    try:
        pin = read_served(host, port, timeout=10.0).certs[0].spki_sha256
    except FailedError as error:
        say(f"{host}:{port}: its key could not be read ({error.sentence}); the plan says {ASK} there.")
        return ""
    say(f"{host}:{port} serves the key {pin}: compare it with what the box's own page or console shows.")
    return pin


def _place(text: str) -> tuple[str, int]:
    return parse_url(text) if text not in {"", ASK} else (text, HTTPS)
