"""The visitor as a program, against a real name server and real TLS sites."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest_cutover import HOSTILE, NEW, OLD, SITE, Serve, make_cutover
from site_for_visitors import Pki, Site, SiteServer, make_pki

from kit.errors import DeadlineError, RefusedError, UsageError
from kit.process import Child, run
from kit.secret import Secret
from kit.waiting import wait_for
from migrate.demo.journal import VisitorSummary, digest_chain
from migrate.demo.jump_client import ClientAccount
from migrate.demo.nameserver import DemoNameServer
from migrate.demo.visitor import VisitorProgram
from migrate.demo.visitor_config import VisitorConfig, read_config, write_config

pytestmark = [pytest.mark.process, pytest.mark.network]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"), SITE)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def make_config(server: DemoNameServer, pki: Pki, folder: Path, port: int, **changes: object) -> VisitorConfig:
    values: dict[str, object] = {
        "site": SITE,
        "port": port,
        "ca_file": pki.root,
        "name_servers": (server.primary,),
        "journal": folder / "journal.jsonl",
        "clients": tuple(ClientAccount(f"client-{number}", Secret(HOSTILE)) for number in range(3)),
        "rate": 20.0,
        "session_every": 2,
        "timeout": 1.0,
        "checkin_every": 0.3,
    }
    return VisitorConfig(**{**values, **changes})  # type: ignore[arg-type]


def wait_until(visitor: VisitorProgram, good: Callable[[VisitorSummary], bool], what: str) -> VisitorSummary:
    return wait_for(lambda: summary if good(summary := visitor.summary()) else None, what=what, timeout=30, poll=0.1)


def test_a_visitor_of_a_healthy_site_loses_nothing_and_sees_the_whole_chain(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port, site = serve(f"support 300 A {OLD}"), free_port(), Site()
    with SiteServer(OLD, port, pki, site, HOSTILE):
        visitor = VisitorProgram(make_config(server, pki, tmp_path, port), tmp_path)
        with visitor:
            wait_until(visitor, lambda seen: len(seen.records_written) >= 5 and len(seen.clients_seen) == 3, "five records, three clients")
        seen = visitor.summary()
    assert (seen.requests_lost, seen.checkins_lost, seen.outages, seen.downtime_seconds) == (0, 0, (), 0.0)
    assert seen.ended
    assert set(seen.records_written) <= set(site.stored)
    assert seen.chains == (digest_chain(pki.ders),)
    assert seen.leaves == (hashlib.sha256(pki.ders[0]).hexdigest(),)
    assert seen.good_by_address == ((OLD, seen.requests_sent),)
    assert site.hosts == {f"{SITE}:{port}"}
    assert seen.lookups == 1
    # Every visit is a connection of its own; the swarm keeps one for each client.
    assert seen.requests_sent + 3 <= site.connections <= seen.requests_sent + 3 + 1


def test_a_cutover_is_followed_and_its_outage_measured(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port, old, new = serve(f"support 1 A {OLD}"), free_port(), Site(), Site()
    visitor = VisitorProgram(make_config(server, pki, tmp_path, port), tmp_path)
    with SiteServer(NEW, port, pki, new, HOSTILE):
        with SiteServer(OLD, port, pki, old, HOSTILE):
            visitor.start()
            wait_until(visitor, lambda seen: len(seen.records_written) >= 3 and len(seen.clients_seen) == 3, "records on the old box")
        time.sleep(0.5)
        change = make_cutover(server, ttl=1).switch()
        wait_until(visitor, lambda seen: NEW in dict(seen.good_by_address) and seen.outages[-1].over, "answers of the new box")
        wait_for(lambda: len(set(new.checkins)) == 3 or None, what="the swarm on the new box", timeout=30, poll=0.1)
        visitor.stop()
    seen = visitor.summary()
    assert len(seen.outages) == 1
    assert seen.requests_lost == seen.outages[0].failures > 0
    assert seen.outages[0].since <= change.asked_at <= seen.outages[0].until
    assert seen.downtime_seconds >= 0.5
    assert set(seen.records_written) <= {*old.stored, *new.stored}
    assert seen.checkins_lost > 0


def test_a_session_whose_acknowledgement_is_lost_is_handed_in_again_under_the_same_id(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port, site = serve(f"support 300 A {OLD}"), free_port(), Site(lose_acknowledgements=3)
    with SiteServer(OLD, port, pki, site, HOSTILE), VisitorProgram(make_config(server, pki, tmp_path, port), tmp_path) as visitor:
        first = wait_for(lambda: site.stored[0] if len(site.stored) >= 4 else None, what="sessions", timeout=30)
        seen = wait_until(visitor, lambda seen: first in seen.records_written, "the first session to be acknowledged")
    assert seen.requests_lost >= 3
    assert seen.records_written.count(first) == 1


@contextmanager
def trouble(site: Site, **changes: object):
    before = {name: getattr(site, name) for name in changes}
    for name, value in changes.items():
        setattr(site, name, value)
    yield
    for name, value in before.items():
        setattr(site, name, value)


def test_errors_and_silence_count_as_lost_and_are_named(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port, site = serve(f"support 300 A {OLD}"), free_port(), Site()
    config = make_config(server, pki, tmp_path, port, timeout=0.5)
    with SiteServer(OLD, port, pki, site, HOSTILE), VisitorProgram(config, tmp_path) as visitor:
        with trouble(site, status=503):
            wait_until(visitor, lambda seen: "http 503" in dict(seen.errors), "a refusal")
        with trouble(site, delay=2.0):
            wait_until(visitor, lambda seen: any(error.startswith("timeout") for error, _ in seen.errors), "a silence")
        server.stop()
        seen = visitor.summary()
    assert seen.outages


def test_a_name_server_that_is_gone_is_noticed_only_after_the_ttl(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port, site = serve(f"support 1 A {OLD}"), free_port(), Site()
    with SiteServer(OLD, port, pki, site, HOSTILE), VisitorProgram(make_config(server, pki, tmp_path, port), tmp_path) as visitor:
        server.stop()
        seen = wait_until(visitor, lambda seen: any(error.startswith("dns:") for error, _ in seen.errors), "a failed lookup")
    assert OLD in dict(seen.good_by_address)


def test_a_certificate_of_another_root_is_no_good_answer(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    server, port, site = serve(f"support 300 A {OLD}"), free_port(), Site()
    config = make_config(server, make_pki(stranger, SITE), tmp_path, port)
    visitor = VisitorProgram(config, tmp_path)
    with SiteServer(OLD, port, pki, site, HOSTILE), pytest.MonkeyPatch.context() as patch:
        patch.setattr("migrate.demo.visitor.START_SECONDS", 3.0)
        with pytest.raises(DeadlineError, match=r"tls: .*CERTIFICATE_VERIFY_FAILED"):
            visitor.start()
    assert visitor.summary().requests_lost > 0


def test_a_certificate_for_another_name_is_no_good_answer(serve: Serve, tmp_path: Path) -> None:
    server, port, site = serve(f"support 300 A {OLD}"), free_port(), Site()
    other = make_pki(tmp_path, "other.example.test")
    visitor = VisitorProgram(make_config(server, other, tmp_path, port), tmp_path)
    with SiteServer(OLD, port, other, site, HOSTILE), pytest.MonkeyPatch.context() as patch:
        patch.setattr("migrate.demo.visitor.START_SECONDS", 3.0)
        with pytest.raises(DeadlineError, match="mismatch"):
            visitor.start()


def test_secrets_are_in_the_private_configuration_only(serve: Serve, pki: Pki, tmp_path: Path) -> None:
    server, port = serve(f"support 300 A {OLD}"), free_port()
    with SiteServer(OLD, port, pki, Site(), HOSTILE), VisitorProgram(make_config(server, pki, tmp_path, port), tmp_path) as visitor:
        assert visitor._child is not None
        process = psutil.Process(visitor._child.pid)
        assert HOSTILE not in " ".join([*process.cmdline(), *process.environ().values()])
    assert (tmp_path / "visitor.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600
    for name in ("journal.jsonl", "visitor.log"):
        text = (tmp_path / name).read_text()
        assert HOSTILE not in text
        assert json.dumps(HOSTILE)[1:-1] not in text


def test_the_configuration_comes_back_as_it_was_written(tmp_path: Path) -> None:
    lab = DemoNameServer(tmp_path / "dns", [])
    config = make_config(lab, Pki(tmp_path / "root.pem", tmp_path / "x", ()), tmp_path, 8443)
    write_config(config, tmp_path / "visitor.json")
    read = read_config(tmp_path / "visitor.json")
    assert read.clients == config.clients
    assert (read.site, read.port, read.rate, read.page) == (config.site, 8443, 20.0, "/")
    assert [(one.address, one.port) for one in read.name_servers] == [(lab.primary.address, lab.primary.port)]


def test_a_configuration_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "visitor.json"
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(RefusedError, match="others may read it"):
        read_config(path)


@pytest.mark.parametrize("text", ["", "[]", '{"site": "x", "secret": "a!b@c$"}', '{"rate": 0}'])
def test_a_wrong_configuration_is_one_sentence_without_its_content(tmp_path: Path, text: str) -> None:
    path = tmp_path / "visitor.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert "a!b@c$" not in str(caught.value)


def test_the_program_says_what_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    import sys

    done = run([sys.executable, "-m", "migrate.demo.visitor", tmp_path / "none.json"], timeout=30, accept=(2,))
    assert b"cannot be read" in done.err
    with Child([sys.executable, "-m", "migrate.demo.visitor"], log=tmp_path / "log") as child:
        wait_for(lambda: child.status, what="its end", timeout=30, poll=0.1)
        assert "usage" in child.said()
