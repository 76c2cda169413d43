"""The rules that programs know: each runs over the whole repository, and its complaints are the message of the failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from kit import process

pytestmark = pytest.mark.process


def clean(*argv: str, timeout: float = 280) -> None:
    program = Path(sys.executable).parent / argv[0]
    done = process.run([program, *argv[1:]], timeout=timeout, cwd=ROOT, accept=(0, 1, 2))
    assert done.status == 0, done.text + done.err.decode(errors="replace")


def test_ruff_has_no_complaint() -> None:
    clean("ruff", "check", "--quiet", ".")


def test_ruff_would_format_nothing() -> None:
    clean("ruff", "format", "--check", "--quiet", ".")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mypy_has_no_complaint_about_the_four_packages() -> None:
    clean("mypy", timeout=850)


def test_who_may_import_whom() -> None:
    clean("lint-imports", "--no-cache")
