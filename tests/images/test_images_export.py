"""Giving images away, and taking them back: the same disks, the same machine."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import bundles
import pytest
from bundles import HARDWARE, content_of, envelope, item, make_appliance, make_disk, make_ova, make_vmdk, plain_content, qemu_img, system
from fake_hypervisor import store_image

from images.errors import AlteredImageError
from images.export import ExportFormat, describe_machine, export_image
from images.home import Home
from images.import_errors import SourceError
from images.import_image import import_image
from images.import_request import ImportRequest
from images.manifest import parse_manifest
from images.store import Image, Store

pytestmark = pytest.mark.process

PROPERTY = (
    '<ProductSection ovf:class="net"><Info>i</Info><Product>box</Product>'
    '<Property ovf:key="mode" ovf:type="string" ovf:userConfigurable="true"'
    ' ovf:value="dhcp" ovf:qualifiers=\'MinLen(2) ValueMap{"dhcp","static"}\'><Label>Mode &amp; more</Label></Property></ProductSection>'
)

ORDER = '<vmw:BootOrderSection vmw:type="disk" vmw:instanceId="7 4"><Info>i</Info></vmw:BootOrderSection>'


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def bring(store: Store, source: Path, **more: object) -> Image:
    return import_image(ImportRequest(str(source), **more), store).images[0]  # type: ignore[arg-type]


def rich_appliance(folder: Path) -> Path:
    """UEFI, two disks on two controllers, a CD, a property, two cards."""
    files = "".join(f'<File ovf:id="file{n}" ovf:href="{name}"/>' for n, name in ((1, "disk1.vmdk"), (2, "disk2.vmdk"), (3, "cd.iso")))
    disks = "".join(f'<Disk ovf:diskId="disk{n}" ovf:fileRef="file{n}" ovf:capacity="{2 << 20}"/>' for n in (1, 2))
    hardware = HARDWARE + item(6, 20, ResourceSubType="vmware.sata.ahci", Address="0")
    hardware += item(7, 17, Parent="6", AddressOnParent="1", HostResource="ovf:/disk/disk2")
    hardware += item(8, 15, Parent="6", AddressOnParent="0", HostResource="ovf:/file/file3")
    hardware += item(9, 10, ResourceSubType="E1000", Connection="wan", AddressOnParent="8", Address="52:54:00:00:00:01")
    hardware += '<vmw:Config vmw:key="firmware" vmw:value="efi"/><vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>'
    members = {
        "box.ovf": envelope(system(hardware, more=PROPERTY + ORDER, transport="iso"), files=files, disks=disks),
        "disk1.vmdk": make_vmdk(folder).read_bytes(),
        "disk2.vmdk": make_vmdk(folder, mark=b"second").read_bytes(),
        "cd.iso": bytes(0x8001) + b"CD001".ljust(0x7FFF, b"\0"),
    }
    return make_ova(folder / "rich.ova", {**members, "box.mf": bundles.manifest(members)})


def test_an_appliance_that_was_exported_and_imported_is_the_same(store: Store, tmp_path: Path) -> None:
    image = bring(store, rich_appliance(tmp_path), name="rich")
    written = export_image(store, image, tmp_path / "again.ova", ExportFormat.OVA)
    again = bring(store, written.path)
    assert again.hardware is not None
    assert image.hardware is not None
    assert again.hardware == image.hardware
    assert again.digest == image.digest
    for drive in image.hardware.drives:
        assert content_of(again.folder / drive.file) == content_of(image.folder / drive.file)
    # The second is started from, so it is the first disk here.
    contents = [content_of(again.folder / name) for name in ("disk.qcow2", "disk-2.qcow2")]
    assert contents == [plain_content(mark=b"second"), plain_content()]


def test_the_archive_has_its_descriptor_first_and_a_manifest_of_all(store: Store, tmp_path: Path) -> None:
    written = export_image(store, bring(store, make_appliance(tmp_path)), tmp_path / "out.ova", ExportFormat.OVA)
    assert written.digest == hashlib.sha256(written.path.read_bytes()).hexdigest()
    with tarfile.open(written.path) as archive:
        names = archive.getnames()
        lines = parse_manifest(archive.extractfile("out.mf").read())  # type: ignore[union-attr]
        assert {line.name: line.digest for line in lines} == {
            name: hashlib.sha256(archive.extractfile(name).read()).hexdigest()  # type: ignore[union-attr]
            for name in names
            if name != "out.mf"
        }
        assert b'ddb.adapterType = "lsilogic"' in archive.extractfile("out-1.vmdk").read(4096)  # type: ignore[union-attr]
    assert names == ["out.ovf", "out.mf", "out-1.vmdk"]
    assert {line.algorithm for line in lines} == {"sha256"}


@pytest.mark.parametrize("format_", [ExportFormat.QCOW2, ExportFormat.RAW])
def test_a_disk_alone_is_written_whole(store: Store, tmp_path: Path, format_: ExportFormat) -> None:
    image = bring(store, make_appliance(tmp_path))
    written = export_image(store, image, tmp_path / f"out.{format_.value}", format_)
    if format_ is ExportFormat.RAW:
        assert hashlib.sha256(written.path.read_bytes()).hexdigest() == plain_content()
    else:
        assert content_of(written.path) == plain_content()
    assert bring(store, written.path, name="back").digest != image.digest  # no description: another machine
    assert content_of(store.read_image("back").disk) == plain_content()
    qemu_img("compare", "-f", "qcow2", "-F", format_.value, image.disk, written.path)


def test_an_image_that_was_built_takes_its_kernel_along(store: Store, tmp_path: Path) -> None:
    built = store_image(store, "built", content=make_disk(tmp_path, "qcow2").read_bytes(), kernel=b"a kernel")
    written = export_image(store, built, tmp_path / "built.ova", ExportFormat.OVA)
    assert {one.code for one in written.findings} == {"export.kernel"}
    again = bring(store, written.path, name="again")
    assert (again.kernel.read_bytes(), again.initrd.read_bytes(), again.kernel_arguments) == (b"a kernel", b"initrd", ("quiet",))
    assert (again.memory_mib, again.cpus) == (built.memory_mib, built.cpus)
    assert again.hardware is not None
    assert describe_machine(built).drives == again.hardware.drives
    again.kernel.chmod(0o600)
    again.kernel.write_bytes(b"another kernel")
    with pytest.raises(AlteredImageError, match="kernel"):
        store.verify(again)


def test_only_one_disk_fits_into_a_disk_file_and_that_is_told(store: Store, tmp_path: Path) -> None:
    image = bring(store, rich_appliance(tmp_path))
    written = export_image(store, image, tmp_path / "second.raw", ExportFormat.RAW, disk="disk-2.qcow2")
    assert hashlib.sha256(written.path.read_bytes()).hexdigest() == plain_content()
    assert {one.code for one in written.findings} == {"export.disks"}
    with pytest.raises(SourceError, match="no disk"):
        export_image(store, image, tmp_path / "third.raw", ExportFormat.RAW, disk="image.json")


def test_an_export_writes_over_nothing_and_leaves_nothing_half(store: Store, tmp_path: Path) -> None:
    image = bring(store, make_appliance(tmp_path))
    (tmp_path / "there.raw").write_bytes(b"mine")
    with pytest.raises(SourceError, match="exists"):
        export_image(store, image, tmp_path / "there.raw", ExportFormat.RAW)
    image.disk.chmod(0o600)
    with image.disk.open("ab") as disk:
        disk.write(b"x")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AlteredImageError):
        export_image(store, image, tmp_path / "out.ova", ExportFormat.OVA)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.raw").read_bytes() == b"mine"
