"""An initrd packed anew: the same bytes from the same content, and whatever is no such archive left as it is."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.initrd import find_repacked

MOMENT = 1_735_689_600


def archive(*entries: tuple[str, bytes, int, int, int], end: bytes = b"") -> bytes:
    """Entries as name, content, inode, mode, date."""
    raw = b""
    for name, content, inode, mode, date in (*entries, ("TRAILER!!!", b"", 0, 0, 0)):
        numbers = (inode, mode, 0, 0, 1, date, len(content), 8, 1, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        raw += head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    return gzip.compress(raw + end)


FIRST = archive(("init", b"#!x\n", 71, 0o100755, 5), ("dev", b"", 72, 0o40755, 6), ("a.ko", b"mod", 73, 0o100644, 7))
SECOND = archive(("a.ko", b"mod", 11, 0o100644, 1), ("init", b"#!x\n", 12, 0o100755, 2), ("dev", b"", 14, 0o40755, 3))


def test_order_inodes_and_dates_make_no_difference() -> None:
    packed = find_repacked(FIRST, MOMENT)
    assert packed is not None
    assert packed == find_repacked(SECOND, MOMENT) == find_repacked(packed, MOMENT)
    assert packed != find_repacked(archive(("a.ko", b"other", 1, 0o100644, 1)), MOMENT)


def test_names_that_share_an_inode_go_on_sharing_one() -> None:
    packed = find_repacked(archive(("a", b"", 9, 0o100644, 1), ("b", b"", 4, 0o100644, 1), ("c", b"x", 9, 0o100644, 1)), MOMENT)
    assert packed is not None
    raw = gzip.decompress(packed)
    inodes = [raw[at + 6 : at + 14] for at in range(len(raw)) if raw.startswith(b"070701", at)]
    assert inodes[0] == inodes[2] != inodes[1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain",
        gzip.compress(b"no archive"),
        FIRST[:-20],
        gzip.compress(gzip.decompress(FIRST)[:150]),
        archive(end=b"another archive"),
    ],
    ids=["nothing", "plain", "another content", "cut short", "cut short inside", "more behind it"],
)
def test_what_is_no_such_archive_is_left_alone(content: bytes) -> None:
    assert find_repacked(content, MOMENT) is None


@given(st.binary(max_size=400))
def test_no_content_breaks_it(content: bytes) -> None:
    find_repacked(content, MOMENT)
    find_repacked(gzip.compress(b"070701" + content), MOMENT)
