"""What a person, a file system or a certificate can do to the commands: nothing is lost, nothing hangs, nothing steers the terminal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import stat
import sys
import threading
from pathlib import Path

import certs_servers as servers
import pytest
from certs_desk import ALL, call, quick
from certs_making import HOST, HOSTILE, World, issue
from cryptography import x509
from cryptography.x509.oid import NameOID

import kit.files
from certs import files, inputs, loading
from certs.clock import read_clock_offset
from certs.errors import CertsError, HandshakeError, NotWritableError, TooCostlyError
from certs.read import read_bundle, read_contents
from kit.errors import FailedError, UsageError
from kit.process import Child
from kit.secret import Secret
from kit.waiting import wait_for

pytestmark = pytest.mark.usefixtures("desk")
EVIL = "evil\x1b[2J\x1b]0;owned\x07\nERROR   fake: all is fine\u202egpj.exe"
INPUTS = ("leaf.crt", "chain.pem", "box.key", "roots.pem")


def evil(world: World) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, EVIL), x509.NameAttribute(NameOID.ORGANIZATION_NAME, EVIL)])
    return issue("evil", world.middle, subject=subject, names=[HOST]).pem


def verify_harmless(text: str) -> None:
    assert all(letter.isprintable() or letter == "\n" for letter in text), text
    assert not any(line.startswith("ERROR   fake") for line in text.splitlines()), text


# ---- names that are not harmless


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "evil.pem", "--roots", "roots.pem", "--hostname", "other\x1b[2J.example.com"),
        ("inspect", "evil.pem", "leaf.crt", "other.pem"),
        ("match", "evil.pem", "box.key", "--passphrase", "env:WORD"),
        ("bundle", "evil.pem", "-o", "out", "--dry-run"),
        ("bundle", "evil.pem", "box.key", "--passphrase", "env:WORD", "-o", "out"),
        ("convert", "evil.pem", "-o", "out\x1b[2J", "--dry-run"),
        ("expiry", "evil.pem"),
        ("request", "evil.pem", "-o", "out.csr", "--key-out", "out.key", "--dry-run"),
        ("inspect", "evil.pem", "--json"),
        ("match", "evil.pem", "--json"),
    ],
)
def test_a_name_in_a_certificate_cannot_steer_the_terminal(world, words):
    from typer.testing import CliRunner

    from certs.cli import app

    Path("evil.pem").write_bytes(evil(world))
    Path("other.pem").write_bytes(issue("other.example.com").pem)
    result = CliRunner().invoke(app, list(words))
    assert result.output or result.exception
    verify_harmless(result.output)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, CertsError)
        verify_harmless(f"{result.exception.sentence} {result.exception.hint}")


@pytest.mark.parametrize("name", [b"a\nERROR   fake: x.pem", b"\x1b[2J.pem", b"not-utf8-\xff\xfe.pem", b"-k.pem", "\u202egpj.pem".encode()])
def test_a_file_of_any_name_is_read_and_its_name_is_shown_harmlessly(world, name):
    path = os.fsdecode(name)
    Path(path).write_bytes(b"some text\n" + world.leaf.pem + b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
    for form in ([], ["--json"]):
        output = call("inspect", "--private", *form, "--", path, code=1).output
        verify_harmless(output)
        assert HOST in output
    verify_harmless(str(call("inspect", "--", f"nowhere{path}", errors=CertsError).exception))


def test_ten_thousand_names_make_no_endless_line(world):
    Path("many.pem").write_bytes(issue(HOST, world.middle, names=[HOST, *(f"h{number}.example.com" for number in range(10_000))]).pem)
    output = call("inspect", "many.pem", "chain.pem", "--roots", "roots.pem", "--hostname", "other.example.com", code=3).output
    assert "and 9,976 more" in output
    assert max(map(len, output.splitlines())) < 1500
    assert len(json.loads(call("inspect", "many.pem", "--json", code=3).output)["leaf"]["dns_names"]) == 10_001


def test_a_terminal_without_unicode_still_gets_its_answer(world):
    from typer.testing import CliRunner

    from certs.cli import app

    result = CliRunner(charset="ascii").invoke(app, ["inspect", *ALL])
    assert result.exit_code == 0, result.exception
    assert HOST in result.output


# ---- what is no plain file


def test_a_folder_gives_its_plain_files_and_what_cannot_be_read_is_said(world, monkeypatch):
    folder = Path("heap")
    folder.mkdir()
    (folder / "a.pem").write_bytes(world.leaf.pem)
    (folder / "closed.pem").write_bytes(world.middle.pem)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "deeper").mkdir()
    opened = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("closed.pem"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", refuse)
    output = call("inspect", "heap", "--private", code=1).output
    assert HOST in output
    assert "closed.pem cannot be read: Permission denied" in output
    call("inspect", "heap/closed.pem", errors=CertsError)


def test_a_pipe_is_read_and_one_without_a_writer_does_not_hang(world, monkeypatch):
    monkeypatch.setattr(files, "PIPE_WAIT", 0.3)
    os.mkfifo("pipe")
    assert "The file is empty" in call("inspect", "pipe", code=3).output
    monkeypatch.setattr(files, "PIPE_WAIT", 60.0)
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(world.leaf.pem * 100))
    writer.start()
    assert HOST in call("inspect", "pipe", "--private", code=1).output
    writer.join()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "/proc/self/mem", "loop"])
def test_endless_and_unreadable_things_are_refused_in_time(path):
    Path("loop").symlink_to("loop")
    output = call("inspect", "/dev/zero", code=3).output
    assert "more than 16,777,216 are not read" in output
    if path in {"/proc/self/mem", "loop"}:
        assert "cannot be read" in str(call("inspect", path, errors=CertsError).exception)


def test_too_much_in_all_is_refused(monkeypatch, world):
    monkeypatch.setattr(inputs, "MAX_BYTES_IN_ALL", 1000)
    call("inspect", *INPUTS, errors=TooCostlyError)
    monkeypatch.setattr(inputs, "MAX_FILES", 2)
    call("inspect", ".", errors=TooCostlyError)


# ---- writing where it must not be written


@pytest.mark.parametrize("out", ["leaf.crt", "chain.pem", "box.key", "roots.pem", "./leaf.crt", "pool/a.pem", "word"])
def test_no_file_that_is_read_is_ever_replaced(world, out):
    Path("pool").mkdir()
    Path("pool/a.pem").write_bytes(world.middle.pem)
    before = Path(out).read_bytes()
    error = call(
        "bundle",
        *ALL,
        "--passphrase",
        "file:word",
        "--intermediates",
        "pool",
        "-o",
        out,
        "--for",
        "nginx",
        "--overwrite",
        errors=NotWritableError,
    ).exception
    assert "would be lost" in str(error)
    assert Path(out).read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("bundle", *ALL, "-o", "same", "--passphrase-out", "same"),
        ("bundle", *ALL, "-o", "same", "--passphrase-out", "./same", "--overwrite"),
        ("request", "leaf.crt", "-o", "same", "--key-out", "same", "--overwrite"),
        ("bundle", *ALL, "-o", "-"),
    ],
)
def test_two_things_never_go_into_one_file_and_nothing_onto_the_screen(words):
    call(*words, errors=UsageError)
    assert not Path("same").exists()
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [("link", "symbolic link"), ("pipe", "no plain file"), ("folder", "no plain file"), ("nowhere/out", "is not there")],
)
def test_only_plain_files_are_replaced(place, said):
    Path("target").write_bytes(b"precious")
    Path("link").symlink_to("target")
    os.mkfifo("pipe")
    Path("folder").mkdir()
    assert said in str(call("bundle", *ALL, "-o", place, "--for", "nginx", "--overwrite", errors=NotWritableError).exception)
    assert Path("target").read_bytes() == b"precious"
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def full_disk(monkeypatch, after: int) -> None:
    """Every file takes so many bytes, and no more."""
    written: dict[int, int] = {}
    real = os.write

    def write(handle: int, content: bytes) -> int:
        left = after - written.get(handle, 0)
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(handle, content[:left])
        written[handle] = written.get(handle, 0) + done
        return done

    monkeypatch.setattr(kit.files.os, "write", write)


def test_on_a_full_disk_the_old_file_and_its_passphrase_stay(monkeypatch):
    quick(monkeypatch)
    made = ("bundle", *ALL, "-o", "out.p12", "--passphrase-out", "word.new", "--overwrite")
    call(*made)
    file, word = Path("out.p12").read_bytes(), Path("word.new").read_text()
    full_disk(monkeypatch, 100)  # enough for the passphrase, not for the file
    assert "No space left" in str(call(*made, errors=FailedError).exception)
    assert (Path("out.p12").read_bytes(), Path("word.new").read_text()) == (file, word)
    assert read_bundle(file, Secret(word.strip())).key is not None
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_a_passphrase_that_cannot_be_kept_leaves_no_file_behind(monkeypatch):
    quick(monkeypatch)
    call("bundle", *ALL, "-o", "out.p12", "--passphrase-out", "nowhere/word", errors=NotWritableError)
    call("bundle", *ALL, "-o", "out.p12", "--passphrase-out", "word", errors=NotWritableError)
    assert not Path("out.p12").exists()


def test_split_writes_all_or_nothing_and_never_onto_a_file():
    call("split", *ALL, "-o", "leaf.crt", errors=NotWritableError)
    Path("parts").mkdir()
    Path("parts/key.pem").write_bytes(b"old")
    call("split", *ALL, "-o", "parts", errors=NotWritableError)
    assert [path.name for path in Path("parts").iterdir()] == ["key.pem"]


# ---- what is said, and asked


def test_a_bundle_that_clients_would_refuse_is_written_and_said(world):
    result = call("bundle", "leaf.crt", "-o", "out.pem", "--for", "nginx", code=1)
    assert "issuer_missing" in result.output
    assert "no private key" in result.output
    assert read_contents(Path("out.pem").read_bytes()).certs == (world.leaf.cert,)


def test_at_a_terminal_a_missing_passphrase_is_asked_for_once(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(inputs, "resolve_secret", lambda *_, what, **__: asked.append(what) or HOSTILE)
    (sources, _) = inputs.read_sources([Path("box.key")])
    monkeypatch.setattr(loading, "read_sources", lambda _paths: (sources, []))
    for number, sits in enumerate((False, True)):
        monkeypatch.setattr(sys.stdin, "isatty", lambda sits=sits: sits, raising=False)
        monkeypatch.setattr(sys.stderr, "isatty", lambda sits=sits: sits, raising=False)
        assert len(loading.load_contents([Path("box.key")], ()).keys) == number
    assert asked == ["Passphrase of box.key: block 1, line 1"]


def test_more_rounds_are_allowed_where_that_is_said(world):
    call("bundle", *ALL, "-o", "a.pem", "--for", "nginx", "--max-rounds", "10", errors=TooCostlyError)
    call("bundle", *ALL, "-o", "a.pem", "--for", "nginx", "--max-rounds", "5000000")
    assert "--max-rounds" in str(call("convert", *ALL[:5], "-o", "b", "--max-rounds", "1", errors=TooCostlyError).exception.hint)


@pytest.mark.network
def test_a_host_that_does_not_answer_hides_no_certificate():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens
        place = f"127.0.0.1:{held.getsockname()[1]}"
        result = call("expiry", "leaf.crt", "--host", place, code=4)
        assert "ok " in result.output
        assert place in result.output
        found = json.loads(call("expiry", "leaf.crt", "--host", place, "--within", "400d", "--json", code=3).output)
    assert found["certificates"][0]["due"] is True
    assert found["failures"][0]["code"] == "certs.no_answer"


def test_inspect_says_what_openssl_offers():
    found = json.loads(call("inspect", *ALL, "--json").output)["openssl"]
    assert found["version"]
    assert found["legacy"] is ("RC2" in found["old_ciphers"])
    assert found["fips"] is False
    assert "FIPS mode off" in call("bundle", *ALL, "-o", "out", "--for", "fips", "--dry-run").output


@pytest.mark.process
@pytest.mark.network
def test_interrupting_a_wait_ends_it_at_once_without_a_traceback(world):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts, and never says anything
        words = ["served", f"127.0.0.1:{silent.getsockname()[1]}", "--expect", str(Path("leaf.crt").absolute()), "--wait", "60s"]
        with Child([sys.executable, "-m", "certs", *words], log=Path("log"), cwd=Path(__file__).parents[2]) as child:
            silent.settimeout(60)
            with silent.accept()[0]:
                os.kill(child.pid, signal.SIGINT)
                assert wait_for(lambda: child.status, what="its end", timeout=30) == 130
            assert "Traceback" not in child.said()


@pytest.mark.process
@pytest.mark.network
def test_an_address_that_does_not_answer_hides_nothing_of_the_others(world, tmp_path):
    port = servers.free_port()
    Path("expected.pem").write_bytes(servers.chain_of(world.leaf, world.middle))
    Path("other.pem").write_bytes(issue(HOST, world.middle).pem + world.middle.pem)
    (tmp_path / "nginx").mkdir()
    look = ("served", f"{HOST}:{port}", "--address", servers.LOOPBACK, "--roots", "roots.pem")
    with servers.nginx(tmp_path / "nginx", [servers.Site(port, servers.chain_of(world.leaf, world.middle), world.leaf.key_pem)]):
        both = (*look, "--address", "127.0.0.99", "--expect", "expected.pem")
        output = call(*both, code=4).output
        assert "SAME: " in output
        assert f"Nothing answers at 127.0.0.99 port {port}" in output
        found = json.loads(call(*both, "--json", code=4).output)["served"]
        assert [each["verdict"] for each in found] == ["same", None]
        assert found[1]["error"]["code"] == "certs.no_answer"
        # a wait that ends without a match says what is there, address by address
        output = call(*look, "--expect", "other.pem", "--wait", "2s", code=3).output
    assert "The time is up" in output
    assert "OTHER KEY: " in output


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", *ALL, "--hostname", ""),
        ("inspect", *ALL, "--clock-of", ""),
        ("served", "127.0.0.1", "--address", ""),
        ("served", "127.0.0.1", "--expect", "leaf.crt", "--wait", ""),
        ("bundle", *ALL, "-o", "out", "--new-passphrase", ""),
        ("split", *ALL, "-o", "out", "--new-passphrase", ""),
        ("request", "leaf.crt", "-o", "out", "--key-out", "key", "--new-passphrase", ""),
    ],
)
def test_a_variable_that_is_not_set_does_not_pass_for_nothing_wanted(words):
    call(*words, errors=UsageError)
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_roots_that_never_end_are_refused(monkeypatch):
    monkeypatch.setattr(files, "PIPE_WAIT", 0.2)
    os.mkfifo("pipe")
    for path in ("/dev/zero", "pipe"):
        call("inspect", "leaf.crt", "--roots", path, errors=CertsError)


@pytest.mark.network
def test_a_box_that_dribbles_its_clock_is_not_listened_to_for_ever(world, tmp_path):
    (tmp_path / "pair.pem").write_bytes(world.leaf.pem + world.leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    stop = threading.Event()

    def dribble(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as talk:
            talk.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.1):
                talk.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=dribble, args=(listener,))
        server.start()
        with pytest.raises(HandshakeError, match="clock"):
            read_clock_offset("127.0.0.1", listener.getsockname()[1], timeout=1.0)
        stop.set()
        server.join(10)
    assert not server.is_alive()
