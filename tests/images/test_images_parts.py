"""Small parts: file sets, the kernel's shell, the boot sector, the home."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from images.acceleration import WORD, render_boot_sector
from images.filesets import pack
from images.home import Home, ensure_home, find_closed_folder, find_home
from images.kernel import find_uncompressed
from images.locking import hold
from images.recipe import FileSet
from kit.errors import DeadlineError, UsageError


def _pack(tmp_path: Path, source: Path, name: str) -> bytes:
    target = tmp_path / name
    pack((FileSet(source, PurePosixPath("/opt/x")),), target, mtime=1)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    return target.read_bytes()


def test_the_same_content_packs_to_the_same_bytes_whatever_its_dates_and_the_umask(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    (source / "run").write_text("#!/bin/sh")
    (source / "run").chmod(0o755)
    first = _pack(tmp_path, source, "one.tar")
    os.utime(source / "deep" / "file", (5, 5))
    (source / "deep" / "file").chmod(0o664)
    (source / "run").chmod(0o775)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "a.pyc").write_bytes(b"1")
    assert _pack(tmp_path, source, "two.tar") == first
    (source / "deep" / "file").write_text("y")
    assert _pack(tmp_path, source, "three.tar") != first


def test_private_files_stay_private_and_all_belongs_to_root(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "key").write_text("k")
    (source / "key").chmod(0o600)
    (source / "link").symlink_to("key")
    _pack(tmp_path, source, "one.tar")
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {one.name: (one.mode, one.uid, one.gid) for one in archive if one.isreg()} == {"opt/x/key": (0o600, 0, 0)}
        assert archive.getmember("opt/x/link").linkname == "key"


def test_the_later_file_set_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    pack((FileSet(tmp_path / "a", PurePosixPath("/f")), FileSet(tmp_path / "b", PurePosixPath("/f"))), tmp_path / "t.tar", mtime=1)
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert archive.extractfile("f").read() == b"b"


def _bz_image(payload: bytes) -> bytes:
    head = bytearray(2 * 512)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + b"\0" * 16 + payload


def test_an_elf_kernel_is_taken_out_of_its_shell() -> None:
    elf = b"\x7fELF" + b"code" * 1000 + b"Xen\0"
    assert find_uncompressed(_bz_image(lzma.compress(elf) + struct.pack("<I", len(elf)))) == elf


@pytest.mark.parametrize(
    "image",
    [b"", b"\0" * 4096, _bz_image(b"\xfd7zXZ\0 damaged"), _bz_image(b"unknown"), _bz_image(lzma.compress(b"\x7fELF without the entry")),
     _bz_image(lzma.compress(b"no ELF Xen\0"))],
)  # fmt: skip
def test_what_qemu_could_not_start_directly_is_left_in_its_shell(image: bytes) -> None:
    assert find_uncompressed(image) is None


def test_the_boot_sector_is_one() -> None:
    sector = render_boot_sector()
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert WORD in sector


def test_the_homes_folders_have_their_modes(tmp_path: Path) -> None:
    home = ensure_home(Home(tmp_path / "state"))
    assert stat.S_IMODE(home.root.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert stat.S_IMODE(home.cache.stat().st_mode) == 0o700
    ensure_home(home)


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    assert find_home({"BOXSHIFT_HOME": str(tmp_path)}).root == tmp_path
    with pytest.raises(UsageError, match="absolute"):
        find_home({"BOXSHIFT_HOME": "here"})


def test_a_closed_folder_on_the_way_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "deep").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp") or not folder.stat().st_mode & stat.S_IXOTH:
            break
    closed.chmod(0o700)
    found = find_closed_folder(closed / "deep" / "disk")
    assert found is not None
    assert found in (closed, *closed.parents)


def test_a_lock_that_another_holds_says_what_it_is_for(tmp_path: Path) -> None:
    with (
        hold(tmp_path / "lock", what="building", timeout=1),
        pytest.raises(DeadlineError, match="building"),
        hold(tmp_path / "lock", what="building", timeout=0.1),
    ):
        pass
    with hold(tmp_path / "lock", what="building", timeout=0.1):
        pass
