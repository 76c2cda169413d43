"""The vectors of cryptography_vectors: what is well-formed is read, what is not is refused for the right cause, and a table is printed."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from certs_making import HOSTILE

from certs.bundle import Bundle, Contents, Trust
from certs.cert import Cert
from certs.read import read_contents
from certs.roots import NO_ROOTS
from certs.targets import Target
from certs.write import verify_key_works, write_bundle, write_key
from kit.process import run
from kit.secret import Secret

# Every passphrase that the vectors' own documentation names; each file is tried with all of them.
PASSPHRASES = (
    *("cryptography", "password", "123456", "a123456", "asdf", "foobar", "baz", "hunter42", "PolarSSLTest", "hunter2", "passwor"),
    *("Red Hat Enterprise Linux 7.4", ""),
)
FOLDERS = (
    "pkcs12",
    "pkcs12/ca",
    "pkcs7",
    "asymmetric/PKCS8",
    "asymmetric/DER_Serialization",
    "asymmetric/PEM_Serialization",
    "asymmetric/Traditional_OpenSSL_Serialization",
)
READ, IGNORED = "read", "ignored"
# What is malformed, or of a kind that nothing here knows: the cause that must be named. Everything else must be read.
CAUSES = {
    "asymmetric/PKCS8/bad-encryption-oid.pem": "certs.unsupported",
    "asymmetric/PKCS8/bad-oid-dsa-key.pem": "certs.unsupported",
    "asymmetric/PKCS8/ec-inconsistent-curve.pem": "certs.damaged",
    "asymmetric/PKCS8/ec-invalid-private-scalar.pem": "certs.damaged",
    "asymmetric/PKCS8/ec-invalid-version.pem": "certs.damaged",
    "asymmetric/PKCS8/ec_oid_not_in_reg_private_2.pkcs8.pem": "certs.unsupported",  # a curve spelled out
    "asymmetric/PKCS8/nodompar_private.pkcs8.pem": "certs.unsupported",
    "asymmetric/PKCS8/private.pem": "certs.unsupported",
    "asymmetric/PKCS8/withdompar_private.pkcs8.pem": "certs.unsupported",
    "asymmetric/PKCS8/enc-rsa-pkcs8-pbkdf2-0iter.pem": "certs.damaged",
    "asymmetric/PKCS8/enc-unknown-algorithm.pem": "certs.unsupported",
    "asymmetric/PKCS8/enc-unknown-kdf.pem": "certs.unsupported",
    "asymmetric/PKCS8/enc-unknown-pbkdf2-prf.pem": "certs.unsupported",
    "asymmetric/PKCS8/unknown-oid.der": "certs.unsupported",
    "asymmetric/PEM_Serialization/rsa-bad-1025-q-is-2.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/dsa-wrong-version.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/key1-malformed-dek-info.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/key1-malformed-iv.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/key1-no-dek-info.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/key1-short-iv.pem": "certs.damaged",
    "asymmetric/Traditional_OpenSSL_Serialization/rsa-wrong-version.pem": "certs.damaged",
    "pkcs7/enveloped-no-content.der": "certs.unsupported",
    "pkcs7/enveloped-rsa-oaep.pem": "certs.unsupported",
    "pkcs7/enveloped-triple-des.pem": "certs.unsupported",
    "pkcs7/enveloped.pem": "certs.unsupported",
}
PUBLIC = ("public_key", ".pub.", "_pub.", "dsaparam", "README")


def files(vectors: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((vectors / folder).iterdir()) if path.is_file()]


def outcome(path: Path) -> str:
    """``read``, ``ignored``, or the code of the first failure."""
    contents = read_contents(path.read_bytes(), [Secret(text) for text in PASSPHRASES])
    if contents.failures:
        return contents.failures[0].code
    return READ if contents else IGNORED


def expected(vectors: Path, path: Path) -> str:
    name = str(path.relative_to(vectors))
    return CAUSES.get(name, IGNORED if any(part in name for part in PUBLIC) else READ)


def test_every_container_and_key_is_read_or_its_cause_is_named(vectors, capsys):
    rows = [(str(path.relative_to(vectors)), expected(vectors, path), outcome(path)) for path in files(vectors)]
    with capsys.disabled():
        sys.stdout.write(f"\n{table(rows)}\n")
    assert [row for row in rows if row[1] != row[2]] == []


def table(rows: list[tuple[str, str, str]]) -> str:
    counted = Counter((name.rpartition("/")[0], got) for name, _, got in rows)
    lines = [f"{folder:50} {got:20} {count:4}" for (folder, got), count in sorted(counted.items())]
    return "\n".join(lines)


def test_every_named_cause_is_of_a_file_that_is_there(vectors):
    assert not [name for name in CAUSES if not (vectors / name).is_file()]


NO_LEGACY = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from test_certs_vectors import files, outcome
vectors = Path(sys.argv[2])
print(json.dumps({str(path.relative_to(vectors)): outcome(path) for path in files(vectors)}))
"""


@pytest.mark.process
def test_without_the_legacy_provider_a_missing_cipher_is_called_missing_and_never_a_wrong_passphrase(vectors, capsys):
    here = [str(Path(__file__).parent), *[path for path in sys.path if path]]
    done = run(
        [sys.executable, "-W", "ignore", "-c", NO_LEGACY, json.dumps(here), str(vectors)],
        timeout=120,
        env={"CRYPTOGRAPHY_OPENSSL_NO_LEGACY": "1"},
    )
    without = json.loads(done.out)
    changed = {}
    for path in files(vectors):
        name, want = str(path.relative_to(vectors)), expected(vectors, path)
        if without[name] != want:
            changed[name] = without[name]
    with capsys.disabled():
        sys.stdout.write(f"\nwithout the legacy provider: {json.dumps(changed, indent=1)}\n")
    assert changed
    assert set(changed.values()) == {"certs.legacy_cipher"}


def certificates(vectors: Path) -> list[Cert]:
    found: dict[bytes, Cert] = {}
    for path in sorted((vectors / "x509").rglob("*")):
        if path.suffix in {".pem", ".der", ".crt"}:
            found |= {cert.der: cert for cert in read_contents(path.read_bytes()).certs}
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("target", list(Target))
def test_every_certificate_survives_every_writer_byte_for_byte(vectors, target):
    certs = certificates(vectors)
    assert len(certs) > 500
    for cert in certs:
        bundle = Bundle(cert, trust=Trust.UNKNOWN)
        if target is Target.FIPS and not cert.key_kind.startswith(("RSA-2", "RSA-3", "RSA-4", "P-256", "P-384", "P-521")):
            continue
        written = write_bundle(bundle, target, HOSTILE, rounds=2 if target.profile.rounds else None)
        (again,) = read_contents(written, HOSTILE).certs
        assert again.der == cert.der
        assert again.spki_sha256 == cert.spki_sha256


def test_every_key_survives_and_signs_for_the_same_public_key(vectors):
    count = 0
    for path in files(vectors):
        for key in read_contents(path.read_bytes(), [Secret(text) for text in PASSPHRASES]).keys:
            (again,) = read_contents(write_key(key, HOSTILE, rounds=2), HOSTILE).keys
            assert again.spki_sha256 == key.spki_sha256
            verify_key_works(again, key)
            count += 1
    assert count > 70


def test_the_signature_under_a_certificate_still_verifies_after_a_round_trip(world):
    from certs.cert import Signed

    written = write_bundle(world.bundle(), Target.MODERN, HOSTILE, rounds=2048)
    leaf, middle = read_contents(written, HOSTILE).certs
    assert leaf.check_signed_by(middle) is Signed.YES
    assert NO_ROOTS.find_same(leaf) is None
    assert isinstance(read_contents(written, HOSTILE), Contents)


def test_the_environment_of_this_run_has_the_legacy_provider():
    assert not os.environ.get("CRYPTOGRAPHY_OPENSSL_NO_LEGACY")
