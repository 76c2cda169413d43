"""The OVF reader: every row of what a descriptor may say, and what libvirt gets of it."""

from __future__ import annotations

import pytest
from bundles import CARD, CPU, DISK, DISKS, FILES, HARDWARE, MEMORY, SCSI, codes, envelope, item, system

from images.hardware import Bus, DriveKind, Firmware
from images.import_errors import HostileSourceError, OvfError, PropertyError, SourceError
from images.ovf.deployment import find_default, find_deployment
from images.ovf.hardware import PlannedMachine, plan_machine
from images.ovf.model import Deployment
from images.ovf.properties import apply_answers
from images.ovf.read import parse_ovf
from images.ovf.units import parse_units
from kit.findings import Severity


def plan(hardware: str = HARDWARE, *, size: str = "", **more: str) -> PlannedMachine:
    """The machine of a descriptor with that hardware section; ``more`` for the envelope or the system."""
    about = {key: more.pop(key) for key in ("files", "disks", "sections") if key in more}
    body = system(hardware, **more)  # type: ignore[arg-type]
    raw = envelope(body, files=about.get("files", FILES), disks=about.get("disks", DISKS), more=about.get("sections", ""))
    found = parse_ovf(raw)
    deployment = find_deployment(found.deployments, size) if size else find_default(found.deployments)
    return plan_machine(found, found.systems[0], deployment)


def places(planned: PlannedMachine) -> list[tuple[str, int, int]]:
    return [(one.bus.value, one.controller, one.unit) for one in planned.drives]


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("byte * 2^20", 1 << 20),
        ("byte*2^30", 1 << 30), ("bytes * 2^10", 1 << 10), ("MegaBytes", 1 << 20), ("MB", 1 << 20), ("GB", 1 << 30),
        ("GigaBytes", 1 << 30), ("KB", 1 << 10), ("byte", 1), ("", 1), ("byte * 10^6", 10**6), ("byte * 1048576", 1 << 20), ("TB", 1 << 40),
    ],
)  # fmt: skip
def test_units_of_memory_are_read_in_all_their_spellings(text: str, factor: int) -> None:
    assert parse_units(text) == factor


@pytest.mark.parametrize("text", ["parsecs", "byte * 3^2", "byte * 2^99", "hertz * 10^6", "byte * 2 ^ -1", "2^^3"])
def test_units_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OvfError):
        parse_units(text)


@pytest.mark.parametrize(
    ("quantity", "units", "mib"), [("4", "byte * 2^30", 4096), ("4096", "MegaBytes", 4096), ("2", "GB", 2048), ("1073741824", "byte", 1024)]
)
def test_memory_is_what_it_says_in_its_own_unit(quantity: str, units: str, mib: int) -> None:
    memory = item(2, 4, VirtualQuantity=quantity, AllocationUnits=units)
    assert plan(CPU + memory + SCSI + DISK).hardware.memory_mib == mib


def test_processors_are_sockets_and_cores() -> None:
    cores = "<vmw:CoresPerSocket ovf:required='false'>4</vmw:CoresPerSocket>"
    hardware = plan(item(1, 3, "", cores, VirtualQuantity="8") + MEMORY + SCSI + DISK).hardware
    assert (hardware.sockets, hardware.cores, hardware.cpus) == (2, 4, 8)
    odd = plan(item(1, 3, "", cores, VirtualQuantity="6") + MEMORY + SCSI + DISK)
    assert (odd.hardware.sockets, odd.hardware.cores) == (6, 1)
    assert "ovf.topology" in codes(odd.findings)


def test_drives_stand_by_controller_and_slot_not_by_their_place_in_the_file() -> None:
    files = "".join(f'<File ovf:id="file{n}" ovf:href="disk{n}.vmdk"/>' for n in range(1, 5))
    disks = "".join(f'<Disk ovf:diskId="disk{n}" ovf:fileRef="file{n}" ovf:capacity="1048576"/>' for n in range(1, 5))
    second = item(30, 6, ResourceSubType="VirtualSCSI", Address="1")
    drives = "".join(
        item(40 + n, 17, Parent=parent, AddressOnParent=slot, HostResource=f"ovf:/disk/disk{n}")
        for n, parent, slot in ((1, "30", "0"), (2, "3", "2"), (3, "3", "0"), (4, "3", "1"))
    )
    planned = plan(CPU + MEMORY + second + SCSI + drives, files=files, disks=disks)
    assert [one.file.href for one in planned.drives if one.file] == ["disk3.vmdk", "disk4.vmdk", "disk2.vmdk", "disk1.vmdk"]
    assert places(planned) == [("scsi", 0, 0), ("scsi", 0, 1), ("scsi", 0, 2), ("scsi", 1, 0)]
    assert [one.boot for one in planned.drives] == [1, 2, 3, 4]
    assert [one.model for one in planned.hardware.controllers] == ["lsilogic", "vmpvscsi"]


@pytest.mark.parametrize(
    ("kind", "subtype", "bus", "model", "stands_in"),
    [
        (6, "lsilogic", Bus.SCSI, "lsilogic", False),
        (6, "lsilogicsas", Bus.SCSI, "lsisas1068", False),
        (6, "VirtualSCSI", Bus.SCSI, "vmpvscsi", False),
        (6, "virtio-scsi", Bus.SCSI, "virtio-scsi", False),
        (6, "buslogic", Bus.SCSI, "lsilogic", True),
        (6, "something", Bus.SCSI, "lsilogic", True),
        (6, "", Bus.SCSI, "lsilogic", False),
        (5, "PIIX4", Bus.IDE, "", False),
        (20, "vmware.sata.ahci", Bus.SATA, "", False),
        (20, "AHCI", Bus.SATA, "", False),
        (20, "vmware.nvme.controller", Bus.SATA, "", True),
        (20, "virtio-blk", Bus.VIRTIO, "", False),
    ],
)
def test_every_controller_keeps_its_kind_or_a_finding_says_otherwise(
    kind: int, subtype: str, bus: Bus, model: str, stands_in: bool
) -> None:
    planned = plan(CPU + MEMORY + item(3, kind, ResourceSubType=subtype, Address="0") + DISK)
    assert [(one.bus, one.model) for one in planned.hardware.controllers] == [(bus, model)]
    assert ("ovf.controller" in codes(planned.findings)) == stands_in


def test_two_ide_controllers_are_the_two_channels_of_one() -> None:
    ide = item(3, 5, Address="0") + item(4, 5, Address="1")
    drives = item(5, 17, Parent="3", AddressOnParent="0", HostResource="ovf:/disk/disk1") + item(6, 15, Parent="4", AddressOnParent="1")
    planned = plan(CPU + MEMORY + ide + drives)
    assert places(planned) == [("ide", 0, 0), ("ide", 0, 3)]
    assert planned.hardware.chipset == "pc"
    assert [one.kind for one in planned.drives] == [DriveKind.DISK, DriveKind.CDROM]


def test_with_uefi_ide_becomes_sata() -> None:
    ide = item(6, 5, Address="0") + item(7, 15, Parent="6", AddressOnParent="0")
    planned = plan(HARDWARE + ide + '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>')
    assert (planned.hardware.firmware, planned.hardware.chipset) == (Firmware.UEFI, "q35")
    assert ("sata", 0, 0) in places(planned)
    assert "ovf.controller" in codes(planned.findings)


def test_drives_without_a_place_or_in_the_same_one_get_their_own() -> None:
    second = item(8, 17, Parent="3", AddressOnParent="0", HostResource="ovf:/disk/disk1")
    lost = item(9, 17, Parent="77", HostResource="ovf:/disk/disk1")
    reserved = item(10, 17, Parent="3", AddressOnParent="7", HostResource="ovf:/disk/disk1")
    planned = plan(HARDWARE + second + lost + reserved)
    assert len(set(places(planned))) == 4
    assert ("scsi", 0, 7) not in places(planned)
    assert {"ovf.slot", "ovf.controller"} <= codes(planned.findings)


def test_the_boot_order_of_the_descriptor_counts() -> None:
    cd = item(6, 15, Parent="3", AddressOnParent="1", HostResource="ovf:/file/file1")
    order = '<vmw:BootOrderSection vmw:type="cdrom" vmw:instanceId="6 4"><Info>i</Info></vmw:BootOrderSection>'
    planned = plan(HARDWARE + cd, more=order)
    assert [(one.kind.value, one.boot) for one in planned.drives] == [("disk", 2), ("cdrom", 1)]


@pytest.mark.parametrize(
    ("subtype", "model", "told"),
    [
        ("E1000", "e1000", False), ("E1000e", "e1000e", False), ("VmxNet3", "vmxnet3", False), ("PCNet32", "pcnet", False),
        ("virtio", "virtio", False), ("Flexible", "pcnet", False), ("VmxNet2", "e1000e", True), ("", "e1000e", True),
    ],
)  # fmt: skip
def test_cards_keep_their_model_or_a_finding_says_otherwise(subtype: str, model: str, told: bool) -> None:
    planned = plan(CPU + MEMORY + SCSI + DISK + item(5, 10, ResourceSubType=subtype, Connection="lan"))
    assert [one.model for one in planned.hardware.cards] == [model]
    assert ("ovf.card-model" in codes(planned.findings)) == told


def test_cards_keep_their_order_network_address_and_state() -> None:
    first = item(5, 10, ResourceSubType="E1000", Connection="wan", AddressOnParent="8", Address="52:54:00:00:00:01")
    second = item(6, 10, ResourceSubType="E1000", Connection="lan", AddressOnParent="7", AutomaticAllocation="false")
    third = item(7, 10, ResourceSubType="E1000", Connection="dmz", AddressOnParent="9", Address="none")
    planned = plan(CPU + MEMORY + SCSI + DISK + first + second + third)
    assert [(one.network, one.mac, one.connected) for one in planned.hardware.cards] == [
        ("lan", "", False),
        ("wan", "52:54:00:00:00:01", True),
        ("dmz", "", True),
    ]
    assert {"ovf.card-order", "ovf.card-network", "ovf.card-address"} <= codes(planned.findings)


@pytest.mark.parametrize(("word", "firmware"), [("efi", Firmware.UEFI), ("bios", Firmware.BIOS), ("EFI64", Firmware.UEFI)])
def test_firmware_is_what_vmware_or_virtualbox_says(word: str, firmware: Firmware) -> None:
    config = f'<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{word}"/>'
    assert plan(HARDWARE + config).hardware.firmware is firmware
    raw = envelope(
        system().replace("</VirtualSystem>", f'<vbox:Machine><Hardware><Firmware type="{word}"/></Hardware></vbox:Machine></VirtualSystem>')
    )
    found = parse_ovf(raw)
    assert plan_machine(found, found.systems[0], None).hardware.firmware is firmware


def test_secure_boot_and_a_tpm_are_kept() -> None:
    config = '<vmw:Config vmw:key="firmware" vmw:value="efi"/><vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>'
    hardware = plan(HARDWARE + item(9, 1, ResourceSubType="vmware.vtpm") + config).hardware
    assert (hardware.secure_boot, hardware.tpm) == (True, True)
    with_bios = plan(HARDWARE + '<vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>')
    assert not with_bios.hardware.secure_boot
    assert "ovf.secure-boot" in codes(with_bios.findings)
    with pytest.raises(OvfError, match="firmware"):
        plan(HARDWARE + '<vmw:Config vmw:key="firmware" vmw:value="coreboot"/>')


SIZES = """<DeploymentOptionSection><Info>i</Info>
<Configuration ovf:id="small"><Label>Small</Label><Description>few</Description></Configuration>
<Configuration ovf:id="large" ovf:default="true"><Label>Large</Label><Description>many</Description></Configuration>
</DeploymentOptionSection>"""


def test_a_size_takes_its_own_items_in_the_place_of_the_common_ones() -> None:
    sized = item(2, 4, 'ovf:configuration="large"', VirtualQuantity="8192", AllocationUnits="MB")
    sized += item(6, 10, 'ovf:configuration="large"', ResourceSubType="E1000", Connection="wan")
    large, small = plan(HARDWARE + sized, sections=SIZES), plan(HARDWARE + sized, sections=SIZES, size="small")
    assert (large.hardware.memory_mib, len(large.hardware.cards), large.hardware.deployment) == (8192, 2, "large")
    assert (small.hardware.memory_mib, len(small.hardware.cards), small.hardware.deployment) == (512, 1, "small")


def test_without_a_mark_the_first_size_is_meant_and_unknown_ones_are_refused() -> None:
    sizes = (Deployment("a", "A", "", default=False), Deployment("b", "B", "", default=False))
    assert find_default(sizes) == sizes[0]
    assert find_default(()) is None
    assert find_deployment(sizes, "B") == sizes[1]
    with pytest.raises(SourceError):
        find_deployment(sizes, "c")


PROPERTIES = """<ProductSection ovf:class="net" ovf:instance="1"><Info>i</Info><Product>Box</Product><Version>7</Version>
<Property ovf:key="ip" ovf:type="string" ovf:userConfigurable="true" ovf:qualifiers="MinLen(1) MaxLen(15)"><Label>Address</Label></Property>
<Property ovf:key="mode" ovf:type="string" ovf:userConfigurable="true" ovf:value="dhcp" ovf:qualifiers='ValueMap{"dhcp","static"}'/>
<Property ovf:key="port" ovf:type="uint16" ovf:userConfigurable="true"/>
<Property ovf:key="on" ovf:type="boolean" ovf:userConfigurable="true"/>
<Property ovf:key="pass" ovf:type="string" ovf:userConfigurable="true" ovf:password="true"/>
<Property ovf:key="fixed" ovf:type="string" ovf:value="x"/></ProductSection>"""


def test_properties_are_read_with_their_limits() -> None:
    planned = plan(more=PROPERTIES, transport="iso com.vmware.guestInfo")
    found = {one.key: one for one in planned.hardware.properties}
    assert list(found) == ["net.ip.1", "net.mode.1", "net.port.1", "net.on.1", "net.pass.1", "net.fixed.1"]
    assert (found["net.ip.1"].label, found["net.ip.1"].longest) == ("Address", 15)
    assert found["net.mode.1"].choices == ("dhcp", "static")
    assert [key for key, one in found.items() if one.is_open] == ["net.ip.1", "net.port.1", "net.on.1", "net.pass.1"]
    assert planned.hardware.wants_iso
    assert planned.hardware.description == "Box 7"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.ip.1", ""),
        ("net.ip.1", "1" * 16), ("net.mode.1", "other"), ("net.port.1", "65536"), ("net.port.1", "٣"), ("net.on.1", "yes"),
        ("net.fixed.1", "y"), ("net.none.1", "x"), ("net.pass.1", "a plain password"), ("net.ip.1", "a\0b"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_refused_and_not_repeated(key: str, value: str) -> None:
    properties = plan(more=PROPERTIES).hardware.properties
    with pytest.raises(PropertyError) as caught:
        apply_answers(properties, [(key, value)])
    assert len(value) < 3 or value not in f"{caught.value} {caught.value.hint}"


def test_answers_that_fit_are_kept_and_passwords_stay_references() -> None:
    given = [("net.ip.1", "10.0.0.1"), ("net.port.1", "443"), ("net.on.1", "true"), ("net.pass.1", "env:BOX")]
    found = {one.key: one for one in apply_answers(plan(more=PROPERTIES).hardware.properties, given)}
    assert (found["net.ip.1"].answer, found["net.pass.1"].reference, found["net.pass.1"].value) == ("10.0.0.1", "env:BOX", None)
    assert not any(one.is_open for one in found.values())


def test_a_transport_that_qemu_lacks_is_told() -> None:
    assert "ovf.transport" in codes(plan(more=PROPERTIES, transport="com.vmware.guestInfo").findings)
    assert "ovf.transport" in codes(plan(more=PROPERTIES).findings)
    assert "ovf.transport" not in codes(plan(more=PROPERTIES, transport="iso").findings)


def test_a_licence_may_stand_in_another_place_of_the_descriptor() -> None:
    eula = '<EulaSection><Info>i</Info><License ovf:msgid="eula">short</License></EulaSection>'
    strings = '<Strings xml:lang="en-US"><Msg ovf:msgid="eula">The whole licence</Msg></Strings>'
    found = parse_ovf(envelope(system(more=eula) + strings))
    assert [one.text for one in found.systems[0].eulas] == ["The whole licence"]


def test_licences_and_properties_of_a_collection_belong_to_its_machines() -> None:
    eula = "<EulaSection><Info>i</Info><License>all</License></EulaSection>"
    found = parse_ovf(envelope(f"<VirtualSystemCollection ovf:id='c'><Info>i</Info>{eula}{PROPERTIES}{system()}</VirtualSystemCollection>"))
    assert [one.text for one in found.systems[0].eulas] == ["all"]
    assert len(found.systems[0].properties) == 6


@pytest.mark.parametrize(
    ("extra", "code", "severity"),
    [
        (item(9, 21), "ovf.hardware", Severity.WARNING),
        (item(9, 23, ResourceSubType="vmware.usb.ehci"), "ovf.hardware", Severity.NOTE),
        (item(9, 24), "ovf.hardware", Severity.NOTE),
        (item(9, 1, 'ovf:required="false"', ResourceSubType="vmware.vmci"), "ovf.hardware", Severity.NOTE),
        (item(9, 7), "ovf.hardware", Severity.WARNING),
        (item(9, 4711), "ovf.hardware", Severity.WARNING),
        (item(9, 20, ResourceSubType="vmware.floppy.x"), "ovf.hardware", Severity.WARNING),
        (item(9, 3, VirtualQuantity="1", Reservation="100"), "ovf.limits", Severity.NOTE),
        (item(9, 4, 'ovf:bound="min"', VirtualQuantity="1"), "ovf.range", Severity.NOTE),
        ('<vmw:Config ovf:required="false" vmw:key="cpuHotAddEnabled" vmw:value="true"/>', "ovf.setting", Severity.NOTE),
        ('<vmw:ExtraConfig vmw:key="svga.vramSize" vmw:value="1"/>', "ovf.setting", Severity.NOTE),
    ],
)
def test_what_libvirt_cannot_do_is_told(extra: str, code: str, severity: Severity) -> None:
    assert [one.severity for one in plan(HARDWARE + extra).findings if one.code == code] == [severity]


@pytest.mark.parametrize(("attribute", "severity"), [("", Severity.WARNING), ('ovf:required="false"', Severity.NOTE)])
def test_sections_that_mean_nothing_here_are_told(attribute: str, severity: Severity) -> None:
    section = f"<StartupSection {attribute}><Info>i</Info></StartupSection>"
    for planned in (plan(more=section), plan(sections=section)):
        assert [one.severity for one in planned.findings if one.code == "ovf.section"] == [severity]


def test_a_plain_appliance_has_no_findings() -> None:
    assert plan().findings == ()


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_are_read_and_the_items_of_the_second(version: int) -> None:
    storage = item(4, 17, Parent="3", AddressOnParent="0", HostResource="ovf:/disk/disk1", tag="StorageItem")
    card = item(5, 10, ResourceSubType="E1000", Connection="lan", tag="EthernetPortItem")
    found = parse_ovf(envelope(system(CPU + MEMORY + SCSI + storage + card), version=version))
    planned = plan_machine(found, found.systems[0], None)
    assert len(planned.drives) == len(planned.hardware.cards) == 1


@pytest.mark.parametrize(
    "raw",
    [
        envelope(system(CPU + MEMORY + SCSI + item(4, 17, Parent="3"))),
        envelope(system(CPU + MEMORY + SCSI + item(4, 17, Parent="3", HostResource="ovf:/disk/none"))),
        envelope(disks='<Disk ovf:diskId="disk1" ovf:fileRef="none" ovf:capacity="1"/>'),
        envelope(disks=DISKS.replace("/>", ' ovf:parentRef="disk0"/>')),
        envelope(system(item(1, 3, VirtualQuantity="0") + MEMORY + SCSI + DISK)),
        envelope(system(item(1, 3, VirtualQuantity="99999") + MEMORY + SCSI + DISK)),
        envelope(system(CPU + item(2, 4, VirtualQuantity="1", AllocationUnits="byte") + SCSI + DISK)),
        envelope(system(CPU + item(2, 4, VirtualQuantity="99999999", AllocationUnits="GB") + SCSI + DISK)),
        envelope(system(CPU + item(2, 4, VirtualQuantity="many", AllocationUnits="GB") + SCSI + DISK)),
    ],
)
def test_a_machine_that_cannot_exist_is_refused(raw: bytes) -> None:
    found = parse_ovf(raw)
    with pytest.raises(OvfError):
        plan_machine(found, found.systems[0], None)


@pytest.mark.parametrize(
    "raw",
    [
        envelope(files=FILES + FILES),
        envelope(disks=DISKS + DISKS),
        envelope(disks='<Disk ovf:diskId="disk1" ovf:capacity="-1"/>'),
        envelope(disks='<Disk ovf:diskId="disk1"/>'),
        envelope(files='<File ovf:id="file1"/>'),
        envelope(system(more=PROPERTIES + PROPERTIES)),
        envelope(system(CPU.replace(">3<", ">three<"))),
        envelope("<Other/>"),
        b"<Envelope/>",
        b"",
    ],
)
def test_a_descriptor_that_contradicts_itself_is_refused(raw: bytes) -> None:
    with pytest.raises((OvfError, HostileSourceError)):
        parse_ovf(raw)


def test_the_words_of_a_card_are_told_once() -> None:
    """A card that belongs to nothing is told, and nothing else is."""
    assert codes(plan(CPU + MEMORY + SCSI + DISK + CARD.replace("<rasd:Connection>lan</rasd:Connection>", "")).findings) == {
        "ovf.card-network"
    }
