"""Stream-optimised VMDKs, unpacked here: what QEMU sees of the result, the same file from the same content, and damage of every kind."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest
from bundles import MIB, info, make_raw, qemu_img
from hypothesis import given, settings
from hypothesis import strategies as st

from images.import_errors import DamagedSourceError
from images.qcow2_write import CLUSTER, Qcow2Writer
from images.span import Span, read_file
from images.vmdk_stream import convert_grains, find_grains
from kit.progress import Silent

pytestmark = pytest.mark.process


def make_content(path: Path, size: int, *, seed: int = 1) -> Path:
    """Words, noise, zeros that are written, and holes."""
    rng = random.Random(seed)
    with path.open("wb") as sink:
        sink.truncate(size)
        for at in range(0, size - CLUSTER, CLUSTER):
            kind = rng.choice(("hole", "words", "noise", "zeros", "hole"))
            if kind != "hole":
                sink.seek(at)
                sink.write({"words": b"words " * 10_000, "noise": rng.randbytes(CLUSTER), "zeros": bytes(CLUSTER)}[kind])
        sink.seek(size - 5)
        sink.write(b"the e")
    return path


def pack(raw: Path, target: Path) -> Path:
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, target)
    return target


def unpack(source: Span, target: Path) -> Path:
    grains = find_grains(source)
    assert grains is not None
    convert_grains(grains, target, label="unpacking", progress=Silent())
    return target


@pytest.mark.parametrize("size", [512, 65536, 65536 + 512, 5 * MIB, 33 * MIB + 512, 600 * MIB])
def test_qemu_sees_the_same_bytes_and_a_disk_without_faults(tmp_path: Path, size: int) -> None:
    raw = make_content(tmp_path / "made.raw", size) if size < 100 * MIB else make_raw(tmp_path / "made.raw", mib=size // MIB)
    disk = unpack(read_file(pack(raw, tmp_path / "made.vmdk")), tmp_path / "out.qcow2")
    qemu_img("check", "-f", "qcow2", disk)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, disk)
    assert info(disk)["virtual-size"] == size


def test_it_is_read_where_it_lies_in_an_archive(tmp_path: Path) -> None:
    raw = make_content(tmp_path / "made.raw", 5 * MIB)
    vmdk = pack(raw, tmp_path / "made.vmdk").read_bytes()
    (tmp_path / "archive").write_bytes(b"before" * 100 + vmdk + b"after")
    disk = unpack(Span(tmp_path / "archive", 600, len(vmdk)), tmp_path / "out.qcow2")
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, disk)


def test_the_same_content_makes_the_same_file(tmp_path: Path) -> None:
    raw = make_content(tmp_path / "made.raw", 12 * MIB)
    first = unpack(read_file(pack(raw, tmp_path / "a.vmdk")), tmp_path / "a.qcow2")
    qemu_img("convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized", first, tmp_path / "b.vmdk")
    second = unpack(read_file(tmp_path / "b.vmdk"), tmp_path / "b.qcow2")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


@pytest.mark.parametrize("subformat", ["monolithicSparse"])
def test_another_form_is_left_to_qemu(tmp_path: Path, subformat: str) -> None:
    raw = make_raw(tmp_path / "made.raw")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, tmp_path / "made.vmdk")
    assert find_grains(read_file(tmp_path / "made.vmdk")) is None


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packed")
    return pack(make_content(folder / "made.raw", 3 * MIB), folder / "made.vmdk").read_bytes()


def first_grain(packed: bytes) -> int:
    """Where the first grain's marker lies."""
    return struct.unpack_from("<Q", packed, 64)[0] * 512


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, struct.pack("<Q", 128 * 7)),
        (8, struct.pack("<I", 0)),
        (8, struct.pack("<I", 1 << 30)),
        (12, b"\xff\xff"),
        (30, b"\0\1\2\3" * 4),
    ],
)
def test_a_grain_that_is_not_what_it_should_be_is_refused(tmp_path: Path, packed: bytes, offset: int, value: bytes) -> None:
    at = first_grain(packed) + offset
    (tmp_path / "bad.vmdk").write_bytes(packed[:at] + value + packed[at + len(value) :])
    with pytest.raises(DamagedSourceError):
        unpack(read_file(tmp_path / "bad.vmdk"), tmp_path / "out.qcow2")


def test_a_grain_that_unpacks_to_more_than_a_grain_is_refused(tmp_path: Path, packed: bytes) -> None:
    import zlib

    bomb = zlib.compress(bytes(200 * MIB), 9)[: (1 << 16)]
    at = first_grain(packed)
    whole = zlib.compress(bytes(CLUSTER + 1))
    for content in (bomb, whole):
        marker = packed[at : at + 8] + struct.pack("<I", len(content)) + content
        (tmp_path / "bad.vmdk").write_bytes(packed[:at] + marker + packed[at + len(marker) :])
        with pytest.raises(DamagedSourceError):
            unpack(read_file(tmp_path / "bad.vmdk"), tmp_path / f"out-{len(content)}.qcow2")


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_damaged_it_is_refused_or_read_and_never_anything_else(
    packed: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        area = data.draw(st.sampled_from([(0, 512), (len(packed) - 1024, 512), (len(packed) - 70_000, 69_000), (0, len(packed))]))
        at = max(0, area[0]) + data.draw(st.integers(0, area[1] - 9))
        value = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(value)] = value
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, 512, 0]))
    (folder / "bad.vmdk").write_bytes(content[:cut])
    source = read_file(folder / "bad.vmdk")
    try:
        grains = find_grains(source)
        if grains is not None and grains.size <= 64 * MIB:
            convert_grains(grains, folder / "out.qcow2", label="", progress=Silent())
    except DamagedSourceError:
        pass


@settings(max_examples=30)
@given(st.sets(st.integers(0, 40_000), max_size=12))
def test_clusters_anywhere_are_found_again(tmp_path_factory: pytest.TempPathFactory, numbers: set[int]) -> None:
    folder = tmp_path_factory.mktemp("writer")
    size = 40_001 * CLUSTER
    with Qcow2Writer(folder / "out.qcow2", size) as disk:
        for number in sorted(numbers, reverse=True):
            disk.write(number, number.to_bytes(4, "big") * (CLUSTER // 4))
        disk.finish()
    qemu_img("check", "-f", "qcow2", folder / "out.qcow2")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", folder / "out.qcow2", folder / "out.raw")
    with (folder / "out.raw").open("rb") as raw:
        for number in numbers:
            raw.seek(number * CLUSTER)
            assert raw.read(CLUSTER) == number.to_bytes(4, "big") * (CLUSTER // 4)
        assert (folder / "out.raw").stat().st_size == size
