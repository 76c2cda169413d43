"""What a saved machine finds again only on the same hypervisor, as libvirt tells it."""

from __future__ import annotations

import hashlib
from xml.etree import ElementTree as ET

from images.domain import Accelerator
from images.hypervisor import Hypervisor, translated

ARCHITECTURE, MACHINE = "x86_64", "pc"


def read_host(hypervisor: Hypervisor, accelerator: Accelerator) -> tuple[str, ...]:
    """The computer's UUID; a digest of what its QEMU gives machines of ours; and under KVM, where they see it, its processor.

    Not told is another build of the same version of QEMU: what that does not take it refuses.
    """
    host = ET.fromstring(hypervisor.read_capabilities()).find("host")  # noqa: S314 - libvirt's own output
    with translated("tell what it gives machines"):
        offered = hypervisor.link().getDomainCapabilities(None, ARCHITECTURE, MACHINE, accelerator.domain_type, 0)
    computer = host.findtext("uuid", "") if host is not None else ""
    processor = host.find("cpu") if host is not None and accelerator is Accelerator.KVM else None
    return (
        computer,
        hashlib.sha256(offered.encode()).hexdigest(),
        "" if processor is None else hashlib.sha256(ET.tostring(processor)).hexdigest(),
    )
