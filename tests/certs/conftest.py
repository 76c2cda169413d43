from __future__ import annotations

import resource
from pathlib import Path

import cryptography_vectors
import pytest
from certs_making import HOSTILE, World, new_world
from cryptography.hazmat.primitives.serialization import PrivateFormat


@pytest.fixture(scope="session")
def world() -> World:
    """A root, an intermediate and a leaf that nothing is wrong with."""
    return new_world()


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of cryptography's test vectors."""
    return Path(cryptography_vectors.__file__).parent


@pytest.fixture
def desk(tmp_path, world, monkeypatch) -> Path:
    """A folder with everything apart, and a passphrase in the environment and in a file."""
    (tmp_path / "leaf.crt").write_bytes(world.leaf.der)
    (tmp_path / "chain.pem").write_bytes(world.middle.pem)
    (tmp_path / "box.key").write_bytes(world.leaf.key_as(PrivateFormat.PKCS8, HOSTILE))
    (tmp_path / "roots.pem").write_bytes(world.root.pem)
    (tmp_path / "word").write_text(HOSTILE.reveal() + "\n")
    (tmp_path / "word").chmod(0o600)
    monkeypatch.setenv("WORD", HOSTILE.reveal())
    monkeypatch.chdir(tmp_path)
    # The commands forbid core files; that must not outlive a test.
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    return tmp_path
