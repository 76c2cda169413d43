"""The hypervisor's own networks, and where a machine is reached on one."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from images.errors import SpecError
from images.hypervisor import Hypervisor, translated
from kit.errors import FailedError

NEIGHBOURS = Path("/proc/net/arp")
ANSWERED = 0x2  # ATF_COM of <net/if_arp.h>


@dataclass(frozen=True)
class NetworkFacts:
    """A network of libvirt's. ``bridge``: what its machines hang on, empty where it has none."""

    name: str
    active: bool
    bridge: str


def list_networks(hypervisor: Hypervisor) -> tuple[NetworkFacts, ...]:
    """All that libvirt knows, by name."""
    with translated("list its networks"):
        found = [NetworkFacts(one.name(), bool(one.isActive()), _bridge(one)) for one in hypervisor.link().listAllNetworks()]
        return tuple(sorted(found, key=lambda network: network.name))


@dataclass(frozen=True)
class NewNetwork:
    """A network that leads nowhere: a bridge with an address of this computer's, and DHCP that keeps an address for each card.

    ``leases``: hardware address and IPv4 address.
    """

    name: str
    address: IPv4Interface
    leases: tuple[tuple[str, str], ...]


def start_network(hypervisor: Hypervisor, network: NewNetwork) -> None:
    """Start it; it is gone when it is stopped, and its bridge has its name.

    Raises:
        HypervisorError: there is one already, or it cannot be started.

    """
    with translated(f"start the network {network.name}"):
        hypervisor.link().networkCreateXML(render_network(network))


def render_network(network: NewNetwork) -> str:
    """As libvirt reads it. Without ``forward`` nothing is routed out of it."""
    root = ET.Element("network")
    ET.SubElement(root, "name").text = network.name
    ET.SubElement(root, "bridge", {"name": network.name, "stp": "off", "delay": "0"})
    ET.SubElement(root, "dns", {"enable": "no"})
    ip = ET.SubElement(root, "ip", {"address": str(network.address.ip), "netmask": str(network.address.netmask)})
    dhcp = ET.SubElement(ip, "dhcp")
    for mac, address in network.leases:
        ET.SubElement(dhcp, "host", {"mac": mac, "ip": address})
    return ET.tostring(root, encoding="unicode")


def verify_network(hypervisor: Hypervisor, name: str) -> None:
    """Make sure that machines can be put on it now.

    Raises:
        SpecError: there is no such network, or it is not started.

    """
    known = {one.name: one for one in list_networks(hypervisor)}
    if name not in known:
        others = ", ".join(known) or "none"
        raise SpecError(f"The hypervisor has no network {name!r}.", hint=f"It has: {others}. A bridge of its own is named with --bridge.")
    if not known[name].active:
        raise SpecError(f"The hypervisor's network {name} is not started.", hint=f"virsh net-start {name}")


def find_address(hypervisor: Hypervisor, uuid: str, mac: str) -> str:
    """The IPv4 address of a running machine's card; empty where nobody knows one.

    Asked are, in this order: libvirt's DHCP leases, the agent inside, and the tables of neighbours of the hypervisor and of this computer,
    which know only whom they have talked to.
    """
    for ask in (_lease, _agent, _its_neighbour, _our_neighbour):
        try:
            found = ask(hypervisor, uuid, mac)
        except FailedError:
            continue  # no agent, no leases: the next may know
        if found:
            return found
    return ""


def _lease(hypervisor: Hypervisor, uuid: str, mac: str) -> str:
    return _interface_address(hypervisor, uuid, mac, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)


def _agent(hypervisor: Hypervisor, uuid: str, mac: str) -> str:
    return next(iter(hypervisor.read_addresses(uuid, mac=mac)), "")


def _its_neighbour(hypervisor: Hypervisor, uuid: str, mac: str) -> str:
    return _interface_address(hypervisor, uuid, mac, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP)


def _our_neighbour(_: Hypervisor, __: str, mac: str) -> str:
    """Some libvirt cannot read its own table on newer kernels ("wrong nlmsg len"); where we are on the same wire, ours knows as well."""
    return parse_neighbours(NEIGHBOURS.read_text()).get(mac, "")


def parse_neighbours(table: str) -> dict[str, str]:
    """The IPv4 address of each hardware address in Linux's table of neighbours, of those that answered."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[3]: row[0] for row in rows if len(row) >= 6 and int(row[2], 16) & ANSWERED}


def _interface_address(hypervisor: Hypervisor, uuid: str, mac: str, source: int) -> str:
    with translated("look for the machine's address"):
        cards = hypervisor.link().lookupByUUIDString(uuid).interfaceAddresses(source, 0)
    found = (address for card in cards.values() if card["hwaddr"] == mac for address in card["addrs"] or ())
    return next((str(one["addr"]) for one in found if one["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4), "")


def _bridge(network: libvirt.virNetwork) -> str:
    try:
        return str(network.bridgeName())
    except libvirt.libvirtError:
        return ""
