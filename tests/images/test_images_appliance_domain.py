"""The XML of machines of imported images: what libvirt takes, with everything at its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import bundles
import libvirt
import pytest
from fake_hypervisor import store_image

from images.appliance_domain import ApplianceDomain, render_appliance_domain
from images.appliance_machine import (
    ensure_appliance,
    ensure_appliance_disks,
    need_hardware,
    plan_appliance_domain,
    plan_macs,
    write_properties_cd,
)
from images.domain import Accelerator, Forward, Mark, find_mark
from images.errors import SpecError
from images.hardware import Bus, Card, Controller, DirectKernel, Drive, DriveKind, Firmware, MachineHardware
from images.home import Home
from images.import_image import import_image
from images.import_request import ImportRequest
from images.ledger import Entry, EntryState
from images.store import Store
from images.uplink import Uplink, UplinkKind
from kit.errors import FailedError

MARK = Mark("owner", "mark", "request")
HARDWARE = MachineHardware(
    chipset="pc",
    sockets=2,
    cores=2,
    memory_mib=512,
    controllers=(Controller(Bus.IDE, 0), Controller(Bus.SCSI, 0, "lsilogic"), Controller(Bus.SCSI, 1, "vmpvscsi")),
    drives=(
        Drive(DriveKind.DISK, "disk.qcow2", 1 << 20, Bus.SCSI, 0, 3, boot=1),
        Drive(DriveKind.DISK, "disk-2.qcow2", 1 << 20, Bus.SCSI, 1, 9, boot=2),
        Drive(DriveKind.CDROM, "", 0, Bus.IDE, 0, 3),
    ),
    cards=(Card("vmxnet3", "lan"), Card("virtio", "wan")),
)
DOMAIN = ApplianceDomain(
    name="box",
    uuid="8e3a6c1e-7d0b-4f3e-9d0a-1f2e3d4c5b6a",
    mark=MARK,
    accelerator=Accelerator.TCG,
    hardware=HARDWARE,
    disks=(("disk.qcow2", Path("/m/disk.qcow2")), ("disk-2.qcow2", Path("/m/disk-2.qcow2"))),
    macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
    forwards=(Forward("127.0.1.11", 8443, "10.0.2.15", 443),),
    console_log=Path("/m/console.log"),
    properties=Path("/m/properties.iso"),
)
KERNEL = replace(HARDWARE, kernel=DirectKernel(("root=/dev/sda", "quiet")))
UEFI = replace(
    HARDWARE,
    firmware=Firmware.UEFI,
    secure_boot=True,
    tpm=True,
    chipset="q35",
    controllers=(Controller(Bus.SATA, 0), Controller(Bus.VIRTIO, 0)),
    drives=(Drive(DriveKind.DISK, "disk.qcow2", 1, Bus.SATA, 0, 4, 1), Drive(DriveKind.DISK, "disk-2.qcow2", 1, Bus.VIRTIO, 0, 0)),
)


@pytest.mark.parametrize(
    "domain",
    [
        DOMAIN,
        replace(DOMAIN, hardware=UEFI),
        replace(DOMAIN, hardware=KERNEL, kernel=(Path("/i/kernel"), Path("/i/initrd")), properties=None),
    ],
    ids=["bios", "uefi", "kernel"],
)
def test_libvirt_takes_it_as_a_domain_of_ours(domain: ApplianceDomain) -> None:
    xml = render_appliance_domain(domain)
    connection = libvirt.open("test:///default")
    try:
        defined = connection.defineXMLFlags(xml, 0)
        assert find_mark(defined.XMLDesc()) == MARK
        assert "<vcpu placement='static'>4</vcpu>" in defined.XMLDesc()
    finally:
        connection.close()


def test_every_drive_is_at_the_place_that_libvirt_counts_as_its_own() -> None:
    root = ET.fromstring(render_appliance_domain(DOMAIN))
    found = [
        (disk.find("target").get("dev"), *(disk.find("address").get(key) for key in ("controller", "bus", "target", "unit")))  # type: ignore[union-attr]
        for disk in root.iter("disk")
        if disk.find("address") is not None
    ]
    assert found == [("sda", "0", "0", "0", "3"), ("sdb", "1", "0", "9", "0"), ("hda", "0", "1", "0", "1")]
    assert [one.get("order") for one in root.iter("boot")] == ["1", "2"]
    assert [one.get("file") for one in root.iter("source")] == ["/m/disk.qcow2", "/m/disk-2.qcow2", "/m/properties.iso"]


def test_only_the_first_card_has_a_way_in_and_out() -> None:
    arguments = [one.get("value") or "" for one in ET.fromstring(render_appliance_domain(DOMAIN)).iter() if one.tag.endswith("}arg")]
    nets, cards = [one for one in arguments if one.startswith("user,")], [one for one in arguments if "netdev=boxnet" in one]
    assert ["hostfwd" in one for one in nets] == [True, False]
    assert ["restrict=on" in one for one in nets] == [False, True]
    assert [one.partition(",")[0] for one in cards] == ["vmxnet3", "virtio-net-pci"]


def test_its_first_card_may_hang_on_a_network_and_the_others_stay_alone() -> None:
    root = ET.fromstring(render_appliance_domain(replace(DOMAIN, forwards=(), uplink=Uplink(UplinkKind.BRIDGE, "br0"))))
    (card,) = root.findall("devices/interface")
    assert [(one.tag, *one.attrib.values()) for one in card] == [("mac", "52:54:00:00:00:01"), ("source", "br0"), ("model", "vmxnet3")]
    values = [one.get("value") or "" for one in root.iter() if one.tag.endswith("}arg")]
    assert [value for value in values if value.startswith("user,")] == ["user,id=boxnet1,restrict=on"]


def test_a_missing_disk_or_address_is_refused() -> None:
    with pytest.raises(SpecError, match="no disk for"):
        render_appliance_domain(replace(DOMAIN, disks=DOMAIN.disks[:1]))
    with pytest.raises(SpecError, match="2 network cards and 1"):
        render_appliance_domain(replace(DOMAIN, macs=("52:54:00:00:00:01",)))


@pytest.mark.process
def test_the_files_of_a_machine_are_made_once_and_its_passwords_stay_private(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile_password: str
) -> None:
    product = (
        '<ProductSection><Info>i</Info><Property ovf:key="pass" ovf:type="string" ovf:userConfigurable="true" ovf:password="true"/>'
        "</ProductSection>"
    )
    ova = bundles.make_appliance(tmp_path, bundles.envelope(bundles.system(more=product, transport="iso")))
    store = Store(home)
    (image,) = import_image(ImportRequest(str(ova), answers=(("pass", "env:BOX_PASS"),)), store).images
    folder = home.machines / "one"
    folder.mkdir()
    monkeypatch.setenv("BOX_PASS", hostile_password)
    disks = ensure_appliance_disks(store, image, folder, is_new=True)
    before = folder.joinpath("disk.qcow2").stat().st_ino
    assert ensure_appliance_disks(store, image, folder, is_new=False) == disks == (("disk.qcow2", folder / "disk.qcow2"),)
    assert folder.joinpath("disk.qcow2").stat().st_ino == before
    cd = write_properties_cd(image, folder, instance="one", base=tmp_path)
    assert cd is not None
    assert cd.stat().st_mode & 0o777 == 0o600
    domain = plan_appliance_domain(
        image, folder, name="one", uuid=DOMAIN.uuid, mark=MARK, mac="52:54:00:ff:ff:ff", accelerator=Accelerator.TCG, forwards=()
    )
    assert (domain.properties, domain.disks, domain.macs) == (cd, disks, ("52:54:00:ff:ff:ff",))
    assert hostile_password not in render_appliance_domain(domain) + (image.folder / "image.json").read_text()


@pytest.mark.process
def test_a_machine_of_the_ledger_gets_its_files_its_size_and_its_domain(home: Home, tmp_path: Path) -> None:
    store = Store(home)
    (image,) = import_image(ImportRequest(str(bundles.make_appliance(tmp_path))), store).images
    folder = home.machines / "one"
    folder.mkdir()
    entry = Entry("r", "one", DOMAIN.uuid, "m", "52:54:00:00:00:07", EntryState.PLANNED, image.digest, 768, 3, DOMAIN.forwards)

    def ensure(entry: Entry) -> ApplianceDomain:
        return ensure_appliance(store, image, folder, entry, mark=MARK, accelerator=Accelerator.TCG, base=tmp_path)

    domain = ensure(entry)
    assert (domain.name, domain.hardware.memory_mib, domain.hardware.sockets, domain.macs) == ("one", 768, 3, (entry.mac,))
    assert domain.properties is None
    assert (folder / "disk.qcow2").exists()
    (folder / "disk.qcow2").unlink()
    with pytest.raises(FailedError, match="is gone"):
        ensure(replace(entry, state=EntryState.BOOTED))


def test_addresses_of_cards_follow_each_other() -> None:
    assert plan_macs("52:54:00:ff:ff:ff", 2) == ("52:54:00:ff:ff:ff", "52:54:00:00:00:00")


def test_an_image_that_was_built_has_no_hardware_of_its_own(home: Home) -> None:
    with pytest.raises(SpecError, match="was not imported"):
        need_hardware(store_image(Store(home)))
