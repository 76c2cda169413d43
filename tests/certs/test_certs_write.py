"""Writing: exact, private, atomic, read back, refused where the target cannot hold it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest
from asn1crypto import pkcs12 as asn1
from certs_making import HOSTILE, issue, new_world
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from certs.errors import CertsError, NotWritableError, WriteMismatchError
from certs.pkcs12 import read_mac
from certs.read import read_bundle, read_contents
from certs.targets import Target
from certs.write import (
    LETTERS,
    generate_passphrase,
    verify_key_works,
    verify_written,
    write_bundle,
    write_file,
    write_key,
    write_pem,
    write_pkcs12,
)
from kit.secret import Secret

P12 = [target for target in Target if target.profile.container == "pkcs12"]


@pytest.mark.parametrize("target", list(Target))
def test_every_target_gives_back_exactly_what_went_in(world, target):
    bundle = world.bundle()
    written = write_bundle(bundle, target, HOSTILE, rounds=2048)
    again = read_bundle(written, HOSTILE, roots=world.roots)
    assert again.certs == bundle.certs
    assert again.key == bundle.key
    verify_key_works(again.need_key(), bundle.need_key())


@pytest.mark.parametrize("target", list(Target))
def test_the_order_is_leaf_then_issuers_and_the_root_is_left_out_unless_asked(world, target):
    bundle = world.bundle()
    assert read_contents(write_bundle(bundle, target, HOSTILE, rounds=2), HOSTILE).certs == (world.leaf.cert, world.middle.cert)
    with_root = write_bundle(bundle, target, HOSTILE, keep_root=True, rounds=2)
    assert read_contents(with_root, HOSTILE).certs == (world.leaf.cert, world.middle.cert, world.root.cert)


def test_six_hundred_thousand_rounds_are_the_default(world):
    pfx = asn1.Pfx.load(write_pkcs12(world.bundle(), HOSTILE))
    mac = read_mac(pfx)
    assert mac is not None
    assert (mac.rounds, mac.digest) == (600_000, "sha256")
    assert all(target.profile.rounds == 600_000 for target in P12)


def test_salts_are_long_and_never_the_same_twice(world):
    first, second = (write_bundle(world.bundle(), Target.FIPS, HOSTILE, rounds=2048) for _ in range(2))
    assert first != second
    mac = read_mac(asn1.Pfx.load(first))
    assert mac is not None
    assert mac.kdf == "pbmac1"
    assert len(mac.salt) == 16


def test_the_passphrase_is_needed_where_the_key_is_encrypted(world):
    for secret in (None, Secret("")):
        with pytest.raises(NotWritableError):
            write_pkcs12(world.bundle(), secret)


def test_the_key_is_bare_only_where_the_target_wants_it_so(world):
    assert b"BEGIN PRIVATE KEY" in write_bundle(world.bundle(), Target.NGINX, HOSTILE)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in write_bundle(world.bundle(), Target.PEM, HOSTILE, rounds=2)
    assert b"PRIVATE KEY" not in write_pem(read_bundle(world.leaf.pem))


def test_a_passphrase_that_pkcs12_cannot_hold_is_refused(world):
    with pytest.raises(NotWritableError):
        write_pkcs12(world.bundle(), Secret("\ud800"))


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()])
def test_a_fips_target_refuses_what_fips_refuses(key):
    world = new_world(key=key)
    with pytest.raises(NotWritableError, match="FIPS"):
        write_bundle(world.bundle(), Target.FIPS, HOSTILE, rounds=2048)


def test_a_pem_target_is_no_pkcs12_profile(world):
    with pytest.raises(NotWritableError):
        write_pkcs12(world.bundle(), HOSTILE, Target.NGINX)


def test_a_certificate_that_the_library_cannot_parse_is_written_byte_for_byte(vectors):
    bundle = read_bundle((vectors / "x509/custom/invalid_version.pem").read_bytes())
    for target in (Target.MODERN, Target.PEM):
        assert read_contents(write_bundle(bundle, target, HOSTILE, rounds=2), HOSTILE).certs == (bundle.leaf,)


def test_a_generated_passphrase_has_twenty_ascii_letters_and_is_new_each_time():
    made = {generate_passphrase().reveal() for _ in range(50)}
    assert len(made) == 50
    assert all(len(text) == 20 and set(text) <= set(LETTERS) for text in made)


def test_the_reading_back_can_fail(world):
    bundle, other = world.bundle(), new_world()
    written = write_pem(bundle)
    verify_written(written, bundle.certs, bundle.key, None)
    for wrong in (written + other.leaf.pem, written.replace(world.middle.pem, b""), world.leaf.pem, written + other.leaf.key_pem, b""):
        with pytest.raises(WriteMismatchError):
            verify_written(wrong, bundle.certs, bundle.key, None)
    with pytest.raises(WriteMismatchError):
        verify_written(write_pkcs12(bundle, HOSTILE, replace(Target.MODERN.profile, rounds=2)), bundle.certs, bundle.key, Secret("other"))
    with pytest.raises(WriteMismatchError):
        verify_key_works(read_contents(other.leaf.key_pem).keys[0], bundle.need_key())


# On disk


def test_a_file_is_private_from_its_first_byte(world, tmp_path, monkeypatch):
    modes: list[int] = []
    real = os.open

    def spy(path, flags, mode=0o777, **kwargs):
        if flags & os.O_CREAT:
            modes.append(mode)
        return real(path, flags, mode, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    old = os.umask(0)
    try:
        write_file(tmp_path / "out.pem", write_pem(world.bundle()))
    finally:
        os.umask(old)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "out.pem").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "out.pem"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with pytest.raises(NotWritableError):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    write_file(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_never_written_through(tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "out").symlink_to(tmp_path / "victim")
    with pytest.raises(NotWritableError):
        write_file(tmp_path / "out", b"new", overwrite=True)
    assert (tmp_path / "victim").read_bytes() == b"old"


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(CertsError):
        write_file(tmp_path / "nowhere" / "out", b"new")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CertsError, match="No space left"):
        write_file(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_gives_other_bytes_back_is_noticed(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.setattr(Path, "read_bytes", lambda _self: b"rotten")
    with pytest.raises(WriteMismatchError):
        write_file(tmp_path / "out", b"new")


def test_a_key_alone_is_written_and_read(world):
    key = world.bundle().need_key()
    assert read_contents(write_key(key, None)).keys == (key,)
    assert read_contents(write_key(key, HOSTILE, rounds=2), HOSTILE).keys == (key,)
    assert HOSTILE.reveal().encode() not in write_key(key, HOSTILE, rounds=2)


def test_a_bundle_without_key_is_written_without(world):
    bundle = read_bundle(world.leaf.pem + world.middle.pem, roots=world.roots)
    for target in Target:
        assert read_contents(write_bundle(bundle, target, HOSTILE, rounds=2), HOSTILE).keys == ()


def test_the_name_in_the_file_is_the_leafs_or_the_one_given(world):
    key = replace(Target.MODERN.profile, rounds=2)
    assert read_contents(write_pkcs12(world.bundle(), HOSTILE, key), HOSTILE).certs[0].label == world.leaf.cert.name
    assert read_contents(write_pkcs12(world.bundle(), HOSTILE, key, alias="ñame"), HOSTILE).certs[0].label == "ñame"


def test_a_very_large_key_is_no_trouble():
    made = issue("big.example.com", key=rsa.generate_private_key(65537, 3072))
    bundle = read_bundle(made.pem + made.key_pem)
    assert read_bundle(write_bundle(bundle, Target.MODERN, HOSTILE, rounds=2), HOSTILE).key == bundle.key
