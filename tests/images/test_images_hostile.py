"""What tries to reach out of a bundle, to read files of this computer, or to fill it: refused, and nothing stays behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path

import bundles
import pytest
from bundles import MIB, envelope, make_disk, make_ova, make_raw, make_vmdk, qemu_img, system

from images.archive import LONGEST_EXTENSION, Folder, parse_member_name, read_archive
from images.convert import convert_in, verify_disk
from images.disk_headers import Limits
from images.formats import DiskFormat, DiskSource, read_disk
from images.home import Home
from images.import_errors import ConvertError, DamagedSourceError, HostileSourceError, ManifestError, OvfError, SourceError
from images.import_image import import_image
from images.import_request import ImportRequest
from images.span import Span, read_file
from images.store import Store

pytestmark = pytest.mark.process

SECRET = b"root:the secret of this computer:0"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of this computer that no bundle may reach."""
    path = tmp_path / "victim"
    path.write_bytes(SECRET.ljust(2 * MIB, b"\0"))
    return path


def refuse(home: Home, source: Path, error: type[Exception] | tuple[type[Exception], ...] = HostileSourceError, **more: object) -> str:
    with pytest.raises(error) as caught:
        import_image(ImportRequest(str(source), **more), Store(home))  # type: ignore[arg-type]
    assert not any(home.images.iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../climb", "/etc/passwd", "a/../../b", "..", "a\\b", "C:\\disk", "new\nline", "nul\0l", "\x1b[2J", "", ".", "x" * 2000]
)
def test_a_name_that_leads_out_of_a_bundle_is_refused(name: str) -> None:
    with pytest.raises(HostileSourceError):
        parse_member_name(name)


@pytest.mark.parametrize(
    ("name", "plain"), [("./box.ovf", "box.ovf"), ("sub/disk.vmdk", "sub/disk.vmdk"), ("..name", "..name"), ("ñ", "ñ")]
)
def test_a_name_inside_a_bundle_is_taken(name: str, plain: str) -> None:
    assert parse_member_name(name) == plain


@pytest.mark.parametrize("name", ["../box.ovf", "/abs.ovf", "sub/../../x"])
def test_an_archive_whose_member_climbs_out_is_refused(home: Home, tmp_path: Path, name: str) -> None:
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": envelope(), name: b"x"}))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_links_and_devices_in_an_archive_are_refused(home: Home, tmp_path: Path, kind: bytes) -> None:
    odd = tarfile.TarInfo("disk1.vmdk")
    odd.type, odd.linkname = kind, "/etc/shadow"
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": envelope()}, odd=(odd,)))


def test_a_member_twice_is_refused(home: Home, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "box.ova", "w") as archive:
        for content in (envelope(), b"another"):
            about = tarfile.TarInfo("./box.ovf" if content == b"another" else "box.ovf")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    assert "twice" in refuse(home, tmp_path / "box.ova")


def test_an_extended_header_without_end_is_not_read(tmp_path: Path) -> None:
    about = tarfile.TarInfo("PaxHeader")
    about.type, about.size = tarfile.XHDTYPE, LONGEST_EXTENSION + 1
    raw = about.tobuf(tarfile.USTAR_FORMAT) + bytes(LONGEST_EXTENSION + 1024)
    (tmp_path / "box.ova").write_bytes(raw)
    with pytest.raises(HostileSourceError, match="absurdly long"):
        read_archive(read_file(tmp_path / "box.ova"))


def test_an_extended_header_names_a_member_only_inside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "box.ova", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("ñ" * 150))
    assert read_archive(read_file(tmp_path / "box.ova")).names == ("ñ" * 150,)
    with tarfile.open(tmp_path / "bad.ova", "w", format=tarfile.PAX_FORMAT) as archive:
        about = tarfile.TarInfo("harmless")
        about.pax_headers = {"path": "../../etc/passwd"}
        archive.addfile(about)
    with pytest.raises(HostileSourceError):
        read_archive(read_file(tmp_path / "bad.ova"))


def test_an_archive_that_was_cut_off_is_refused(home: Home, tmp_path: Path) -> None:
    ova = bundles.make_appliance(tmp_path)
    os.truncate(ova, ova.stat().st_size // 2)
    refuse(home, ova, DamagedSourceError)


def test_links_in_a_folder_are_refused(home: Home, tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "box.ovf").write_bytes(envelope())
    (folder / "disk1.vmdk").symlink_to(victim)
    refuse(home, folder)
    refuse(home, folder / "box.ovf")
    with pytest.raises(HostileSourceError):
        Folder(folder).find("../victim")
    (folder / "disk1.vmdk").unlink()
    os.mkfifo(folder / "disk1.vmdk")
    refuse(home, folder)


@pytest.mark.parametrize("href", ["../victim", "file:///etc/passwd", "https://192.0.2.1/disk.vmdk", "%2e%2e/victim", "..%2fvictim"])
def test_a_reference_that_leads_out_is_refused(home: Home, tmp_path: Path, victim: Path, href: str) -> None:
    descriptor = envelope(files=f'<File ovf:id="file1" ovf:href="{href}"/>')
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": descriptor}), (HostileSourceError, OvfError))
    assert victim.exists()


def test_a_manifest_cannot_name_files_outside(home: Home, tmp_path: Path) -> None:
    files = {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(tmp_path).read_bytes()}
    listed = bundles.manifest({**files, "../victim": b"x"})
    refuse(home, make_ova(tmp_path / "box.ova", {**files, "box.mf": listed}), HostileSourceError)


def test_a_signature_without_a_manifest_is_refused(home: Home, tmp_path: Path) -> None:
    files = {"box.ovf": envelope(), "disk1.vmdk": make_vmdk(tmp_path).read_bytes(), "box.cert": b"x"}
    refuse(home, make_ova(tmp_path / "box.ova", files), ManifestError)


DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=12345678
parentCID={parent}
createType="{kind}"
{more}
{extent}
"""


@pytest.mark.parametrize(
    "extent",
    [
        'RW 4096 FLAT "/etc/passwd" 0',
        'RW 4096 FLAT "../victim" 0',
        'RW 4096 FLAT "victim" 0\nRW 4096 FLAT "victim" 0',
        'RW 4096 SPARSE "victim"',
        'RW 4096 VMFSRDM "victim"',
        'RW 4096 FLAT "json:{}" 0 0',
        "RW 4096 FLAT",
        "RW 4096 ZERO",
    ],
)
def test_a_vmdk_that_names_files_of_this_computer_is_refused(home: Home, tmp_path: Path, victim: Path, extent: str) -> None:
    text = DESCRIPTOR.format(parent="ffffffff", kind="monolithicFlat", more="", extent=extent)
    disk = tmp_path / "box.vmdk"
    disk.write_text(text)
    refuse(home, disk, (HostileSourceError, DamagedSourceError))
    refuse(
        home, make_ova(tmp_path / "box.ova", {"box.ovf": envelope(), "disk1.vmdk": text.encode()}), (HostileSourceError, DamagedSourceError)
    )
    assert victim.read_bytes().startswith(SECRET)


def test_a_flat_vmdk_in_an_archive_reaches_nothing_beside_the_archive(home: Home, tmp_path: Path, victim: Path) -> None:
    """Even at the archive's very beginning the descriptor's own folder is the archive, not the folder that it lies in."""
    text = DESCRIPTOR.format(parent="ffffffff", kind="monolithicFlat", more="", extent='RW 4096 FLAT "victim" 0')
    ova = make_ova(tmp_path / "box.ova", {"disk1.vmdk": text.encode(), "box.ovf": envelope()})
    refuse(home, ova)
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "victim").symlink_to(victim)
    (folder / "box.vmdk").write_text(text)
    refuse(home, folder / "box.vmdk")
    assert victim.exists()


def test_a_bundle_uses_no_file_that_its_manifest_cannot_speak_of(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    disk = make_disk(folder, "vmdk", "subformat=monolithicFlat", name="disk1.vmdk")
    (folder / "box.ovf").write_bytes(envelope())
    assert (folder / "disk1-flat.vmdk").exists()
    refuse(home, folder)
    assert import_image(ImportRequest(str(disk)), Store(home)).images


def test_a_vmdk_with_a_parent_is_refused(home: Home, tmp_path: Path, victim: Path) -> None:
    sparse = make_vmdk(tmp_path).read_bytes()
    with_parent = sparse.replace(b"parentCID=ffffffff", b"parentCID=12345678")
    named = sparse.replace(b"# Extent description\n", b'parentFileNameHint="v"\n'[:21], 1)
    for raw in (with_parent, named):
        assert raw != sparse
        (tmp_path / "box.vmdk").write_bytes(raw)
        refuse(home, tmp_path / "box.vmdk", (HostileSourceError, DamagedSourceError))


def test_an_empty_sparse_vmdk_that_qemu_would_take_for_a_descriptor_is_refused(home: Home, tmp_path: Path, victim: Path) -> None:
    text = DESCRIPTOR.format(parent="ffffffff", kind="monolithicFlat", more="", extent=f'RW 4096 FLAT "{victim}" 0').encode()
    raw = bytearray(make_vmdk(tmp_path).read_bytes())
    raw[12:20] = struct.pack("<Q", 0)
    raw[512 : 512 + len(text)] = text
    (tmp_path / "box.vmdk").write_bytes(raw)
    refuse(home, tmp_path / "box.vmdk")


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_a_qcow2_with_a_backing_file_is_refused(home: Home, tmp_path: Path, victim: Path, format_: str) -> None:
    base = victim if format_ == "raw" else make_disk(tmp_path, "qcow2", name="base.qcow2")
    disk = tmp_path / "box.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", format_, "-b", base, disk)
    refuse(home, disk)
    descriptor = envelope()
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": descriptor, "disk1.vmdk": disk.read_bytes()}))


def test_a_qcow2_with_a_data_file_is_refused(home: Home, tmp_path: Path, victim: Path) -> None:
    disk = tmp_path / "box.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", disk, "2M")
    refuse(home, disk)
    raw = bytearray(disk.read_bytes())
    raw[72:80] = bytes(8)  # without the feature's mark, but still named
    disk.write_bytes(raw)
    refuse(home, disk)


def test_disks_that_hold_a_difference_only_are_refused(home: Home, tmp_path: Path) -> None:
    vhd = make_disk(tmp_path, "vpc", "force_size=on", name="box.vhd")
    raw = bytearray(vhd.read_bytes())
    for at in (0, len(raw) - 512):
        raw[at + 60 : at + 64] = struct.pack(">I", 4)
        raw[at + 64 : at + 68] = bytes(4)
        raw[at + 64 : at + 68] = struct.pack(">I", ~sum(raw[at : at + 512]) & 0xFFFFFFFF)
    vhd.write_bytes(raw)
    refuse(home, vhd)
    vhdx = make_disk(tmp_path, "vhdx", name="box.vhdx")
    raw = bytearray(vhdx.read_bytes())
    at = raw.index(struct.pack("<II", 8 << 20, 0), 1 << 20)
    raw[at + 4] = 2
    vhdx.write_bytes(raw)
    refuse(home, vhdx)


def test_absurd_sizes_are_refused(home: Home, tmp_path: Path) -> None:
    disk = tmp_path / "box.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", disk, "100T")
    assert "--max-size" in _hint(home, disk)
    refuse(home, make_disk(tmp_path, "qcow2", name="small.qcow2", mib=3), limits=Limits(2 * MIB))
    huge = envelope(disks='<Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="999999999" ovf:capacityAllocationUnits="GigaBytes"/>')
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": huge, "disk1.vmdk": make_vmdk(tmp_path).read_bytes()}))


def _hint(home: Home, disk: Path) -> str:
    with pytest.raises(HostileSourceError) as caught:
        import_image(ImportRequest(str(disk)), Store(home))
    return caught.value.hint


def test_bombs_stop_where_they_are_allowed_to_grow_to(home: Home, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    (tmp_path / "box.raw.gz").write_bytes(bomb)
    assert "unpacks to more" in refuse(home, tmp_path / "box.raw.gz", limits=Limits(8 * MIB))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(gzip.compress(gzip.compress(bytes(MIB)))))
    refuse(home, tmp_path / "twice.gz", Exception)
    files = '<File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="gzip"/>'
    ova = make_ova(tmp_path / "box.ova", {"box.ovf": envelope(files=files), "disk1.vmdk": gzip.compress(bytes(80 * MIB))})
    assert "unpacks to more" in refuse(home, ova)


@pytest.mark.parametrize("name", ["box.raw.gz", "box.raw.xz", "box.raw.zst"])
def test_compressed_files_that_were_cut_off_are_refused(home: Home, tmp_path: Path, name: str) -> None:
    import lzma

    import zstandard

    raw = make_raw(tmp_path / "raw").read_bytes() + os.urandom(5000)
    packed = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}[name.rpartition(".")[2]](raw)
    (tmp_path / name).write_bytes(packed[:-20])
    refuse(home, tmp_path / name, DamagedSourceError)


@pytest.mark.parametrize(
    "raw",
    [
        b'<?xml version="1.0"?><!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]><Envelope>&x;</Envelope>',
        b'<?xml version="1.0"?><!DOCTYPE Envelope [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><Envelope>&b;</Envelope>',
        b'<?xml version="1.0"?><!DOCTYPE Envelope SYSTEM "http://192.0.2.1/evil.dtd"><Envelope/>',
        b"<Envelope>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</Envelope>",
        b"<Envelope>" + b"<a/>" * 60_000 + b"</Envelope>",
        b"<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'/>",
        b"<Envelope",
        b"<other/><!-- Envelope -->",
    ],
)
def test_a_descriptor_that_is_an_attack_or_none_is_refused(home: Home, tmp_path: Path, raw: bytes) -> None:
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": raw}), (HostileSourceError, OvfError))


def test_a_disk_that_was_swapped_after_its_check_still_reaches_nothing(tmp_path: Path) -> None:
    base = make_disk(tmp_path, "qcow2", name="base.qcow2")
    overlay = tmp_path / "box.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
    forged = DiskSource(Span(overlay, 0, overlay.stat().st_size), DiskFormat.QCOW2, "qcow2", 2 * MIB)
    convert_in(forged, tmp_path / "out.qcow2", label="converting")
    assert bundles.content_of(tmp_path / "out.qcow2") == hashlib.sha256(bytes(2 * MIB)).hexdigest()


def test_qemu_img_is_a_second_opinion(tmp_path: Path) -> None:
    """Should a header ever get past the reader, the program that would use it refuses too."""
    base = make_disk(tmp_path, "qcow2", name="base.qcow2")
    overlay = tmp_path / "box.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
    forged = DiskSource(Span(overlay, 0, overlay.stat().st_size), DiskFormat.QCOW2, "qcow2", 2 * MIB)
    with pytest.raises((HostileSourceError, ConvertError)):
        verify_disk(forged)
    other = read_disk(read_file(base))
    with pytest.raises(ConvertError):
        verify_disk(DiskSource(other.span, other.format, other.driver, other.size + 512))


def test_sources_that_are_no_files_are_refused(home: Home, tmp_path: Path) -> None:
    for source in ("/dev/zero", str(tmp_path / "absent"), "http://127.0.0.1/a", "ftp://x/a", "https://127.0.0.1/a"):
        refuse(home, source, SourceError)  # type: ignore[arg-type]


def test_two_machines_with_one_name_are_told_apart_or_refused(home: Home, tmp_path: Path) -> None:
    two = f"<VirtualSystemCollection ovf:id='all'><Info>i</Info>{system(id_='a b')}{system(id_='a-b')}</VirtualSystemCollection>"
    refuse(home, make_ova(tmp_path / "box.ova", {"box.ovf": envelope(two), "disk1.vmdk": make_vmdk(tmp_path).read_bytes()}), OvfError)
