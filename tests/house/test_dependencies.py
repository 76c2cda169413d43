"""The pinned dependencies: complete, with hashes, and naming no place to get them from."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from source_tree import PACKAGES, ROOT, tracked_files

CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+) \\$", CONSTRAINTS, re.MULTILINE)}


def test_constraints_hold_versions_and_hashes_and_nothing_else() -> None:
    comment, *lines = CONSTRAINTS.splitlines()
    assert comment.startswith("#")
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert "://" not in CONSTRAINTS


def test_every_pin_has_a_hash() -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", CONSTRAINTS)[1:]
    assert len(blocks) == len(pinned())
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_every_dependency_is_pinned_to_a_version_that_fits() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]
    pins = pinned()
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name == canonicalize_name(PROJECT["name"]):
            continue
        assert name in pins, name
        assert requirement.specifier.contains(Version(pins[name]), prereleases=True), f"{requirement} but {pins[name]}"


def test_what_is_installed_is_what_is_pinned() -> None:
    pins = pinned()
    other = {
        name: (version, pins.get(name))
        for name, version in ((canonicalize_name(one.metadata["Name"]), one.version) for one in metadata.distributions())
        if name in pins and Version(version) != Version(pins[name])
    }
    assert other == {}


@pytest.mark.process
def test_an_installed_package_has_every_file_of_the_repository() -> None:
    """What is laid into machines has names of all kinds; a pattern that forgets one is noticed only by who installs it."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]

    def is_taken(name: str) -> bool:
        package, _, inside = name.partition("/")
        of_package = any(fnmatch.fnmatch(inside, pattern.replace("**/", "")) for pattern in patterns.get(package, ()))
        return name.endswith(".py") or of_package or any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in patterns["*"])

    assert [name for name in tracked_files() if name.partition("/")[0] in PACKAGES and not is_taken(name)] == []
