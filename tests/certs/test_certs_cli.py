"""The commands: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
import stat
from datetime import timedelta

import pytest
from certs_desk import ALL, call, quick
from certs_making import HOST, HOSTILE, NOW, World, issue, new_world
from cryptography import x509

from certs import __main__ as program
from certs.errors import CertsError, NotWritableError, WrongPassphraseError
from certs.inputs import parse_place, parse_span, read_passphrases
from certs.read import read_bundle, read_contents
from certs.targets import Target
from kit.errors import UsageError
from kit.secret import Secret


def test_inspect_draws_the_chain_and_says_that_the_key_fits(desk):
    output = call("inspect", *ALL, "--hostname", HOST).output
    assert "└─ Test Intermediate" in output
    assert "└─ Test Root" in output
    assert "[trusted root]" in output
    assert "Private key: fits" in output


@pytest.mark.parametrize("reference", ["env:WORD", "file:word"])
def test_inspect_as_json_is_one_object_without_secrets(desk, reference):
    found = json.loads(
        call("inspect", "leaf.crt", "chain.pem", "box.key", "--passphrase", reference, "--roots", "roots.pem", "--json").output
    )
    assert found["leaf"]["dns_names"] == [HOST]
    assert found["trust"] == "system"
    assert found["key"]["was_encrypted"] is True
    assert {"code", "severity", "sentence", "hint", "about"} <= set(found["findings"][0])


def test_inspect_exits_by_severity(desk):
    assert call("inspect", *ALL, "--hostname", HOST, code=0)
    (desk / "soon.pem").write_bytes(new_soon().leaf.pem)
    assert call("inspect", "soon.pem", "--private", code=1)
    assert call("inspect", *ALL, "--hostname", "other.example.com", code=3)


def new_soon() -> World:
    return new_world(start=NOW - timedelta(days=80), end=NOW + timedelta(days=5))


def test_inspect_of_an_encrypted_key_without_passphrase_is_a_finding(desk):
    output = call("inspect", "leaf.crt", "box.key", code=3).output
    assert "certs.passphrase_needed" in output


def test_inspect_of_several_leaves_shows_all_and_asks(desk, world):
    other = issue("other.example.com")
    (desk / "two.pem").write_bytes(world.leaf.pem + world.leaf.key_pem + other.pem + other.key_pem)
    output = call("inspect", "two.pem", code=1).output
    assert "other.example.com" in output
    assert "--choose" in output
    assert call("inspect", "two.pem", "--choose", "other.example.com", "--private", code=0)


def test_inspect_of_nothing_says_so(desk):
    (desk / "junk").write_bytes(b"hello")
    call("inspect", "junk", code=3)
    assert json.loads(call("inspect", "junk", "--json", code=3).output)["error"]["code"] == "certs.no_certificate"


def test_inspect_for_another_moment(desk):
    output = call("inspect", *ALL, "--at", "2099-01-01", code=3).output
    assert "expired" in output


def test_a_missing_legacy_cipher_has_an_exit_code_of_its_own(desk, monkeypatch):
    from certs import commands
    from certs.bundle import Contents
    from certs.errors import LegacyCipherError

    error = LegacyCipherError("It is encrypted with RC2-40.", hint="Export it again.")
    monkeypatch.setattr(commands, "load_contents", lambda *_args, **_kwargs: Contents(failures=(error,)))
    call("inspect", "leaf.crt", code=9)
    call("bundle", "leaf.crt", "-o", "out", code=9)


def test_match_tells_which_key_fits_which_certificate(desk, world):
    other = issue("other.example.com")
    (desk / "other.key").write_bytes(other.key_pem)
    output = call("match", "leaf.crt", "other.key", code=3).output
    assert "fits none of them" in output
    output = call("match", "leaf.crt", "box.key", "--passphrase", "env:WORD", code=0).output
    assert f"fits {HOST}" in output
    found = json.loads(call("match", "leaf.crt", "box.key", "--passphrase", "env:WORD", "--json").output)
    assert found["keys"][0]["fits"] == [world.leaf.cert.sha256]


@pytest.mark.parametrize("target", ["nginx", "pem", "modern", "java"])
def test_bundle_writes_a_private_file_that_reads_back(desk, world, target, monkeypatch):
    quick(monkeypatch)
    output = call("bundle", *ALL, "-o", "out", "--for", target).output
    assert "Written and read back" in output
    assert stat.S_IMODE((desk / "out").stat().st_mode) == 0o600
    made = [line.split(": ")[1] for line in output.splitlines() if line.startswith("Passphrase: ")]
    assert bool(made) is (target != "nginx")
    contents = read_contents((desk / "out").read_bytes(), [Secret(text) for text in made])
    assert contents.certs == (world.leaf.cert, world.middle.cert)
    assert contents.keys[0].fits(world.leaf.cert)


def test_bundle_under_a_given_passphrase_does_not_print_it(desk, monkeypatch):
    quick(monkeypatch)
    output = call("bundle", *ALL, "-o", "out.p12", "--new-passphrase", "file:word").output
    assert "Passphrase:" not in output
    assert read_bundle((desk / "out.p12").read_bytes(), HOSTILE).key is not None


def test_bundle_writes_a_generated_passphrase_to_a_private_file(desk, monkeypatch):
    quick(monkeypatch)
    output = call("bundle", *ALL, "-o", "out.p12", "--passphrase-out", "new-word").output
    word = (desk / "new-word").read_text().strip()
    assert word not in output
    assert stat.S_IMODE((desk / "new-word").stat().st_mode) == 0o600
    assert read_bundle((desk / "out.p12").read_bytes(), Secret(word)).key is not None


def test_a_dry_run_writes_nothing(desk):
    before = sorted(path.name for path in desk.iterdir())
    assert "600,000 rounds" in call("bundle", *ALL, "-o", "out", "--dry-run").output
    call("convert", "leaf.crt", "-o", "out", "--dry-run")
    call("split", *ALL, "-o", "out", "--dry-run")
    call("request", "leaf.crt", "-o", "out", "--key-out", "key", "--dry-run")
    assert sorted(path.name for path in desk.iterdir()) == before


def test_bundle_leaves_a_file_that_is_there_alone(desk):
    (desk / "out").write_bytes(b"old")
    call("bundle", *ALL, "-o", "out", "--for", "nginx", errors=NotWritableError)
    assert (desk / "out").read_bytes() == b"old"
    call("bundle", *ALL, "-o", "out", "--for", "nginx", "--overwrite")


def test_bundle_with_a_wrong_passphrase_writes_nothing(desk, monkeypatch):
    monkeypatch.setenv("WORD", "wrong")
    call("bundle", *ALL, "-o", "out", errors=WrongPassphraseError)
    assert not (desk / "out").exists()


def test_bundle_with_a_foreign_key_writes_nothing(desk):
    (desk / "other.key").write_bytes(issue("other.example.com").key_pem)
    call("bundle", "leaf.crt", "other.key", "-o", "out", errors=CertsError)
    assert not (desk / "out").exists()


def test_bundle_completes_the_chain_from_a_folder(desk, world):
    (desk / "pool").mkdir()
    (desk / "pool" / "a.pem").write_bytes(world.middle.pem)
    call("bundle", "leaf.crt", "--intermediates", "pool", "--roots", "roots.pem", "-o", "out.pem", "--for", "nginx")
    assert read_contents((desk / "out.pem").read_bytes()).certs == (world.leaf.cert, world.middle.cert)


def test_convert_leaves_nothing_out_and_completes_nothing(desk, world):
    other = issue("Unrelated", ca=True)
    (desk / "more.pem").write_bytes(world.leaf.pem + other.pem + world.root.pem)
    call("convert", "more.pem", "-o", "out.pem", "--for", "nginx", "--choose", HOST)
    assert set(read_contents((desk / "out.pem").read_bytes()).certs) == {world.leaf.cert, other.cert, world.root.cert}


def test_split_writes_one_file_each(desk, world):
    call("split", *ALL, "-o", "parts")
    assert read_contents((desk / "parts/leaf.pem").read_bytes()).certs == (world.leaf.cert,)
    assert read_contents((desk / "parts/chain.pem").read_bytes()).certs == (world.middle.cert,)
    assert read_contents((desk / "parts/fullchain.pem").read_bytes()).certs == (world.leaf.cert, world.middle.cert)
    assert read_contents((desk / "parts/root.pem").read_bytes()).certs == (world.root.cert,)
    assert read_contents((desk / "parts/key.pem").read_bytes()).keys[0].fits(world.leaf.cert)
    assert stat.S_IMODE((desk / "parts").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (desk / "parts").iterdir())


def test_split_encrypts_the_key_when_asked(desk, world):
    call("split", *ALL, "-o", "parts", "--new-passphrase", "env:WORD")
    assert b"ENCRYPTED" in (desk / "parts/key.pem").read_bytes()
    assert read_contents((desk / "parts/key.pem").read_bytes(), HOSTILE).keys[0].fits(world.leaf.cert)


def test_expiry_exits_for_monitoring(desk):
    assert call("expiry", "leaf.crt", "--within", "30d").output.startswith("ok ")
    assert call("expiry", "leaf.crt", "--within", "400d", code=3).output.startswith("DUE")
    assert json.loads(call("expiry", "leaf.crt", "--json").output)["certificates"][0]["due"] is False
    (desk / "junk").write_bytes(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
    call("expiry", "leaf.crt", "junk", code=4)
    call("expiry", errors=UsageError)


def test_request_repeats_names_and_kind_of_key(desk):
    call("request", "leaf.crt", "-o", "new.csr", "--key-out", "new.key", "--new-passphrase", "env:WORD")
    made = x509.load_pem_x509_csr((desk / "new.csr").read_bytes())
    assert made.is_signature_valid
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [HOST]
    (key,) = read_contents((desk / "new.key").read_bytes(), HOSTILE).keys
    assert key.kind == "P-256"
    assert key.private.public_key() == made.public_key()


def test_request_with_the_key_that_is_there_makes_no_other(desk, world):
    call("request", "leaf.crt", "box.key", "--passphrase", "env:WORD", "-o", "new.csr")
    assert x509.load_pem_x509_csr((desk / "new.csr").read_bytes()).public_key() == world.leaf.key.public_key()
    call("request", "leaf.crt", "-o", "other.csr", errors=UsageError)


def test_a_file_that_is_not_there_is_one_sentence(desk):
    assert "cannot be read" in str(call("inspect", "nowhere", errors=CertsError).exception)


def test_the_program_alone_turns_errors_into_sentences(desk, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["certs", "inspect", "nowhere"])
    assert program.main() == 4
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["certs", "expiry", "--within", "soon"])
    assert program.main() == 2


@pytest.mark.parametrize("reference", ["hunter2", "env:", "env:NOT_SET_ANYWHERE", "file:nowhere", "prompt", "keyring:x"])
def test_a_reference_that_names_nothing_is_refused_without_repeating_it(desk, reference):
    with pytest.raises(UsageError) as caught:
        read_passphrases([reference])
    assert reference != "hunter2" or "hunter2" not in f"{caught.value.sentence} {caught.value.hint}"


def test_a_passphrase_file_that_others_can_read_is_refused(desk):
    (desk / "word").chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        read_passphrases(["file:word"])


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("90s", 90), ("-5m", -300), ("1w", 604800), ("7", 604800)])
def test_spans(text, seconds):
    assert parse_span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "1y", "1e9d", "99999999d"])
def test_no_spans(text):
    with pytest.raises(UsageError):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a.example", ("a.example", 443)),
        ("a.example:8443", ("a.example", 8443)),
        ("[::1]:25", ("::1", 25)),
        ("::1", ("::1", 443)),
        ("[::1]", ("::1", 443)),
    ],
)
def test_places(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", ":443", "a:0", "a:70000", "a:b"])
def test_no_places(text):
    with pytest.raises(UsageError):
        parse_place(text)


def test_every_target_is_a_choice(desk):
    for target in Target:
        assert target.value in call("bundle", *ALL, "-o", "out", "--for", target.value, "--dry-run").output
