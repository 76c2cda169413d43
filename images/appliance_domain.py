"""A machine of an imported image as libvirt's domain XML: with the firmware, buses, drives and cards that its bundle declares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from images.domain import MARK_NAMESPACE, NETWORK_SLOT, QEMU_NAMESPACE, Accelerator, Forward, Mark, add_interface
from images.errors import SpecError
from images.hardware import Bus, Card, Drive, DriveKind, Firmware, MachineHardware
from images.uplink import Uplink

_PREFIXES = {Bus.IDE: "hd", Bus.SATA: "sd", Bus.SCSI: "sd", Bus.VIRTIO: "vd", Bus.FLOPPY: "fd"}
_DEVICES = {"virtio": "virtio-net-pci"}


@dataclass(frozen=True)
class ApplianceDomain:
    """A machine of an imported image. ``disks``: the drives' files and where this machine's own overlays of them are.

    ``properties``: the CD with the answers to its questions, None where it asks none. ``macs``: one per card. ``forwards`` lead to the
    first card; the others are on networks of their own without a way out. ``kernel``: kernel and initrd, None where the firmware starts it.
    ``uplink``: what the first card hangs on; None: user networking, with the forwards.
    """

    name: str
    uuid: str
    mark: Mark
    accelerator: Accelerator
    hardware: MachineHardware
    disks: tuple[tuple[str, Path], ...]
    macs: tuple[str, ...]
    forwards: tuple[Forward, ...]
    console_log: Path
    properties: Path | None = None
    kernel: tuple[Path, Path] | None = None
    uplink: Uplink | None = None


def render_appliance_domain(domain: ApplianceDomain) -> str:
    """The XML that defines it.

    Raises:
        SpecError: an overlay or a card's address is missing.

    """
    hardware = domain.hardware
    if len(domain.macs) != len(hardware.cards):
        raise SpecError(f"{domain.name} has {len(hardware.cards)} network cards and {len(domain.macs)} addresses for them.")
    root = ET.Element("domain", {"type": domain.accelerator.domain_type})
    _text(root, "name", domain.name)
    _text(root, "uuid", domain.uuid)
    _text(root, "genid", domain.uuid)
    mark = {"owner": domain.mark.owner, "mark": domain.mark.mark, "request": domain.mark.request}
    ET.SubElement(ET.SubElement(root, "metadata"), f"{{{MARK_NAMESPACE}}}machine", mark)
    _text(root, "memory", str(hardware.memory_mib), unit="MiB")
    _text(root, "vcpu", str(hardware.cpus))
    _add_boot(root, domain)
    _add_processor(root, domain)
    ET.SubElement(root, "clock", {"offset": "utc"})
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(root, f"on_{event}", action)
    _add_devices(root, domain)
    _add_cards(root, domain)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add_boot(root: ET.Element, domain: ApplianceDomain) -> None:
    hardware = domain.hardware
    uefi = hardware.firmware is Firmware.UEFI
    system = ET.SubElement(root, "os", {"firmware": "efi"} if uefi else {})
    _text(system, "type", "hvm", arch="x86_64", machine=hardware.chipset)
    if uefi:
        words = {"enabled": "yes" if hardware.secure_boot else "no"}
        features = ET.SubElement(system, "firmware")
        for name in ("secure-boot", "enrolled-keys"):
            ET.SubElement(features, "feature", {**words, "name": name})
    if domain.kernel is not None:
        for tag, path in zip(("kernel", "initrd"), domain.kernel, strict=True):
            _text(system, tag, str(path))
        _text(system, "cmdline", " ".join(hardware.kernel.arguments if hardware.kernel else ()))


def _add_processor(root: ET.Element, domain: ApplianceDomain) -> None:
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    if domain.hardware.secure_boot:
        ET.SubElement(features, "smm", {"state": "on"})
    fast = domain.accelerator is Accelerator.KVM
    processor = ET.SubElement(root, "cpu", {"mode": "host-passthrough", "migratable": "on"} if fast else {"mode": "maximum"})
    topology = {"sockets": str(domain.hardware.sockets), "cores": str(domain.hardware.cores), "threads": "1"}
    ET.SubElement(processor, "topology", topology)


def _add_devices(root: ET.Element, domain: ApplianceDomain) -> None:
    devices, hardware = ET.SubElement(root, "devices"), domain.hardware
    for one in hardware.controllers:
        if one.bus is not Bus.VIRTIO:
            model = {"model": one.model} if one.model else {}
            ET.SubElement(devices, "controller", {"type": one.bus.value, "index": str(one.index), **model})
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    names: Counter[str] = Counter()
    for drive in hardware.drives:
        _add_drive(devices, drive, domain, names)
    if domain.properties is not None:
        _add_properties(devices, hardware, domain.properties, names)
    serial = ET.SubElement(devices, "serial", {"type": "pty"})
    ET.SubElement(serial, "log", {"file": str(domain.console_log), "append": "off"})
    ET.SubElement(serial, "target", {"port": "0"})
    if hardware.tpm:
        ET.SubElement(ET.SubElement(devices, "tpm", {"model": "tpm-crb"}), "backend", {"type": "emulator", "version": "2.0"})
    rng = ET.SubElement(devices, "rng", {"model": "virtio"})
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", {"model": "none"})
    ET.SubElement(ET.SubElement(devices, "video"), "model", {"type": "vga"})


def _add_drive(devices: ET.Element, drive: Drive, domain: ApplianceDomain, names: Counter[str]) -> None:
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": drive.kind.value})
    ET.SubElement(disk, "driver", {"name": "qemu", "type": "qcow2"})
    if drive.file:
        path = dict(domain.disks).get(drive.file)
        if path is None:
            raise SpecError(f"{domain.name} has no disk for {drive.file}.")
        ET.SubElement(disk, "source", {"file": str(path)})
    ET.SubElement(disk, "target", {"dev": _name(drive.bus, names), "bus": drive.bus.value})
    if drive.kind is DriveKind.CDROM:
        ET.SubElement(disk, "readonly")
    if drive.boot and domain.kernel is None:
        ET.SubElement(disk, "boot", {"order": str(drive.boot)})
    if drive.bus is not Bus.VIRTIO:
        ET.SubElement(disk, "address", {"type": "drive", **_address(drive, domain.hardware)})


def _address(drive: Drive, hardware: MachineHardware) -> dict[str, str]:
    """As libvirt counts: IDE counts channels, LSI Logic's disks are units, those of other SCSI controllers are targets."""
    values = {"controller": drive.controller, "bus": 0, "target": 0, "unit": drive.unit}
    if drive.bus is Bus.IDE:
        values |= {"bus": drive.unit // 2, "unit": drive.unit % 2}
    models = {(one.bus, one.index): one.model for one in hardware.controllers}
    if drive.bus is Bus.SCSI and models.get((Bus.SCSI, drive.controller)) != "lsilogic":
        values |= {"target": drive.unit, "unit": 0}
    return {name: str(number) for name, number in values.items()}


def _add_properties(devices: ET.Element, hardware: MachineHardware, path: Path, names: Counter[str]) -> None:
    """A CD at a place that is free; libvirt finds one."""
    bus = Bus.SATA if hardware.firmware is Firmware.UEFI or any(drive.bus is Bus.SATA for drive in hardware.drives) else Bus.IDE
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": "cdrom"})
    ET.SubElement(disk, "driver", {"name": "qemu", "type": "raw"})
    ET.SubElement(disk, "source", {"file": str(path)})
    ET.SubElement(disk, "target", {"dev": _name(bus, names), "bus": bus.value})
    ET.SubElement(disk, "readonly")


def _name(bus: Bus, names: Counter[str]) -> str:
    """The next device name: sda, sdb, …, sdaa."""
    prefix = _PREFIXES[bus]
    number, letters = names[prefix], ""
    names[prefix] += 1
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return prefix + letters


def _add_cards(root: ET.Element, domain: ApplianceDomain) -> None:
    cards = list(enumerate(zip(domain.hardware.cards, domain.macs, strict=True)))
    if domain.uplink is not None and cards:
        _, (first, mac) = cards.pop(0)
        add_interface(root, domain.uplink, mac, first.model)
    commandline = ET.SubElement(root, f"{{{QEMU_NAMESPACE}}}commandline") if cards else root
    for number, (card, mac) in cards:
        way = [one.option for one in domain.forwards] if number == 0 else ["restrict=on"]
        for value in ("-netdev", ",".join(("user", f"id=boxnet{number}", *way)), "-device", _card(card, mac, number, domain.hardware)):
            ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", {"value": value})


def _card(card: Card, mac: str, number: int, hardware: MachineHardware) -> str:
    bus = "pcie.0" if hardware.chipset == "q35" else "pci.0"
    place = f"bus={bus},addr={NETWORK_SLOT + number:#x},romfile="
    return f"{_DEVICES.get(card.model, card.model)},netdev=boxnet{number},id=boxcard{number},mac={mac},{place}"


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
