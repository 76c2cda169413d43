"""The addresses of the box. On a machine they are really put on the interface and taken off it; locally they are loopback addresses."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from .arp import announce
from .box import Box, Skin
from .errors import Refused
from .programs import ProgramError, run
from .store import Store


@dataclass(frozen=True)
class Address:
    """One address of the box; ``kind`` is ``admin`` or ``service``; ``certificate`` None: the factory certificate."""

    address: str
    prefix: int
    enabled: bool
    kind: str
    certificate: int | None


def parse_address(address: str, mask: str) -> tuple[str, int]:
    """An address and its mask (``255.255.255.0``, ``24`` or ``/24``).

    Raises:
        Refused: either is not one.

    """
    try:
        one = ipaddress.ip_interface(f"{address.strip()}/{mask.strip().lstrip('/')}")
    except ValueError as error:
        raise Refused("{address} with the mask {mask} is not an IP address.", address=address, mask=mask) from error
    return str(one.ip), one.network.prefixlen


class Network:
    """Reads and changes the addresses; :meth:`apply` makes the machine follow the database."""

    def __init__(self, box: Box, store: Store) -> None:
        self._box = box
        self._store = store

    def rows(self) -> list[Address]:
        rows = self._store.box.rows("select * from address order by kind, address")
        return [Address(row["address"], row["prefix"], bool(row["enabled"]), row["kind"], row["certificate"]) for row in rows]

    def add(self, address: str, mask: str, *, enabled: bool, kind: str = "service") -> None:
        """Add an address (not yet on the machine: :meth:`apply`)."""
        ip, prefix = parse_address(address, mask)
        if self._box.skin is Skin.LOCAL and not ipaddress.ip_address(ip).is_loopback:
            raise Refused("{address} is not a loopback address, and this appliance runs as local processes.", address=ip)
        if self._store.box.value("select 1 from address where address = ?", ip):
            raise Refused("The appliance has the address {address} already.", address=ip)
        self._store.box.run("insert into address values (?, ?, ?, ?, null)", ip, prefix, int(enabled), kind)

    def change(self, address: str, mask: str, *, enabled: bool) -> None:
        """Change mask or state of an address.

        Raises:
            Refused: there is no such address, or it is the last one that is on.

        """
        ip, prefix = parse_address(address, mask)
        rows = {row.address: row for row in self.rows()}
        if ip not in rows:
            raise Refused("The appliance has no address {address}.", address=ip)
        if not enabled and not any(row.enabled for row in rows.values() if row.address != ip):
            raise Refused("The last enabled address cannot be disabled.")
        self._store.box.run("update address set prefix = ?, enabled = ? where address = ?", prefix, int(enabled), ip)
        with self._store.site.transaction():
            pass  # who is writing now has finished; who writes later sees that the address is off

    def remove(self, address: str) -> None:
        if self._store.box.value("select kind from address where address = ?", address) == "admin":
            raise Refused("The administration address cannot be deleted.")
        self.change(address, "32" if ":" not in address else "128", enabled=False)
        self.apply()
        self._store.box.run("delete from address where address = ?", address)

    def apply(self) -> None:
        """On a machine: put the enabled addresses on the interface, take the others off, and look whether it is so.

        Neighbours are told of every new one: who knew it at another appliance would go on sending there, for half a minute.
        """
        if self._box.skin is Skin.LOCAL:
            return
        links = read_interfaces()
        fresh = [row.address for row in self.rows() if row.kind != "admin" and _put(row, links)]
        after = read_interfaces()
        for row in self.rows():
            if row.kind != "admin" and row.enabled != any(row.address in present for present in after.values()):
                interface = _choose(row.address, links)
                raise Refused("The address {address} could not be changed on {interface}.", address=row.address, interface=interface)
        for address in fresh:
            _announce(address, after)

    def find_interface(self, address: str) -> str:
        """On a machine: the interface that has this address, or would get it."""
        return _choose(address, read_interfaces())

    def drop_services(self) -> None:
        """Before a factory reset: take every added address off the machine."""
        if self._box.skin is Skin.LOCAL:
            return
        links = read_interfaces()
        for row in self.rows():
            if row.kind != "admin":
                _take_off(row.address, links)

    def follow_dhcp(self) -> bool:
        """On a machine: take the address that DHCP gave as the administration address. Answers whether it changed."""
        if self._box.skin is Skin.LOCAL:
            return False
        _, present = next(iter(sorted(read_interfaces().items(), key=lambda link: not link[1])))
        services = {row.address for row in self.rows() if row.kind != "admin"}
        given = [(ip, prefix) for ip, prefix in present.items() if ip not in services]
        old = self._store.box.find_row("select * from address where kind = 'admin'")
        if not given or (old is not None and old["address"] in dict(given)):
            return False
        if old is None:
            self._store.box.run("insert into address values (?, ?, 1, 'admin', null)", *given[0])
        else:
            self._store.box.run("update address set address = ?, prefix = ? where kind = 'admin'", *given[0])
        return True


def read_interfaces() -> dict[str, dict[str, int]]:
    """The network interfaces in the kernel's order, each with its global addresses (address -> prefix length)."""
    found = {
        link["ifname"]: {one["local"]: one["prefixlen"] for one in link["addr_info"] if one["scope"] == "global"}
        for link in json.loads(_ip("-json", "addr", "show"))
        if link["ifname"] != "lo"
    }
    if not found:
        raise Refused("The machine has no network interface.")
    return found


def _choose(address: str, links: dict[str, dict[str, int]]) -> str:
    """The interface that has the address; else the one on whose network it lies; else the first that has any address."""
    ip = ipaddress.ip_address(address)
    for name, present in links.items():
        if address in present:
            return name
    for name, present in links.items():
        if any(ip in ipaddress.ip_interface(f"{one}/{prefix}").network for one, prefix in present.items()):
            return name
    return next((name for name, present in links.items() if present), next(iter(links)))


def _put(row: Address, links: dict[str, dict[str, int]]) -> bool:
    """Put an address on the machine, or take it off. Answers whether it is there now and was not before."""
    if not row.enabled:
        _take_off(row.address, links)
        return False
    if any(row.address in present for present in links.values()):
        return False
    _ip("addr", "add", f"{row.address}/{row.prefix}", "dev", _choose(row.address, links), "scope", "global")
    return True


def _announce(address: str, links: dict[str, dict[str, int]]) -> None:
    if ":" in address:
        return
    try:
        announce(_choose(address, links), address)
    except OSError as error:
        raise Refused("The network could not be changed: {reason}", reason=str(error)) from error


def _take_off(address: str, links: dict[str, dict[str, int]]) -> None:
    for name, present in links.items():
        if address in present:
            _ip("addr", "del", f"{address}/{present[address]}", "dev", name)


def _ip(*words: str) -> str:
    try:
        return run(["ip", *words])
    except ProgramError as error:
        raise Refused("The network could not be changed: {reason}", reason=str(error)) from error


def apply_names(box: Box, store: Store) -> None:
    """On a machine: make host name, gateway, DNS servers and NTP server those of the settings, where they are set."""
    if box.skin is Skin.LOCAL:
        return
    settings = store.box
    try:
        run(["hostname", settings.setting("hostname")])
        if settings.setting("gateway"):
            run(["ip", "route", "replace", "default", "via", settings.setting("gateway")])
        if settings.setting("dns"):
            lines = [f"nameserver {server}\n" for server in settings.setting("dns").replace(",", " ").split()]
            _write("/etc/resolv.conf", "".join(lines))
        if settings.setting("ntp"):
            _write("/etc/systemd/timesyncd.conf.d/appliance.conf", f"[Time]\nNTP={settings.setting('ntp')}\n")
            run(["systemctl", "try-restart", "systemd-timesyncd.service"])
    except (OSError, ProgramError) as error:
        raise Refused("The network could not be changed: {reason}", reason=str(error)) from error


def _write(path: str, text: str) -> None:
    from pathlib import Path

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
