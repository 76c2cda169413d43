"""Readers of foreign bytes, fed with anything: they answer, or raise an error of the tree; never another one."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from bundles import DISKS, FILES, HARDWARE, envelope, item, system
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from images.archive import parse_member_name, read_archive
from images.fetch import parse_address, parse_checksum
from images.formats import find_compression, is_archive, is_ovf, read_disk
from images.import_request import plan_name
from images.manifest import parse_manifest
from images.manifest_signature import verify_signature
from images.ovf.deployment import find_default
from images.ovf.hardware import plan_machine
from images.ovf.read import parse_ovf
from images.ovf.units import parse_bytes, parse_units
from images.span import Span
from images.unpack import unpack
from kit.errors import BoxshiftError

HEADS = (
    b"QFI\xfb\0\0\0\x02", b"QFI\xfb\0\0\0\x03", b"KDMV\x01\0\0\0", b"KDMV\x03\0\0\0", b"COWD", b"vhdxfile", b"conectix",
    b"# Disk DescriptorFile\n", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"<Envelope", b"",
)  # fmt: skip
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
numbers = st.one_of(
    st.integers(-2, 70), st.sampled_from(["0", "4294967296", "18446744073709551616", "1e9", "0x10", "", " 4 ", "٤", "-1"])
).map(str)
words = st.one_of(st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="<&>\"'"), max_size=12), numbers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


def span_of(place: Path, raw: bytes) -> Span:
    place.write_bytes(raw)
    return Span(place, 0, len(raw))


def only_ours(call: Callable[[], object]) -> None:
    with suppress(BoxshiftError):
        call()


@FEW
@given(
    head=st.sampled_from(HEADS),
    rest=st.binary(max_size=2000),
    tail=st.sampled_from((b"", b"conectix".ljust(512, b"\0"))),
    raw=st.booleans(),
)
def test_any_bytes_are_sniffed(place: Path, head: bytes, rest: bytes, tail: bytes, raw: bool) -> None:
    span = span_of(place, head + rest + tail)
    find_compression(span)
    is_archive(span)
    is_ovf(span)
    only_ours(lambda: read_disk(span, raw=raw))
    only_ours(lambda: read_archive(span))


@FEW
@given(fields=st.lists(st.integers(0, 2**64 - 1), min_size=14, max_size=14), version=st.sampled_from((2, 3)))
def test_any_qcow2_header_is_read(place: Path, fields: list[int], version: int) -> None:
    body = b"".join(struct.pack(">Q", one) for one in fields)
    only_ours(lambda: read_disk(span_of(place, b"QFI\xfb" + struct.pack(">I", version) + body)))


@FEW
@given(fields=st.lists(st.one_of(st.integers(0, 4096), st.integers(0, 2**64 - 1)), min_size=8, max_size=8), text=st.text(max_size=300))
@example(fields=[0, 8, 0, 1, 1, 0, 0, 1], text='RW 8 SPARSE "x"\nparentCID=1')
def test_any_vmdk_header_is_read(place: Path, fields: list[int], text: str) -> None:
    head = b"KDMV" + b"".join(struct.pack("<Q", one) for one in fields)
    only_ours(lambda: read_disk(span_of(place, head.ljust(512, b"\0") + text.encode().ljust(1024, b"\0"))))
    only_ours(lambda: read_disk(span_of(place, b"# Disk DescriptorFile\n" + text.encode())))


@FEW
@given(rows=st.binary(max_size=600), metadata=st.binary(max_size=600), at=st.integers(0, 2**64 - 1))
def test_any_vhdx_is_read(place: Path, rows: bytes, metadata: bytes, at: int) -> None:
    raw = bytearray(320 * 1024)
    raw[:8] = b"vhdxfile"
    raw[192 * 1024 : 192 * 1024 + 16] = b"regi" + bytes(4) + struct.pack("<I", 3) + bytes(4)
    region = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e") + struct.pack("<Q", at % 400_000) + bytes(8)
    body = region + rows
    raw[192 * 1024 + 16 : 192 * 1024 + 16 + len(body)] = body
    raw[at % 300_000 : at % 300_000 + 8 + len(metadata)] = b"metadata" + metadata
    only_ours(lambda: read_disk(span_of(place, bytes(raw))))


@FEW
@given(head=st.sampled_from((b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")), rest=st.binary(max_size=500))
def test_any_compressed_bytes_are_unpacked_or_refused(place: Path, head: bytes, rest: bytes) -> None:
    span = span_of(place, head + rest)
    compression = find_compression(span)
    target = place.with_name("unpacked")
    target.unlink(missing_ok=True)
    if compression is not None:
        only_ours(lambda: unpack(span, compression, target, most=1 << 20))


@FEW
@given(
    names=st.lists(st.text(min_size=1, max_size=60), max_size=4),
    kinds=st.lists(
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME]), min_size=4
    ),
    flip=st.integers(0, 10_000),
)
def test_any_archive_is_read_or_refused(place: Path, names: list[str], kinds: list[bytes], flip: int) -> None:
    raw = bytearray()
    for name, kind in zip(names, kinds, strict=False):
        about = tarfile.TarInfo(name)
        about.type = kind
        about.size = flip % 700 if kind != tarfile.DIRTYPE else 0
        raw += about.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape") + bytes(-(-about.size // 512) * 512)
    only_ours(lambda: read_archive(span_of(place, bytes(raw) + bytes(1024))))
    if raw:
        raw[flip % len(raw)] ^= 1 + flip % 255
        only_ours(lambda: read_archive(span_of(place, bytes(raw))))


@FEW
@given(st.text(max_size=80))
def test_a_name_that_is_taken_stays_inside(name: str) -> None:
    try:
        parts = parse_member_name(name).split("/")
    except BoxshiftError:
        return
    assert parts
    assert not {"", ".", ".."} & set(parts)


@FEW
@given(st.one_of(st.text(max_size=120), st.from_regex(r"SHA(1|256|512)\([a-z./]{1,8}\)\s?= [0-9a-f]{40,128}\r?\n", fullmatch=True)))
def test_any_text_is_a_manifest_or_refused(text: str) -> None:
    only_ours(lambda: parse_manifest(text.encode()))
    only_ours(lambda: verify_signature(text.encode(), b"", "box.mf"))


@FEW
@given(text=words, units=words)
def test_any_words_are_a_size_or_refused(text: str, units: str) -> None:
    only_ours(lambda: parse_units(units))
    only_ours(lambda: parse_bytes(text, units, "a size"))
    only_ours(lambda: parse_checksum(text))
    only_ours(lambda: parse_address(f"https://{text}/"))
    assert plan_name(text)


def describe(raw: bytes) -> None:
    found = parse_ovf(raw)
    for one in found.systems:
        plan_machine(found, one, find_default(found.deployments))


items = st.builds(
    lambda number, kind, values: item(number, 0, **values).replace(">0<", f">{kind}<", 1),
    st.integers(0, 9),
    numbers,
    st.dictionaries(
        st.sampled_from(
            ["Parent", "Address", "AddressOnParent", "VirtualQuantity", "AllocationUnits", "HostResource", "ResourceSubType", "Connection"]
        ),
        st.one_of(words, st.sampled_from(["3", "ovf:/disk/disk1", "ovf:/file/file1", "lsilogic", "AHCI", "E1000", "byte * 2^20"])),
        max_size=6,
    ),
)


@FEW
@given(hardware=st.lists(items, max_size=6), capacity=words, units=words, keep=st.booleans())
def test_any_hardware_is_planned_or_refused(hardware: list[str], capacity: str, units: str, keep: bool) -> None:
    disks = f'<Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="{units}"/>'
    only_ours(lambda: describe(envelope(system((HARDWARE if keep else "") + "".join(hardware)), disks=DISKS if keep else disks)))


@FEW
@given(at=st.integers(0, 5000), rest=st.binary(max_size=20), cut=st.integers(0, 40))
def test_a_descriptor_that_was_changed_anywhere_is_planned_or_refused(at: int, rest: bytes, cut: int) -> None:
    raw = envelope(files=FILES)
    at %= len(raw)
    only_ours(lambda: describe(raw[:at] + rest + raw[at + cut :]))
