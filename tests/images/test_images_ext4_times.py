"""One date in a whole file system."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from images.ext4_times import set_times
from kit.errors import UnexpectedError
from kit.process import need_program, run

MOMENT = 1_735_689_600
pytestmark = pytest.mark.process


def make(folder: Path, tree: Path, *, features: str = "^metadata_csum,^orphan_file") -> Path:
    disk = folder / "root.raw"
    disk.unlink(missing_ok=True)
    words = ["-q", "-F", "-t", "ext4", "-O", features, "-U", "01234567-89ab-cdef-0123-456789abcdef"]
    seed = ["-E", "lazy_itable_init=1,lazy_journal_init=1,hash_seed=01234567-89ab-cdef-0123-456789abcdef"]
    mke2fs = need_program("mke2fs", package="e2fsprogs")
    run([mke2fs, *words, *seed, "-d", tree, disk, "80M"], timeout=60, env={"E2FSPROGS_FAKE_TIME": str(MOMENT)})
    return disk


def plant(folder: Path, name: str) -> Path:
    """A tree with more files than one group of inodes starts with, an old and a young one among them."""
    tree = folder / name
    (tree / "deep").mkdir(parents=True)
    for number in range(300):
        (tree / "deep" / f"file-{number:03d}").write_text(f"{number}")
    (tree / "link").symlink_to("deep")
    os.utime(tree / "deep" / "file-000", (1_000_000_000, 1_000_000_000))
    for path in (tree / "deep", tree):
        os.utime(path, (MOMENT, MOMENT))
    return tree


def stat_of(disk: Path, path: str) -> dict[str, str]:
    said = run([need_program("debugfs", package="e2fsprogs"), "-R", f"stat {path}", disk], timeout=30).text
    return dict(re.findall(r"(ctime|atime|mtime|crtime): (0x[0-9a-f]+:[0-9a-f]+)", said))


def test_everything_gets_the_date_but_what_is_older_keeps_its_own(tmp_path: Path) -> None:
    disk = make(tmp_path, plant(tmp_path, "a"))
    assert set_times(disk, MOMENT) > 300
    date = f"{MOMENT:#x}:00000000"
    assert stat_of(disk, "/deep/file-299") == {"ctime": date, "atime": date, "mtime": date, "crtime": date}
    assert stat_of(disk, "/deep/file-000") == {"ctime": date, "atime": date, "mtime": f"{1_000_000_000:#x}:00000000", "crtime": date}
    assert stat_of(disk, "/link")["ctime"] == date
    run([need_program("e2fsck", package="e2fsprogs"), "-f", "-n", disk], timeout=30)


def test_the_same_content_at_another_time_makes_the_same_bytes(tmp_path: Path) -> None:
    disks = []
    for name in ("a", "b"):
        disk = make(tmp_path, plant(tmp_path, name))
        set_times(disk, MOMENT)
        disks.append(disk.read_bytes())
    assert disks[0] == disks[1]


@pytest.mark.parametrize("features", ["metadata_csum"])
def test_a_file_system_whose_inodes_have_checksums_is_left_alone(tmp_path: Path, features: str) -> None:
    disk = make(tmp_path, plant(tmp_path, "a"), features=features)
    before = disk.read_bytes()
    with pytest.raises(UnexpectedError):
        set_times(disk, MOMENT)
    assert disk.read_bytes() == before


def test_what_is_no_file_system_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "zeros"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(UnexpectedError):
        set_times(disk, MOMENT)
