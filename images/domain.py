"""A virtual machine as libvirt's domain XML, made of frozen values; and the mark by which boxshift knows its own again."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from images.errors import SpecError
from images.segment import SegmentCard, render_card
from images.uplink import Uplink

MARK_NAMESPACE = "urn:boxshift:machine:1"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
# libvirt gives the PCI slots from 2 up to its own devices; the network card that QEMU's command line adds stands far above them.
NETWORK_SLOT = 0x10
# What QEMU calls a machine's memory where it is a copy of a file.
MEMORY_BACKEND = "boxmemory"
# Where the guest agent listens, and our own agent that gives a copy of a saved machine an identity of its own.
AGENT_PORT, IDENTITY_PORT = "org.qemu.guest_agent.0", "boxshift.identity.0"

ET.register_namespace("boxshift", MARK_NAMESPACE)
ET.register_namespace("qemu", QEMU_NAMESPACE)


class Accelerator(enum.Enum):
    """How the guest's processor is run."""

    TCG = "tcg"
    KVM = "kvm"

    @property
    def domain_type(self) -> str:
        """The word that libvirt has for it."""
        return "kvm" if self is Accelerator.KVM else "qemu"


@dataclass(frozen=True)
class Forward:
    """A TCP port of this machine that leads into the guest: ``host:host_port`` (a loopback address) to ``guest:guest_port``."""

    host: str
    host_port: int
    guest: str
    guest_port: int

    def __post_init__(self) -> None:
        for address in (self.host, self.guest):
            if not _is_ipv4(address):
                raise SpecError(
                    f"{address!r} is no IPv4 address.", hint="Forwards lead from a loopback address to an address of the guest."
                )
        if not ipaddress.IPv4Address(self.host).is_loopback:
            raise SpecError(f"The forward from {self.host} would open the machine to the network.", hint="Use an address of 127.0.0.0/8.")
        for port in (self.host_port, self.guest_port):
            if not 0 < port < 65536:
                raise SpecError(f"{port} is no TCP port.", hint="Ports are 1 to 65535.")

    @property
    def option(self) -> str:
        """QEMU's spelling of it."""
        return f"hostfwd=tcp:{self.host}:{self.host_port}-{self.guest}:{self.guest_port}"


@dataclass(frozen=True)
class Mark:
    """What boxshift writes into a domain's metadata: which ledger it belongs to, the machine's own random mark, who asked for it."""

    owner: str
    mark: str
    request: str


@dataclass(frozen=True)
class Domain:
    """All that a domain's XML says. Memory in MiB; ``arguments`` are the kernel's.

    ``first_lease``: where user networking begins to give addresses; empty: where it does by itself, at 10.0.2.15. ``segments``: further
    cards, on private segments. ``uplink``: what the first card hangs on; None: user networking. ``memory``: a file with
    what its memory begins with, which stays as it is; None: it begins empty.
    """

    name: str
    uuid: str
    mark: Mark
    memory_mib: int
    cpus: int
    accelerator: Accelerator
    disk: Path
    kernel: Path
    initrd: Path
    arguments: tuple[str, ...]
    mac: str
    forwards: tuple[Forward, ...]
    console_log: Path
    first_lease: str = ""
    segments: tuple[SegmentCard, ...] = ()
    uplink: Uplink | None = None
    memory: Path | None = None


def render_domain(domain: Domain) -> str:
    """The XML that defines it."""
    root = ET.Element("domain", {"type": domain.accelerator.domain_type})
    _text(root, "name", domain.name)
    _text(root, "uuid", domain.uuid)
    _text(root, "genid", domain.uuid)
    _add_mark(root, domain.mark)
    _text(root, "memory", str(domain.memory_mib), unit="MiB")
    _text(root, "vcpu", str(domain.cpus))
    _add_boot(root, domain)
    _add_processor(root, domain.accelerator)
    ET.SubElement(root, "clock", {"offset": "utc"})
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(root, f"on_{event}", action)
    _add_devices(root, domain)
    if domain.uplink is not None:
        add_interface(root, domain.uplink, domain.mac, "virtio")
    _add_commandline(root, (*_plan_memory(domain), *_plan_network(domain)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def find_mark(xml: str) -> Mark | None:
    """The mark in a domain's XML; None where it has none, or a damaged one."""
    node = ET.fromstring(xml).find(f"metadata/{{{MARK_NAMESPACE}}}machine")  # noqa: S314 - libvirt's own output
    if node is None:
        return None
    owner, mark, request = (node.get(key) for key in ("owner", "mark", "request"))
    return Mark(owner, mark, request) if owner and mark and request else None


def _add_mark(root: ET.Element, mark: Mark) -> None:
    metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, f"{{{MARK_NAMESPACE}}}machine", {"owner": mark.owner, "mark": mark.mark, "request": mark.request})


def _add_boot(root: ET.Element, domain: Domain) -> None:
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    _text(system, "kernel", str(domain.kernel))
    _text(system, "initrd", str(domain.initrd))
    _text(system, "cmdline", " ".join(domain.arguments))


def _add_processor(root: ET.Element, accelerator: Accelerator) -> None:
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    if accelerator is Accelerator.KVM:
        ET.SubElement(root, "cpu", {"mode": "host-passthrough", "migratable": "on"})
    else:
        ET.SubElement(root, "cpu", {"mode": "maximum"})


def _add_devices(root: ET.Element, domain: Domain) -> None:
    devices = ET.SubElement(root, "devices")
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    ET.SubElement(disk, "driver", {"name": "qemu", "type": "qcow2", "discard": "unmap", "detect_zeroes": "unmap"})
    ET.SubElement(disk, "source", {"file": str(domain.disk)})
    ET.SubElement(disk, "target", {"dev": "vda", "bus": "virtio"})
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    serial = ET.SubElement(devices, "serial", {"type": "pty"})
    ET.SubElement(serial, "log", {"file": str(domain.console_log), "append": "off"})
    ET.SubElement(serial, "target", {"port": "0"})
    for port in (AGENT_PORT, IDENTITY_PORT):
        channel = ET.SubElement(devices, "channel", {"type": "unix"})
        ET.SubElement(channel, "target", {"type": "virtio", "name": port})
    rng = ET.SubElement(devices, "rng", {"model": "virtio"})
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", {"model": "none"})
    ET.SubElement(ET.SubElement(devices, "video"), "model", {"type": "none"})


def _plan_memory(domain: Domain) -> Iterator[tuple[str, str]]:
    """By QEMU's own options: libvirt has files for memory, but chooses their paths itself and empties them."""
    if domain.memory is not None:
        path = str(domain.memory).replace(",", ",,")
        yield "-object", f"memory-backend-file,id={MEMORY_BACKEND},size={domain.memory_mib}M,share=off,mem-path={path}"
        yield "-machine", f"memory-backend={MEMORY_BACKEND}"


def _plan_network(domain: Domain) -> Iterator[tuple[str, str]]:
    """User networking by QEMU's own options: libvirt 9.0 accepts ``<portForward>`` without passt and then does nothing."""
    if domain.uplink is None:
        start = [f"dhcpstart={domain.first_lease}"] if domain.first_lease else []
        yield "-netdev", ",".join(("user", "id=boxnet0", *start, *(one.option for one in domain.forwards)))
        yield "-device", f"virtio-net-pci,netdev=boxnet0,id=boxcard0,mac={domain.mac},bus=pci.0,addr={NETWORK_SLOT:#x},romfile="
    for number, card in enumerate(domain.segments):
        yield "-netdev", card.render_netdev(number)
        yield "-device", render_card(number, domain.mac)


def _add_commandline(root: ET.Element, options: Iterable[tuple[str, str]]) -> None:
    values = [value for option in options for value in option]
    commandline = ET.SubElement(root, f"{{{QEMU_NAMESPACE}}}commandline") if values else root
    for value in values:
        ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", {"value": value})


def add_interface(root: ET.Element, uplink: Uplink, mac: str, model: str) -> None:
    """A card that libvirt connects to one of its networks, or to a bridge of the hypervisor's."""
    card = ET.SubElement(need_devices(root), "interface", {"type": uplink.kind.value})
    ET.SubElement(card, "mac", {"address": mac})
    ET.SubElement(card, "source", {uplink.kind.value: uplink.name})
    ET.SubElement(card, "model", {"type": model})


def need_devices(root: ET.Element) -> ET.Element:
    """The element of a domain that holds its devices."""
    devices = root.find("devices")
    return ET.SubElement(root, "devices") if devices is None else devices


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _is_ipv4(address: str) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True
