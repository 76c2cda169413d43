"""The shared HTTP client: one box, known by its key; foreign errors become ours; files are whole or not there."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pki import make_bundle
from tls_servers import Scripted, page, scripted

from kit.errors import FailedError, RejectedError, UnexpectedError, UnreachableError
from kit.progress import Silent
from kit.secret import Secret
from migrate.appliances.bomgar.api import Api
from migrate.appliances.bomgar.catalogue import ConsoleName
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.words import load_words
from migrate.appliances.contract import Account, ApiAccount, Endpoint
from migrate.appliances.errors import BusyError, WrongKeyError
from migrate.appliances.http import BoxClient, Request, Saved, Upload
from migrate.appliances.pinned import Pin

pytestmark = pytest.mark.network
SECRET = Secret("a!b@c$ 'd\"e\\;ñ")


def connect(server: Scripted | Endpoint, *pins: str) -> BoxClient:
    endpoint = server if isinstance(server, Endpoint) else server.endpoint
    return BoxClient(endpoint, Pin(*(pins or endpoint.pins)))


def test_another_key_ends_the_connection_before_a_byte_is_sent(tmp_path: Path) -> None:
    with scripted(lambda _: page("hello"), tmp_path) as server:
        client = connect(server, "ab" * 32)
        with pytest.raises(WrongKeyError):
            client.send(Request("POST", "/login", (("password", SECRET),)))
        assert server.connections == 1
        assert server.told in ([], [b""])
        assert connect(server).send(Request("GET", "/")).content == b"hello"


def test_a_learned_key_is_held_to(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with scripted(lambda _: page("one"), tmp_path / "a") as first, scripted(lambda _: page("two"), tmp_path / "b", make_bundle()) as second:
        pin = Pin()
        assert BoxClient(first.endpoint, pin).send(Request("GET", "/")).content == b"one"
        assert pin.seen == first.fingerprint
        with pytest.raises(WrongKeyError):
            BoxClient(second.endpoint, pin).send(Request("GET", "/"))
        assert second.told in ([], [b""])
        pin.allow(second.fingerprint)
        assert BoxClient(second.endpoint, pin).send(Request("GET", "/")).content == b"two"
        assert pin.seen == second.fingerprint


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError, match="Nothing answers"):
        connect(Endpoint("127.0.0.1", port)).send(Request("GET", "/"))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"no http at all\r\n\r\n"])
def test_what_breaks_off_is_unreachable(tmp_path: Path, said: bytes) -> None:
    with scripted(lambda _: said, tmp_path) as server, pytest.raises(UnreachableError):
        connect(server).send(Request("GET", "/"))


def test_a_box_that_thinks_too_long_is_unreachable(tmp_path: Path) -> None:
    import threading

    release = threading.Event()

    def late(_: bytes) -> bytes:
        release.wait(10)
        return page("late")

    with scripted(late, tmp_path) as server:
        with pytest.raises(UnreachableError, match="did not answer"):
            connect(server).send(Request("GET", "/", seconds=0.2))
        release.set()


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Time-out"])
def test_busy_is_told_apart(tmp_path: Path, status: str) -> None:
    with scripted(lambda _: page("starting", status), tmp_path) as server, pytest.raises(BusyError):
        connect(server).send(Request("GET", "/"))


@pytest.mark.parametrize(
    "there", ["https://evil.example/x", "//evil.example/", "http://evil.example", "javascript:alert(1)", "https://[::1"]
)
def test_a_redirect_to_another_place_is_refused(tmp_path: Path, there: str) -> None:
    with scripted(lambda _: page("", "302 Found", Location=there), tmp_path) as server, pytest.raises((UnexpectedError, UnreachableError)):
        connect(server).send(Request("GET", "/"))


def test_a_redirect_that_names_the_inner_port_stays_at_the_forwarded_one(tmp_path: Path) -> None:
    def answer(request: bytes) -> bytes:
        return page("there") if b"/x" in request.split(b"\r\n")[0] else page("", "302 Found", Location="https://127.0.0.1/x")

    with scripted(answer, tmp_path) as server:
        assert connect(server).send(Request("GET", "/")).content == b"there"


def test_a_form_is_not_sent_on_by_a_307_and_circles_end(tmp_path: Path) -> None:
    with scripted(lambda _: page("", "307 Temporary Redirect", Location="/again"), tmp_path) as server:
        with pytest.raises(UnexpectedError, match="blindly"):
            connect(server).send(Request("POST", "/"))
        assert len(server.told) == 1
        with pytest.raises(UnexpectedError, match="circle"):
            connect(server).send(Request("GET", "/"))


def test_forms_arrive_as_they_were_filled(tmp_path: Path) -> None:
    with scripted(lambda _: page("ok"), tmp_path) as server:
        client = connect(server)
        client.send(Request("POST", "/f", (("a[b]", "1 ñ&="), ("p", SECRET), ("a[b]", "2"))))
        assert server.told[0].endswith(b"a%5Bb%5D=1+%C3%B1%26%3D&p=a%21b%40c%24+%27d%22e%5C%3B%C3%B1&a%5Bb%5D=2")
        (tmp_path / "file").write_bytes(b"\0content")
        pairs = (("x", "1"), ("f", Upload(tmp_path / "file", 'ñ "q".bin')), ("none", Upload(b"", "")), ("p", SECRET))
        client.send(Request("POST", "/f", pairs, multipart=True))
        body = server.told[1].partition(b"\r\n\r\n")[2]
        assert body.count(b"Content-Disposition") == 4
        assert 'filename="ñ %22q%22.bin"'.encode() in body
        assert b"\r\n\r\n\0content\r\n" in body
        assert SECRET.to_bytes() in body


def test_a_proxy_in_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with scripted(lambda _: page("direct"), tmp_path) as server:
        assert connect(server).send(Request("GET", "/")).content == b"direct"


def test_a_saved_file_is_private_and_whole(tmp_path: Path) -> None:
    with scripted(lambda _: page("x" * 3_000_000, kind="application/octet-stream"), tmp_path) as server:
        saved = connect(server).save(Request("GET", "/"), tmp_path / "out", progress=Silent(), label="it")
    assert isinstance(saved, Saved)
    assert saved.size == (tmp_path / "out").stat().st_size == 3_000_000
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_a_page_instead_of_a_file_is_handed_back(tmp_path: Path) -> None:
    with scripted(lambda _: page("<p>sorry"), tmp_path) as server:
        assert not isinstance(connect(server).save(Request("GET", "/"), tmp_path / "out", progress=Silent(), label="it"), Saved)
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_off_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    short = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 99\r\n\r\nshort"
    with scripted(lambda _: short, tmp_path) as server, pytest.raises(UnreachableError):
        connect(server).save(Request("GET", "/"), folder / "a", progress=Silent(), label="it")
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert (folder / "a").read_bytes() == b"old"


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process end at 100,000 bytes, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    big = page("x" * 3_000_000, kind="application/octet-stream")
    with scripted(lambda _: big, tmp_path) as server, pytest.raises(FailedError, match="could not be written") as caught:
        connect(server).save(Request("GET", "/"), folder / "a", progress=Silent(), label="it")
    assert caught.value.hint
    assert list(folder.iterdir()) == []


def test_a_page_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrate.appliances.http.LARGEST_PAGE", 1000)
    with scripted(lambda _: page("x" * 5000), tmp_path) as server, pytest.raises(UnexpectedError, match="more than"):
        connect(server).send(Request("GET", "/"))


@pytest.mark.parametrize(
    "body", ["", "<p>Welcome", '{"json": 1}', "<form><input type=password><button>Enter here</button></form>", "\0" * 50]
)
def test_a_console_of_an_unknown_kind_gets_no_password(tmp_path: Path, body: str) -> None:
    with scripted(lambda _: page(body), tmp_path) as server:
        console = Console(connect(server), ConsoleName.SITE, Account("admin", SECRET), load_words(None))
        with pytest.raises(UnexpectedError):
            console.enter()
        assert all(b"POST" not in told for told in server.told)


def test_a_login_form_that_leads_away_gets_no_password(tmp_path: Path) -> None:
    fields = "<label>Username<input name=u></label><input type=password name=p><button>Login</button>"
    form = f'<form method=post action="https://evil.example/">{fields}</form>'
    with scripted(lambda _: page(form), tmp_path) as server:
        with pytest.raises(UnexpectedError, match="another place"):
            Console(connect(server), ConsoleName.SITE, Account("admin", SECRET), load_words(None)).enter()
        assert all(b"POST" not in told for told in server.told)


class Machine:
    """The API side of a box, by path."""

    def __init__(self, **answers: list[bytes]) -> None:
        self.answers = answers

    def __call__(self, request: bytes) -> bytes:
        if request.startswith(b"POST /oauth2/token"):
            return page('{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}', kind="application/json")
        assert b"authorization: bearer t" in request.lower()
        assert b"connection: close" in request.lower()
        name = request.split(b" ")[1].split(b"?")[0].rsplit(b"/", 1)[1].decode().replace("-", "_")
        queue = self.answers[name]
        return queue.pop(0) if len(queue) > 1 else queue[0]


def _api(server: Scripted) -> Api:
    return Api(connect(server), ApiAccount("id", SECRET))


XML = "text/xml"
JSON = "application/json"
HEALTH = '<health_check xmlns="n"><appliance id="G">h</appliance><success>{}</success><error_message>e</error_message></health_check>'


def test_health_is_taken_from_json_where_it_tells_enough_and_from_xml_otherwise(tmp_path: Path) -> None:
    told = '{"success": true, "failover_role": "primary", "appliance": {"id": "J", "hostname": "h"}}'
    cases = {
        "J": Machine(health=[page(told, kind=JSON)]),
        "G": Machine(health=[page('{"ok": 1}', kind=JSON)], command=[page(HEALTH.format(0), kind=XML)]),
        "G ": Machine(health=[page("no", "404 Not Found", kind="text/plain")], command=[page(HEALTH.format(1), kind=XML)]),
    }
    for guid, machine in cases.items():
        with scripted(machine, tmp_path) as server:
            assert _api(server).read_health().guid == guid.strip()


@pytest.mark.parametrize(
    "answer",
    [
        page("<error>no</error>", kind=XML),
        page("<health_check><error>no</error></health_check>", kind=XML),
        page("", "403 Forbidden", kind=JSON),
        page("Document Not Found", "404 Not Found", kind="text/plain"),
    ],
)
def test_refusals_of_the_command_api_are_rejections(tmp_path: Path, answer: bytes) -> None:
    with scripted(Machine(health=[page("", "404 Not Found")], command=[answer]), tmp_path) as server, pytest.raises(RejectedError):
        _api(server).read_health()


@pytest.mark.parametrize(
    "body", ["", "<", "{}", "<x/>", "<health_check/>", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>']
)
def test_an_unknown_answer_is_never_health(tmp_path: Path, body: str) -> None:
    with scripted(Machine(health=[page("", "405 No")], command=[page(body, kind=XML)]), tmp_path) as server, pytest.raises(UnexpectedError):
        _api(server).read_health()


def _users(count: int, start: int, total: int | None, last: int = 1) -> bytes:
    rows = ", ".join(f'{{"id": {n}, "username": "u{n}"}}' for n in range(start, start + count))
    headers = {} if total is None else {"X_BT_Pagination_Total": str(total), "X_BT_Pagination_Last_Page": str(last)}
    return page(f"[{rows}]", kind=JSON, **headers)


def test_lists_are_read_over_their_pages_and_counted(tmp_path: Path) -> None:
    with scripted(Machine(user=[_users(100, 0, 250, 3), _users(100, 100, 250, 3), _users(50, 200, 250, 3)]), tmp_path) as server:
        assert len(_api(server).read_users()) == 250
    for wrong in (
        [_users(100, 0, 250, 2), _users(100, 100, 250, 2)],
        [_users(100, 0, None)],
        [page("{}", kind=JSON)],
        [page("[1]", kind=JSON)],
    ):
        with scripted(Machine(user=wrong), tmp_path) as server, pytest.raises(UnexpectedError):
            _api(server).read_users()


def test_too_many_calls_are_waited_out_and_not_for_ever(tmp_path: Path) -> None:
    slow = page("{}", "429 Too Many Requests", kind=JSON, Retry_After="0")
    with scripted(Machine(user=[slow, slow, _users(1, 0, 1)]), tmp_path) as server:
        assert _api(server).read_users() == ("u0",)
    with scripted(Machine(user=[slow]), tmp_path) as server, pytest.raises(RejectedError, match="too many"):
        _api(server).read_users()


def test_a_token_that_ended_early_is_fetched_anew_once(tmp_path: Path) -> None:
    denied = page('{"error": "access_denied"}', "401 Unauthorized", kind=JSON)
    with scripted(Machine(user=[_users(1, 0, 1), denied, _users(2, 0, 2)]), tmp_path) as server:
        api = _api(server)
        api.read_users()
        assert len(api.read_users()) == 2
        assert sum(told.startswith(b"POST /oauth2/token") for told in server.told) == 2
    with scripted(Machine(user=[denied]), tmp_path) as server, pytest.raises(RejectedError):
        _api(server).read_users()


def test_jump_clients_are_understood_with_and_without_the_newer_fields(tmp_path: Path) -> None:
    rows = """[{"id": 1, "name": "a", "is_lost": false, "needs_update": true, "last_connect_timestamp": "2026-01-02T00:00:00+00:00",
                "last_disconnect_timestamp": null},
               {"id": 2, "name": "b", "is_lost": true, "needs_update": false,
                "last_connect_timestamp": 10, "last_disconnect_timestamp": 20},
               {"id": 3, "name": "c", "is_lost": false, "needs_update": false, "connected": true}]"""
    with scripted(Machine(jump_client=[page(rows, kind=JSON, X_BT_Pagination_Total="3")]), tmp_path) as server:
        one, two, three = _api(server).read_jump_clients()
    assert (one.connected, one.needs_update, one.last_seen) == (True, True, 1767312000.0)
    assert (two.connected, two.lost, two.last_seen) == (False, True, 20.0)
    assert (three.connected, three.last_seen) == (True, None)


def test_a_pin_is_of_the_key_and_not_of_the_certificate(tmp_path: Path) -> None:
    bundle = make_bundle()
    renewed = replace(make_bundle("other.example.test"), key=bundle.key)
    assert renewed.chain[0] != bundle.chain[0]
    with pytest.raises(UnexpectedError):
        Pin().check(b"no certificate")
    with pytest.raises(UnexpectedError):
        Pin().check(None)
