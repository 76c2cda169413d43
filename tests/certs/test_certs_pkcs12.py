"""PKCS#12: every way to be odd, and every way to fail under its own name."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import pytest
from asn1crypto import cms, core
from asn1crypto import pkcs12 as asn1
from certs_making import HOSTILE, issue
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption, PrivateFormat, pkcs12

from certs.errors import (
    CertsError,
    DamagedError,
    PassphraseNeededError,
    TooCostlyError,
    TruncatedError,
    UnsupportedError,
    WrongPassphraseError,
)
from certs.pbe import derive_pkcs12
from certs.pfx import Bags, build_pfx, encryption
from certs.read import read_bundle, read_contents
from certs.targets import Cipher, Target
from certs.write import pkcs8
from kit.secret import Secret

QUICK = replace(Target.MODERN.profile, rounds=2048)


def made_by_library(world, passphrase: bytes | None, **choices) -> bytes:
    scheme = BestAvailableEncryption(passphrase) if passphrase is not None else NoEncryption()
    if choices:
        builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(choices.get("rounds", 2048))
        builder = builder.key_cert_algorithm(choices["pbe"]).hmac_hash(choices["mac"])
        scheme = builder.build(passphrase)
    return pkcs12.serialize_key_and_certificates(b"box", world.leaf.key, world.leaf.certificate, [world.middle.certificate], scheme)


def made_here(world, secret: Secret = HOSTILE, profile=QUICK) -> bytes:
    key = pkcs8(read_contents(world.leaf.key_pem).keys[0])
    return build_pfx(Bags((world.leaf.der, world.middle.der), key, "box"), secret, profile)


def with_pfx(der: bytes, change) -> bytes:
    """The file with a change made to its decoded structure."""
    pfx = asn1.Pfx.load(der)
    _ = pfx.native
    change(pfx)
    return pfx.dump(force=True)


@pytest.mark.parametrize("pbe", [pkcs12.PBES.PBESv2SHA256AndAES256CBC, pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC])
@pytest.mark.parametrize("mac", [hashes.SHA1(), hashes.SHA256(), hashes.SHA512()])
def test_what_the_library_writes_is_read(world, pbe, mac):
    bundle = read_bundle(made_by_library(world, HOSTILE.reveal().encode(), pbe=pbe, mac=mac), HOSTILE, roots=world.roots)
    assert bundle.certs == (world.leaf.cert, world.middle.cert)
    assert bundle.need_key().fits(bundle.leaf)
    assert bundle.leaf.label == "box"


def test_a_wrong_passphrase_is_called_wrong_and_a_missing_one_missing(world):
    der = made_by_library(world, HOSTILE.reveal().encode())
    with pytest.raises(WrongPassphraseError):
        read_bundle(der, Secret(HOSTILE.reveal()[:-1]))
    with pytest.raises(PassphraseNeededError):
        read_bundle(der)


def test_without_encryption_no_passphrase_is_needed(world):
    bundle = read_bundle(made_by_library(world, None))
    assert bundle.key is not None


def test_without_a_mac_it_opens_and_says_that_nothing_proves_it(world):
    der = with_pfx(made_here(world), lambda pfx: pfx.__delitem__("mac_data"))
    bundle = read_bundle(der, HOSTILE)
    assert "no_integrity" in {note.code for note in bundle.notes}
    assert bundle.key is not None


def test_without_a_mac_a_wrong_passphrase_is_still_called_wrong(world):
    der = with_pfx(made_here(world), lambda pfx: pfx.__delitem__("mac_data"))
    with pytest.raises(WrongPassphraseError):
        read_bundle(der, Secret("wrong"))


def test_an_altered_file_fails_at_its_mac(world):
    der = bytearray(made_here(world))
    der[len(der) // 2] ^= 1
    with pytest.raises(CertsError):
        read_bundle(bytes(der), HOSTILE)


@pytest.mark.parametrize(
    ("passphrase", "stored"),
    [
        pytest.param("contraseña", "contraseña", id="composed typed, separate stored"),
        pytest.param("contraseña", "contraseña", id="separate typed, composed stored"),
        pytest.param("secret ", "secret", id="with a space too many"),
        pytest.param("pañ", "pañ".encode().decode("latin-1"), id="OpenSSL 1.0's way"),
    ],
)
def test_another_spelling_of_the_passphrase_is_tried_and_reported(world, passphrase, stored):
    # The old scheme, in which the passphrase is spelled in 16-bit letters.
    der = made_here(world, Secret(stored), replace(Target.LEGACY3DES.profile, rounds=2048))
    bundle = read_bundle(der, Secret(passphrase))
    assert bundle.key is not None
    if passphrase != stored:
        assert "passphrase_spelling" in {note.code for note in bundle.notes}


def test_a_mac_under_one_passphrase_and_content_under_another_need_both(world):
    key = pkcs8(read_contents(world.leaf.key_pem).keys[0])
    inner, outer = Secret("inner"), Secret("outer")

    def rewrite(pfx) -> None:
        algorithm, content = encryption(key, inner, Cipher.AES, 2048)
        bag = {"bag_id": "pkcs8_shrouded_key_bag", "bag_value": {"encryption_algorithm": algorithm, "encrypted_data": content}}
        certs = [{"bag_id": "cert_bag", "bag_value": {"cert_id": "x509", "cert_value": core.ParsableOctetString(world.leaf.der)}}]
        safe = asn1.AuthenticatedSafe([_data(asn1.SafeContents(certs).dump()), _data(asn1.SafeContents([bag]).dump())]).dump()
        pfx["auth_safe"] = cms.ContentInfo({"content_type": "data", "content": core.OctetString(safe)})
        salt = pfx["mac_data"]["mac_salt"].native
        mac_key = derive_pkcs12("outer".encode("utf-16-be") + b"\0\0", salt, 2048, digest="sha256", purpose=3, size=32)
        import hmac

        pfx["mac_data"]["mac"]["digest"] = hmac.digest(mac_key, safe, "sha256")

    der = with_pfx(made_here(world, outer), rewrite)
    assert read_contents(der, outer).keys == ()
    assert isinstance(read_contents(der, outer).failures[0], WrongPassphraseError)
    assert "give the other one too" in read_contents(der, outer).failures[0].hint
    assert len(read_contents(der, [outer, inner]).keys) == 1


def _data(content: bytes) -> cms.ContentInfo:
    return cms.ContentInfo({"content_type": "data", "content": core.OctetString(content)})


def plain_pfx(*bags: dict) -> bytes:
    """A file without MAC and encryption that holds just these bags."""
    safe = asn1.AuthenticatedSafe([_data(asn1.SafeContents(list(bags)).dump())]).dump()
    return asn1.Pfx({"version": "v3", "auth_safe": _data(safe)}).dump()


def cert_bag(der: bytes, **attributes) -> dict:
    found = {"bag_id": "cert_bag", "bag_value": asn1.CertBag({"cert_id": "x509", "cert_value": core.ParsableOctetString(der)})}
    if attributes:
        found["bag_attributes"] = [{"type": kind, "values": [value]} for kind, value in attributes.items()]
    return found


def key_bag(issued) -> dict:
    from asn1crypto.keys import PrivateKeyInfo
    from cryptography.hazmat.primitives.serialization import Encoding

    return {"bag_id": "key_bag", "bag_value": PrivateKeyInfo.load(issued.key_as(PrivateFormat.PKCS8, encoding=Encoding.DER))}


def test_two_keys_are_both_listed_and_the_choice_is_asked_for(world):
    other = issue("other.example.com")
    der = plain_pfx(
        cert_bag(world.leaf.der, friendly_name="one"), key_bag(world.leaf), cert_bag(other.der, friendly_name="two"), key_bag(other)
    )
    assert len(read_contents(der).keys) == 2
    with pytest.raises(CertsError, match="could be the leaf"):
        read_bundle(der)
    assert read_bundle(der, choose="two").leaf == other.cert


def test_a_secret_bag_is_named_and_not_lost_silently(world):
    secret = {"bag_id": "secret_bag", "bag_value": asn1.SecretBag({"secret_type_id": "1.2.3.4", "secret_value": core.OctetString(b"x")})}
    contents = read_contents(plain_pfx(cert_bag(world.leaf.der), secret))
    assert contents.certs == (world.leaf.cert,)
    assert any("secret bag" in note.sentence for note in contents.notes)


def test_bags_within_bags_are_read(world):
    nested = {"bag_id": "safe_contents", "bag_value": asn1.SafeContents([cert_bag(world.leaf.der)])}
    assert read_contents(plain_pfx(nested)).certs == (world.leaf.cert,)


def test_one_unparsable_certificate_loses_neither_key_nor_others(world, vectors):
    bad = read_contents((vectors / "x509/custom/invalid_version.pem").read_bytes()).certs[0]
    contents = read_contents(plain_pfx(cert_bag(bad.der), cert_bag(b"\x30\x03\x02\x01\x05"), key_bag(world.leaf), cert_bag(world.leaf.der)))
    assert contents.certs == (bad, world.leaf.cert)
    assert len(contents.keys) == 1
    assert isinstance(contents.failures[0], DamagedError)


def test_a_part_for_a_recipients_key_is_named(world):
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    enveloped = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(b"x")
        .add_recipient(issue("r", key=_rsa()).certificate)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    safe = asn1.AuthenticatedSafe([cms.ContentInfo.load(enveloped), _data(asn1.SafeContents([cert_bag(world.leaf.der)]).dump())]).dump()
    contents = read_contents(asn1.Pfx({"version": "v3", "auth_safe": _data(safe)}).dump())
    assert contents.certs == (world.leaf.cert,)
    assert isinstance(contents.failures[0], UnsupportedError)


def _rsa():
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 2048)


def test_an_empty_file_is_refused():
    with pytest.raises(DamagedError, match="empty"):
        read_bundle(plain_pfx())


@pytest.mark.parametrize(
    ("rounds", "said"), [pytest.param(10**9, "1,000,000,000", id="30 bits"), pytest.param(2**20000, "18,446,744,073", id="20,000 bits")]
)
def test_an_absurd_number_of_mac_rounds_is_refused_before_it_is_tried(world, rounds, said):
    der = with_pfx(made_here(world), lambda pfx: pfx["mac_data"].__setitem__("iterations", rounds))
    with pytest.raises(TooCostlyError, match=said):
        read_bundle(der, HOSTILE)


def test_a_version_of_thousands_of_digits_is_an_unknown_version(world):
    inner = asn1.Pfx.load(made_here(world)).contents
    assert inner[:3] == b"\x02\x01\x03"
    longer = b"\x02\x82\x10\x00" + b"\x7f" * 4096 + inner[3:]
    with pytest.raises(CertsError, match="only version 3 is known"):
        read_bundle(b"\x30\x83" + len(longer).to_bytes(3, "big") + longer, HOSTILE)


def test_many_costly_parts_together_are_refused(world):
    key = pkcs8(read_contents(world.leaf.key_pem).keys[0])
    algorithm, content = encryption(key, HOSTILE, Cipher.AES, 1000)
    algorithm["parameters"]["key_derivation_func"]["parameters"]["iteration_count"] = 400_000
    bag = {"bag_id": "pkcs8_shrouded_key_bag", "bag_value": {"encryption_algorithm": algorithm, "encrypted_data": content}}
    contents = read_contents(plain_pfx(*[bag] * 20), Secret("wrong"), max_rounds=400_001)
    assert any(isinstance(error, TooCostlyError) for error in contents.failures)


def test_an_empty_initialisation_vector_is_called_damaged(world):
    from asn1crypto.keys import EncryptedPrivateKeyInfo

    algorithm, content = encryption(pkcs8(read_contents(world.leaf.key_pem).keys[0]), HOSTILE, Cipher.AES, 2)
    algorithm["parameters"]["encryption_scheme"]["parameters"] = b""
    der = EncryptedPrivateKeyInfo({"encryption_algorithm": algorithm, "encrypted_data": content}).dump()
    assert isinstance(read_contents(der, HOSTILE).failures[0], DamagedError)


def test_absurd_scrypt_memory_is_refused(world):
    from asn1crypto.algos import EncryptionAlgorithm

    from certs.pbe import SCRYPT, ScryptParameters

    cost = ScryptParameters({"salt": os.urandom(8), "cost_parameter": 2**40, "block_size": 8, "parallelization_parameter": 1})
    algorithm = EncryptionAlgorithm.load(
        EncryptionAlgorithm(
            {
                "algorithm": "pbes2",
                "parameters": {
                    "key_derivation_func": {"algorithm": SCRYPT, "parameters": core.Any(cost)},
                    "encryption_scheme": {"algorithm": "aes256_cbc", "parameters": os.urandom(16)},
                },
            }
        ).dump()
    )
    from asn1crypto.keys import EncryptedPrivateKeyInfo

    der = EncryptedPrivateKeyInfo({"encryption_algorithm": algorithm, "encrypted_data": os.urandom(64)}).dump()
    assert isinstance(read_contents(der, HOSTILE).failures[0], TooCostlyError)


def test_as_base64_with_a_byte_order_mark_or_as_pem_it_is_unwrapped(world):
    der = made_here(world)
    for dressed in (
        base64.b64encode(der),
        base64.encodebytes(der),
        b"\xef\xbb\xbf" + base64.b64encode(der),
        b"\xef\xbb\xbf" + der,
        b"-----BEGIN PKCS12-----\n" + base64.encodebytes(der) + b"-----END PKCS12-----\n",
    ):
        assert read_bundle(dressed, HOSTILE).key is not None


def test_a_truncated_file_says_both_lengths(world):
    der = made_here(world)
    with pytest.raises(TruncatedError) as caught:
        read_bundle(der[:-40], HOSTILE)
    assert caught.value.facts["promised"] == len(der)
    assert caught.value.facts["there"] == len(der) - 40


def test_a_file_whose_integrity_rests_on_a_key_is_named(world):
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    signed = pkcs7.serialize_certificates([world.leaf.certificate], Encoding.DER)
    der = asn1.Pfx({"version": "v3", "auth_safe": cms.ContentInfo.load(signed)}).dump()
    with pytest.raises(UnsupportedError, match="public key"):
        read_bundle(der, HOSTILE)


def test_the_key_derivation_agrees_with_openssl(world):
    """A file that the library made opens with the derivation spelled out here: its MAC is proved by it."""
    for digest in (hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        der = made_by_library(world, "pañ".encode(), pbe=pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC, mac=digest)
        assert read_contents(der, Secret("pañ")).failures == ()
