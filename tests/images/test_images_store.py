"""The store: read-only, checked before use, whole or not there."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from fake_hypervisor import store_image

from images.errors import AlteredImageError, ImageInUseError, UnknownImageError
from images.home import Home
from images.ledger import Entry, EntryState, Ledger
from images.leftovers import remove_unused
from images.store import Store
from kit.process import need_program, run


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def test_a_stored_image_is_read_only_and_found_by_name_digest_and_inputs(store: Store) -> None:
    image = store_image(store)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (image.disk, image.kernel, image.initrd)} == {0o444}
    assert store.read_image("tiny") == store.read_image(image.digest) == store.read_image(image.digest[:8]) == image
    assert store.find_built("inputs of tiny") == image
    assert store.find_built("others") is None


def test_the_newest_of_a_name_is_meant(store: Store) -> None:
    store_image(store, content=b"old")
    newer = store_image(store, content=b"new")
    assert store.read_image("tiny") == newer
    assert len(store.list_images()) == 2


def test_the_same_content_is_stored_once(store: Store) -> None:
    store_image(store)
    store_image(store)
    assert len(store.list_images()) == 1


def test_nothing_half_stays_behind_when_importing_fails(store: Store, home: Home) -> None:
    with pytest.raises(FileNotFoundError), store.importing() as folder:
        (folder / "absent").read_bytes()
    assert list(home.images.iterdir()) == []


@pytest.mark.parametrize("file", ["disk.qcow2", "kernel", "initrd"])
def test_a_changed_file_is_noticed(store: Store, file: str) -> None:
    image = store_image(store)
    store.verify(image)
    path = image.folder / file
    path.chmod(0o644)
    path.write_bytes(b"other")
    with pytest.raises(AlteredImageError, match=file):
        store.verify(image)


def test_a_change_that_keeps_size_and_dates_is_noticed_by_a_thorough_look(store: Store) -> None:
    image = store_image(store)
    store.verify(image)
    before = image.disk.stat()
    image.disk.chmod(0o644)
    image.disk.write_bytes(b"ksid")
    os.utime(image.disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AlteredImageError):
        store.verify(image, thorough=True)


def test_a_missing_file_is_noticed(store: Store) -> None:
    image = store_image(store)
    image.kernel.unlink()
    with pytest.raises(AlteredImageError, match="lost its file kernel"):
        store.verify(image)


def test_a_forged_seal_does_not_hide_a_change(store: Store) -> None:
    image = store_image(store)
    image.disk.chmod(0o644)
    image.disk.write_bytes(b"bad!")
    (image.folder / "seal.json").write_text(json.dumps({"disk.qcow2": [4, 0, 0]}))
    with pytest.raises(AlteredImageError):
        store.verify(image)


def test_what_a_killed_import_left_is_gone_after_the_next(store: Store, home: Home) -> None:
    left, running = home.images / ".half-999999999-aa", home.images / f".half-{os.getpid()}-bb"
    left.mkdir()
    running.mkdir()
    store_image(store)
    assert not left.exists()
    assert running.exists()


def test_an_image_that_a_machine_stands_on_is_not_removed(store: Store, home: Home) -> None:
    image, ledger = store_image(store), Ledger(home.ledger)
    entry = Entry("r", "old", "u", "m", "mac", EntryState.RETIRED, image.digest, 256, 1, ())
    ledger.add(entry)
    with pytest.raises(ImageInUseError, match="old"):
        remove_unused(home, store, image)
    ledger.delete(entry)
    remove_unused(home, store, image, dry_run=True)
    assert store.list_images() == (image,)
    remove_unused(home, store, image)
    assert store.list_images() == ()
    assert list(home.images.iterdir()) == []


def test_an_unknown_name_is_refused_with_what_is_known(store: Store) -> None:
    store_image(store)
    with pytest.raises(UnknownImageError) as caught:
        store.read_image("nothing")
    assert "tiny" in caught.value.hint


@pytest.mark.process
def test_an_overlay_stands_on_the_image_and_names_its_format(store: Store, home: Home) -> None:
    image = _real_image(store)
    target = home.machines / "disk.qcow2"
    store.make_overlay(image, target)
    facts = json.loads(run([need_program("qemu-img", package="qemu-utils"), "info", "--output=json", target], timeout=30).out)
    assert (facts["backing-filename"], facts["backing-filename-format"], facts["format"]) == (str(image.disk), "qcow2", "qcow2")


FULL = """
import sys
from pathlib import Path
from images.errors import SpaceError
from images.home import Home
from images.store import Store
from kit.process import run
target = Path(sys.argv[2])
run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", target], timeout=30)
(target / "filler").write_bytes(bytes(64 * 1024))
store = Store(Home(Path(sys.argv[1])))
try:
    store.make_overlay(store.read_image("tiny"), target / "disk.qcow2")
except SpaceError as error:
    print(error.sentence)
print([path.name for path in target.iterdir()])
"""


@pytest.mark.process
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(store: Store, home: Home) -> None:
    """In a mount namespace of its own, so that this machine's file systems stay as they are."""
    _real_image(store)
    full = home.root / "full"
    full.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    said = run([*unshare, sys.executable, "-c", FULL, home.root, full], timeout=60, env={"PYTHONPATH": str(Path(__file__).parents[2])}).text
    assert "could not be made: no space left on the disk" in said.lower()
    assert said.splitlines()[-1] == "['filler']"


def _real_image(store: Store):
    qemu = need_program("qemu-img", package="qemu-utils")
    disk = Path(store._home.cache) / "base.qcow2"
    run([qemu, "create", "-q", "-f", "qcow2", disk, "16M"], timeout=30)
    return store_image(store, content=disk.read_bytes())
