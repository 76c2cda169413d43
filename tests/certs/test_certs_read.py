# ruff: noqa: RUF001 - the unusual dashes are what is tested
"""Anything an administrator has, read: every row of the table of what is seen in the field."""

from __future__ import annotations

import base64
import html

import pytest
from asn1crypto import cms
from certs_making import HOSTILE, World, issue, new_key, new_world
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs7
from cryptography.x509 import CertificateSigningRequestBuilder

from certs.errors import (
    AmbiguousError,
    CertsError,
    DamagedError,
    KeystoreError,
    NoCertificateError,
    PassphraseNeededError,
    TooCostlyError,
    TruncatedError,
    UnsupportedError,
    WrongPassphraseError,
)
from certs.limits import MAX_BYTES
from certs.read import Source, read_bundle, read_contents
from kit.secret import Secret


def codes(contents) -> set[str]:
    return {note.code for note in contents.notes}


def joined(world: World) -> bytes:
    return b"".join(world.pems)


def test_any_order_in_one_file_gives_the_same_bundle(world):
    leaf, middle, root, key = world.pems
    for parts in ([key, root, leaf, middle], [middle, key, leaf, root], [leaf, middle, root, key], [root, middle, leaf, key]):
        bundle = read_bundle(b"".join(parts), roots=world.roots)
        assert bundle.certs == (world.leaf.cert, world.middle.cert)
        assert bundle.root == world.root.cert
        assert bundle.key is not None
        assert bundle.key.fits(bundle.leaf)


def test_a_changed_order_and_duplicates_are_reported(world):
    leaf, middle, root, key = world.pems
    bundle = read_bundle([root + leaf + middle + leaf, key], roots=world.roots)
    assert {"order_changed", "duplicates"} <= {note.code for note in bundle.notes}


def test_nothing_is_reported_of_files_that_are_in_order(world):
    assert read_bundle([world.leaf.pem + world.middle.pem, world.leaf.key_pem], roots=world.roots).notes == ()


@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte order mark"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda text: text.replace(b"\n", b"\r"), id="CR only"),
        pytest.param(lambda text: text + b"\0\0\0", id="NUL at the end"),
        pytest.param(lambda text: b"\n".join(b"    " + line for line in text.splitlines()), id="indented"),
        pytest.param(lambda text: b"Bag Attributes\n    friendlyName: box\nsubject=CN = box\n\n" + text, id="bag attributes"),
        pytest.param(lambda text: text.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(lambda text: text.decode().encode("utf-16-le"), id="UTF-16 without a mark"),
        pytest.param(lambda text: text.decode().encode("utf-16-be"), id="UTF-16 big-endian without a mark"),
        pytest.param(lambda text: text.replace(b"\n", b"\\n"), id="literal backslash n"),
        pytest.param(lambda text: b'{"pem": "' + text.replace(b"\n", b"\\r\\n") + b'"}', id="JSON"),
        pytest.param(lambda text: b"\n".join(b"> " + line for line in text.splitlines()), id="quoted in a mail"),
        pytest.param(lambda text: b"\n".join(b"> > " + line for line in text.splitlines()), id="quoted twice"),
        pytest.param(lambda text: text.replace(b"\n", b"<br>\n"), id="HTML line breaks"),
        pytest.param(lambda text: b"<pre>" + html.escape(text.decode()).replace("+", "&#43;").encode() + b"</pre>", id="HTML entities"),
        pytest.param(lambda text: text.decode().replace("-----", "—–—").encode(), id="smart dashes"),
        pytest.param(lambda text: text.decode().replace("-----", "–––––").encode(), id="en dashes"),
        pytest.param(lambda text: text.decode().replace("\n", "\u200b\n").encode(), id="zero-width spaces"),
        pytest.param(lambda text: text.decode().replace("BEGIN ", "BEGIN\u00a0").encode(), id="no-break spaces"),
        pytest.param(lambda text: text.replace(b"BEGIN CERTIFICATE", b"begin certificate"), id="lower-case label"),
        pytest.param(lambda text: text.replace(b"-----BEGIN CERT", b"----BEGIN CERT"), id="a dash too few"),
        pytest.param(lambda text: text.replace(b"CERTIFICATE-----", b"X509 CERTIFICATE-----"), id="old label"),
        pytest.param(base64.b64encode, id="base64 of the PEM file"),
    ],
)
def test_a_pem_file_in_any_dress_gives_the_same_certificates(world, dress):
    text = world.leaf.pem + world.middle.pem + world.leaf.key_pem
    contents = read_contents(dress(text))
    assert contents.certs == (world.leaf.cert, world.middle.cert)
    assert len(contents.keys) == 1
    assert contents.failures == ()


@pytest.mark.parametrize("dress", [lambda text: text.decode().encode("utf-16"), lambda text: text.replace(b"\n", b"\\n")])
def test_a_repair_says_what_was_repaired(world, dress):
    contents = read_contents(dress(world.leaf.pem))
    assert any(note.code == "repaired" and note.sentence.startswith("Repaired: ") for note in contents.notes)


def test_text_around_the_blocks_is_ignored_and_noted(world):
    assert "text_ignored" in codes(read_contents(b"subject=/CN=box\n" + world.leaf.pem))


def test_bare_base64_without_any_label_is_a_certificate(world):
    contents = read_contents(base64.b64encode(world.leaf.der))
    assert contents.certs == (world.leaf.cert,)
    assert "repaired" in codes(contents)


def test_one_corrupt_block_loses_no_other_and_names_its_line(world):
    broken = world.middle.pem.replace(b"MII", b"!!I", 1)
    contents = read_contents([Source(world.leaf.pem + broken + world.root.pem, "all.pem")])
    assert contents.certs == (world.leaf.cert, world.root.cert)
    (failure,) = contents.failures
    assert isinstance(failure, DamagedError)
    line = 1 + world.leaf.pem.count(b"\n")
    assert failure.facts["where"] == f"all.pem: block 2, line {line}"
    assert "'!'" in failure.sentence


def test_a_block_that_was_cut_off_says_how_long_it_should_be(world):
    lines = world.leaf.pem.splitlines(keepends=True)
    contents = read_contents(b"".join(lines[:4]) + world.middle.pem)
    assert contents.certs == (world.middle.cert,)
    assert isinstance(contents.failures[0], TruncatedError)
    assert contents.failures[0].facts["promised"] == len(world.leaf.der)


def test_der_under_any_name_is_told_by_its_bytes(world):
    assert read_contents(world.leaf.der).certs == (world.leaf.cert,)
    assert read_contents(b"\xef\xbb\xbf" + world.leaf.der).certs == (world.leaf.cert,)


def test_several_der_certificates_in_one_file_are_split(world):
    assert read_contents(world.leaf.der + world.middle.der).certs == (world.leaf.cert, world.middle.cert)


def test_bytes_after_a_der_certificate_are_ignored_and_noted(world):
    contents = read_contents(world.leaf.der + b"left over")
    assert contents.certs == (world.leaf.cert,)
    assert "trailing" in codes(contents)


def test_pem_after_der_is_read_too(world):
    assert read_contents(world.leaf.der + b"\n" + world.middle.pem).certs == (world.leaf.cert, world.middle.cert)


def test_a_truncated_der_file_says_both_lengths(world):
    (failure,) = read_contents(world.leaf.der[:-30]).failures
    assert isinstance(failure, TruncatedError)
    assert failure.facts["promised"] == len(world.leaf.der)
    assert failure.facts["there"] == len(world.leaf.der) - 30


def test_a_trusted_certificate_with_openssls_additions_is_read(world):
    body = base64.encodebytes(world.leaf.der + bytes.fromhex("300c300a06082b06010505070301"))
    contents = read_contents(b"-----BEGIN TRUSTED CERTIFICATE-----\n" + body + b"-----END TRUSTED CERTIFICATE-----\n")
    assert contents.certs == (world.leaf.cert,)


@pytest.mark.parametrize("label", [b"CERTIFICATE", b"PKCS7", b"NONSENSE"])
def test_pkcs7_under_any_label_is_read(world, label):
    der = pkcs7.serialize_certificates([world.leaf.certificate, world.middle.certificate], Encoding.DER)
    text = b"-----BEGIN " + label + b"-----\n" + base64.encodebytes(der) + b"-----END " + label + b"-----\n"
    assert set(read_contents(text).certs) == {world.leaf.cert, world.middle.cert}
    assert set(read_contents(der).certs) == {world.leaf.cert, world.middle.cert}
    assert set(read_contents(base64.b64encode(der)).certs) == {world.leaf.cert, world.middle.cert}


def to_indefinite(der: bytes) -> bytes:
    """The outermost lengths as BER's indefinite form."""
    outer = cms.ContentInfo.load(der)
    kind = outer["content_type"].dump()
    content = outer["content"].untag().dump()
    return b"\x30\x80" + kind + b"\xa0\x80" + content + b"\0\0" + b"\0\0"


def test_pkcs7_in_ber_with_indefinite_lengths_is_read(world):
    der = pkcs7.serialize_certificates([world.leaf.certificate, world.middle.certificate], Encoding.DER)
    contents = read_contents(to_indefinite(der))
    assert set(contents.certs) == {world.leaf.cert, world.middle.cert}


def test_a_wrong_label_is_noted(world):
    text = world.leaf.pem.replace(b"CERTIFICATE", b"PKCS7")
    contents = read_contents(text)
    assert contents.certs == (world.leaf.cert,)
    assert "label" in codes(contents)


# Keys


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_plain_keys_of_every_form_are_read(world, form, encoding):
    (key,) = read_contents(world.leaf.key_as(form, encoding=encoding)).keys
    assert key.fits(world.leaf.cert)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_encrypted_keys_are_read_with_a_hostile_passphrase(form):
    made = issue("rsa.example.com", key=rsa.generate_private_key(65537, 2048))
    (key,) = read_contents(made.key_as(form, HOSTILE), HOSTILE).keys
    assert key.fits(made.cert)
    assert key.encrypted


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_wrong_passphrase_of_a_key_is_called_so(world, form):
    text = world.leaf.key_as(form, HOSTILE)
    with pytest.raises(WrongPassphraseError):
        read_bundle([world.leaf.pem, text], Secret("wrong"))
    with pytest.raises(PassphraseNeededError):
        read_bundle([world.leaf.pem, text])


def test_a_key_with_a_lost_blank_line_is_read(world):
    text = world.leaf.key_as(PrivateFormat.TraditionalOpenSSL, HOSTILE).replace(b"\n\n", b"\n")
    assert read_contents(text, HOSTILE).keys[0].fits(world.leaf.cert)


def test_ec_parameters_in_front_of_a_key_do_no_harm(world):
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    contents = read_contents(parameters + world.leaf.key_as(PrivateFormat.TraditionalOpenSSL))
    assert contents.keys[0].fits(world.leaf.cert)
    assert "ignored" in codes(contents)


def test_a_passphrase_for_a_plain_key_is_accepted_and_noted(world):
    contents = read_contents([world.leaf.key_pem, world.leaf.pem], HOSTILE)
    assert contents.keys
    assert "passphrase_unused" in codes(contents)


def test_of_two_keys_the_one_that_fits_is_taken_and_the_other_listed(world):
    other = issue("other.example.com")
    bundle = read_bundle([other.key_pem + world.leaf.pem, world.leaf.key_pem], roots=world.roots)
    assert bundle.key is not None
    assert bundle.key.fits(bundle.leaf)
    assert len(bundle.spare_keys) == 1


def test_two_certificates_with_two_keys_ask_which(world):
    other = issue("other.example.com")
    files = [world.leaf.pem, world.leaf.key_pem, other.pem, other.key_pem]
    with pytest.raises(AmbiguousError, match=r"other\.example\.com"):
        read_bundle(files)
    assert read_bundle(files, choose="other.example.com").leaf == other.cert
    assert read_bundle(files, choose=world.leaf.cert.sha256[:10]).leaf == world.leaf.cert


def test_of_an_old_and_a_renewed_certificate_the_valid_one_is_taken():
    key = new_key()
    from certs_making import NOW, timedelta

    old = issue("box.example.com", key=key, start=NOW - timedelta(days=400), end=NOW - timedelta(days=5))
    new = issue("box.example.com", key=key)
    bundle = read_bundle([old.pem + new.pem, new.key_pem])
    assert bundle.leaf == new.cert
    assert "older_left_out" in {note.code for note in bundle.notes}


# What is no certificate


def test_a_request_is_called_a_request(world):
    request = CertificateSigningRequestBuilder().subject_name(world.leaf.certificate.subject).sign(world.leaf.key, None or _sha256())
    with pytest.raises(NoCertificateError, match=r"signing request, not a certificate"):
        read_bundle(request.public_bytes(Encoding.PEM))


def _sha256():
    from cryptography.hazmat.primitives.hashes import SHA256

    return SHA256()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("asymmetric/PEM_Serialization/rsa_public_key.pem", "a public key"),
        ("asymmetric/DH/dhp.pem", "key parameters"),
        ("asymmetric/PEM_Serialization/dsaparam.pem", "key parameters"),
    ],
)
def test_other_things_are_listed_as_ignored(vectors, path, said):
    contents = read_contents((vectors / path).read_bytes())
    assert any(note.code == "ignored" and said in note.sentence for note in contents.notes)


def test_a_revocation_list_is_kept(vectors):
    assert len(read_contents((vectors / "x509/PKITS_data/crls/GoodCACRL.crl").read_bytes()).crls) == 1


@pytest.mark.parametrize("magic", [b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce"])
def test_a_java_keystore_names_the_keytool_command(magic):
    (failure,) = read_contents(magic + bytes(200)).failures
    assert isinstance(failure, KeystoreError)
    assert "keytool -importkeystore" in failure.hint


def test_an_openssh_key_is_called_so(vectors):
    text = next((vectors / "asymmetric/OpenSSH").glob("ed25519-nopsw.key")).read_bytes()
    assert isinstance(read_contents(text).failures[0], UnsupportedError)


@pytest.mark.parametrize("data", [b"", b"   \n", b"\0\0\0"])
def test_an_empty_file_is_called_empty(data):
    with pytest.raises(NoCertificateError, match="empty"):
        read_bundle(data)


@pytest.mark.parametrize("data", [b"hello", b"0", b"0\x82", b"-----BEGIN", b"\xff" * 40, b"0" * 500, bytes(range(256))])
def test_nonsense_is_refused_with_a_cause(data):
    with pytest.raises(CertsError) as caught:
        read_bundle(data)
    assert caught.value.sentence.endswith(".")


def test_a_file_that_is_too_large_is_not_read():
    (failure,) = read_contents(b"0" * (MAX_BYTES + 1)).failures
    assert isinstance(failure, TooCostlyError)


def test_a_thousand_certificates_in_one_file_are_read(world):
    assert len(read_contents(world.leaf.pem * 1000).certs) == 1000


def test_deep_nesting_ends_in_an_error_and_not_in_a_crash():
    deep = b""
    for _ in range(400):
        deep = b"\x30\x80" + deep + b"\0\0"
    assert read_contents(deep).certs == ()
    assert read_contents(b"\x30\x80" * 5000).failures


def test_a_certificate_that_the_library_refuses_is_carried_byte_for_byte(vectors):
    text = (vectors / "x509/custom/invalid_version.pem").read_bytes()
    (cert,) = read_contents(text).certs
    assert cert.parsed is None
    assert cert.faults
    assert cert.subject


def test_a_malformed_extension_leaves_the_others_readable(vectors):
    (cert,) = read_contents((vectors / "x509/custom/malformed-san.pem").read_bytes()).certs
    assert any("2.5.29.17" in fault for fault in cert.faults)
    assert cert.not_after is not None


def test_keys_and_passphrases_do_not_print(world):
    bundle = read_bundle([world.leaf.pem, world.leaf.key_as(PrivateFormat.PKCS8, HOSTILE)], HOSTILE, roots=world.roots)
    shown = repr(bundle) + str(bundle) + repr(bundle.key)
    number = world.leaf.key.private_numbers().private_value
    assert HOSTILE.reveal() not in shown
    assert str(number) not in shown
    assert f"{number:x}" not in shown


def test_a_key_cannot_be_pickled(world):
    import pickle

    (key,) = read_contents(world.leaf.key_pem).keys
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_new_world_is_its_own():
    assert new_world().leaf.cert != new_world().leaf.cert


def test_what_nothing_foresaw_is_still_an_error_of_ours(world, monkeypatch):
    import certs.read as room

    def trip(*_args):
        raise KeyError("planted")

    monkeypatch.setattr(room, "_read_bytes", trip)
    (failure,) = read_contents(world.leaf.pem).failures
    assert isinstance(failure, DamagedError)
    assert failure.facts["unforeseen"] is True


def test_an_absurdly_large_certificate_is_refused_and_a_merely_large_one_is_judged(world):
    from certs.cert import Cert
    from certs.diagnose import diagnose

    names = [f"host{number}.example.com" for number in range(4000)]
    large = issue("host0.example.com", world.middle, names=names)
    bundle = read_bundle(large.pem + world.middle.pem, roots=world.roots)
    assert not [finding for finding in diagnose(bundle, hostname="host3999.example.com") if finding.blocks]
    assert "does not cover" in next(
        each.sentence for each in diagnose(bundle, hostname="a.example.com") if each.code == "hostname_mismatch"
    )
    with pytest.raises(TooCostlyError):
        Cert(world.leaf.der + bytes(1024 * 1024))
