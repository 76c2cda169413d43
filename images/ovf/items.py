"""One piece of hardware in an OVF descriptor: Item, and OVF 2's StorageItem and EthernetPortItem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.import_errors import OvfError
from images.ovf.model import Item, Setting
from images.ovf.xml import attribute, children, flag, name_of, parse_flag, text_of

if TYPE_CHECKING:
    from lxml import etree

_LIMITS = ("Reservation", "Limit", "Weight")


def read_item(element: etree._Element) -> Item:
    """The item as it stands there.

    Raises:
        OvfError: its kind is no number.

    """
    kind = text_of(element, "ResourceType")
    if not (kind.isascii() and kind.isdigit() and len(kind) < 6):
        raise OvfError(f"The descriptor has hardware of the kind {kind[:60]!r}, which is no number.")
    automatic = text_of(element, "AutomaticAllocation")
    return Item(
        instance=text_of(element, "InstanceID") or text_of(element, "InstanceId"),
        kind=int(kind),
        subtype=text_of(element, "ResourceSubType"),
        name=text_of(element, "ElementName") or text_of(element, "Caption"),
        parent=text_of(element, "Parent"),
        address=text_of(element, "Address"),
        slot=text_of(element, "AddressOnParent"),
        quantity=text_of(element, "VirtualQuantity"),
        units=text_of(element, "VirtualQuantityUnits") if _counts_bytes(element) else text_of(element, "AllocationUnits"),
        resources=tuple(text_of(one) for one in children(element, "HostResource") if text_of(one)),
        connections=tuple(text_of(one) for one in children(element, "Connection") if text_of(one)),
        connected=parse_flag(automatic, "AutomaticAllocation") if automatic else True,
        required=flag(element, "required", usual=True),
        bound=attribute(element, "bound") or "",
        configurations=tuple((attribute(element, "configuration") or "").split()),
        settings=tuple(read_setting(one) for one in children(element, "Config", "ExtraConfig")),
        cores_per_socket=text_of(element, "CoresPerSocket"),
        limits=tuple(name for name in _LIMITS if text_of(element, name) not in ("", "0")),
    )


def read_setting(element: etree._Element) -> Setting:
    """A line of VMware's own."""
    prefix = "" if name_of(element) == "Config" else "extra: "
    return Setting(prefix + (attribute(element, "key") or ""), attribute(element, "value") or "", flag(element, "required", usual=True))


def _counts_bytes(element: etree._Element) -> bool:
    """OVF 2 may count in VirtualQuantityUnits; where both are said, AllocationUnits is the older habit and means the same."""
    units = text_of(element, "VirtualQuantityUnits").lower()
    return bool(units) and units != "count" and not text_of(element, "AllocationUnits")
