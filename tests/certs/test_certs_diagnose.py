"""Every fault planted on purpose is found, under its own code, and nothing is found where nothing is wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certs_making import HOST, NOW, World, issue, new_world
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from certs.bundle import Contents
from certs.chain import assemble
from certs.diagnose import Severity, appliance_warnings, diagnose, worst
from certs.findings import CODES, Case
from certs.read import read_bundle
from certs.roots import NO_ROOTS, Roots


def judged(world: World, **kwargs) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in diagnose(world.bundle(), hostname=kwargs.pop("hostname", HOST), **kwargs)}


def test_nothing_is_wrong_with_a_good_bundle(world):
    findings = diagnose(world.bundle(), hostname=HOST, need_key=True)
    assert worst(findings) is Severity.INFO
    assert {finding.code for finding in findings} <= {"no_client_auth", "no_sct"}
    assert appliance_warnings(findings) == ()


def days(start: int, end: int) -> dict:
    return {"start": NOW + timedelta(days=start), "end": NOW + timedelta(days=end)}


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        pytest.param("expired", days(-400, -3), id="expired"),
        pytest.param("not_yet_valid", days(3, 100), id="not yet valid"),
        pytest.param("no_alt_names", {"names": []}, id="common name only"),
        pytest.param("hostname_mismatch", {"names": ["old.example.com"]}, id="another name"),
        pytest.param("hostname_mismatch", {"names": ["*.com.example"]}, id="wildcard elsewhere"),
        pytest.param("hostname_mismatch", {"names": ["192.0.2.1"]}, id="address instead of name"),
        pytest.param("wrong_usage", {"purposes": [Purpose.CLIENT_AUTH]}, id="for clients only"),
        pytest.param("wrong_usage", {"purposes": [Purpose.CODE_SIGNING]}, id="for code"),
        pytest.param("wrong_usage", {"usage": ["key_encipherment"]}, id="no signatures with an elliptic-curve key"),
        pytest.param(
            "unknown_critical", {"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]}, id="critical"
        ),
    ],
)
def test_what_clients_refuse_is_an_error(code, leaf):
    found = judged(new_world(**leaf))
    assert found[code] is Severity.ERROR


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        pytest.param("expires_soon", days(-80, 9), id="soon"),
        pytest.param("key_weak", {"key": rsa.generate_private_key(65537, 1024)}, id="RSA-1024"),
        pytest.param("key_weak", {"key": ec.generate_private_key(ec.SECP192R1())}, id="P-192"),
        pytest.param("key_unusual", {"key": ec.generate_private_key(ec.SECP256K1())}, id="secp256k1"),
        pytest.param("key_unusual", {"key": ec.generate_private_key(ec.SECP521R1())}, id="P-521"),
        pytest.param("key_unusual", {"key": ed25519.Ed25519PrivateKey.generate()}, id="Ed25519"),
        pytest.param("key_weak", {"key": dsa.generate_private_key(2048)}, id="DSA"),
        pytest.param("must_staple", {"extra": [(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)]}, id="must-staple"),
        pytest.param(
            "ca_as_leaf", {"ca": True, "extra": [(x509.SubjectAlternativeName([x509.DNSName(HOST)]), False)]}, id="authority as leaf"
        ),
        pytest.param("wildcard_too_wide", {"names": [HOST, "*.co.uk"]}, id="wildcard over a suffix"),
    ],
)
def test_what_a_person_should_know_is_a_warning(code, leaf):
    found = judged(new_world(**leaf))
    assert found[code] is Severity.WARNING


@pytest.mark.parametrize(
    ("name", "host", "covered"),
    [
        ("*.example.com", "box.example.com", True),
        ("*.example.com", "a.box.example.com", False),
        ("*.example.com", "example.com", False),
        ("BOX.example.COM", "box.example.com", True),
        ("box.example.com", "box.example.com.", True),
        ("b*.example.com", "box.example.com", False),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8::1", "2001:db8:0:0::1", True),
        ("2001:db8::1", "[2001:db8::1]", True),
    ],
)
def test_names_match_as_clients_match_them(name, host, covered):
    world = new_world(names=[name])
    assert ("hostname_mismatch" not in judged(world, hostname=host)) is covered


def test_the_closest_name_is_shown():
    world = new_world(names=["portal.example.com", "mail.example.org"])
    (finding,) = [each for each in diagnose(world.bundle(), hostname="portal2.example.com") if each.code == "hostname_mismatch"]
    assert "the closest name is portal.example.com" in finding.sentence
    assert "mail.example.org" in finding.sentence


def test_several_hosts_are_each_checked(world):
    found = [
        each for each in diagnose(world.bundle(), hostname=[HOST, "a.example.net", "b.example.net"]) if each.code == "hostname_mismatch"
    ]
    assert len(found) == 2


# Time and clocks


def test_less_than_a_day_suggests_comparing_clocks():
    world = new_world(start=NOW - timedelta(days=90), end=NOW - timedelta(hours=5))
    (finding,) = [each for each in diagnose(world.bundle(), hostname=HOST) if each.code == "expired"]
    assert "clocks" in finding.hint
    assert "5 hours" in finding.sentence or "4 hours" in finding.sentence


def test_a_wrong_clock_of_the_box_is_told_apart_from_expiry(world):
    found = judged(world, clock_offset=timedelta(days=400))
    assert found["clock_wrong"] is Severity.ERROR
    assert "expired" not in found
    assert "clock_wrong" in judged(world, clock_offset=timedelta(days=-30))
    assert "clock_wrong" not in judged(world, clock_offset=timedelta(minutes=2))


def test_a_clock_known_to_be_right_leaves_the_expiry_an_expiry():
    world = new_world(start=NOW - timedelta(days=90), end=NOW - timedelta(hours=5))
    (finding,) = [each for each in diagnose(world.bundle(), clock_offset=timedelta()) if each.code == "expired"]
    assert "clocks" not in finding.hint


def test_an_intermediate_that_ends_before_the_leaf_is_a_warning():
    root = issue("Root", ca=True)
    middle = issue("Middle", root, ca=True, end=NOW + timedelta(days=60))
    world = World(root, middle, issue(HOST, middle))
    assert judged(world)["issuer_ends_first"] is Severity.WARNING


def test_an_expired_intermediate_is_named_and_not_the_leaf():
    root = issue("Root", ca=True)
    middle = issue("Middle", root, ca=True, start=NOW - timedelta(days=900), end=NOW - timedelta(days=2))
    found = judged(World(root, middle, issue(HOST, middle)))
    assert found["issuer_expired"] is Severity.ERROR
    assert "expired" not in found


def test_the_moment_can_be_chosen(world):
    assert "expired" in judged(world, at=NOW + timedelta(days=301))
    assert "not_yet_valid" in judged(world, at=NOW - timedelta(days=2))


# Key and chain


def test_a_missing_key_blocks_only_where_it_is_needed(world):
    bundle = read_bundle([world.leaf.pem, world.middle.pem], roots=world.roots)
    assert {each.code: each.severity for each in diagnose(bundle)}["key_missing"] is Severity.INFO
    assert {each.code: each.severity for each in diagnose(bundle, need_key=True)}["key_missing"] is Severity.ERROR


def test_a_key_that_does_not_fit_shows_both_fingerprints_and_what_would_fit(world):
    other = issue("other.example.com", world.middle)
    bundle = read_bundle([world.leaf.pem + world.middle.pem + other.pem, other.key_pem], roots=world.roots, choose=HOST)
    (finding,) = [each for each in diagnose(bundle) if each.code == "key_mismatch"]
    assert other.cert.spki_sha256[:16] in finding.sentence
    assert world.leaf.cert.spki_sha256[:16] in finding.sentence
    assert "other.example.com" in finding.hint


def test_self_signed_and_private_authorities_are_told_apart_and_legal_when_said():
    alone = assemble(Contents(certs=(issue(HOST).cert,)), roots=NO_ROOTS)
    assert {each.code: each.severity for each in diagnose(alone)}["self_signed"] is Severity.WARNING
    assert {each.code: each.severity for each in diagnose(alone, allow_private=True)}["self_signed"] is Severity.INFO
    world = new_world()
    private = assemble(Contents(certs=(world.leaf.cert, world.middle.cert, world.root.cert)), roots=NO_ROOTS)
    assert {each.code: each.severity for each in diagnose(private)}["private_ca"] is Severity.WARNING
    assert {each.code: each.severity for each in diagnose(private, allow_private=True)}["private_ca"] is Severity.INFO


def test_a_private_chain_without_its_root_is_legal_when_said(world):
    bundle = assemble(Contents(certs=(world.leaf.cert, world.middle.cert)), roots=NO_ROOTS)
    assert {each.code: each.severity for each in diagnose(bundle)}["issuer_missing"] is Severity.ERROR
    assert {each.code: each.severity for each in diagnose(bundle, allow_private=True)}["issuer_missing"] is Severity.INFO


def test_an_impostor_of_the_issuer_is_called_so(world):
    impostor = issue("Test Intermediate", world.root, ca=True)
    bundle = assemble(Contents(certs=(world.leaf.cert, impostor.cert)), roots=world.roots)
    assert {each.code for each in diagnose(bundle)} >= {"not_signed_by"}


def test_an_issuer_that_is_no_authority_is_an_error():
    root = issue("Root", ca=True)
    middle = issue("Middle", root)
    assert judged(World(root, middle, issue(HOST, middle)))["not_a_ca"] is Severity.ERROR


def test_too_many_levels_are_an_error():
    root = issue("Root", ca=True, path_length=0)
    middle = issue("Middle", root, ca=True)
    lower = issue("Lower", middle, ca=True)
    leaf = issue(HOST, lower)
    bundle = read_bundle([leaf.pem, middle.pem, lower.pem], roots=Roots([root.cert]))
    assert "path_too_long" in {each.code for each in diagnose(bundle)}


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "ok"),
    [
        (["example.com"], None, [HOST], True),
        (["example.org"], None, [HOST], False),
        (None, ["box.example.com"], [HOST], False),
        (None, ["other.example.com"], [HOST], True),
        (None, ["box.example.com"], ["*.example.com"], False),
        (["box.example.com"], None, ["*.example.com"], False),
    ],
)
def test_name_constraints_are_enforced(permitted, excluded, names, ok):
    def trees(texts):
        return [x509.DNSName(text) for text in texts] if texts else None

    root = issue("Root", ca=True)
    middle = issue("Middle", root, ca=True, extra=[(x509.NameConstraints(trees(permitted), trees(excluded)), True)])
    found = judged(World(root, middle, issue(HOST, middle, names=names)))
    assert ("name_not_permitted" not in found) is ok


def test_a_revoked_certificate_is_found_in_a_list_that_was_given(world):
    entry = x509.RevokedCertificateBuilder().serial_number(world.leaf.certificate.serial_number).revocation_date(NOW).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(world.middle.certificate.subject)
        .last_update(NOW - timedelta(days=1))
        .next_update(NOW + timedelta(days=7))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_revoked_certificate(entry)
        .sign(world.middle.key, hashes.SHA256())
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    bundle = read_bundle([world.leaf.pem, world.middle.pem, crl.public_bytes(Encoding.PEM)], roots=world.roots)
    assert {each.code: each.severity for each in diagnose(bundle)}["revoked"] is Severity.ERROR


def test_a_weak_signature_is_verified_and_then_flagged(vectors):
    text = (vectors / "x509/verisign_md2_root.pem").read_bytes()
    bundle = read_bundle(text)
    assert "weak_signature" in {each.code for each in diagnose(bundle)}


def test_failures_of_reading_are_findings_too(world):
    broken = world.middle.pem.replace(b"MII", b"!!I", 1)
    bundle = read_bundle([world.leaf.pem + broken], roots=world.roots)
    (finding,) = [each for each in diagnose(bundle) if each.code == "certs.damaged"]
    assert finding.severity is Severity.WARNING
    assert "block 2" in finding.about


def test_a_malformed_certificate_is_judged_as_far_as_it_can_be(vectors):
    for name in ("invalid_version.pem", "malformed-san.pem", "malformed-ian.pem", "two_basic_constraints.pem", "bad_country.pem"):
        bundle = read_bundle((vectors / "x509/custom" / name).read_bytes())
        assert diagnose(bundle, hostname=HOST), name


def test_the_verifier_speaks_where_no_rule_did(world, monkeypatch):
    import certs.diagnose as room

    monkeypatch.setattr(room, "find_refusal", lambda _case: "for a reason of its own")
    assert judged(world)["verifier_refuses"] is Severity.ERROR


def test_the_verifier_agrees_with_a_good_bundle(world):
    from certs.rules.verifier import find_refusal

    assert find_refusal(Case(world.bundle(), (HOST,))) is None
    assert find_refusal(Case(world.bundle(), ("other.example.com",))) is not None


def test_every_code_has_a_severity_for_each_measure_and_most_a_hint():
    assert all(row.hint for row in CODES.values())


def test_findings_come_worst_first():
    severities = [each.severity for each in diagnose(new_world(names=[], **days(-400, -3)).bundle(), hostname=HOST)]
    assert severities == sorted(severities, reverse=True)


def test_what_an_appliance_shows_is_marked():
    shown = appliance_warnings(diagnose(new_world(names=["old.example.com"]).bundle(), hostname=HOST))
    assert [each.code for each in shown] == ["hostname_mismatch"]


def test_a_rule_that_trips_is_a_finding_and_the_others_still_speak(world, monkeypatch):
    import certs.diagnose as room

    def check_everything(_case):
        raise IndexError("planted")
        yield

    monkeypatch.setattr(room, "_RULES", (check_everything, *room._RULES))
    found = judged(world, hostname="other.example.com")
    assert found["not_judged"] is Severity.ERROR
    assert "hostname_mismatch" in found


def test_an_authority_looked_at_for_itself_is_not_judged_as_a_server(world):
    root = read_bundle(world.root.pem, roots=NO_ROOTS)
    alone = {finding.code: finding.severity for finding in diagnose(root)}
    assert alone["ca_as_leaf"] is Severity.INFO
    assert max(alone.values()) is Severity.INFO
    as_server = {finding.code for finding in diagnose(root, hostname=HOST) if finding.severity > Severity.INFO}
    assert {"ca_as_leaf", "no_alt_names", "wrong_usage"} <= as_server
