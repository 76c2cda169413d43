"""Which apt sources a build uses: this machine's own, for the wanted suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import RecipeError
from images.sources import find_sources

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other.example/tools
Suites: nodistro
Components: main

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_only_the_suites_own_stanzas_are_taken(etc: Path) -> None:
    (etc / "sources.list.d" / "debian.sources").write_text(DEB822)
    text = find_sources("bookworm", env={}, etc=etc).text
    assert text.count("Types: deb\n") == 1
    assert "mirror.example" in text
    assert not any(word in text for word in ("other.example", "off.example", "deb-src", "comment"))


def test_one_line_entries_become_stanzas(etc: Path) -> None:
    (etc / "sources.list").write_text(
        "# deb http://no.example/debian bookworm main\n"
        "deb [signed-by=/k.gpg arch=amd64] http://m.example/debian bookworm main contrib # x\n"
        "deb http://m.example/security bookworm-security main\n"
        "deb-src http://m.example/debian bookworm main\n"
        "deb http://m.example/debian trixie main\n"
    )
    text = find_sources("bookworm", env={}, etc=etc).text
    assert "URIs: http://m.example/debian\nSuites: bookworm\nComponents: main contrib\nSigned-By: /k.gpg\nArchitectures: amd64" in text
    assert "Suites: bookworm-security" in text
    assert not any(word in text for word in ("no.example", "trixie", "deb-src"))


def test_a_machine_without_that_suite_leaves_it_to_mmdebstrap(etc: Path, tmp_path: Path) -> None:
    (etc / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    keyring = tmp_path / "debian.gpg"
    assert find_sources("bookworm", env={}, etc=etc, keyring=keyring).keyring is None
    keyring.touch()
    found = find_sources("bookworm", env={}, etc=etc, keyring=keyring)
    assert found.text == ""
    assert found.keyring == keyring


def test_the_environment_names_a_file_instead(etc: Path, tmp_path: Path) -> None:
    given = tmp_path / "mine.sources"
    given.write_text("Types: deb\n")
    assert find_sources("bookworm", env={"BOXSHIFT_APT_SOURCES": str(given)}, etc=etc).text == "Types: deb\n"
    with pytest.raises(RecipeError, match="could not be read"):
        find_sources("bookworm", env={"BOXSHIFT_APT_SOURCES": str(tmp_path / "absent")}, etc=etc)
