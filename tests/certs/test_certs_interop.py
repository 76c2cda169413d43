"""Files that OpenSSL and Java's keytool made, read here; files that were made here, opened there."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from certs_making import HOSTILE, World, issue
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from certs.bundle import Contents
from certs.cert import Signed
from certs.diagnose import diagnose
from certs.errors import KeystoreError, WrongPassphraseError
from certs.read import read_bundle, read_contents
from certs.roots import Roots
from certs.targets import Target
from certs.write import write_bundle, write_file
from kit.process import find_program, run
from kit.secret import Secret

pytestmark = [pytest.mark.process, pytest.mark.slow]

WORD = Secret("kluge-9-Worte")  # keytool takes ASCII only


@dataclass(frozen=True)
class Desk:
    """A folder with a leaf, its key, its chain and a passphrase, and the programs that work on them."""

    folder: Path
    world: World

    def openssl(self, *words: str, secret: Secret = HOSTILE) -> bytes:
        (self.folder / "word").write_text(secret.reveal() + "\n")
        return run(["openssl", *words], timeout=60, cwd=self.folder).out

    def keytool(self, *words: str) -> str:
        (self.folder / "word").write_text(WORD.reveal())
        return run(["keytool", "-J-Xshare:auto", "-J-XX:TieredStopAtLevel=1", *words], timeout=120, cwd=self.folder).text

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    root = issue("Interop Root", ca=True, key=rsa.generate_private_key(65537, 2048))
    middle = issue("Interop Intermediate", root, ca=True, key=rsa.generate_private_key(65537, 2048))
    leaf = issue("box.example.com", middle, key=rsa.generate_private_key(65537, 2048))
    folder = tmp_path_factory.mktemp("interop")
    world = World(root, middle, leaf)
    for name, content in (
        ("leaf.pem", leaf.pem),
        ("key.pem", leaf.key_pem),
        ("chain.pem", middle.pem + root.pem),
        ("all.pem", leaf.pem + middle.pem + root.pem),
        ("middle.pem", middle.pem),
    ):
        (folder / name).write_bytes(content)
    return Desk(folder, world)


P12 = ("pkcs12", "-export", "-inkey", "key.pem", "-in", "leaf.pem", "-passout", "file:word")
OUT = ("-passout", "file:word")


@dataclass(frozen=True)
class Kind:
    """One kind of file: how OpenSSL makes it, and how many certificates and keys are in it."""

    words: tuple[str, ...]
    certs: int = 0
    keys: int = 0
    note: str = ""


KINDS = {
    "certificate PEM": Kind(("x509", "-in", "leaf.pem"), 1),
    "certificate DER": Kind(("x509", "-in", "leaf.pem", "-outform", "DER"), 1),
    "certificate with its text": Kind(("x509", "-in", "leaf.pem", "-text"), 1, note="text_ignored"),
    "trusted certificate": Kind(
        ("x509", "-in", "leaf.pem", "-trustout", "-addtrust", "serverAuth", "-setalias", "box"), 1, note="trailing"
    ),
    "PKCS#7 PEM": Kind(("crl2pkcs7", "-nocrl", "-certfile", "all.pem"), 3),
    "PKCS#7 DER": Kind(("crl2pkcs7", "-nocrl", "-certfile", "all.pem", "-outform", "DER"), 3),
    "PKCS#8 PEM": Kind(("pkcs8", "-topk8", "-nocrypt", "-in", "key.pem"), 0, 1),
    "PKCS#8 DER": Kind(("pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER"), 0, 1),
    "PKCS#1": Kind(("rsa", "-in", "key.pem", "-traditional"), 0, 1),
    "PKCS#1 DER": Kind(("rsa", "-in", "key.pem", "-traditional", "-outform", "DER"), 0, 1),
    "old PEM encryption, AES": Kind(("rsa", "-in", "key.pem", "-traditional", "-aes256", *OUT), 0, 1),
    "old PEM encryption, 3DES": Kind(("rsa", "-in", "key.pem", "-traditional", "-des3", *OUT), 0, 1),
    "PKCS#8 AES, PBKDF2": Kind(("pkcs8", "-topk8", "-in", "key.pem", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", *OUT), 0, 1),
    "PKCS#8 AES, scrypt": Kind(("pkcs8", "-topk8", "-in", "key.pem", "-scrypt", "-scrypt_N", "1024", *OUT), 0, 1),
    "PKCS#8 3DES": Kind(("pkcs8", "-topk8", "-in", "key.pem", "-v1", "PBE-SHA1-3DES", *OUT), 0, 1),
    "PKCS#8 MD5 and DES": Kind(
        ("pkcs8", "-topk8", "-in", "key.pem", "-v1", "PBE-MD5-DES", "-provider", "legacy", "-provider", "default", *OUT), 0, 1
    ),
    "PKCS#8 SHA1 and DES": Kind(
        ("pkcs8", "-topk8", "-in", "key.pem", "-v1", "PBE-SHA1-DES", "-provider", "legacy", "-provider", "default", *OUT), 0, 1
    ),
    "PKCS#12": Kind(P12, 1, 1),
    "PKCS#12 with a chain and a name": Kind((*P12, "-certfile", "chain.pem", "-name", "ñ box"), 3, 1),
    "PKCS#12 legacy RC2": Kind((*P12, "-legacy", "-certfile", "chain.pem"), 3, 1),
    "PKCS#12 RC2-128": Kind((*P12, "-provider", "legacy", "-provider", "default", "-certpbe", "PBE-SHA1-RC2-128"), 1, 1),
    "PKCS#12 RC4": Kind(
        (*P12, "-provider", "legacy", "-provider", "default", "-keypbe", "PBE-SHA1-RC4-128", "-certpbe", "PBE-SHA1-3DES"), 1, 1
    ),
    "PKCS#12 3DES, SHA-1": Kind((*P12, "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"), 1, 1),
    "PKCS#12 without MAC": Kind((*P12, "-nomac"), 1, 1, note="no_integrity"),
    "PKCS#12 not encrypted": Kind((*P12, "-keypbe", "NONE", "-certpbe", "NONE"), 1, 1, note="key_not_encrypted"),
    "PKCS#12 without key": Kind(("pkcs12", "-export", "-nokeys", "-in", "all.pem", *OUT), 3),
    "PKCS#12 key only": Kind(("pkcs12", "-export", "-nocerts", "-inkey", "key.pem", *OUT), 0, 1),
    "PKCS#12 SHA-512": Kind((*P12, "-macalg", "sha512", "-keypbe", "aes-128-cbc", "-certpbe", "aes-192-cbc"), 1, 1),
}


@pytest.mark.parametrize("name", list(KINDS))
def test_what_openssl_makes_is_read(desk, name):
    kind = KINDS[name]
    made = desk.openssl(*kind.words)
    contents = read_contents(made, HOSTILE)
    assert contents.failures == ()
    assert (len(contents.certs), len(contents.keys)) == (kind.certs, kind.keys)
    assert all(key.fits(desk.world.leaf.cert) for key in contents.keys)
    assert not kind.certs or desk.world.leaf.cert in contents.certs
    assert not kind.note or kind.note in {note.code for note in contents.notes}


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if OUT[0] in kind.words and "NONE" not in kind.words])
def test_a_wrong_passphrase_is_called_wrong_for_every_kind(desk, name):
    contents = read_contents(desk.openssl(*KINDS[name].words), Secret("wrong"))
    assert any(isinstance(error, WrongPassphraseError) for error in contents.failures)


@pytest.mark.parametrize(
    ("digest", "code"), [("-sha1", "weak_signature"), ("-md5", "weak_signature"), ("-sha256", None), ("-sha512", None)]
)
def test_a_weak_link_is_verified_and_then_flagged(desk, digest, code):
    desk.openssl("req", "-new", "-key", "key.pem", "-subj", "/CN=weak.example.com", "-out", "weak.csr")
    (desk.folder / "middle.key").write_bytes(desk.world.middle.key_pem)
    words = ("x509", "-req", "-in", "weak.csr", "-CA", "middle.pem", "-CAkey", "middle.key", digest, "-days", "90", "-set_serial", "7")
    made = desk.openssl(*words)
    bundle = read_bundle([made, desk.world.middle.pem], roots=Roots([desk.world.root.cert]))
    assert bundle.leaf.check_signed_by(desk.world.middle.cert) is Signed.YES
    assert bundle.is_complete
    assert ("weak_signature" in {finding.code for finding in diagnose(bundle)}) is (code is not None)


# The other way: what is written here opens there


def write(desk: Desk, target: Target, secret: Secret) -> Path:
    bundle = desk.world.bundle()
    path = desk.folder / f"out.{target.value}"
    write_file(path, write_bundle(bundle, target, secret), overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


PROFILES = {
    Target.MODERN: ("MAC: sha256, Iteration 600000", "PBES2, PBKDF2, AES-256-CBC, Iteration 600000, PRF hmacWithSHA256"),
    Target.LEGACY3DES: ("MAC: sha1, Iteration 600000", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 600000"),
    Target.JAVA: ("MAC: sha256, Iteration 600000", "PBES2, PBKDF2, AES-256-CBC"),
    Target.BOMGAR: ("MAC: sha256, Iteration 600000", "PBES2, PBKDF2, AES-256-CBC"),
}


@pytest.mark.parametrize("target", list(PROFILES))
def test_openssl_opens_what_is_written_with_the_right_profile(desk, target):
    path = write(desk, target, HOSTILE)
    (desk.folder / "word").write_text(HOSTILE.reveal() + "\n")
    done = run(["openssl", "pkcs12", "-in", path, "-nodes", "-info", "-passin", "file:word"], timeout=60, cwd=desk.folder)
    for said in PROFILES[target]:
        assert said in done.err.decode()
    assert read_contents(done.out).certs == (desk.world.leaf.cert, desk.world.middle.cert)
    assert read_contents(done.out).keys[0].fits(desk.world.leaf.cert)


def test_the_fips_profile_opens_in_the_librarys_newer_openssl(desk):
    der = write(desk, Target.FIPS, HOSTILE).read_bytes()
    found = pkcs12.load_pkcs12(der, HOSTILE.reveal().encode())
    assert found.cert is not None
    assert found.cert.certificate == desk.world.leaf.certificate
    with pytest.raises(ValueError):
        pkcs12.load_pkcs12(der, b"wrong")


@pytest.mark.parametrize("target", [Target.PEM, Target.NGINX])
def test_openssl_opens_the_pem_targets(desk, target):
    path = write(desk, target, HOSTILE)
    (desk.folder / "word").write_text(HOSTILE.reveal() + "\n")
    key = run(["openssl", "pkey", "-in", path, "-pubout", "-passin", "file:word"], timeout=60, cwd=desk.folder).out
    cert = run(["openssl", "x509", "-in", path, "-pubkey", "-noout"], timeout=60, cwd=desk.folder).out
    assert key == cert
    assert (b"ENCRYPTED" in path.read_bytes()) is (target is Target.PEM)


# Java


needs_java = pytest.mark.skipif(find_program("keytool") is None, reason="needs keytool (Debian: openjdk-17-jre-headless)")


@needs_java
@pytest.mark.parametrize("target", [Target.JAVA, Target.MODERN, Target.LEGACY3DES])
def test_keytool_opens_what_is_written(desk, target):
    path = write(desk, target, WORD)
    said = desk.keytool("-list", "-v", "-keystore", str(path), "-storetype", "PKCS12", "-storepass:file", "word")
    assert "PrivateKeyEntry" in said
    assert "Certificate chain length: 2" in said
    assert fingerprint(desk.world.leaf.cert.sha256) in said
    assert "box.example.com" in said


@needs_java
def test_keytool_uses_the_key_that_is_written(desk):
    path = write(desk, Target.JAVA, WORD)
    request = desk.keytool("-certreq", "-alias", "box.example.com", "-keystore", str(path), "-storepass:file", "word")
    (desk.folder / "java.csr").write_text(request)
    assert b"verify OK" in run(["openssl", "req", "-in", "java.csr", "-verify", "-noout"], timeout=60, cwd=desk.folder).err


@needs_java
def test_keytool_sees_the_entries_of_a_file_without_key(desk):
    bundle = read_bundle(desk.world.leaf.pem + desk.world.middle.pem, roots=desk.world.roots)
    path = desk.folder / "trust.p12"
    write_file(path, write_bundle(bundle, Target.JAVA, WORD, rounds=2048), overwrite=True)
    assert "contains 2 entries" in desk.keytool("-list", "-keystore", str(path), "-storepass:file", "word")


def fingerprint(text: str) -> str:
    return ":".join(re.findall("..", text.upper()))


@needs_java
@pytest.mark.parametrize("options", [(), ("-J-Dkeystore.pkcs12.legacy=true",)], ids=["modern", "legacy"])
def test_what_keytool_makes_is_read(desk, options):
    store = f"made{len(options)}.p12"
    (desk.folder / store).unlink(missing_ok=True)
    subject = ("-dname", "CN=java.example.com", "-ext", "san=dns:java.example.com")
    make = ("-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-alias", "one", *subject)
    desk.keytool(*options, *make, "-keystore", store, "-storetype", "PKCS12", "-storepass:file", "word")
    bundle = read_bundle(desk.read(store), WORD)
    assert bundle.leaf.name == "java.example.com"
    assert bundle.key is not None
    assert bundle.leaf.label == "one" or bundle.key.label == "one"
    for form in ((), ("-rfc",)):
        desk.keytool("-exportcert", *form, "-alias", "one", "-keystore", store, "-storepass:file", "word", "-file", "exported")
        assert read_contents(desk.read("exported")).certs == (bundle.leaf,)
    asked: Callable[[], Contents] = lambda: read_contents(desk.read(store), Secret("wrong"))  # noqa: E731 - one line is clearer here
    assert isinstance(asked().failures[0], WrongPassphraseError)


@needs_java
def test_a_keystore_of_several_keys_asks_which(desk):
    (desk.folder / "two.p12").unlink(missing_ok=True)
    for name in ("one", "two"):
        make = ("-genkeypair", "-keyalg", "EC", "-alias", name, "-dname", f"CN={name}.example.com")
        desk.keytool(*make, "-keystore", "two.p12", "-storetype", "PKCS12", "-storepass:file", "word")
    contents = read_contents(desk.read("two.p12"), WORD)
    assert len(contents.keys) == 2
    bundle = read_bundle(desk.read("two.p12"), WORD, choose="two.example.com")
    assert bundle.need_key().fits(bundle.leaf)


@needs_java
@pytest.mark.parametrize("kind", ["JKS", "JCEKS"])
def test_a_keystore_in_suns_format_names_the_command_that_converts_it_and_the_command_works(desk, kind):
    store = f"old.{kind.lower()}"
    (desk.folder / store).unlink(missing_ok=True)
    (desk.folder / "new.p12").unlink(missing_ok=True)
    make = ("-genkeypair", "-keyalg", "RSA", "-alias", "one", "-dname", "CN=java.example.com")
    desk.keytool(*make, "-keystore", store, "-storetype", kind, "-storepass:file", "word", "-keypass:file", "word")
    (failure,) = read_contents(desk.read(store), WORD).failures
    assert isinstance(failure, KeystoreError)
    command = failure.hint.partition(",")[0].replace("FILE", store).replace("NEW.p12", "new.p12").split()[1:]
    desk.keytool(*command, "-srcstorepass:file", "word", "-deststorepass:file", "word", "-srckeypass:file", "word", "-srcalias", "one")
    assert read_bundle(desk.read("new.p12"), WORD).leaf.name == "java.example.com"
