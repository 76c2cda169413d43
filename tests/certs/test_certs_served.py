"""What real servers on loopback present, and whether every planted fault is seen."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import certs_servers as servers
import pytest
from certs_making import HOST, NOW, World, issue, new_world
from certs_servers import LOOPBACK, Site, chain_of, free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from typer.testing import CliRunner

from certs.bundle import Bundle
from certs.cli import app
from certs.clock import read_clock_offset
from certs.errors import HandshakeError, NoAnswerError, NotServedError
from certs.findings import Severity
from certs.protocols import Protocol
from certs.read import read_bundle
from certs.roots import NO_ROOTS, Roots
from certs.served import Served, Verdict, compare_served, read_pin, read_served, verify_served, wait_for_served
from certs.served_checks import check_served
from certs.tls import Version
from kit.errors import DeadlineError, UnreachableError

pytestmark = [pytest.mark.process, pytest.mark.network]
STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


def look(port: int, host: str = HOST, **kwargs) -> Served:
    return read_served(host, port, address=LOOPBACK, timeout=20, **kwargs)


@pytest.fixture(scope="module")
def stage(tmp_path_factory, world) -> Iterator[dict[str, int]]:
    """One nginx with a port for each fault."""
    deep_root = issue("Deep Root", ca=True)
    upper = issue("Upper", deep_root, ca=True)
    lower = issue("Lower", upper, ca=True)
    deep_leaf = issue(HOST, lower)
    old = issue(HOST, world.middle, start=NOW - timedelta(days=200), end=NOW + timedelta(days=20))
    expired = issue(HOST, world.middle, start=NOW - timedelta(days=200), end=NOW - timedelta(days=2))
    staple = issue(HOST, world.middle, extra=[(STAPLE, False)])
    other = issue("default.example.net", world.middle)
    plans = {
        "good": (chain_of(world.leaf, world.middle), world.leaf),
        "wrong order": (chain_of(deep_leaf, upper, lower), deep_leaf),
        "duplicate": (chain_of(world.leaf, world.leaf, world.middle), world.leaf),
        "root sent": (chain_of(world.leaf, world.middle, world.root), world.leaf),
        "missing intermediate": (chain_of(world.leaf), world.leaf),
        "old leaf": (chain_of(old, world.middle), old),
        "expired": (chain_of(expired, world.middle), expired),
        "must-staple": (chain_of(staple, world.middle), staple),
        "other key": (chain_of(issue_again(world), world.middle), None),
    }
    sites, ports = [], {}
    for name, (certs, owner) in plans.items():
        ports[name] = free_port()
        key = owner.key_pem if owner else AGAIN[0].key_pem
        sites.append(Site(ports[name], certs, key))
    ports["by name"] = free_port()
    sites += [
        Site(ports["by name"], chain_of(other, world.middle), other.key_pem),
        Site(ports["by name"], chain_of(world.leaf, world.middle), world.leaf.key_pem, HOST),
    ]
    with servers.nginx(tmp_path_factory.mktemp("nginx"), sites):
        yield ports


AGAIN = []


def issue_again(world):
    """The same names and dates under another key."""
    leaf = world.leaf.certificate
    made = issue(HOST, world.middle, start=leaf.not_valid_before_utc, end=leaf.not_valid_after_utc)
    AGAIN.append(made)
    return made


@pytest.fixture
def bundle(world) -> Bundle:
    return world.bundle()


def codes(served: Served, world: World) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in check_served(served, roots=world.roots)}


def test_what_is_served_is_seen_in_both_versions_with_and_without_a_name(stage, bundle):
    served = look(stage["good"])
    assert [(each.version, each.server_name) for each in served.presented] == [
        ("TLSv1.3", HOST),
        ("TLSv1.2", HOST),
        ("TLSv1.3", ""),
        ("TLSv1.2", ""),
    ]
    assert all(each.certs == bundle.certs for each in served.presented)
    assert served.versions == ("TLSv1.3", "TLSv1.2")
    assert served.presented[0].ders == tuple(cert.der for cert in bundle.certs)


def test_the_same_is_called_the_same_and_nothing_is_found(stage, bundle, world):
    served = look(stage["good"])
    assert verify_served(served, bundle).verdict is Verdict.SAME
    assert max(codes(served, world).values()) is Severity.INFO


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        ("duplicate", Verdict.LEAF_SAME_CHAIN_DIFFERS, "is sent twice"),
        ("root sent", Verdict.LEAF_SAME_CHAIN_DIFFERS, "The root Test Root is sent too"),
        ("missing intermediate", Verdict.LEAF_SAME_CHAIN_DIFFERS, "Test Intermediate"),
        ("old leaf", Verdict.OLD, "older certificate for the same name"),
        ("expired", Verdict.OLD, "older certificate"),
        ("other key", Verdict.OTHER_KEY, "another key"),
    ],
)
def test_a_planted_fault_has_its_verdict(stage, bundle, fault, verdict, said):
    served = look(stage[fault])
    compared = compare_served(served, bundle)
    assert compared.verdict is verdict
    assert said in compared.sentence + " ".join(compared.differences)
    with pytest.raises(NotServedError) as caught:
        verify_served(served, bundle)
    assert caught.value.facts["verdict"] == verdict.value


@pytest.mark.parametrize(
    ("fault", "code", "severity"),
    [
        ("wrong order", "served_order", Severity.WARNING),
        ("duplicate", "served_duplicate", Severity.WARNING),
        ("root sent", "served_root", Severity.INFO),
        ("missing intermediate", "issuer_missing", Severity.ERROR),
        ("expired", "expired", Severity.ERROR),
        ("must-staple", "staple_missing", Severity.ERROR),
    ],
)
def test_a_planted_fault_is_found_without_anything_to_compare_with(stage, world, fault, code, severity):
    assert codes(look(stage[fault]), world)[code] is severity


def test_a_missing_staple_is_a_verdict_of_its_own(stage, world):
    served = look(stage["must-staple"])
    expected = read_bundle([cert.der for cert in served.certs], roots=world.roots)
    assert compare_served(served, expected).verdict is Verdict.STAPLE_MISSING


def test_a_wrong_order_differs_from_the_right_one(stage):
    served = look(stage["wrong order"])
    expected = read_bundle([cert.der for cert in served.certs], roots=NO_ROOTS)
    compared = compare_served(served, expected)
    assert compared.verdict is Verdict.LEAF_SAME_CHAIN_DIFFERS
    assert "The order is" in compared.differences[0]


def test_the_certificate_depends_on_the_name_that_is_sent(stage, bundle, world):
    served = look(stage["by name"])
    assert compare_served(served, bundle).is_same
    assert served.without_name is not None
    assert served.without_name.certs[0].name == "default.example.net"
    assert codes(served, world)["default_without_sni"] is Severity.INFO


def test_an_unknown_name_gets_the_default_and_that_is_the_verdict(stage, bundle, world):
    served = look(stage["by name"], server_name="unknown." + HOST)
    assert compare_served(served, bundle).verdict is Verdict.OTHER
    good_name = look(stage["by name"], host="portal.example.com")
    wanted = new_world(name="portal.example.com").bundle()
    assert compare_served(good_name, wanted).verdict is Verdict.DEFAULT
    assert "served_default" in codes(good_name, world)


def test_an_old_certificate_that_is_given_is_recognised_byte_for_byte(stage, bundle):
    served = look(stage["other key"])
    assert compare_served(served, bundle, old=served.certs[0]).verdict is Verdict.OLD


def test_a_pin_is_the_fingerprint_of_the_public_key(stage, world):
    assert read_pin(HOST, stage["good"], address=LOOPBACK) == world.leaf.cert.spki_sha256


def test_it_waits_until_a_reloading_server_serves_the_new_one(tmp_path, world):
    old = issue(HOST, world.middle, start=NOW - timedelta(days=200), end=NOW + timedelta(days=20))
    port = free_port()
    with servers.nginx(tmp_path, [Site(port, chain_of(old, world.middle), old.key_pem)]) as child:
        with pytest.raises(DeadlineError, match="old certificate"):
            wait_for_served(HOST, port, world.bundle(), address=LOOPBACK, old=old.cert, timeout=1.5)
        servers.write_nginx(tmp_path, [Site(port, chain_of(world.leaf, world.middle), world.leaf.key_pem)])
        timer = threading.Timer(1.0, os.kill, (child.pid, signal.SIGHUP))
        timer.start()
        served = wait_for_served(HOST, port, world.bundle(), address=LOOPBACK, old=old.cert, timeout=60)
        assert served.certs == world.bundle().certs


# Other servers


def test_openssl_s_server_and_its_stapled_answer(tmp_path, world):
    leaf = issue(HOST, world.middle, extra=[(STAPLE, False)])
    answer = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf.certificate,
            issuer=world.middle.certificate,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=NOW - timedelta(hours=1),
            next_update=NOW + timedelta(days=1),
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, world.middle.certificate)
        .sign(world.middle.key, hashes.SHA256())
    )
    (tmp_path / "answer.der").write_bytes(answer.public_bytes(Encoding.DER))
    with servers.s_server(tmp_path, leaf, world.middle, more=["-status_file", "answer.der"]) as port:
        served = look(port)
    assert served.best is not None
    assert served.best.staple == answer.public_bytes(Encoding.DER)
    expected = read_bundle([leaf.pem, world.middle.pem], roots=world.roots)
    assert compare_served(served, expected).verdict is Verdict.SAME
    assert "staple_missing" not in codes(served, world)


def test_a_server_of_one_version_only_is_seen_and_said(tmp_path, world):
    with servers.s_server(tmp_path, world.leaf, world.middle, more=["-tls1_2"]) as port:
        served = look(port)
    assert served.versions == ("TLSv1.2",)
    assert compare_served(served, world.bundle()).is_same
    assert codes(served, world)["no_handshake"] is Severity.INFO


def test_a_server_with_a_second_certificate_for_a_name(tmp_path, world):
    other = issue("other.example.com", world.middle)
    (tmp_path / "two.pem").write_bytes(other.pem)
    (tmp_path / "two.key").write_bytes(other.key_pem)
    more = ["-servername", "other.example.com", "-cert2", "two.pem", "-key2", "two.key"]
    with servers.s_server(tmp_path, world.leaf, world.middle, more=more) as port:
        assert look(port, host="other.example.com", versions=[Version.TLS12]).certs[0] == other.cert
        assert look(port).certs[0] == world.leaf.cert


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Protocol.SMTP, Protocol.IMAP, Protocol.LDAP, Protocol.POSTGRES, Protocol.XMPP])
def test_starttls_of_a_real_service(protocol, tmp_path, world):
    start = {
        Protocol.SMTP: lambda: servers.postfix(world.leaf, world.middle),
        Protocol.IMAP: lambda: servers.dovecot(world.leaf, world.middle),
        Protocol.LDAP: lambda: servers.slapd(tmp_path, world.leaf, world.middle),
        Protocol.POSTGRES: lambda: servers.postgres(world.leaf, world.middle),
        Protocol.XMPP: lambda: servers.prosody(tmp_path, world.leaf, world.middle),
    }[protocol]
    with start() as port:
        served = look(port, protocol=protocol)
        assert compare_served(served, world.bundle()).verdict is Verdict.SAME
        with pytest.raises(HandshakeError):
            read_served(HOST, port, address=LOOPBACK, timeout=1.5, versions=[Version.TLS12])


# Servers that are none


@pytest.fixture
def talker() -> Iterator[tuple[int, list[bytes]]]:
    """A port that says given bytes to whoever connects and then stays silent."""
    lines: list[bytes] = []
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                kept.append(link)
                for line in lines:
                    link.sendall(line)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], lines
        listener.shutdown(socket.SHUT_RDWR)
    for link in kept:
        link.close()


def test_nothing_at_the_address_is_an_error_that_says_so():
    port = free_port()
    with pytest.raises(NoAnswerError, match="Nothing answers") as caught:
        look(port)
    assert isinstance(caught.value, UnreachableError)


@pytest.mark.parametrize(
    "said", [b"", b"220 mail ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28", b"\0" * 100]
)
def test_a_port_that_speaks_something_else_ends_in_time_with_a_cause(talker, said):
    port, lines = talker
    lines.append(said)
    with pytest.raises(HandshakeError):
        read_served(HOST, port, address=LOOPBACK, timeout=0.5, versions=[Version.TLS13], without_sni=False)


@pytest.mark.parametrize("protocol", [each for each in Protocol if each is not Protocol.TLS])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n",
        b"554 no\r\n",
        b"* BYE\r\na1 NO\r\n",
        b"N",
        b"0\x0c\x02\x01\x01x\x07\x0a\x01\x02\x04\0\x04\0",
        b"0\x84\xff\xff\xff\xff",
        b"<x>" * 30000,
        b"220-a\r\n" * 20000,
    ],
)
def test_a_service_that_refuses_starttls_ends_in_time_with_a_cause(talker, protocol, said):
    port, lines = talker
    lines.append(said)
    with pytest.raises(HandshakeError):
        read_served(HOST, port, address=LOOPBACK, timeout=0.5, protocol=protocol, versions=[Version.TLS12], without_sni=False)


# Clocks and commands


def test_the_clock_of_a_box_is_read_over_its_own_tls(stage):
    assert abs(read_clock_offset(HOST, stage["expired"], address=LOOPBACK)) <= timedelta(seconds=2)
    with pytest.raises(NoAnswerError):
        read_clock_offset(HOST, free_port(), address=LOOPBACK)


def test_a_server_without_a_date_says_that_the_clock_is_not_known(tmp_path, world):
    with servers.s_server(tmp_path, world.leaf) as port, pytest.raises(HandshakeError):
        read_clock_offset(HOST, port, address=LOOPBACK, timeout=2)


def call(*words: object, code: int) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_the_command_compares_every_address(stage, world, tmp_path):
    (tmp_path / "expected.pem").write_bytes(chain_of(world.leaf, world.middle))
    (tmp_path / "roots.pem").write_bytes(world.root.pem)
    given = ("--address", LOOPBACK, "--roots", tmp_path / "roots.pem", "--expect", tmp_path / "expected.pem")
    assert "SAME" in call("served", f"{HOST}:{stage['good']}", *given, code=0)
    assert "OLD CERTIFICATE" in call("served", f"{HOST}:{stage['old leaf']}", *given, code=3)
    assert '"verdict": "same"' in call("served", f"{HOST}:{stage['good']}", *given, "--json", code=0)
    assert "SAME" in call("served", f"{HOST}:{stage['good']}", *given, "--wait", "30s", code=0)


def test_the_command_judges_without_anything_to_compare_with(stage, world, tmp_path):
    (tmp_path / "roots.pem").write_bytes(world.root.pem)
    given = ("--address", LOOPBACK, "--roots", tmp_path / "roots.pem")
    call("served", f"{HOST}:{stage['good']}", *given, code=0)
    assert "served_duplicate" in call("served", f"{HOST}:{stage['duplicate']}", *given, code=1)
    assert "expired" in call("served", f"{HOST}:{stage['expired']}", *given, code=3)


def test_expiry_looks_at_what_is_served(stage):
    assert "DUE" in call("expiry", "--host", f"{LOOPBACK}:{stage['expired']}", code=3)


def test_inspect_judges_by_the_clock_of_a_box(stage, world, tmp_path):
    (tmp_path / "leaf.pem").write_bytes(chain_of(world.leaf, world.middle))
    (tmp_path / "roots.pem").write_bytes(world.root.pem)
    call("inspect", tmp_path / "leaf.pem", "--roots", tmp_path / "roots.pem", "--clock-of", f"{LOOPBACK}:{stage['good']}", code=0)


def test_roots_decide_whether_a_served_chain_is_trusted(stage, world):
    served = look(stage["good"])
    assert "issuer_missing" in {finding.code for finding in check_served(served, roots=NO_ROOTS)}
    assert "issuer_missing" not in {finding.code for finding in check_served(served, roots=Roots([world.root.cert]))}
