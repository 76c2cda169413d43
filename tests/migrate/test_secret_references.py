from __future__ import annotations

import json
import sys
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

from kit.errors import BoxshiftError, UsageError
from migrate.secrets import resolve_secret

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yaml"
    path.write_text(f"good: {json.dumps(HOSTILE)}\nnumber: 0012345\nday: 9999-99-99\nempty: ''\nnothing:\n")
    path.chmod(0o600)
    return path


def refused(reference: str, base: Path) -> BoxshiftError:
    with pytest.raises(UsageError) as caught:
        resolve_secret(reference, base=base, what="the old box")
    told = str(caught.value.to_record()) + str(caught.value.__cause__)
    for part in (HOSTILE, "b@c", "12345"):
        assert part not in told
    return caught.value


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOX_SECRET", HOSTILE)
    assert resolve_secret("env:BOX_SECRET", base=tmp_path, what="x").reveal() == HOSTILE
    monkeypatch.setenv("BOX_SECRET", "")
    assert "BOX_SECRET" in refused("env:BOX_SECRET", tmp_path).sentence


def test_from_a_file_beside_the_plan(secrets_file: Path) -> None:
    assert resolve_secret("file:secrets.yaml#good", base=secrets_file.parent, what="x").reveal() == HOSTILE
    assert resolve_secret(f"file:{secrets_file}#good", base=Path("/elsewhere"), what="x").reveal() == HOSTILE


@pytest.mark.parametrize(("key", "value"), [("number", "0012345"), ("day", "9999-99-99")])
def test_a_secret_that_looks_like_something_else_stays_the_text_it_is(secrets_file: Path, key: str, value: str) -> None:
    assert resolve_secret(f"file:secrets.yaml#{key}", base=secrets_file.parent, what="x").reveal() == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_can_open_is_refused(secrets_file: Path, mode: int) -> None:
    secrets_file.chmod(mode)
    error = refused("file:secrets.yaml#good", secrets_file.parent)
    assert "can be read by others" in error.sentence
    assert "chmod 600" in error.hint


@pytest.mark.parametrize("key", ["missing", "empty", "nothing"])
def test_a_key_without_text_is_refused(secrets_file: Path, key: str) -> None:
    assert f"no text under {key}" in refused(f"file:secrets.yaml#{key}", secrets_file.parent).sentence


@pytest.mark.parametrize(
    "content",
    [
        f"good: '{HOSTILE}".encode(),
        f"good: x\ngood: {HOSTILE}".encode(),
        f"- {HOSTILE[:4]}".encode(),
        b"",
        b"\xff\xfe12345",
        b"\x00\x01",
        b"12345",
        b"good: !b@c x",
        b"good: *b@c",
        b"[" * 2000,
        b"a: &a [*a]\nb: *b@c",
        b"good: {b@c: 1}",
        b"good: ~",
    ],
)
def test_a_file_of_another_form_is_refused_without_quoting_it(secrets_file: Path, content: bytes) -> None:
    secrets_file.write_bytes(content)
    refused("file:secrets.yaml#good", secrets_file.parent)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused("file:missing.yaml#good", tmp_path).sentence
    (tmp_path / "folder").mkdir(mode=0o700)
    assert "cannot be read" in refused("file:folder#good", tmp_path).sentence


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        if service == "locked":
            raise keyring.errors.KeyringLocked(HOSTILE)
        return HOSTILE if (service, username) == ("boxshift", "api user") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


def test_from_the_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", Ring())
    assert resolve_secret("keyring:boxshift/api user", base=tmp_path, what="x").reveal() == HOSTILE
    assert "holds nothing" in refused("keyring:boxshift/other", tmp_path).sentence
    assert "could not be asked" in refused("keyring:locked/x", tmp_path).sentence


def test_at_the_prompt_only_where_somebody_sits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert "nobody is at the terminal" in refused("prompt", tmp_path).sentence
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: HOSTILE)
    assert resolve_secret("prompt", base=tmp_path, what="x").reveal() == HOSTILE
    monkeypatch.setattr("getpass.getpass", lambda _: "")
    assert "the old box" in refused("prompt", tmp_path).sentence


@pytest.mark.parametrize("reference", [HOSTILE, "plain12345", "prompt:x", "", "ENV:A"])
def test_a_secret_itself_is_refused_and_not_repeated(reference: str, tmp_path: Path) -> None:
    refused(reference, tmp_path)
