"""The answers to an appliance's questions, as the document that it reads from a CD at its first start."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from images.hardware import DeclaredProperty, MachineHardware
from images.import_errors import PropertyError
from images.iso import render_iso
from images.ovf.properties import verify_value
from kit.secret import Secret

NAMESPACE = "http://schemas.dmtf.org/ovf/environment/1"
FILE = "ovf-env.xml"
LABEL = "OVF ENV"


def render_environment(hardware: MachineHardware, resolve: Callable[[str], Secret], *, instance: str) -> Secret:
    """The OVF environment (DSP0269): a secret, since passwords stand in it. ``resolve`` reads a reference; ``instance`` names the machine.

    Raises:
        PropertyError: a property has no answer yet, or a password does not fit.

    """
    missing = [one.key for one in hardware.properties if one.is_open]
    if missing:
        raise PropertyError(
            f"The appliance asks for {', '.join(missing)}, and nobody has answered.", hint="Give them: --property KEY=VALUE."
        )
    ET.register_namespace("oe", NAMESPACE)
    root = ET.Element(f"{{{NAMESPACE}}}Environment", {f"{{{NAMESPACE}}}id": hardware.system_id or instance})
    platform = ET.SubElement(root, f"{{{NAMESPACE}}}PlatformSection")
    for name, text in (("Kind", "KVM"), ("Version", "1"), ("Vendor", "boxshift"), ("Locale", "en")):
        ET.SubElement(platform, f"{{{NAMESPACE}}}{name}").text = text
    section = ET.SubElement(root, f"{{{NAMESPACE}}}PropertySection")
    for one in hardware.properties:
        attributes = {f"{{{NAMESPACE}}}key": one.key, f"{{{NAMESPACE}}}value": _value(one, resolve)}
        ET.SubElement(section, f"{{{NAMESPACE}}}Property", attributes)
    return Secret(ET.tostring(root, encoding="unicode", xml_declaration=True))


def render_environment_iso(hardware: MachineHardware, resolve: Callable[[str], Secret], *, instance: str) -> bytes:
    """The environment on a CD, as machines expect it that declare the transport ``iso``. Keep it private: passwords stand in it."""
    content = render_environment(hardware, resolve, instance=instance).to_bytes()
    return render_iso(((FILE, content),), label=LABEL)


def _value(one: DeclaredProperty, resolve: Callable[[str], Secret]) -> str:
    if not one.reference:
        return one.answer or ""
    value = resolve(one.reference).reveal()
    verify_value(one, value)
    return value
