"""The network cards of a machine: models that QEMU has, in the order in which the appliance counts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from images.hardware import Card
from images.ovf.model import Item, Kind
from kit.findings import Finding, Severity

# The subtype in lower case without dashes and underscores: libvirt's word.
MODELS = {
    "e1000": "e1000", "e1000e": "e1000e", "vmxnet3": "vmxnet3", "pcnet32": "pcnet", "pcnet": "pcnet", "flexible": "pcnet",
    "virtio": "virtio", "virtionet": "virtio", "rtl8139": "rtl8139", "82540em": "e1000", "82545em": "e1000", "82574l": "e1000e",
}  # fmt: skip
USUAL = "e1000e"
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")


def plan_cards(items: Sequence[Item], networks: Sequence[str], findings: list[Finding]) -> tuple[Card, ...]:
    """One card per Ethernet item."""
    found = [item for item in items if item.kind == Kind.ETHERNET]
    slots = [int(item.slot) if item.slot.isascii() and item.slot.isdigit() and len(item.slot) < 6 else None for item in found]
    known = [slot for slot in slots if slot is not None]
    if len(set(known)) == len(found) and known != sorted(known):
        findings.append(
            Finding("ovf.card-order", Severity.NOTE, "Its network cards stand in another order than their slots; the slots count.")
        )
        found = [item for _, item in sorted(zip(known, found, strict=True), key=lambda pair: pair[0])]
    return tuple(_plan(item, networks, findings) for item in found)


def _plan(item: Item, networks: Sequence[str], findings: list[Finding]) -> Card:
    network = item.connections[0] if item.connections else ""
    if not network:
        findings.append(
            Finding("ovf.card-network", Severity.WARNING, f"{item.label} belongs to no network.", "Choose one when it is started.")
        )
    elif network not in networks:
        findings.append(
            Finding("ovf.card-network", Severity.WARNING, f"{item.label} belongs to the network {network}, which is not declared.")
        )
    if len(item.connections) > 1:
        findings.append(
            Finding(
                "ovf.card-network", Severity.WARNING, f"{item.label} belongs to {len(item.connections)} networks; only {network} is kept."
            )
        )
    return Card(_model(item, findings), network, _mac(item, findings), item.connected)


def _model(item: Item, findings: list[Finding]) -> str:
    words = [re.sub(r"[-_ ]", "", word.lower()) for word in item.subtype.split()]
    model = next((MODELS[word] for word in words if word in MODELS), "")
    if model:
        return model
    if words:
        said = f"{item.label} is a {item.subtype}, which QEMU does not have; it becomes an {USUAL}."
        findings.append(Finding("ovf.card-model", Severity.WARNING, said, "Its system needs a driver for that."))
    else:
        findings.append(Finding("ovf.card-model", Severity.NOTE, f"{item.label} names no model; it becomes an {USUAL}."))
    return USUAL


def _mac(item: Item, findings: list[Finding]) -> str:
    mac = item.address.lower().replace("-", ":")
    if not mac or _MAC.fullmatch(mac):
        return mac
    findings.append(Finding("ovf.card-address", Severity.NOTE, f"{item.label} asks for the address {item.address[:40]!r}, which is none."))
    return ""
