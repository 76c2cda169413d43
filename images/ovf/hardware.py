"""What an OVF says, as a machine that libvirt can make; and a finding for everything that it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from images.hardware import Firmware, MachineHardware
from images.import_errors import OvfError
from images.ovf.cards import plan_cards
from images.ovf.deployment import choose_items
from images.ovf.drives import PlannedDrive, is_foreign_storage, plan_drives
from images.ovf.model import CONTROLLERS, DRIVES, Deployment, Envelope, FileReference, Item, Kind, Setting, VirtualSystem
from images.ovf.units import parse_bytes, parse_count
from images.ovf.xml import parse_flag
from kit.findings import Finding, Severity

MOST_CPUS = 512
LEAST_MEMORY, MOST_MEMORY = 4, 16 << 20  # MiB
READ_SETTINGS = ("firmware", "bootOptions.efiSecureBootEnabled", "extra: uefi.secureBoot.enabled", "extra: firmware")
# Hardware that appliances declare out of habit: what QEMU gives every machine, or nobody misses in one without a screen.
HARMLESS = (Kind.USB, Kind.GRAPHICS, Kind.SOUND)
KNOWN = (Kind.PROCESSOR, Kind.MEMORY, Kind.ETHERNET, *CONTROLLERS, *DRIVES)


@dataclass(frozen=True)
class PlannedKernel:
    """Kernel and initrd as files of the bundle."""

    kernel: FileReference
    initrd: FileReference
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class PlannedMachine:
    """A machine whose disks are not converted yet: ``hardware`` has no drives, ``drives`` say what they will hold."""

    hardware: MachineHardware
    drives: tuple[PlannedDrive, ...]
    findings: tuple[Finding, ...]
    kernel: PlannedKernel | None = None


def plan_machine(envelope: Envelope, system: VirtualSystem, deployment: Deployment | None) -> PlannedMachine:
    """The machine that the descriptor means, in that size.

    Raises:
        OvfError: it is no machine that can exist: no processor count that is a number, two disks in one place that cannot be told apart.
        HostileSourceError: absurd sizes.

    """
    findings: list[Finding] = []
    items = choose_items(system.items, deployment)
    firmware, secure = _firmware(system, findings)
    sockets, cores = _processors(items, findings)
    memory = _memory(items, findings)
    storage = plan_drives(envelope, system, items, firmware, findings)
    cards = plan_cards(items, envelope.networks, findings)
    findings += _check_rest(envelope, system, items)
    hardware = MachineHardware(
        firmware=firmware,
        secure_boot=secure,
        tpm=any("vtpm" in item.subtype.lower() or "tpm" in item.subtype.lower().split(".") for item in items),
        chipset="q35" if firmware is Firmware.UEFI else "pc",
        sockets=sockets,
        cores=cores,
        memory_mib=memory,
        controllers=storage.controllers,
        cards=cards,
        properties=system.properties,
        transports=system.transports,
        system_id=system.id,
        description=system.product or system.name,
        deployment=deployment.id if deployment else "",
    )
    return PlannedMachine(hardware, storage.drives, tuple(dict.fromkeys(findings)), _kernel(envelope, system))


def _kernel(envelope: Envelope, system: VirtualSystem) -> PlannedKernel | None:
    if system.kernel is None:
        return None
    kernel, initrd = envelope.find_file(system.kernel.kernel), envelope.find_file(system.kernel.initrd)
    if kernel is None or initrd is None:
        raise OvfError("The descriptor names a kernel or an initrd that is not declared.")
    return PlannedKernel(kernel, initrd, system.kernel.arguments)


def _firmware(system: VirtualSystem, findings: list[Finding]) -> tuple[Firmware, bool]:
    told = {one.key.removeprefix("extra: "): one.value for one in system.settings}
    word = (told.get("firmware") or system.firmware or "bios").lower()
    secure = told.get("bootOptions.efiSecureBootEnabled") or told.get("uefi.secureBoot.enabled") or "false"
    if word not in ("bios", "efi", "uefi", "efi64", "efi32"):
        raise OvfError(f"The descriptor asks for the firmware {word[:60]!r}, which is not known.", hint="bios and efi are.")
    if word == "efi32":
        findings.append(
            Finding("ovf.firmware", Severity.WARNING, "It asks for a 32-bit UEFI; it gets a 64-bit one.", "It may not start.", system.id)
        )
    firmware = Firmware.BIOS if word == "bios" else Firmware.UEFI
    is_secure = parse_flag(secure, "Secure Boot")
    if is_secure and firmware is Firmware.BIOS:
        findings.append(
            Finding("ovf.secure-boot", Severity.WARNING, "It asks for Secure Boot with a BIOS, which has none.", subject=system.id)
        )
    return firmware, is_secure and firmware is Firmware.UEFI


def _processors(items: Sequence[Item], findings: list[Finding]) -> tuple[int, int]:
    found = [item for item in items if item.kind == Kind.PROCESSOR]
    if not found:
        findings.append(Finding("ovf.no-processor", Severity.WARNING, "It does not say how many processors it needs; it gets one."))
        return 1, 1
    count = sum(parse_count(item.quantity or "1", "a count of processors") for item in found)
    if not 1 <= count <= MOST_CPUS:
        raise OvfError(f"The descriptor asks for {count} processors.", hint=f"1 to {MOST_CPUS} can be had.")
    cores = parse_count(found[0].cores_per_socket or "1", "a count of cores")
    if not 1 <= cores <= count or count % cores:
        findings.append(
            Finding(
                "ovf.topology", Severity.WARNING, f"{count} processors cannot be sockets of {cores} cores; each gets a socket of its own."
            )
        )
        cores = 1
    return count // cores, cores


def _memory(items: Sequence[Item], findings: list[Finding]) -> int:
    found = [item for item in items if item.kind == Kind.MEMORY]
    if not found:
        findings.append(Finding("ovf.no-memory", Severity.WARNING, "It does not say how much memory it needs; it gets 2 GiB."))
        return 2048
    if any(not item.units for item in found):
        findings.append(Finding("ovf.memory-units", Severity.NOTE, "It gives its memory without a unit; MiB is meant."))
    size = sum(parse_bytes(item.quantity, item.units or "byte * 2^20", "an amount of memory") for item in found)
    mib = -(-size // (1 << 20))
    if not LEAST_MEMORY <= mib <= MOST_MEMORY:
        raise OvfError(f"The descriptor asks for {size} bytes of memory.", hint="4 MiB to 16 TiB can be had.")
    return mib


def _check_rest(envelope: Envelope, system: VirtualSystem, items: Sequence[Item]) -> Iterator[Finding]:
    """Everything else that stands in the descriptor."""
    for item in items:
        yield from _check_item(item)
    for setting in (*system.settings, *(one for item in items for one in item.settings)):
        yield from _check_setting(setting)
    for section in (*envelope.unread, *system.unread):
        severity = Severity.WARNING if section.required else Severity.NOTE
        yield Finding("ovf.section", severity, f"Its section {section.name} means nothing to libvirt and was left out.", subject=system.id)
    ranges = [item for item in system.items if item.bound not in ("", "normal")]
    if ranges:
        yield Finding("ovf.range", Severity.NOTE, f"It gives a range for {ranges[0].label}; what it calls normal was taken.")
    yield from _check_system(system)


def _check_item(item: Item) -> Iterator[Finding]:
    if item.limits:
        yield Finding(
            "ovf.limits", Severity.NOTE, f"{item.label} comes with {', '.join(item.limits).lower()}; libvirt gives no such promise here."
        )
    if (item.kind in KNOWN and not is_foreign_storage(item)) or "tpm" in item.subtype.lower():
        return
    weight = Severity.NOTE if item.kind in HARMLESS or not item.required else Severity.WARNING
    kind = next((one.name.lower().replace("_", " ") for one in Kind if one == item.kind), f"kind {item.kind}")
    more = f", {item.subtype}" if item.subtype else ""
    yield Finding(
        "ovf.hardware", weight, f"{item.label} ({kind}{more}) is left out: it is not made for machines here.", "It may not matter."
    )


def _check_setting(setting: Setting) -> Iterator[Finding]:
    if setting.key not in READ_SETTINGS:
        yield Finding("ovf.setting", Severity.NOTE, f"VMware's setting {setting.key} = {setting.value[:80]} means nothing to libvirt.")


def _check_system(system: VirtualSystem) -> Iterator[Finding]:
    known = ("vmx-", "virtualbox-", "kvm", "qemu", "hvm", "xen-3.0-unknown")
    if system.types and not any(one.lower().startswith(known) for one in system.types):
        yield Finding(
            "ovf.system-type",
            Severity.WARNING,
            f"It was made for {' or '.join(system.types)}, which is none of VMware, VirtualBox and KVM.",
        )
    if any(word in system.os.lower() for word in ("arm", "aarch64", "ppc", "s390")) and "charm" not in system.os.lower():
        yield Finding("ovf.processor", Severity.WARNING, f"Its system is {system.os}: perhaps for another processor than this one.")
    if system.properties and not set(system.transports) & {"iso"}:
        how = ", ".join(system.transports) or "no way that it names"
        yield Finding(
            "ovf.transport",
            Severity.WARNING,
            f"It reads its properties by {how}, which QEMU does not have; they can only be put in on a CD.",
            "It may ask on its console instead.",
            system.id,
        )
    if system.transports and (other := [one for one in system.transports if one not in ("iso", "com.vmware.guestInfo")]):
        yield Finding("ovf.transport", Severity.NOTE, f"It also takes properties by {', '.join(other)}, which is not known.")
    if not system.items:
        yield Finding("ovf.no-hardware", Severity.WARNING, "It describes no hardware at all.", subject=system.id)
