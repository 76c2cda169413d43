"""Machines of imported images on a hypervisor in memory: what they get, how they are found ready, and what stays after a kill."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import threading
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, Killed

import images.lab
from images.domain import Forward
from images.errors import AlteredImageError, NotReadyError, SpecError, UnknownImageError
from images.hardware import Bus, Card, Controller, DeclaredProperty, Drive, DriveKind, MachineHardware
from images.home import Home
from images.hypervisor import Power
from images.lab import ensure_lab, make_forwards, read_log, reserve_lab, start_lab
from images.ledger import Ledger
from images.machine import MachineSpec
from images.readiness import wait_for_ready
from images.ready_page import ReadyPage, Speech, ask_page, parse_ready_page
from images.reap import apply_reap, plan_reap
from images.snapshot import restore_snapshot, take_snapshot
from images.store import Image, Imported, Origin
from images.template import Without, ensure_template
from kit.errors import UnreachableError, UsageError
from kit.progress import Silent

ASKED = (
    DeclaredProperty("box.name", "string", value="frontdoor", askable=True),
    DeclaredProperty("box.password", "string", askable=True, password=True, reference="env:BOX_PASSWORD"),
)
HARDWARE = MachineHardware(
    chipset="pc",
    cores=2,
    memory_mib=512,
    controllers=(Controller(Bus.SCSI, 0, "lsilogic"),),
    drives=(
        Drive(DriveKind.DISK, "disk.qcow2", 1 << 20, Bus.SCSI, 0, 0, 1),
        Drive(DriveKind.DISK, "disk-2.qcow2", 1 << 20, Bus.SCSI, 0, 1),
        Drive(DriveKind.CDROM, "", 0, Bus.SCSI, 0, 2),
    ),
    cards=(Card("vmxnet3", "lan"), Card("e1000", "wan")),
    properties=ASKED,
    transports=("iso",),
)


@pytest.fixture
def vendor(machines: FakeMachines, monkeypatch: pytest.MonkeyPatch, hostile_password: str) -> Image:
    """An imported image with two disks, two cards and two questions."""
    monkeypatch.setenv("BOX_PASSWORD", hostile_password)
    monkeypatch.setattr(images.lab, "is_taken", lambda _: False)
    with machines.store.importing() as folder:
        for name in ("disk.qcow2", "disk-2.qcow2"):
            (folder / name).write_bytes(name.encode())
        return machines.store.add(folder, Imported("vendor", "imported", (), 512, 2, HARDWARE, Origin("vendor.ova")))


@pytest.fixture
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.lab, "wait_for_ready", lambda machines, name, **_: machines.read_machine(name))


def test_it_gets_overlays_of_all_its_disks_and_the_hardware_that_it_declares(
    machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image
) -> None:
    facts = machines.ensure_machine(MachineSpec("new", vendor.digest, "r"))
    xml = ET.fromstring(str(hypervisor.domains["new"][2]))
    sources = [one.get("file") for one in xml.iterfind("devices/disk/source")]
    folder = facts.disk.parent
    assert sources == [str(folder / name) for name in ("disk.qcow2", "disk-2.qcow2", "properties.iso")]
    assert {one.get("model") for one in xml.iterfind("devices/controller[@type='scsi']")} == {"lsilogic"}
    assert (xml.findtext("memory"), xml.findtext("vcpu")) == ("512", "2")
    assert facts.ready == ReadyPage()


def test_the_answers_are_on_a_cd_that_only_we_can_read_and_go_when_it_is_taken_out(
    machines: FakeMachines, vendor: Image, hostile_password: str
) -> None:
    facts = machines.ensure_machine(MachineSpec("new", vendor.digest, "r"))
    disc = facts.disk.with_name("properties.iso")
    content = disc.read_bytes().decode(errors="replace")
    assert disc.stat().st_mode & 0o777 == 0o600
    assert "frontdoor" in content
    assert hostile_password.replace('"', "&quot;") in content
    machines.ensure_stopped("new")
    machines.ensure_undefined("new")
    assert not disc.exists()
    assert facts.disk.exists()


def test_asked_for_other_memory_and_processors_it_gets_these(machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image) -> None:
    machines.ensure_machine(MachineSpec("new", vendor.digest, "r", memory_mib=1024, cpus=3))
    xml = ET.fromstring(str(hypervisor.domains["new"][2]))
    assert (xml.findtext("memory"), xml.findtext("vcpu")) == ("1024", "3")


def test_a_question_that_nobody_answered_is_told_and_nothing_is_started(
    machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOX_PASSWORD")
    with pytest.raises(UsageError, match="BOX_PASSWORD"):
        machines.ensure_machine(MachineSpec("new", vendor.digest, "r"))
    assert not hypervisor.domains


@pytest.mark.usefixtures("_answers")
def test_in_a_lab_it_is_booted_with_the_reason_and_goes_through_stop_start_logs_and_down(
    machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image
) -> None:
    hypervisor.uri, hypervisor.agent_answers = "qemu:///fake", False
    (box,) = ensure_lab(machines, reserve_lab(machines, vendor, 1))
    assert (box.path, box.power) == ("cold", "running")
    assert "was imported" in box.reason
    assert (machines.read_machine(box.name).memory_mib, machines.read_machine(box.name).cpus) == (512, 2)
    machines.read_machine(box.name).console_log.write_text("login: \n")
    assert read_log(machines, box.name, lines=5) == "login:\n"
    machines.ensure_stopped(box.name)
    assert start_lab(machines, box.name).power == "running"
    assert machines.ensure_removed(box.name)
    assert not list(machines.home.machines.iterdir())


def test_there_is_no_template_of_it_and_the_reason_is_said(machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image) -> None:
    hypervisor.uri = "qemu:///fake"
    found = ensure_template(machines, vendor, 1, lambda: make_forwards(40)[0], progress=Silent())
    assert isinstance(found, Without)
    assert "unique" in found.reason
    assert "define" not in hypervisor.calls


def test_a_built_image_that_shows_no_certificate_is_booted_and_found_ready_in_its_own_way(
    machines: FakeMachines, hypervisor: FakeHypervisor
) -> None:
    hypervisor.uri = "qemu:///fake"
    with machines.store.importing() as folder:
        for name in ("disk.qcow2", "kernel", "initrd"):
            (folder / name).write_bytes(b"plain")
        plain = machines.store.add(folder, Imported("plain", "inputs", (), 256, 1, ready=ReadyPage(Speech.SSH, 22)))
    assert machines.ensure_machine(MachineSpec("new", plain.digest, "r")).ready == ReadyPage(Speech.SSH, 22)
    found = ensure_template(machines, plain, 1, lambda: make_forwards(40)[0], progress=Silent())
    assert isinstance(found, Without)
    assert "certificate" in found.reason


@pytest.mark.process
def test_a_snapshot_keeps_all_its_disks(machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image) -> None:
    disk = machines.ensure_machine(MachineSpec("new", vendor.digest, "r")).disk
    disks = (disk, disk.with_name("disk-2.qcow2"))
    for one in disks:
        one.write_bytes(b"as it was")
    take_snapshot(machines, "new", "fresh")
    for one in disks:
        one.write_bytes(b"changed")
    hypervisor.identity_agent = False
    assert restore_snapshot(machines, "new", "fresh") is False
    assert [one.read_bytes() for one in disks] == [b"as it was"] * 2


def test_a_page_on_a_port_of_its_own_gets_a_forward(machines: FakeMachines, vendor: Image) -> None:
    for port, host_port in ((5480, 5480), (80, 8080), (8443, 18443)):
        page = ReadyPage(Speech.HTTPS, port)
        (planned,) = reserve_lab(machines, vendor, 1, ready=page)
        assert Forward(planned.forwards[0].host, host_port, "10.0.2.15", port) in planned.forwards
        assert planned.ready == page


def test_what_shows_that_it_is_ready_is_remembered_with_the_machine(machines: FakeMachines, vendor: Image) -> None:
    page = ReadyPage(Speech.HTTP, 8080, "/a?b=c", 204, "señal")
    machines.ensure_machine(MachineSpec("new", vendor.digest, "r", ready=page))
    assert Ledger(machines.home.ledger).find_name("new").ready == page


def test_a_ledger_from_before_there_were_such_machines_is_read_on(home: Home) -> None:
    with sqlite3.connect(home.ledger) as base:
        base.execute(
            "CREATE TABLE machine (request TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL UNIQUE, mark TEXT NOT NULL, "
            "mac TEXT NOT NULL, state TEXT NOT NULL, image TEXT NOT NULL, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL, "
            "forwards TEXT NOT NULL)"
        )
        base.execute("INSERT INTO machine VALUES ('r', 'old', 'u', 'm', 'mac', 'booted', 'i', 1, 1, '[]')")
    base.close()
    assert [(one.name, one.ready) for one in Ledger(home.ledger).list_entries()] == [("old", None)]


@pytest.mark.parametrize("when", ["define", "start"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_it_is_made_it_is_completed_or_reaped(
    machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image, when: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(verb: str) -> None:
        if verb == when:
            raise Killed

    hypervisor.uri = "qemu:///fake"
    (planned,) = reserve_lab(machines, vendor, 1)
    setattr(hypervisor, moment, die)
    with pytest.raises(Killed):
        machines.ensure_machine(planned)
    setattr(hypervisor, moment, lambda _: None)
    assert not machines.ensure_machine(planned).power.is_off
    monkeypatch.setattr(images.reap, "is_alive", lambda _: False)
    for one in plan_reap(machines):
        apply_reap(machines, one)
    assert not hypervisor.domains
    assert not list(machines.home.machines.iterdir())


def test_a_machine_whose_image_was_altered_is_not_started_again(machines: FakeMachines, vendor: Image) -> None:
    machines.ensure_machine(MachineSpec("new", vendor.digest, "r"))
    machines.ensure_stopped("new")
    disk = vendor.folder / "disk-2.qcow2"
    disk.chmod(0o600)
    disk.write_bytes(b"another")
    with pytest.raises(AlteredImageError, match="disk-2"):
        machines.ensure_started("new")


def test_a_machine_whose_image_is_gone_can_still_be_seen_stopped_and_removed(machines: FakeMachines, vendor: Image) -> None:
    machines.ensure_machine(MachineSpec("new", vendor.digest, "r"))
    machines.store.remove(vendor)
    assert machines.read_power("new") is Power.RUNNING
    assert machines.ensure_machine(MachineSpec("new", vendor.digest, "r")).name == "new"
    assert machines.ensure_stopped("new").is_off
    with pytest.raises(UnknownImageError):
        machines.ensure_started("new")
    assert machines.ensure_removed("new")


def test_one_that_never_answers_is_told_apart_from_one_whose_agent_is_silent(
    machines: FakeMachines, hypervisor: FakeHypervisor, vendor: Image
) -> None:
    hypervisor.agent_answers = False
    machines.ensure_machine(MachineSpec("new", vendor.digest, "r", ready=ReadyPage(Speech.HTTPS, 443, "/login")))
    with pytest.raises(NotReadyError, match="its page does not answer") as caught:
        wait_for_ready(machines, "new", timeout=0.05)
    assert caught.value.facts["stage"] == "no_page"
    assert "https:443/login" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("tls", ReadyPage()),
        ("ssh", ReadyPage(Speech.SSH, 22)),
        ("ssh:8022", ReadyPage(Speech.SSH, 8022)),
        ("tls:8443", ReadyPage(Speech.TLS, 8443)),
        ("https", ReadyPage(Speech.HTTPS)),
        ("https/login?next=/a", ReadyPage(Speech.HTTPS, 443, "/login?next=/a")),
        ("http:8080/s", ReadyPage(Speech.HTTP, 8080, "/s")),
        ("http", ReadyPage(Speech.HTTP, 80)),
    ],
)
def test_pages_are_named_in_a_word(word: str, page: ReadyPage) -> None:
    assert parse_ready_page(word) == page


@pytest.mark.parametrize(
    "word", ["", "tcp:22", "https://box/", "https:0/", "https:70000/", "tls/x", "https /", "https:443/a b", "https/\r\nX: y"]
)
def test_what_is_no_page_is_refused(word: str) -> None:
    with pytest.raises(SpecError):
        parse_ready_page(word)


@pytest.mark.parametrize("more", [{"status": 200}, {"text": "x"}])
def test_a_handshake_is_not_asked_for_more(more: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        parse_ready_page("tls", **more)


@pytest.fixture
def port() -> Iterator[int]:
    """An appliance that says over plain HTTP how it does."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/up": 200, "/moved": 302, "/down": 503}.get(self.path, 404))
            self.end_headers()
            self.wfile.write("todo está listo".encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.network
@pytest.mark.parametrize(
    ("path", "status", "text", "is_ready"),
    [
        ("/up", None, "", True), ("/up", 200, "está listo", True), ("/up", None, "not there", False), ("/up", 204, "", False),
        ("/moved", None, "", True), ("/other", None, "", True), ("/down", None, "", False), ("/down", 503, "listo", True),
    ],
)  # fmt: skip
def test_status_and_text_of_the_page_decide(port: int, path: str, status: int | None, text: str, is_ready: bool) -> None:
    assert ask_page(ReadyPage(Speech.HTTP, 80, path, status, text), "127.0.0.1", port) is is_ready


@pytest.mark.network
@pytest.mark.parametrize(("greeting", "is_ready"), [(b"SSH-2.0-box\r\n", True), (b"220 mail\r\n", False), (b"", False)])
def test_a_port_that_only_takes_the_connection_does_not_greet(greeting: bytes, is_ready: bool) -> None:
    """User networking takes the connection for a machine in which nothing listens, and drops it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        assert ask_page(ReadyPage(Speech.SSH, 22), "127.0.0.1", server.getsockname()[1]) is is_ready


@pytest.mark.network
@pytest.mark.parametrize("speech", [Speech.TLS, Speech.HTTPS])
def test_another_speech_on_the_port_is_no_answer(port: int, speech: Speech) -> None:
    with pytest.raises(UnreachableError):
        ask_page(ReadyPage(speech), "127.0.0.1", port)
