"""Building: what the layers depend on, and how failures are told. The whole build is in test_images_boot.py."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from images import build, build_packages
from images.build import plan_layers, render_configure
from images.build_work import sweep
from images.errors import BuildError
from images.filesets import pack
from images.home import Home
from images.leftovers import list_leftovers, remove_leftovers
from images.locking import hold
from images.recipe import FileSet, Recipe
from images.reference_image import read_reference_recipe
from images.sources import Sources
from kit.process import Child
from kit.waiting import wait_for

APT = Sources("Types: deb\n", None)


@pytest.fixture
def recipe() -> Recipe:
    return read_reference_recipe()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "content").write_text("one")
    pack((FileSet(tmp_path / "content", PurePosixPath("/x")),), tmp_path / "files.tar", mtime=1)
    return tmp_path / "files.tar"


@pytest.mark.process
def test_a_changed_file_changes_only_the_upper_layer(recipe: Recipe, files: Path, tmp_path: Path) -> None:
    before = plan_layers(recipe, APT, files)
    assert plan_layers(recipe, APT, files) == before
    (tmp_path / "content").write_text("two")
    pack((FileSet(tmp_path / "content", PurePosixPath("/x")),), tmp_path / "other.tar", mtime=1)
    after = plan_layers(recipe, APT, tmp_path / "other.tar")
    assert after.packages == before.packages
    assert after.image != before.image


@pytest.mark.process
@pytest.mark.parametrize("change", ["packages", "leave_out", "suite"])
def test_changed_packages_change_both_layers(recipe: Recipe, files: Path, change: str) -> None:
    value = "trixie" if change == "suite" else (*getattr(recipe, change), "more")
    before, after = plan_layers(recipe, APT, files), plan_layers(replace(recipe, **{change: value}), APT, files)
    assert after.packages != before.packages
    assert after.image != before.image


@pytest.mark.process
@pytest.mark.parametrize("change", ["enable", "mask", "commands"])
def test_changed_configuration_changes_the_upper_layer_only(recipe: Recipe, files: Path, change: str) -> None:
    before = plan_layers(recipe, APT, files)
    after = plan_layers(replace(recipe, **{change: (*getattr(recipe, change), "true")}), APT, files)
    assert (after.packages, after.image != before.image) == (before.packages, True)


@pytest.mark.process
def test_other_package_sources_change_both_layers(recipe: Recipe, files: Path) -> None:
    before, after = plan_layers(recipe, APT, files), plan_layers(recipe, Sources("Types: deb deb-src\n", None), files)
    assert after.packages != before.packages


def test_units_and_paths_are_quoted_for_the_shell(recipe: Recipe, hostile_password: str) -> None:
    script = render_configure(replace(recipe, compile=(PurePosixPath(f"/opt/{hostile_password}"),)))
    assert "'/opt/a!b@c$ '\"'\"'d\"e\\;ñ'" in script


@pytest.mark.process
@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("E: Failed to fetch http://x Temporary failure resolving 'x'", "mirror"),
        ("mke2fs: No space left on device while populating", "Free space"),
        ("E: newuidmap failed", "uidmap"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing_half(
    home: Home, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    """A stand-in for mmdebstrap that fails: mirrors and disks cannot be made to fail on purpose."""
    failing = tmp_path / "mmdebstrap"
    failing.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\necho "I: downloading" >&2\necho "{said}" >&2\nexit 25\n')
    failing.chmod(0o755)
    plain = build_packages.need_program
    monkeypatch.setattr(
        build_packages, "need_program", lambda name, *, package: failing if name == "mmdebstrap" else plain(name, package=package)
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seen: list[str] = []
    with pytest.raises(BuildError, match="ended with status 25") as caught:
        build.build(recipe, home, progress=_Heard(seen))
    assert said in caught.value.sentence
    assert hint in caught.value.hint
    assert said in (home.cache / "build-failed.log").read_text()
    assert "downloading" in seen
    assert list(home.layers.iterdir()) == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith("boxshift-build")] == []


def test_work_folders_of_killed_builds_are_swept_and_those_of_running_ones_are_not(tmp_path: Path) -> None:
    for name in ("dead", "alive", "young"):
        folder = tmp_path / f"boxshift-build-{name}"
        folder.mkdir()
        (folder / "lock").touch()
        if name != "young":
            os.utime(folder, (1, 1))
    with hold(tmp_path / "boxshift-build-alive" / "lock", what="building", timeout=0):
        sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"boxshift-build-alive", "boxshift-build-young"}


SLOW = """#!/bin/sh
[ "$1" = --version ] && echo 1.0 && exit
for one; do case $one in *.part) echo half > "$one";; esac; done
echo working >&2
exec sleep {seconds}
"""
BUILD = "from images.build import build; from images.home import find_home; from images.reference_image import read_reference_recipe as r"


@pytest.mark.process
def test_a_build_that_is_killed_takes_its_programs_along_and_what_it_left_is_found(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = f"298.{os.getpid()}"  # by which it is known among all processes
    slow = tmp_path / "bin" / "mmdebstrap"
    slow.parent.mkdir()
    slow.write_text(SLOW.format(seconds=seconds))
    slow.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    env = {"BOXSHIFT_HOME": str(home.root), "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    with Child([sys.executable, "-c", f"{BUILD}; build(r(), find_home())"], log=tmp_path / "log", env=env) as child:
        wait_for(
            lambda: find_sleeper(seconds), what="the build to work", timeout=60, give_up=lambda: child.said() if child.status else None
        )
        os.kill(child.pid, signal.SIGKILL)
        if os.geteuid() == 0:
            wait_for(lambda: True if find_sleeper(seconds) is None else None, what="its programs to end", timeout=30)
        else:
            os.kill(find_sleeper(seconds) or 0, signal.SIGKILL)
    (work,) = tmp_path.glob("boxshift-build-*")
    os.utime(work, (1, 1))
    found = list_leftovers(home)
    assert {one.path for one in found} == {work, *home.layers.glob("*.part")}
    assert len(found) == 2
    remove_leftovers(found)
    assert list_leftovers(home) == ()


def find_sleeper(seconds: str) -> int | None:
    """The process that sleeps for so long."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                return int(path.parent.name)
    return None


class _Heard:
    def __init__(self, labels: list[str]) -> None:
        self._labels = labels

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        self._labels.append(label)
