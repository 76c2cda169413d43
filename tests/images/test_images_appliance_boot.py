"""An imported appliance, started by its own firmware from the controller that its bundle declares."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import CARD, CPU, envelope, item, make_appliance, qemu_img, system

from images import daemon
from images.appliance_domain import render_appliance_domain
from images.appliance_machine import ensure_appliance_disks, plan_appliance_domain, write_properties_cd
from images.daemon import ensure_private_daemon, stop_private_daemon
from images.domain import Accelerator, Mark
from images.export import ExportFormat, export_image
from images.home import Home, ensure_home
from images.hypervisor import Hypervisor
from images.import_image import import_image
from images.import_request import ImportRequest
from images.store import Image, Store
from kit.progress import Silent
from kit.waiting import wait_for

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(300)]

# Sixteen-bit code that writes what follows it to the first serial port, then rests.
BOOT = bytes.fromhex("fa31c08ed8be177cbaf803fcac84c07403eeebf8f4ebfd") + b"the appliance says hello\r\n\0"
SMALL = item(2, 4, VirtualQuantity="64", AllocationUnits="byte * 2^20")
DISK = item(4, 17, Parent="3", AddressOnParent="0", HostResource="ovf:/disk/disk1")
ASKED = '<Property ovf:key="name" ovf:type="string" ovf:userConfigurable="true" ovf:value="box"/>'
PRODUCT = f"<ProductSection><Info>i</Info>{ASKED}</ProductSection>"


@pytest.fixture(scope="module")
def boot_home() -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="boxshift-b-", dir="/var/tmp"))
    root.chmod(0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield ensure_home(Home(root / "home"))
    finally:
        stop_private_daemon(Home(root / "home"))
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def link(boot_home: Home) -> Iterator[Hypervisor]:
    uri = ensure_private_daemon(boot_home, progress=Silent()).uri if os.geteuid() == 0 else daemon.SESSION_URI
    with Hypervisor(uri) as hypervisor:
        yield hypervisor


def make_bootable(folder: Path, kind: int, subtype: str) -> Path:
    raw, disk = folder / "boot.raw", folder / "boot.vmdk"
    raw.write_bytes((BOOT.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, disk)
    controller = item(3, kind, ResourceSubType=subtype, Address="0")
    hardware = CPU + SMALL + controller + DISK + CARD + item(6, 10, ResourceSubType="E1000", Connection="wan", AddressOnParent="8")
    return make_appliance(folder, envelope(system(hardware, more=PRODUCT, transport="iso")), disk=disk.read_bytes())


def listen(link: Hypervisor, store: Store, home: Home, image: Image) -> None:
    """Start a machine of it and wait until it has spoken."""
    name, folder = f"boot-{uuid.uuid4().hex[:8]}", home.machines / uuid.uuid4().hex
    folder.mkdir(mode=0o711)
    ensure_appliance_disks(store, image, folder, is_new=True)
    write_properties_cd(image, folder, instance=name, base=folder)
    domain = plan_appliance_domain(
        image,
        folder,
        name=name,
        uuid=str(uuid.uuid4()),
        mark=Mark("test", "test", name),
        mac="52:54:00:12:34:56",
        accelerator=Accelerator.TCG,
        forwards=(),
    )
    link.define(render_appliance_domain(domain))
    try:
        link.start(domain.uuid)
        wait_for(
            lambda: b"the appliance says hello" in domain.console_log.read_bytes() or None,
            what="the appliance to speak",
            timeout=90,
            poll=0.1,
        )
    finally:
        link.destroy(domain.uuid)
        link.undefine(domain.uuid)


@pytest.mark.parametrize(("kind", "subtype"), [(6, "VirtualSCSI"), (20, "vmware.sata.ahci"), (5, "PIIX4"), (6, "lsilogicsas")])
def test_an_appliance_starts_from_the_controller_that_it_declares(
    link: Hypervisor, boot_home: Home, tmp_path: Path, kind: int, subtype: str
) -> None:
    store = Store(boot_home)
    (image,) = import_image(ImportRequest(str(make_bootable(tmp_path, kind, subtype))), store).images
    listen(link, store, boot_home, image)


def test_an_appliance_that_was_exported_and_imported_again_starts(link: Hypervisor, boot_home: Home, tmp_path: Path) -> None:
    store = Store(boot_home)
    (image,) = import_image(ImportRequest(str(make_bootable(tmp_path, 6, "lsilogic"))), store).images
    written = export_image(store, image, tmp_path / "again.ova", ExportFormat.OVA)
    store.remove(image)
    (again,) = import_image(ImportRequest(str(written.path)), store).images
    assert again.digest == image.digest
    listen(link, store, boot_home, again)
