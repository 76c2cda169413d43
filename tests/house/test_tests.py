"""The tests themselves: names that do not get into each other's way, and nothing left out in silence."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from source_tree import PACKAGES, read_text, tracked_files

pytestmark = pytest.mark.process  # git lists the files


def sources() -> dict[str, str]:
    return {name: read_text(name) or "" for name in tracked_files() if name.startswith("tests/") and name.endswith(".py")}


def test_every_file_has_a_name_of_its_own() -> None:
    """All folders of tests are on one import path."""
    names = Counter(Path(name).stem for name in sources())
    assert {name for name, count in names.items() if count > 1} <= {"conftest"}


def test_no_file_hides_a_module_that_others_import() -> None:
    taken = set(sys.stdlib_module_names) | set(PACKAGES) | set(importlib.metadata.packages_distributions())
    assert {Path(name).stem for name in sources()} & taken == set()


def test_nothing_is_imported_from_a_conftest() -> None:
    """Which conftest that would be depends on the folders a session collects."""
    found = [name for name, text in sources().items() if re.search(r"^\s*(from|import) conftest\b", text, re.MULTILINE)]
    assert found == []


def test_a_test_that_may_be_left_out_says_why() -> None:
    found = []
    for name, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"pytest.mark.skip", "pytest.mark.xfail"}:
                found.append(f"{name}:{node.lineno} {ast.unparse(node)}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                found.append(f"{name}:{node.lineno} importorskip")
    assert [place for place in found if not place.startswith("tests/house/")] == []


def test_no_test_folder_is_a_package() -> None:
    assert [name for name in sources() if name.endswith("__init__.py")] == []
