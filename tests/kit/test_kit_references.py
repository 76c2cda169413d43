"""References to secrets mean the same in a plan and on a command line; the rest is in tests/migrate/test_secret_references.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import UsageError
from kit.references import resolve_secret

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("word", f"{HOSTILE}\r\nsecond line\n"), ("empty", "\n"), ("a#b c", HOSTILE), ("words.yaml", "old: 'first'\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def resolve(reference: str, base: Path, *, may_be_empty: bool = False) -> str:
    return resolve_secret(reference, base=base, what="the box", may_be_empty=may_be_empty).reveal()


def test_a_file_without_a_key_gives_its_first_line_whatever_stands_in_it(folder: Path) -> None:
    assert resolve("file:word", folder) == HOSTILE
    assert resolve("file:a#b c", folder) == HOSTILE
    assert resolve("file:words.yaml", folder) == "old: 'first'"
    assert resolve("file:words.yaml#old", folder) == "first"


def test_an_empty_secret_counts_only_where_it_may_be_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX_SECRET", "")
    for reference in ("file:empty", "env:BOX_SECRET"):
        assert resolve(reference, folder, may_be_empty=True) == ""
        with pytest.raises(UsageError):
            resolve(reference, folder)


@pytest.mark.parametrize("reference", ["env:", "file:", "keyring:", "keyring:service", "", "file", HOSTILE])
def test_what_is_no_reference_is_refused_and_not_repeated(folder: Path, reference: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(reference, folder, may_be_empty=True)
    assert HOSTILE not in str(caught.value.to_record())


def test_a_file_that_others_can_open_is_refused(folder: Path) -> None:
    (folder / "word").chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        resolve("file:word", folder)
