"""Other disks for a machine that is saved or off, everything else of it left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from images.hypervisor import Hypervisor, translated


def restore_moved(hypervisor: Hypervisor, state: Path, moves: Mapping[str, str]) -> None:
    """Start the machine of a saved state from where it was saved; ``moves``: a disk's file then -> its file now."""
    with translated("restore the machine"):
        link = hypervisor.link()
        saved = link.saveImageGetXMLDesc(str(state), libvirt.VIR_DOMAIN_XML_SECURE)
        link.restoreFlags(str(state), move_disks(saved, moves), libvirt.VIR_DOMAIN_SAVE_RUNNING)


def define_moved(hypervisor: Hypervisor, uuid: str, moves: Mapping[str, str]) -> None:
    """The same for what the machine is started with the next time."""
    with translated("change the machine's disks"):
        link = hypervisor.link()
        defined = link.lookupByUUIDString(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        link.defineXML(move_disks(defined, moves))


def move_disks(xml: str, moves: Mapping[str, str]) -> str:
    """A domain's XML with other files in place of some; what these stand on libvirt finds out itself."""
    root = ET.fromstring(xml)  # noqa: S314 - libvirt's own output
    for disk in root.findall("devices/disk"):
        source = disk.find("source")
        if source is None or source.get("file") not in moves:
            continue
        source.set("file", moves[source.get("file", "")])
        for left in disk.findall("backingStore"):
            disk.remove(left)
    return ET.tostring(root, encoding="unicode")
