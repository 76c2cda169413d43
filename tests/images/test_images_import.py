"""Importing: every kind of source, stored as what the machine saw, and what a person is told."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import stat
from dataclasses import replace
from pathlib import Path

import bundles
import pytest
import zstandard
from bundles import (
    codes,
    content_of,
    envelope,
    item,
    make_appliance,
    make_disk,
    make_ova,
    make_raw,
    make_vmdk,
    manifest,
    plain_content,
    system,
)

from images.errors import SpaceError
from images.hardware import Bus, DriveKind, Firmware
from images.home import Home
from images.import_errors import ChecksumError, DamagedSourceError, EulaError, ManifestError, OvfError, SignatureError, SourceError
from images.import_image import import_image
from images.import_request import ImportReport, ImportRequest
from images.store import Store
from kit.findings import Severity

pytestmark = pytest.mark.process


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def bring(store: Store, source: Path, **more: object) -> ImportReport:
    return import_image(ImportRequest(str(source), **more), store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("raw", ()),
        ("qcow2", ()),
        ("qcow2", ("compat=0.10",)),
        ("vmdk", ()),
        ("vmdk", ("subformat=streamOptimized",)),
        ("vpc", ("force_size=on",)),
        ("vpc", ("subformat=fixed", "force_size=on")),
        ("vhdx", ()),
    ],
)
def test_a_disk_of_every_format_is_stored_with_its_content(store: Store, tmp_path: Path, format_: str, options: tuple[str, ...]) -> None:
    disk = make_disk(tmp_path, format_, *options, name="box.bin")
    (image,) = bring(store, disk, name="box").images
    assert content_of(image.disk) == plain_content()
    assert bundles.info(image.disk)["virtual-size"] == 2 * bundles.MIB
    assert stat.S_IMODE(image.disk.stat().st_mode) == 0o400
    assert store.read_image("box") == image


@pytest.mark.parametrize("ending", ["gz", "xz", "zst"])
def test_a_compressed_disk_is_unpacked(store: Store, tmp_path: Path, ending: str) -> None:
    raw = make_raw(tmp_path / "box.raw").read_bytes()
    packed = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress}[ending](raw)
    source = tmp_path / f"box.raw.{ending}"
    source.write_bytes(packed)
    (image,) = bring(store, source).images
    assert (image.name, content_of(image.disk)) == ("box", plain_content())


def test_a_cd_is_stored_as_one(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "setup.iso"
    source.write_bytes(bytes(0x8001) + b"CD001".ljust(0x8000 - 1, b"\0"))
    report = bring(store, source)
    assert report.images[0].hardware is not None
    assert [drive.kind for drive in report.images[0].hardware.drives] == [DriveKind.CDROM]
    assert "image.cd" in codes(report.findings)


def test_a_flat_vmdk_is_read_from_the_file_beside_it(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path, "vmdk", "subformat=monolithicFlat", name="box.vmdk")
    (image,) = bring(store, disk).images
    assert content_of(image.disk) == plain_content()


def test_an_appliance_comes_with_its_hardware(store: Store, tmp_path: Path) -> None:
    report = bring(store, make_appliance(tmp_path))
    (image,) = report.images
    hardware = store.read_image("box").hardware
    assert hardware is not None
    assert (hardware.sockets, hardware.cores, hardware.memory_mib, hardware.firmware) == (2, 1, 512, Firmware.BIOS)
    assert [(one.bus, one.model) for one in hardware.controllers] == [(Bus.SCSI, "lsilogic")]
    assert [(one.file, one.size, one.boot) for one in hardware.drives] == [("disk.qcow2", 2 * bundles.MIB, 1)]
    assert [(one.model, one.network) for one in hardware.cards] == [("vmxnet3", "lan")]
    assert content_of(image.disk) == plain_content()
    assert (report.manifest, report.trust) == ("checked", "unsigned")
    assert codes(report.findings) == {"ovf.unsigned"}
    assert image.origin is not None
    assert image.origin.findings == report.findings


def test_an_imported_image_can_be_verified_and_carries_an_overlay(store: Store, home: Home, tmp_path: Path) -> None:
    (image,) = bring(store, make_appliance(tmp_path)).images
    store.verify(image, thorough=True)
    store.make_overlay(image, home.machines / "disk.qcow2")
    assert content_of(home.machines / "disk.qcow2") == plain_content()


def test_a_dry_run_checks_everything_and_stores_nothing(store: Store, home: Home, tmp_path: Path) -> None:
    report = bring(store, make_appliance(tmp_path), dry_run=True)
    assert report.images == ()
    assert [one.name for one in report.planned] == ["box"]
    assert list(home.images.iterdir()) == []
    with pytest.raises(ManifestError):
        bring(store, _altered(make_appliance(tmp_path)), dry_run=True)


def _altered(ova: Path) -> Path:
    raw = bytearray(ova.read_bytes())
    raw[raw.index(b"KDMV") + 4096] ^= 1
    ova.write_bytes(raw)
    return ova


def test_the_same_bundle_makes_the_same_image_and_keeps_both_names(store: Store, tmp_path: Path) -> None:
    ova = make_appliance(tmp_path)
    first, second = bring(store, ova, name="one").images[0], bring(store, ova, name="two").images[0]
    assert first.digest == second.digest
    assert store.read_image("one").digest == store.read_image("two").digest
    assert len(store.list_images()) == 1


def test_a_folder_and_its_descriptor_are_imported_like_the_archive(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    disk = make_vmdk(folder)
    (folder / "box.ovf").write_bytes(envelope())
    (folder / "._box.ovf").write_bytes(b"clutter")
    whole, by_descriptor = bring(store, folder).images[0], bring(store, folder / "box.ovf").images[0]
    assert whole.digest == by_descriptor.digest
    assert content_of(whole.disk) == plain_content()
    assert disk.exists()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
def test_manifests_of_every_kind_are_checked(store: Store, tmp_path: Path, algorithm: str) -> None:
    report = bring(store, make_appliance(tmp_path, algorithm=algorithm), dry_run=True)
    assert ("ovf.weak-manifest" in codes(report.findings)) == (algorithm == "sha1")
    with pytest.raises(ManifestError, match="is not what the manifest says"):
        bring(store, _altered(tmp_path / "box.ova"), dry_run=True)


def test_a_missing_manifest_is_never_fine(store: Store, tmp_path: Path) -> None:
    ova = make_ova(tmp_path / "box.ova", {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(tmp_path).read_bytes()})
    (finding,) = [one for one in bring(store, ova, dry_run=True).findings if one.code == "ovf.no-manifest"]
    assert finding.severity is Severity.UNVERIFIED


@pytest.mark.parametrize(("lacks", "sentence"), [("disk1.vmdk", "does not list"), ("box.ovf", "does not list")])
def test_a_file_that_the_manifest_does_not_list_is_refused(store: Store, tmp_path: Path, lacks: str, sentence: str) -> None:
    files = {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(tmp_path).read_bytes()}
    listed = {name: content for name, content in files.items() if name != lacks}
    with pytest.raises(ManifestError, match=sentence):
        bring(store, make_ova(tmp_path / "box.ova", {**files, "box.mf": manifest(listed)}))


def test_a_file_that_only_the_manifest_knows_is_missed(store: Store, tmp_path: Path) -> None:
    files = {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(tmp_path).read_bytes()}
    with pytest.raises(ManifestError, match="which is not in the bundle"):
        bring(store, make_ova(tmp_path / "box.ova", {**files, "box.mf": manifest({**files, "gone.iso": b"x"})}))


def test_a_signature_is_trusted_only_by_a_certificate_that_was_given(store: Store, tmp_path: Path) -> None:
    vendor = bundles.Vendor()
    ova = _signed(tmp_path, vendor)
    unknown = bring(store, ova, dry_run=True)
    assert (unknown.trust, unknown.signer) == ("signed by unknown", "CN=Vendor")
    assert "ovf.unknown-signer" in codes(unknown.findings)
    root = vendor.write_root(tmp_path / "root.pem")
    assert bring(store, ova, dry_run=True, anchors=(root,), must_be_signed=True).trust == "signed and trusted"
    other = bundles.Vendor().write_root(tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="a trusted signature was asked for"):
        bring(store, ova, dry_run=True, anchors=(other,), must_be_signed=True)
    with pytest.raises(SignatureError, match="unsigned"):
        bring(store, make_appliance(tmp_path), must_be_signed=True)


def _signed(folder: Path, vendor: bundles.Vendor, *, over: bytes = b"") -> Path:
    files = {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(folder).read_bytes()}
    listed = manifest(files)
    return make_ova(folder / "box.ova", {**files, "box.mf": listed, "box.cert": vendor.sign(over or listed)})


def test_a_signature_over_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="does not fit"):
        bring(store, _signed(tmp_path, bundles.Vendor(), over=b"another manifest"))


def test_several_machines_become_several_images_or_the_one_asked_for(store: Store, tmp_path: Path) -> None:
    two = f"<VirtualSystemCollection ovf:id='all'><Info>i</Info>{system(id_='web')}{system(id_='db')}</VirtualSystemCollection>"
    ova = make_appliance(tmp_path, envelope(two))
    assert sorted(image.name for image in bring(store, ova).images) == ["box-db", "box-web"]
    assert [image.name for image in bring(store, ova, system="db", name="only").images] == ["only"]
    with pytest.raises(SourceError, match="no machine 'mail'"):
        bring(store, ova, system="mail")


def test_a_licence_waits_for_a_person(store: Store, home: Home, tmp_path: Path) -> None:
    eula = "<EulaSection><Info>i</Info><License>Pay us.</License></EulaSection>"
    ova = make_appliance(tmp_path, envelope(system(more=eula)))
    with pytest.raises(EulaError):
        bring(store, ova)
    assert list(home.images.iterdir()) == []
    assert bring(store, ova, dry_run=True).eulas == ("Pay us.",)
    assert bring(store, ova, accept_eula=True).images


def test_disks_in_parts_compressed_and_blank_are_put_together(store: Store, tmp_path: Path) -> None:
    first, second = make_vmdk(tmp_path).read_bytes(), gzip.compress(make_vmdk(tmp_path, mark=b"second").read_bytes())
    third = make_vmdk(tmp_path, mark=b"third").read_bytes()
    chunk = 100_000
    parts = {f"disk1.vmdk.{number:09d}": first[at : at + chunk] for number, at in enumerate(range(0, len(first), chunk))}
    files = (
        f'<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:chunkSize="{chunk}" ovf:size="{len(first)}"/>'
        '<File ovf:id="file2" ovf:href="disk2.vmdk.gz" ovf:compression="gzip"/><File ovf:id="file3" ovf:href="with%20space.vmdk"/>'
    )
    disks = "".join(f'<Disk ovf:diskId="disk{n}" ovf:fileRef="file{n}" ovf:capacity="{2 << 20}"/>' for n in (1, 2, 3))
    disks += '<Disk ovf:diskId="disk4" ovf:capacity="4" ovf:capacityAllocationUnits="MegaBytes"/>'
    drives = "".join(item(10 + n, 17, Parent="3", AddressOnParent=str(n), HostResource=f"ovf:/disk/disk{n}") for n in (4, 3, 2, 1))
    descriptor = envelope(system(bundles.CPU + bundles.MEMORY + bundles.SCSI + drives), files=files, disks=disks)
    members = {"box.ovf": descriptor, **parts, "disk2.vmdk.gz": second, "with space.vmdk": third}
    (image,) = bring(store, make_ova(tmp_path / "box.ova", {**members, "box.mf": manifest(members)})).images
    assert image.hardware is not None
    assert [drive.file for drive in image.hardware.drives] == ["disk.qcow2", "disk-2.qcow2", "disk-3.qcow2", "disk-4.qcow2"]
    found = [content_of(image.folder / drive.file) for drive in image.hardware.drives]
    assert found[:3] == [plain_content(), plain_content(mark=b"second"), plain_content(mark=b"third")]
    assert bundles.info(image.folder / "disk-4.qcow2")["virtual-size"] == 4 * bundles.MIB


def test_a_missing_part_is_missed(store: Store, tmp_path: Path) -> None:
    raw = make_vmdk(tmp_path).read_bytes()
    files = f'<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:chunkSize="100000" ovf:size="{len(raw)}"/>'
    with pytest.raises(DamagedSourceError, match=r"A part of .* is missing"):
        bring(store, make_ova(tmp_path / "box.ova", {"box.ovf": envelope(files=files), "disk1.vmdk.000000000": raw[:100000]}))
    with pytest.raises(OvfError, match="first part"):
        bring(store, make_ova(tmp_path / "box.ova", {"box.ovf": envelope(files=files)}))


def test_a_disk_that_is_smaller_than_declared_is_made_that_large(store: Store, tmp_path: Path) -> None:
    larger = bundles.DISKS.replace('capacity="2"', 'capacity="8"')
    report = bring(store, make_appliance(tmp_path, envelope(disks=larger)))
    assert bundles.info(report.images[0].disk)["virtual-size"] == 8 * bundles.MIB
    assert "ovf.disk-size" in codes(report.findings)


def test_a_size_may_be_asked_for_as_a_property(store: Store, tmp_path: Path) -> None:
    disks = bundles.DISKS + '<Disk ovf:diskId="data" ovf:capacity="${data.size}" ovf:capacityAllocationUnits="byte * 2^20"/>'
    asked = '<Property ovf:key="size" ovf:type="uint16" ovf:userConfigurable="true"/>'
    product = f'<ProductSection ovf:class="data"><Info>i</Info>{asked}</ProductSection>'
    hardware = bundles.HARDWARE + item(9, 17, Parent="3", AddressOnParent="1", HostResource="ovf:/disk/data")
    ova = make_appliance(tmp_path, envelope(system(hardware, more=product), disks=disks))
    with pytest.raises(OvfError, match="given as a property"):
        bring(store, ova)
    (image,) = bring(store, ova, answers=(("data.size", "3"),)).images
    assert bundles.info(image.folder / "disk-2.qcow2")["virtual-size"] == 3 * bundles.MIB


def test_an_archive_in_a_compressed_file_is_imported(store: Store, tmp_path: Path) -> None:
    packed = tmp_path / "box.ova.xz"
    packed.write_bytes(lzma.compress(make_appliance(tmp_path).read_bytes()))
    assert bring(store, packed).images[0].name == "box"


def test_a_checksum_is_compared_before_anything_else(store: Store, tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "box.raw")
    digest = hashlib.sha512(raw.read_bytes()).hexdigest()
    assert bring(store, raw, checksum=f"sha512:{digest}", dry_run=True).planned
    with pytest.raises(ChecksumError):
        bring(store, raw, checksum="sha256:" + "0" * 64)
    for wrong in ("md5:" + "0" * 32, "0" * 40, "sha256:xyz", ""):
        if wrong:
            with pytest.raises(SourceError):
                bring(store, raw, checksum=wrong)


def test_a_full_disk_leaves_nothing(store: Store, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SpaceError("no room")

    monkeypatch.setattr("images.import_disks.convert_in", full)
    with pytest.raises(SpaceError):
        bring(store, make_appliance(tmp_path))
    assert list(home.images.iterdir()) == []


def test_another_answer_to_a_property_is_the_same_image(store: Store, tmp_path: Path) -> None:
    product = '<ProductSection><Info>i</Info><Property ovf:key="host" ovf:type="string" ovf:userConfigurable="true"/></ProductSection>'
    ova = make_appliance(tmp_path, envelope(system(more=product, transport="iso")))
    first = bring(store, ova, answers=(("host", "a"),)).images[0]
    second = bring(store, ova, answers=(("host", "b"),)).images[0]
    assert first.digest == second.digest
    assert second.hardware is not None
    assert [one.value for one in second.hardware.properties] == ["b"]
    assert replace(second.hardware, properties=()) == replace(first.hardware, properties=())  # type: ignore[type-var]
