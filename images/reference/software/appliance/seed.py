"""Fills a site with content that is the same every time it is asked for: users, sessions, recordings, files, Jump Clients, a vault."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .accounts import FACTORY_NAME, NO_PASSWORD, hash_token
from .backup import make_vault_key, seal_for_vault
from .box import Box, Skin
from .control import restart_and_wait
from .core import Appliance
from .network import apply_names
from .packages import install, open_package, read_vendor_key
from .permissions import FULL

NEWEST = 1_790_000_000  # when the last seeded session ended: 2026-09-21
#: Names as people have them; they appear in user names, customers, clients and files.
PEOPLE = (
    "Zoë O'Brien",
    'Jörg "Jo" Müller',
    "Nuñez & Søn",
    "<b>Ada</b> Lovelace",
    "李小龍",
    "Ümit Çelik",
    "Мария Иванова",
    "R. D. \\ Smith",
)


@dataclass(frozen=True)
class Wish:
    """What standard input asks for; everything may be left out.

    ``packages``: names (``site-21.2.1``, looked up in ``package_folder``) or paths of package files, in order.
    ``service_addresses``: ``ADDRESS`` or ``ADDRESS/PREFIX``; ``spare_addresses`` likewise, but added switched off.
    """

    site_name: str = ""
    public_host: str = ""
    company: str = ""
    hostname: str = ""
    users: int = 0
    sessions: int = 0
    recordings: int = 0
    file_items: int = 0
    jump_clients: int = 0
    site_password: str = ""
    appliance_password: str = ""
    api_client_id: str = ""
    api_client_secret: str = ""
    jump_client_secret: str = ""
    upgrade_slots: int = 0
    preshared_key: str = ""
    certificate_pem: str = ""
    key_pem: str = ""
    service_addresses: tuple[str, ...] = ()
    spare_addresses: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    package_folder: str = ""
    update_server: str = ""
    vault: bool = False


def parse_wish(given: Any) -> Wish:
    """Read it.

    Raises:
        ValueError: there is no such wish.

    """
    known = {field.name for field in fields(Wish)}
    if set(given) - known:
        raise ValueError(f"not known: {', '.join(sorted(set(given) - known))}; known: {', '.join(sorted(known))}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Wish(**values)


def seed(box: Box, given: dict[str, Any]) -> dict[str, Any]:
    """Fill the box; answers what can be used from outside (no secret among it)."""
    wish = parse_wish(given)
    appliance = Appliance(box)
    _install(box, appliance, wish)
    appliance = Appliance(box)
    _set_up_box(appliance, wish)
    with appliance.store.site.transaction():
        summary = _fill(appliance, wish)
    if (box.run / "nginx.pid").exists():
        appliance.front.apply()
        if wish.packages:
            restart_and_wait()
    appliance.store.close()
    versions = {"base": appliance.base.version, "site": appliance.site.version}
    return summary | {"guid": appliance.guid, "serial": appliance.hardware.serial} | versions


def _install(box: Box, appliance: Appliance, wish: Wish) -> None:
    """Through the same door as every package, in the order given."""
    for name in wish.packages:
        path = Path(name) if "/" in name else Path(wish.package_folder) / f"{name}.pkg"
        package = open_package(path.read_bytes(), read_vendor_key(box))
        install(box, appliance.store, package)


def _set_up_box(appliance: Appliance, wish: Wish) -> None:
    settings = {"hostname": wish.hostname, "update_server": wish.update_server}
    appliance.store.box.set(**{name: value for name, value in settings.items() if value})
    if wish.hostname:
        apply_names(appliance.box, appliance.store)
    if wish.appliance_password:
        appliance.box_accounts.set_password(FACTORY_NAME, wish.appliance_password)
    present = {row.address for row in appliance.network.rows()}
    for text in (*wish.service_addresses, *wish.spare_addresses):
        address, _, mask = text.partition("/")
        if address not in present:
            is_on = text in wish.service_addresses
            appliance.network.add(address, mask or ("8" if appliance.box.skin is Skin.LOCAL else "24"), enabled=is_on)
    appliance.network.apply()
    if wish.certificate_pem:
        held = appliance.certificates.add_upload(f"{wish.certificate_pem}\n{wish.key_pem}".encode(), "")
        services = tuple(row.address for row in appliance.network.rows() if row.kind == "service")
        appliance.certificates.assign(held, services)
        appliance.ensure_certificates_bound()


def _fill(appliance: Appliance, wish: Wish) -> dict[str, Any]:
    site = appliance.store.site
    settings = {name: getattr(wish, name) for name in ("site_name", "company", "preshared_key") if getattr(wish, name)}
    host = wish.public_host or (wish.site_name if "." in wish.site_name and " " not in wish.site_name else "")
    site.set(**settings, **({"public_host": host} if host else {}))
    if wish.upgrade_slots:
        site.set(upgrade_slots=wish.upgrade_slots)
    if wish.site_password:
        appliance.site_accounts.set_password(FACTORY_NAME, wish.site_password)
    if wish.api_client_id:
        values = (wish.api_client_id, "Automation", hash_token(wish.api_client_secret), json.dumps(FULL))
        site.run("insert or replace into api_account values (?, ?, ?, ?, 1)", *values)
    clients = _add_clients(appliance, wish)
    _add_users(appliance, wish.users)
    lsids = _add_sessions(appliance, wish.sessions, clients)
    _add_recordings(appliance, lsids[-wish.recordings :] if wish.recordings else [])
    large = _add_files(appliance, wish.file_items)
    if wish.vault:
        _add_vault(appliance)
    return {"jump_clients": clients, "sessions": len(lsids), "recordings": min(wish.recordings, len(lsids)), "large_file_items": large}


def _person(number: int) -> str:
    return PEOPLE[number % len(PEOPLE)]


def _add_users(appliance: Appliance, wanted: int) -> None:
    rows = [
        (f"user{at:03d}", f"{_person(at)} {at}", NO_PASSWORD, ("", "en", "es")[at % 3]) for at in range(1, wanted)
    ]  # admin is the first
    appliance.store.site.run_many("insert or replace into account (name, display, password, language) values (?, ?, ?, ?)", rows)


def _add_clients(appliance: Appliance, wish: Wish) -> list[str]:
    secret, names = hash_token(wish.jump_client_secret), [f"jump-{at:04d}" for at in range(1, wish.jump_clients + 1)]
    groups, version = ("Office", "Fábrica", "Lab <1>"), appliance.site.version
    rows = [
        (client, secret, f"{_person(at)}'s computer", f"pc-{at:04d}.example.test", groups[at % 3], "", version)
        for at, client in enumerate(names)
    ]
    columns = "client, secret, name, hostname, jump_group, comments, version"
    appliance.store.site.run_many(f"insert or replace into jump_client ({columns}) values (?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608 - ours
    now = appliance.faults.now()
    appliance.store.site.run("update jump_client set last_connect = ?", int(now))
    with appliance.store.box.transaction():
        appliance.store.box.run_many("insert or replace into presence (client, seen) values (?, ?)", [(client, now) for client in names])
    return names


def _add_sessions(appliance: Appliance, wanted: int, clients: list[str]) -> list[str]:
    lsids = [hashlib.sha256(f"session:{at}".encode()).hexdigest()[:32] for at in range(wanted)]
    rows = []
    for at, lsid in enumerate(lsids):
        ended = NEWEST - (wanted - at) * 600
        client = clients[at % len(clients)] if clients else ""
        rows.append((lsid, f"{_person(at)} #{at}", client, f"user{at % 39 + 1:03d}", ended - 300 - at % 240, ended))
    appliance.store.site.run_many("insert or replace into session values (?, ?, ?, ?, ?, ?)", rows)
    return lsids


def _bytes(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)


def _add_recordings(appliance: Appliance, lsids: list[str]) -> None:
    rows = [(lsid, b"FLV\x01" + _bytes(lsid, 4096 + at * 16)) for at, lsid in enumerate(lsids)]
    appliance.store.site.run_many("insert or replace into recording values (?, ?)", rows)


def _add_files(appliance: Appliance, wanted: int) -> list[str]:
    """Every sixth is larger than backups take; answers the names of those."""
    rows, large = [], []
    for at in range(wanted):
        name = f"{at:03d} {_person(at)}.bin".replace("/", "-")
        size = 200 * 1024 + at * 1000 if at % 6 == 5 else 700 + at * 97
        rows.append((name, _bytes(name, size)))
        if size >= 200 * 1024:
            large.append(name)
    appliance.store.site.run_many("insert or replace into file_item (name, content) values (?, ?)", rows)
    return large


def _add_vault(appliance: Appliance) -> None:
    make_vault_key(appliance.store)
    rows = [
        (f"{_person(at)} server", f"root{at}", seal_for_vault(appliance.store, _bytes(f"vault:{at}", 24).hex().encode())) for at in range(5)
    ]
    appliance.store.site.run_many("insert into vault_account (name, username, sealed) values (?, ?, ?)", rows)
