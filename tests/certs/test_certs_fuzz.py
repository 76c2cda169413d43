"""A little of scripts/fuzz in every run, and properties that hypothesis tries to break."""

from __future__ import annotations

import threading

import certs_fuzzing as fuzzing
import pytest
from certs_making import HOST, new_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.errors import CertsError
from certs.pem import decode_base64, find_blocks, repair
from certs.read import read_contents, spell
from certs.rules.names import covers, is_dns_name, name_matches
from certs.targets import Target
from certs.write import pem, write_bundle
from kit.secret import Secret

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("reader", list(fuzzing.READERS))
def test_mutated_seeds_end_in_a_result_or_an_error_of_ours(reader):
    figures = fuzzing.run_reader(reader, 60, seed=1, limit=400)
    assert [why for _, why in figures.bad] == []
    assert figures.runs == 400
    assert len(figures.outcomes) >= (1 if reader in {"pem", "pkcs7", "starttls", "any"} else 2)


@pytest.mark.parametrize("reader", [reader for reader in fuzzing.READERS if reader != "any"])
def test_every_seed_is_read_as_it_is(reader):
    for seed in fuzzing.seeds(reader):
        fuzzing.READERS[reader](seed)


@pytest.mark.parametrize("path", sorted((fuzzing.CORPUS / "found").iterdir()), ids=lambda path: path.name)
def test_what_the_fuzzer_once_found_stays_mended(path):
    figures = fuzzing.Figures("found")
    fuzzing.run_one(path.name.partition("-")[0], path.read_bytes(), figures)
    assert figures.bad == []


def test_the_harness_sees_what_must_not_be(monkeypatch):
    def broken(_data: bytes) -> None:
        raise KeyError("planted")

    monkeypatch.setitem(fuzzing.READERS, "pem", broken)
    assert fuzzing.run_reader("pem", 60, limit=3).bad


def test_the_harness_sees_a_hang(monkeypatch):
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)

    def endless(_data: bytes) -> None:
        while True:
            pass

    monkeypatch.setitem(fuzzing.READERS, "pem", endless)
    (bad,) = fuzzing.run_reader("pem", 60, limit=1).bad
    assert "HangError" in bad[1]


def test_the_harness_sees_one_that_waits_for_ever(monkeypatch):
    monkeypatch.setattr(fuzzing, "WAITS", 0.2)
    monkeypatch.setitem(fuzzing.READERS, "pem", lambda _data: threading.Event().wait(30))
    (bad,) = fuzzing.run_reader("pem", 60, limit=1).bad
    assert "HangError: waits" in bad[1]


@QUICK
@given(st.binary(max_size=4000))
def test_any_bytes_end_in_contents(data):
    read_contents(data)


@QUICK
@given(st.text(max_size=2000))
def test_any_text_is_repaired_or_left_alone(text):
    changed, done = repair(text.encode("utf-8", errors="surrogatepass"))
    assert isinstance(changed, bytes)
    assert all(done)


@QUICK
@given(st.binary(max_size=3000), st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "X"]))
def test_what_is_written_as_pem_is_found_again(der, label):
    (block,) = find_blocks(pem(label, der))
    assert block.der == der or not der
    assert block.label == label


@QUICK
@given(st.text(min_size=1, max_size=40))
def test_every_passphrase_opens_what_was_written_under_it(world, text):
    secret = Secret(text)
    try:
        written = write_bundle(world.bundle(), Target.MODERN, secret, rounds=1)
    except CertsError:
        with pytest.raises(UnicodeEncodeError):
            text.encode()  # half of a character: nothing else may be refused
        return
    assert read_contents(written, secret).failures == ()
    assert len(read_contents(written, secret).keys) == 1


@QUICK
@given(st.text(max_size=60))
def test_a_passphrase_has_at_most_six_spellings(text):
    assert len(spell(Secret(text))) <= 6


@QUICK
@given(st.text(alphabet="abz019-_.*AZ", max_size=60), st.text(alphabet="abz019-_.", max_size=60))
def test_a_name_covers_a_host_only_label_by_label(pattern, host):
    if name_matches(pattern.lower(), host.lower()):
        assert is_dns_name(pattern, wildcard=True)
        assert pattern.count(".") == host.count(".")
        assert pattern.lower() == host.lower() or pattern.startswith("*.")


@QUICK
@given(st.text(max_size=80))
def test_any_host_can_be_asked_for(world, host):
    assert covers(world.leaf.cert, host) is (host.strip().rstrip(".").lower() == HOST)


@QUICK
@given(st.binary(max_size=500))
def test_base64_is_decoded_or_refused(data):
    packed = b"".join(data.split()).replace(b"\0", b"")
    try:
        decoded = decode_base64(data)
    except CertsError:
        return
    assert len(decoded) <= len(packed) * 3 // 4


def test_a_new_world_reads_back():
    world = new_world()
    assert read_contents(b"".join(world.pems)).failures == ()
