"""The demonstration's name server: a real BIND, private, and nobody else's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dns.name
import pytest
from conftest_cutover import OLD, SITE, Serve, make_cutover, make_key

from kit.errors import DeadlineError, ToolError
from kit.process import find_program, run
from kit.secret import Secret
from migrate.cutover.dns_values import (
    DnsCutoverPlan,
    DnsPlanError,
    Move,
    NameServer,
    TsigAlgorithm,
    TsigKey,
    parse_address,
    parse_dns_name,
    parse_tsig_key,
)
from migrate.cutover.dns_wire import ask
from migrate.demo.nameserver import DemoNameServer, ZoneRecord, make_tsig_key


@pytest.mark.process
@pytest.mark.network
def test_its_secrets_are_readable_by_its_owner_only(serve: Serve) -> None:
    server = serve(f"support 300 A {OLD}", secondary=True)
    assert server.folder.stat().st_mode & 0o777 == 0o700
    for name in ("tsig.key", "named.conf"):
        for room in ("primary", "secondary"):
            assert (server.folder / room / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.process
@pytest.mark.network
def test_its_zone_is_not_given_to_strangers(serve: Serve) -> None:
    import dns.query
    import dns.xfr
    import dns.zone

    server = serve(f"support 300 A {OLD}")
    with pytest.raises(dns.xfr.TransferError):
        dns.query.inbound_xfr(server.primary.address, dns.zone.Zone(server.zone), port=server.primary.port)


@pytest.mark.process
@pytest.mark.network
def test_a_folder_that_is_used_again_serves_the_zone_as_it_was_left(serve: Serve) -> None:
    server = serve(f"support 300 A {OLD}")
    make_cutover(server).switch()
    server.stop()
    with DemoNameServer(server.folder, [], port=server.primary.port, key=server.key) as again:
        assert ask(again.primary, dns.name.from_text(SITE), "A", timeout=2).values == ("127.0.0.12",)


@pytest.mark.process
@pytest.mark.network
def test_it_ends_with_its_block_and_leaves_no_process(serve: Serve) -> None:
    import psutil

    server = serve(f"support 300 A {OLD}", secondary=True)
    pids = [child.pid for child in server._children.values()]
    server.stop()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.process
@pytest.mark.network
def test_a_wrong_zone_file_is_told_in_binds_own_words(tmp_path: Path) -> None:
    server = DemoNameServer(tmp_path / "dns", [], policy="allow-update { nonsense nonsense };")
    with pytest.raises((ToolError, DeadlineError), match=r"named-checkconf.*|BIND ended"):
        server.start()


@pytest.mark.process
@pytest.mark.network
@pytest.mark.skipif(os.getuid() != 0 or find_program("setpriv") is None, reason="needs root, to become somebody else")
def test_it_runs_as_a_normal_user(tmp_path: Path) -> None:
    import tempfile

    script = f"""\
from pathlib import Path
import tempfile
from migrate.demo.nameserver import DemoNameServer, ZoneRecord
from migrate.cutover.dns_wire import ask
from migrate.cutover.dns_values import parse_dns_name
with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    with DemoNameServer(Path(folder) / "dns", [ZoneRecord("support", 60, "A", "{OLD}")], secondary=True) as server:
        print(*(ask(one, parse_dns_name("{SITE}"), "A", timeout=2).values[0] for one in server.servers))
"""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script]
        done = run(words, timeout=120, env={"HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}, cwd=Path.cwd())
    assert done.text.split() == [OLD, OLD]


# values


@pytest.mark.process
@pytest.mark.parametrize("algorithm", list(TsigAlgorithm))
def test_a_key_file_as_tsig_keygen_writes_it_is_read(algorithm: TsigAlgorithm) -> None:
    program = find_program("tsig-keygen")
    assert program is not None
    key = parse_tsig_key(Secret(run([program, "-a", algorithm.value, "my-key.example.test"], timeout=30).text))
    assert (key.name, key.algorithm) == ("my-key.example.test", algorithm)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ('key "k" { algorithm hmac-sha256; };', "holds no key"),
        ('key "k" { algorithm hmac-md5; secret "c2VjcmV0"; };', "hmac-md5, which is not supported"),
        ('key "k" { algorithm hmac-sha256; secret "a!b@c$"; };', "not base64"),
    ],
)
def test_a_key_file_that_is_none_is_one_sentence_without_the_secret(text: str, words: str) -> None:
    with pytest.raises(DnsPlanError, match=words) as caught:
        parse_tsig_key(Secret(text))
    assert "a!b@c$" not in str(caught.value.to_record())
    assert caught.value.hint


def test_a_fresh_key_is_another_one_each_time() -> None:
    assert make_tsig_key().secret != make_tsig_key().secret


def test_the_secret_of_a_key_is_not_shown() -> None:
    key = make_key()
    assert key.secret.reveal() not in repr(key)


@pytest.mark.parametrize("text", ["", " ", "a..b", "x" * 64 + ".test"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(DnsPlanError, match="not a DNS name"):
        parse_dns_name(text)


def test_an_international_name_is_understood() -> None:
    assert parse_dns_name("soporte-españa.example.test").to_text().startswith("xn--")


def test_addresses_are_compared_in_one_form() -> None:
    assert parse_address("FD00:0:0::0011") == "fd00::11"
    with pytest.raises(DnsPlanError, match="not an IP address"):
        parse_address("support.example.test")


@pytest.mark.parametrize(("old", "new"), [("127.0.0.1", "::1"), ("::1", "0:0::1"), ("127.0.0.1", "127.0.0.1"), ("x", "127.0.0.1")])
def test_a_move_needs_two_addresses_of_one_family(old: str, new: str) -> None:
    with pytest.raises(DnsPlanError):
        Move(old, new)


@pytest.mark.parametrize(
    "change",
    [
        {"moves": ()},
        {"moves": (Move(OLD, "127.0.0.12"), Move("127.0.0.1", "127.0.0.2"))},
        {"ttl": 0},
        {"zone": "other.test"},
        {"name": "a..b"},
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    values: dict[str, object] = {
        "name": SITE,
        "moves": (Move(OLD, "127.0.0.12"),),
        "server": NameServer("127.0.0.1"),
        "key": TsigKey("k", Secret("c2VjcmV0")),
    }
    DnsCutoverPlan(**values)  # type: ignore[arg-type]
    with pytest.raises(DnsPlanError):
        DnsCutoverPlan(**{**values, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "words"), [(NameServer("127.0.0.1"), "127.0.0.1:53"), (NameServer("::1", 5353, "ns.test."), "ns.test ([::1]:5353)")]
)
def test_a_server_is_named_with_its_address(server: NameServer, words: str) -> None:
    assert str(server) == words


def test_a_zone_record_is_written_as_zone_files_have_it() -> None:
    assert str(ZoneRecord("support", 300, "A", OLD)) == f"support 300 A {OLD}"
