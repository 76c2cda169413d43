"""Write an OVF descriptor that VMware, VirtualBox, virt-v2v and this repository read."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from images.hardware import Bus, Card, Controller, Drive, DriveKind, Firmware, MachineHardware
from images.ovf.model import Kind
from images.ovf.xml import OURS, VMWARE

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
FIRST_DRIVE = 100  # the instance of the first drive
SYSTEM_TYPE = "vmx-13"  # vSphere 6.5 and later
_CONTROLLERS = {
    (Bus.IDE, ""): (Kind.IDE, "PIIX4"),
    (Bus.SATA, ""): (Kind.OTHER_STORAGE, "vmware.sata.ahci"), (Bus.VIRTIO, ""): (Kind.OTHER_STORAGE, "virtio-blk"),
    (Bus.SCSI, "lsisas1068"): (Kind.SCSI, "lsilogicsas"), (Bus.SCSI, "vmpvscsi"): (Kind.SCSI, "VirtualSCSI"),
    (Bus.SCSI, "virtio-scsi"): (Kind.SCSI, "virtio-scsi"),
}  # fmt: skip
_CARDS = {"e1000": "E1000", "e1000e": "E1000e", "vmxnet3": "VmxNet3", "pcnet": "PCNet32", "virtio": "virtio", "rtl8139": "rtl8139"}

# Prefixes are known to the whole process: "boxshift" is the one of the marks in machines' definitions.
for _prefix, _space in (("ovf", OVF), ("rasd", RASD), ("vssd", VSSD), ("vmw", VMWARE), ("boxshift-ovf", OURS)):
    ET.register_namespace(_prefix, _space)


@dataclass(frozen=True)
class ShippedFile:
    """A file of the bundle: name, bytes as shipped; for a disk the bytes that the machine sees, else 0."""

    name: str
    size: int
    capacity: int = 0


@dataclass(frozen=True)
class Shipping:
    """What is in the bundle. ``disks``: by the drives' files; ``kernel``: kernel and initrd, where the machine needs them."""

    name: str
    disks: tuple[tuple[str, ShippedFile], ...]
    kernel: tuple[ShippedFile, ...] = ()


def render_ovf(hardware: MachineHardware, shipping: Shipping) -> bytes:
    """The descriptor of one machine."""
    root = ET.Element(_tag("Envelope"))
    files = [file for _, file in shipping.disks] + list(shipping.kernel)
    references = ET.SubElement(root, _tag("References"))
    for number, file in enumerate(files, 1):
        ET.SubElement(references, _tag("File"), {_tag("id"): f"file{number}", _tag("href"): file.name, _tag("size"): str(file.size)})
    _disks(root, shipping)
    networks = ET.SubElement(root, _tag("NetworkSection"))
    _info(networks, "The networks that the machine belongs to")
    for name in dict.fromkeys(card.network or "network" for card in hardware.cards):
        ET.SubElement(networks, _tag("Network"), {_tag("name"): name})
    system = ET.SubElement(root, _tag("VirtualSystem"), {_tag("id"): hardware.system_id or shipping.name})
    _info(system, "A virtual machine")
    _text(system, _tag("Name"), hardware.description or shipping.name)
    _hardware(system, hardware, shipping)
    _boot_order(system, hardware)
    _properties(system, hardware)
    if hardware.kernel is not None and shipping.kernel:
        _kernel(system, hardware, shipping)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _disks(root: ET.Element, shipping: Shipping) -> None:
    section = ET.SubElement(root, _tag("DiskSection"))
    _info(section, "The disks")
    for number, (_, file) in enumerate(shipping.disks, 1):
        if file.capacity:
            attributes = {"diskId": f"disk{number}", "fileRef": f"file{number}", "capacity": str(file.capacity), "format": STREAM}
            ET.SubElement(section, _tag("Disk"), {_tag(key): value for key, value in attributes.items()})


def _hardware(system: ET.Element, hardware: MachineHardware, shipping: Shipping) -> None:
    transport = {_tag("transport"): " ".join(hardware.transports)} if hardware.transports else {}
    section = ET.SubElement(system, _tag("VirtualHardwareSection"), transport)
    _info(section, "The hardware")
    about = ET.SubElement(section, _tag("System"))
    for name, text in (("ElementName", "Virtual Hardware Family"), ("InstanceID", "0"), ("VirtualSystemType", SYSTEM_TYPE)):
        _text(about, f"{{{VSSD}}}{name}", text)
    cpu = _item(
        section, 1, Kind.PROCESSOR, f"{hardware.cpus} virtual CPUs", AllocationUnits="hertz * 10^6", VirtualQuantity=str(hardware.cpus)
    )
    if hardware.cores > 1:
        cores = ET.SubElement(cpu, f"{{{VMWARE}}}CoresPerSocket", {_tag("required"): "false"})
        cores.text = str(hardware.cores)
    memory = str(hardware.memory_mib)
    _item(section, 2, Kind.MEMORY, f"{memory} MiB of memory", AllocationUnits="byte * 2^20", VirtualQuantity=memory)
    instances = _controllers(section, hardware)
    numbers = {name: number for number, (name, _) in enumerate(shipping.disks, 1)}
    for at, drive in enumerate(hardware.drives, FIRST_DRIVE):
        _drive(section, at, drive, instances, numbers)
    for number, card in enumerate(hardware.cards, 1):
        _card(section, 200 + number, card, number)
    _config(section, "firmware", "efi" if hardware.firmware is Firmware.UEFI else "bios")
    if hardware.secure_boot:
        _config(section, "bootOptions.efiSecureBootEnabled", "true")
    if hardware.tpm:
        _item(section, 300, Kind.OTHER, "Virtual TPM", ResourceSubType="vmware.vtpm")


def _controllers(section: ET.Element, hardware: MachineHardware) -> dict[tuple[Bus, int], int]:
    """The instance of every controller; the two channels of IDE are two controllers to OVF."""
    found = list(hardware.controllers)
    if any(drive.bus is Bus.IDE and drive.unit > 1 for drive in hardware.drives):
        found.append(Controller(Bus.IDE, 1))
    instances = {}
    for number, one in enumerate(found):
        kind, subtype = _CONTROLLERS.get((one.bus, one.model), (Kind.SCSI, "lsilogic"))
        address = sum(1 for other in found[:number] if other.bus is one.bus)
        _item(section, 3 + number, kind, f"{one.bus.value} controller {one.index}", ResourceSubType=subtype, Address=str(address))
        instances[one.bus, one.index] = 3 + number
    return instances


def _drive(section: ET.Element, at: int, drive: Drive, instances: dict[tuple[Bus, int], int], numbers: dict[str, int]) -> None:
    kind = {DriveKind.DISK: Kind.DISK, DriveKind.CDROM: Kind.CD, DriveKind.FLOPPY: Kind.FLOPPY}[drive.kind]
    values = {}
    if drive.file:
        place = "disk/disk" if drive.kind is DriveKind.DISK else "file/file"
        values["HostResource"] = f"ovf:/{place}{numbers[drive.file]}"
    if drive.bus is Bus.IDE:
        values |= {"Parent": str(instances[Bus.IDE, drive.unit // 2]), "AddressOnParent": str(drive.unit % 2)}
    elif drive.bus is not Bus.FLOPPY:
        values |= {"Parent": str(instances[drive.bus, drive.controller]), "AddressOnParent": str(drive.unit)}
    _item(section, at, kind, f"{drive.kind.value} {at - FIRST_DRIVE + 1}", **values)


def _boot_order(system: ET.Element, hardware: MachineHardware) -> None:
    """Only where it is another than disks first, which every reader takes for granted."""
    ranked = sorted((drive for drive in hardware.drives if drive.boot), key=lambda drive: drive.boot)
    kinds = (DriveKind.DISK, DriveKind.CDROM, DriveKind.FLOPPY)
    usual = sorted((drive for drive in hardware.drives if drive.file), key=lambda drive: kinds.index(drive.kind))
    if ranked == usual:
        return
    instances = " ".join(str(FIRST_DRIVE + hardware.drives.index(drive)) for drive in ranked)
    attributes = {
        _tag("required"): "false",
        f"{{{VMWARE}}}instanceId": instances,
        f"{{{VMWARE}}}type": ranked[0].kind.value if ranked else "disk",
    }
    _info(ET.SubElement(system, f"{{{VMWARE}}}BootOrderSection", attributes), "What the machine is started from, in this order")


def _card(section: ET.Element, at: int, card: Card, number: int) -> None:
    values = {"AddressOnParent": str(6 + number), "AutomaticAllocation": "true" if card.connected else "false"}
    values |= {"Connection": card.network or "network", "ResourceSubType": _CARDS.get(card.model, "E1000e")}
    if card.mac:
        values["Address"] = card.mac
    _item(section, at, Kind.ETHERNET, f"Network adapter {number}", **values)


def _properties(system: ET.Element, hardware: MachineHardware) -> None:
    if not hardware.properties:
        return
    product = ET.SubElement(system, _tag("ProductSection"))
    _info(product, "What the appliance asks before its first start")
    for one in hardware.properties:
        values = {"key": one.key, "type": one.kind, "userConfigurable": str(one.askable).lower()}
        if one.password:
            values["password"] = "true"  # noqa: S105 - the mark that it is one
        if one.default is not None:
            values["value"] = one.default
        limits = [
            f"{name}({count})" for name, count, usual in (("MinLen", one.shortest, 0), ("MaxLen", one.longest, 65535)) if count != usual
        ]
        if one.choices:
            limits.append("ValueMap{" + ",".join(f'"{choice}"' for choice in one.choices) + "}")
        if limits:
            values["qualifiers"] = " ".join(limits)
        element = ET.SubElement(product, _tag("Property"), {_tag(key): value for key, value in values.items()})
        for name, text in (("Label", one.label), ("Description", one.description)):
            if text:
                _text(element, _tag(name), text)


def _kernel(system: ET.Element, hardware: MachineHardware, shipping: Shipping) -> None:
    first = len(shipping.disks) + 1
    attributes = {_tag("required"): "false", "kernel": f"file{first}", "initrd": f"file{first + 1}"}
    section = ET.SubElement(system, f"{{{OURS}}}KernelSection", attributes)
    _info(section, "Kernel and initrd beside the disk; the disk has no boot loader")
    for argument in hardware.kernel.arguments if hardware.kernel else ():
        _text(section, f"{{{OURS}}}Argument", argument)


def _item(section: ET.Element, instance: int, kind: Kind, name: str, **values: str) -> ET.Element:
    """An item; its children in alphabetical order, as the schema wants them."""
    item = ET.SubElement(section, _tag("Item"))
    everything = values | {"ElementName": name, "InstanceID": str(instance), "ResourceType": str(int(kind))}
    for key in sorted(everything):
        _text(item, f"{{{RASD}}}{key}", everything[key])
    return item


def _config(section: ET.Element, key: str, value: str) -> None:
    ET.SubElement(section, f"{{{VMWARE}}}Config", {_tag("required"): "false", f"{{{VMWARE}}}key": key, f"{{{VMWARE}}}value": value})


def _info(element: ET.Element, text: str) -> None:
    _text(element, _tag("Info"), text)


def _text(element: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(element, tag).text = text


def _tag(name: str) -> str:
    return f"{{{OVF}}}{name}"
