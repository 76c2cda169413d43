"""Read an OVF descriptor, 0.9 to 2.0, as VMware, VirtualBox and others write it, into values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from images.import_errors import OvfError
from images.ovf.items import read_item, read_setting
from images.ovf.model import (
    Deployment,
    DiskDeclaration,
    Envelope,
    Eula,
    FileReference,
    KernelReference,
    Setting,
    Unread,
    VirtualSystem,
)
from images.ovf.properties import read_properties
from images.ovf.units import parse_bytes, parse_count
from images.ovf.xml import ENVELOPES, OURS, VIRTUALBOX, attribute, child, children, flag, name_of, parse_xml, space_of, text_of

if TYPE_CHECKING:
    from lxml import etree

_SYSTEM_SECTIONS = {
    "Info", "Name", "AnnotationSection", "EulaSection", "OperatingSystemSection", "ProductSection", "VirtualHardwareSection",
    "BootOrderSection",    "KernelSection",
}  # fmt: skip
_ENVELOPE_SECTIONS = {
    "References",
    "DiskSection",
    "NetworkSection",
    "DeploymentOptionSection",
    "VirtualSystem",
    "VirtualSystemCollection",
    "Strings",
}


def parse_ovf(raw: bytes) -> Envelope:
    """The descriptor.

    Raises:
        OvfError: it is no OVF, or contradicts itself.
        HostileSourceError: it declares entities, or is absurdly large.

    """
    root = parse_xml(raw)
    if name_of(root) != "Envelope" or space_of(root) not in ENVELOPES:
        raise OvfError("The descriptor is no OVF envelope of a version that is known.", hint="OVF 0.9 to 2.0 are read.")
    messages = _messages(root)
    systems = tuple(_read_system(element, above, messages) for element, above in _systems(root, ()))
    if not systems:
        raise OvfError("The descriptor describes no machine.")
    files = tuple(_read_file(element) for element in children(child(root, "References"), "File"))
    disks = tuple(_read_disk(element) for element in children(child(root, "DiskSection"), "Disk"))
    _verify_unique([one.id for one in files], "files")
    _verify_unique([one.id for one in disks], "disks")
    _verify_unique([one.id for one in systems], "machines")
    return Envelope(
        files=files,
        disks=disks,
        networks=tuple(attribute(one, "name") or "" for one in children(child(root, "NetworkSection"), "Network")),
        deployments=tuple(
            Deployment(
                attribute(one, "id") or "",
                _message(child(one, "Label"), messages),
                _message(child(one, "Description"), messages),
                flag(one, "default", usual=False),
            )
            for one in children(child(root, "DeploymentOptionSection"), "Configuration")
        ),
        systems=systems,
        unread=tuple(_unread(root, _ENVELOPE_SECTIONS)),
    )


def _systems(element: etree._Element, above: tuple[etree._Element, ...]) -> Iterator[tuple[etree._Element, tuple[etree._Element, ...]]]:
    """Every machine, with the collections that it lies in: their products and licences are its own too."""
    for one in children(element, "VirtualSystem", "VirtualSystemCollection"):
        if name_of(one) == "VirtualSystem":
            yield one, above
        else:
            yield from _systems(one, (*above, one))


def _read_system(element: etree._Element, above: tuple[etree._Element, ...], messages: tuple[tuple[str, str], ...]) -> VirtualSystem:
    hardware = child(element, "VirtualHardwareSection")
    products = [one for holder in (*above, element) for one in children(holder, "ProductSection")]
    eulas = [one for holder in (*above, element) for one in children(holder, "EulaSection")]
    unread = [
        *_unread(element, _SYSTEM_SECTIONS),
        *_unread(hardware, {"Info", "System", "Item", "StorageItem", "EthernetPortItem", "Config", "ExtraConfig"}),
    ]
    for holder in above:
        unread += _unread(holder, _SYSTEM_SECTIONS | {"VirtualSystem", "VirtualSystemCollection"})
    items = children(hardware, "Item", "StorageItem", "EthernetPortItem")
    return VirtualSystem(
        id=attribute(element, "id") or "machine",
        name=_message(child(element, "Name"), messages),
        info=_message(child(child(element, "AnnotationSection"), "Annotation"), messages),
        os=text_of(child(element, "OperatingSystemSection"), "Description")
        or (attribute_of(child(element, "OperatingSystemSection"), "osType")),
        types=tuple(text_of(child(hardware, "System"), "VirtualSystemType").split()),
        items=tuple(read_item(one) for one in items),
        settings=tuple(_settings(hardware)),
        firmware=_virtualbox_firmware(element),
        boot_order=_boot_order(element),
        properties=read_properties(products, lambda one: _message(one, messages)),
        transports=tuple(dict.fromkeys((attribute_of(hardware, "transport")).split())),
        product=" ".join(word for word in (text_of(products[-1], "Product"), text_of(products[-1], "Version")) if word) if products else "",
        eulas=tuple(Eula(_message(child(one, "License"), messages)) for one in eulas),
        unread=tuple(dict.fromkeys(unread)),
        kernel=_kernel(element),
    )


def attribute_of(element: etree._Element | None, name: str) -> str:
    """The attribute, empty where there is no such element or attribute."""
    return (attribute(element, name) or "") if element is not None else ""


def _settings(hardware: etree._Element | None) -> Iterator[Setting]:
    for one in children(hardware, "Config", "ExtraConfig"):
        yield read_setting(one)


def _read_file(element: etree._Element) -> FileReference:
    size, chunk = attribute(element, "size"), attribute(element, "chunkSize")
    href = attribute(element, "href")
    if not href:
        raise OvfError("The descriptor refers to a file without a name.")
    return FileReference(
        id=attribute(element, "id") or "",
        href=href,
        size=parse_count(size, "a file's size") if size else None,
        compression=(attribute(element, "compression") or "").lower(),
        chunk=parse_count(chunk, "the size of a file's parts") if chunk else 0,
    )


def _read_disk(element: etree._Element) -> DiskDeclaration:
    capacity, units = attribute(element, "capacity") or "", attribute(element, "capacityAllocationUnits") or ""
    if not capacity:
        raise OvfError(f"The descriptor does not say how large the disk {attribute(element, 'diskId')!r} is.")
    return DiskDeclaration(
        id=attribute(element, "diskId") or "",
        file=attribute(element, "fileRef") or "",
        capacity=f"{capacity} {units}".strip() if capacity.startswith("${") else parse_bytes(capacity, units, "a disk's size"),
        parent=attribute(element, "parentRef") or "",
    )


def _virtualbox_firmware(element: etree._Element) -> str:
    for machine in children(element, "Machine"):
        if space_of(machine) == VIRTUALBOX or "virtualbox" in space_of(machine).lower():
            firmware = child(child(machine, "Hardware"), "Firmware")
            return attribute_of(firmware, "type")
    return ""


def _boot_order(element: etree._Element) -> tuple[str, ...]:
    """The instances in the order of VMware's BootOrderSection: disks and CDs by their items."""
    found = []
    for section in children(element, "BootOrderSection"):
        found += [one for one in (attribute(section, "instanceId") or "").split() if one]
    return tuple(found)


def _kernel(element: etree._Element) -> KernelReference | None:
    section = next((one for one in children(element, "KernelSection") if space_of(one) == OURS), None)
    if section is None:
        return None
    arguments = tuple(text_of(one) for one in children(section, "Argument"))
    return KernelReference(attribute_of(section, "kernel"), attribute_of(section, "initrd"), arguments)


def _unread(element: etree._Element | None, known: set[str]) -> Iterator[Unread]:
    for one in children(element):
        if name_of(one) not in known:
            yield Unread(name_of(one), flag(one, "required", usual=name_of(one).endswith("Section")))


def _messages(root: etree._Element) -> tuple[tuple[str, str], ...]:
    """Texts by their message ids, English first."""
    tables = sorted(
        children(root, "Strings"), key=lambda one: not str(one.get("{http://www.w3.org/XML/1998/namespace}lang", "")).startswith("en")
    )
    return tuple((attribute(one, "msgid") or "", text_of(one)) for table in tables for one in children(table, "Msg"))


def _message(element: etree._Element | None, messages: tuple[tuple[str, str], ...]) -> str:
    """Its text; where it only names a message, that message's."""
    if element is None:
        return ""
    wanted = attribute(element, "msgid")
    return next((text for name, text in messages if wanted and name == wanted), "") or text_of(element)


def _verify_unique(ids: list[str], what: str) -> None:
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(ids) <= 4096 else ["too many"]
    if twice:
        raise OvfError(f"The descriptor has two {what} with the id {twice[0][:100]!r}.")
