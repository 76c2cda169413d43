"""The commands around imports: what they print, ask and refuse; what is left over; and properties on a CD."""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bundles import envelope, make_appliance, make_disk, make_raw, system
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner, Result

from images import cli
from images.disk_headers import Limits
from images.errors import AlteredImageError, ImageInUseError
from images.hardware import DeclaredProperty, MachineHardware
from images.home import Home
from images.import_cli import TimeLeft
from images.import_errors import ChecksumError, DownloadError, EulaError, PropertyError, SourceError
from images.import_image import import_image
from images.import_request import ImportRequest
from images.iso import render_iso
from images.locking import hold
from images.ovf.environment import render_environment, render_environment_iso
from images.store import Store
from kit.errors import UsageError
from kit.process import Child
from kit.secret import Secret

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _at_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXSHIFT_HOME", str(home.root))


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli.images_app, [str(one) for one in argv])


PRODUCT = """<EulaSection><Info>i</Info><License>Pay\x09us</License></EulaSection><ProductSection><Info>i</Info>
<Property ovf:key="host" ovf:type="string" ovf:userConfigurable="true"/>
<Property ovf:key="pass" ovf:type="string" ovf:userConfigurable="true" ovf:password="true" ovf:value="vendor default"/></ProductSection>"""


def test_an_appliance_is_imported_shown_verified_exported_and_removed(home: Home, tmp_path: Path) -> None:
    ova = make_appliance(tmp_path, envelope(system(more=PRODUCT, transport="iso")))
    dry = json.loads(run("import", ova, "--dry-run", "--json").stdout)
    assert (dry["images"], dry["eulas"], dry["planned"][0]["name"]) == ([], ["Pay\tus"], "box")
    assert isinstance(run("import", ova).exception, EulaError)
    done = run("import", ova, "--accept-eula", "--property", "host=h", "--property", "pass=env:BOX", "--json")
    told = json.loads(done.stdout)
    assert "vendor default" not in done.stdout + done.stderr
    assert (told["manifest"], told["trust"], told["images"][0]["hardware"]["memory_mib"]) == ("checked", "unsigned", 512)
    (listed,) = json.loads(run("list", "--json").stdout)
    shown = run("show", "box")
    assert listed["digest"] == told["images"][0]["digest"]
    assert "scsi 0:0 disk disk.qcow2" in shown.stdout
    assert "property pass: env:BOX" in shown.stdout
    assert json.loads(run("verify", "--json").stdout)[0]["whole"] is True
    assert "Would write" in run("export", "box", tmp_path / "out.ova", "--dry-run").stdout
    assert run("export", "box", tmp_path / "out.img", "--json").exit_code == 0
    assert "Would remove box" in run("remove", "box", "--dry-run").stdout
    assert run("remove", "box").exit_code == 0
    assert list(home.images.iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("--property", "nothing"),
        ("--firmware", "coreboot"),
        ("--checksum", "md5:1"),
        ("--name", "../x"),
        ("--property", "host=h"),
        ("--deployment", "x"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path, argv: tuple[str, ...]) -> None:
    assert isinstance(run("import", make_appliance(tmp_path), *argv).exception, UsageError)


def test_an_export_needs_a_format(tmp_path: Path) -> None:
    run("import", make_raw(tmp_path / "box.raw"))
    assert isinstance(run("export", "box", tmp_path / "box.vdi").exception, UsageError)


def test_a_changed_image_is_named_and_the_others_are_still_looked_at(home: Home, tmp_path: Path) -> None:
    run("import", make_raw(tmp_path / "one.raw"))
    run("import", make_raw(tmp_path / "two.raw", mark=b"other"))
    disk = Store(home).read_image("one").disk
    disk.chmod(0o600)
    disk.write_bytes(b"other")
    done = run("verify", "--json")
    assert {row["name"]: row["whole"] for row in json.loads(done.stdout)} == {"one": False, "two": True}
    assert isinstance(done.exception, AlteredImageError)


def test_an_image_under_an_overlay_that_no_ledger_knows_is_not_removed(home: Home, tmp_path: Path) -> None:
    run("import", make_raw(tmp_path / "box.raw"))
    store = Store(home)
    image = store.read_image("box")
    (home.machines / "template").mkdir()
    overlay = home.machines / "template" / "state.img"
    store.make_overlay(image, overlay)
    refused = run("remove", "box").exception
    assert isinstance(refused, ImageInUseError)
    assert str(overlay) in str(refused)
    overlay.unlink()
    assert run("remove", "box").exit_code == 0


def test_what_builds_left_that_were_killed_is_found_and_what_runs_stays(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("dead", "busy"):
        (tmp_path / f"boxshift-build-{name}").mkdir()
        (tmp_path / f"boxshift-build-{name}" / "lock").touch()
        os.utime(tmp_path / f"boxshift-build-{name}", (1, 1))
    dead, busy = "a" * 64, "b" * 64
    (home.layers / f"packages-{dead}.0011.part").write_bytes(bytes(8192))
    (home.layers / f"packages-{dead}.0022.part").mkdir()
    (home.layers / f"packages-{busy}.0033.part").write_bytes(b"half")
    (home.layers / f"packages-{busy}.tar").write_bytes(b"whole")
    with (
        hold(home.locks / f"build-{busy}", what="building", timeout=0),
        hold(tmp_path / "boxshift-build-busy" / "lock", what="building", timeout=0),
    ):
        found = {Path(row["path"]).name for row in json.loads(run("gc", "--json").stdout)}
    assert found == {f"packages-{dead}.0011.part", f"packages-{dead}.0022.part", "boxshift-build-dead"}
    assert {path.name for path in home.layers.iterdir()} == {f"packages-{busy}.0033.part", f"packages-{busy}.tar"}
    assert (tmp_path / "boxshift-build-busy").is_dir()


def test_what_is_left_over_is_shown_and_removed_and_what_is_used_stays(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run("import", make_raw(tmp_path / "box.raw"))
    with Store(home).importing() as busy:
        for name in (".half-999999999-aa", ".gone-0123", "a" * 64):
            (home.images / name).mkdir()
            (home.images / name / "disk.qcow2").write_bytes(bytes(4096))
        found = json.loads(run("gc", "--dry-run", "--json").stdout)
        assert {Path(row["path"]).name for row in found} == {".half-999999999-aa", ".gone-0123", "a" * 64}
        assert (home.images / ".gone-0123").exists()
        assert run("gc").stdout.count("Removed") == 3
        assert busy.exists()
    assert "Nothing is left over" in run("gc").stdout
    assert Store(home).read_image("box")


@pytest.mark.parametrize("wait", [0.0, 0.15, 0.4])
def test_an_import_that_is_killed_leaves_only_what_gc_finds(home: Home, tmp_path: Path, wait: float) -> None:
    source = make_raw(tmp_path / "box.raw", mib=64)
    with source.open("r+b") as disk:
        disk.write(os.urandom(48 << 20))
    body = f"from images.cli import images_app; images_app(['import', {str(source)!r}, '--raw'])"
    root = Path(__file__).parents[2]
    with Child([sys.executable, "-c", body], log=tmp_path / "log", cwd=root) as started:
        end = time.monotonic() + 30
        while not any(home.images.glob(".half-*")) and started.status is None and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(started.pid, signal.SIGKILL)
    run("gc")
    left = [path.name for path in home.images.iterdir()]
    assert [name for name in left if len(name) != 64] == []
    for image in Store(home).list_images():
        Store(home).verify(image, thorough=True)


class _Files(BaseHTTPRequestHandler):
    content = b""
    leads_to = ""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", self.leads_to)
            self.end_headers()
            return
        self.send_response(200 if self.path.startswith("/box.raw") else 404)
        self.send_header("Content-Length", str(len(self.content) + (1000 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An https server on a loopback address, and the certificate of its authority."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now - dt.timedelta(1), now + dt.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    ca, whole = tmp_path / "ca.pem", tmp_path / "server.pem"
    ca.write_bytes(pem)
    whole.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    listening = HTTPServer(("127.0.0.1", 0), _Files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.server_port}", ca
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.mark.network
def test_an_image_is_loaded_over_https_only_as_what_it_should_be(server: tuple[str, Path], home: Home, tmp_path: Path) -> None:
    address, ca = server
    _Files.content = make_raw(tmp_path / "box.raw").read_bytes()
    right = "sha256:" + sha256(_Files.content).hexdigest()

    def bring(path: str, checksum: str = right, **more: object) -> object:
        asked = ImportRequest(f"{address}{path}", checksum=checksum, **({"ca": ca} | more))  # type: ignore[arg-type]
        return import_image(asked, Store(home))

    report = bring("/box.raw?token=secret")
    (image,) = report.images  # type: ignore[attr-defined]
    assert image.name == "box"
    assert "secret" not in (image.folder / "image.json").read_text()
    for path, checksum, error, more in (
        ("/box.raw", "sha256:" + "0" * 64, ChecksumError, {}),
        ("/box.raw", "", SourceError, {}),
        ("/none", right, DownloadError, {}),
        ("/box.raw?short", right, DownloadError, {}),
        ("/box.raw", right, DownloadError, {"limits": Limits(1 << 20)}),
        ("/box.raw", right, DownloadError, {"ca": None}),
    ):
        with pytest.raises(error):
            bring(path, checksum, **more)
    for leads_to in ("http://127.0.0.1:1/box.raw", f"{address}/moved"):
        _Files.leads_to = leads_to
        with pytest.raises(DownloadError):
            bring("/moved")
    assert [path.name for path in home.images.iterdir()] == [image.digest]


@pytest.mark.parametrize(
    "source", ["https://user:word@127.0.0.1/x", "http://127.0.0.1/x", "https:///x", "https://[x/y", "file:///etc/passwd"]
)
def test_addresses_of_other_kinds_are_refused(home: Home, source: str) -> None:
    with pytest.raises(SourceError) as caught:
        import_image(ImportRequest(source, checksum="0" * 64), Store(home))
    assert "word" not in f"{caught.value}{caught.value.hint}".replace("password", "")


def hardware_with(*properties: DeclaredProperty) -> MachineHardware:
    return MachineHardware(properties=properties, transports=("iso",), system_id="box")


def test_properties_are_delivered_on_a_cd_with_their_passwords(hostile_secret: Secret, tmp_path: Path) -> None:
    asked = hardware_with(
        DeclaredProperty("net.ip", "string", value='<10.0.0.1> & "more"', askable=True),
        DeclaredProperty("pass", "string", password=True, reference="env:BOX", askable=True),
        DeclaredProperty("fixed", "string", default="d"),
    )
    environment = render_environment(asked, lambda _: hostile_secret, instance="lab-1")
    space = "{http://schemas.dmtf.org/ovf/environment/1}"
    found = {one.get(f"{space}key"): one.get(f"{space}value") for one in ET.fromstring(environment.reveal()).iter(f"{space}Property")}
    assert found == {"net.ip": '<10.0.0.1> & "more"', "pass": hostile_secret.reveal(), "fixed": "d"}
    raw = render_environment_iso(asked, lambda _: hostile_secret, instance="lab-1")
    assert raw[0x8001:0x8006] == b"CD001"
    assert len(raw) % 2048 == 0
    assert environment.to_bytes() in raw
    assert hostile_secret.reveal() not in repr(asked)


def test_an_open_property_is_asked_for_before_the_start() -> None:
    with pytest.raises(PropertyError, match=r"net\.ip"):
        render_environment(hardware_with(DeclaredProperty("net.ip", "string", askable=True)), lambda _: Secret(""), instance="x")


def test_a_cd_holds_its_files_at_the_places_that_it_says() -> None:
    files = (("b.txt", b"second" * 1000), ("a-file.xml", b"first"), ("empty", b""))
    raw = render_iso(files, label="BOX")
    for volume, encode in ((16, lambda name: f"{name.upper()};1".encode()), (17, lambda name: name.encode("utf-16-be"))):
        root = int.from_bytes(raw[volume * 2048 + 158 : volume * 2048 + 162], "little") * 2048
        for name, content in files:
            record = raw.index(encode(name), root) - 33
            at, length = (int.from_bytes(raw[record + place : record + place + 4], "little") for place in (2, 10))
            assert raw[at * 2048 : at * 2048 + length] == content
    assert int.from_bytes(raw[16 * 2048 + 80 : 16 * 2048 + 84], "little") * 2048 == len(raw)
    for name in ("sub/file", "ñ", "x" * 31, ""):
        with pytest.raises(SourceError):
            render_iso(((name, b""),), label="BOX")


def test_progress_tells_the_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("images.import_cli.time.monotonic", lambda: next(clock))
    shown = TimeLeft(live=False)
    for done in (0, 5, 50, 51, 100):
        shown.update("converting", done, 100)
    shown.close()
    assert capsys.readouterr().err.splitlines() == ["  converting", "  converting 50 %, 20 s left", "  converting 100 %"]


def test_a_disk_in_a_folder_without_a_descriptor_is_not_guessed(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make_disk(folder, "qcow2")
    with pytest.raises(UsageError, match="no OVF descriptor"):
        import_image(ImportRequest(str(folder)), Store(home))
