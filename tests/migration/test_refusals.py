"""What boxshift refuses before anything is changed: each with one sentence, a hint, the documented exit code, and both boxes untouched."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import socketserver
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from bad_certificates import make_chain
from rig import wait_until
from theatre import LIMIT, Answer, Theatre, edit, wait_end_quietly

from certs.served import read_pin
from migrate.demo.stage import SITE

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
# A sentence begins with a capital, a figure, or a host's name as it is written.
SENTENCE = re.compile(r"^([A-Z0-9]|[a-z0-9-]+\.[a-z]).*([.!?]|: .*|\(\d+ more\))$")


@pytest.fixture(scope="module")
def fresh(theatre: Theatre) -> Theatre:
    """Both boxes stand; nothing has been run. Every test here leaves it so, or says what it broke."""
    theatre.at("fresh")
    return theatre


GONE = 'machine: {{name: old, hypervisor: "qemu:///system?socket=/nonexistent/libvirt-sock"}}'  # braces doubled: it is a format


def verify_refused(answer: Answer, code: int, name: str, *words: str) -> dict[str, Any]:
    """One sentence with these words, a hint, the exit code; and nothing on the screen but that."""
    assert answer.code == code, answer.all
    error = answer.error
    assert name in [error["code"], *error["kinds"]], answer.all
    assert SENTENCE.match(error["sentence"]), error
    assert "\n" not in error["sentence"], error
    assert error["hint"], f"no hint: {error}"
    assert error["kinds"][-1] == "boxshift"
    for word in words:
        assert word in f"{error['sentence']} {error['facts']}", answer.all
    return error


def verify_nothing_begun(theatre: Theatre) -> None:
    """No run was begun, and nobody has tried to log in to the new box."""
    assert list((theatre.runs / "runs").iterdir()) == []
    assert failed_logins(theatre.rig.stage.new_box) == {}


def failed_logins(box: Any) -> dict[str, int]:
    """What the box itself has counted, by console."""
    counted = {}
    for console in ("box", "site"):
        with closing(sqlite3.connect(f"file:{box.root}/data/{console}.db?mode=ro", uri=True)) as database:
            failed = database.execute("select sum(failed) from account").fetchone()[0]
            if failed:
                counted[console] = int(failed)
    return counted


# ---- what the plan itself says


def test_a_plan_with_five_faults_tells_all_of_them_at_their_lines(fresh: Theatre) -> None:
    plan = fresh.folder / "faulty.yaml"
    text = fresh.plan.read_text()
    for old, new in (
        ("boxshift: 1", "boxshift: 2"),
        ("method: dns", "method: magic"),
        ("ttl: 2", "ttl: -3"),
        ("accept_eula: true", "accept_eula: perhaps"),
        ("data: resync", "data: resync\n  colour: blue"),
    ):
        assert old in text
        text = text.replace(old, new)
    plan.write_text(text)
    answer = fresh.ask("check", str(plan), "--json")
    error = verify_refused(answer, 2, "plan", "5 faults")
    lines = error["facts"]["faults"].splitlines()
    assert len(lines) == 5
    for line in lines:
        number = int(re.match(r"line (\d+): ", line)[1])  # type: ignore[index]
        setting = line.split(": ")[1].rsplit(".", 1)[-1]
        assert setting in text.splitlines()[number - 1], line
    for word in ("run", "plan"):
        again = fresh.ask(word, str(plan))
        assert again.code == 2
        assert all(line in again.err for line in lines)
    plan.unlink()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("127.{net}.1.12", "127.{net}.1.11", "the same administration address"),
        ("reached_at: 127.{net}.0.12", "reached_at: 127.{net}.0.11", "the same service address"),
    ],
)
def test_one_address_for_both_boxes_is_a_fault_of_the_plan(fresh: Theatre, old: str, new: str, words: str) -> None:
    net = fresh.rig.stage.new.admin.split(".")[1]
    with changed(fresh, old.format(net=net), new.format(net=net)):
        answer = fresh.ask_plan("check", "--json")
    assert words in verify_refused(answer, 2, "plan")["facts"]["faults"]


def test_missing_secrets_are_told_all_at_once_before_anything_is_tried(fresh: Theatre) -> None:
    with changed(fresh, "backup:", "backup_gone:", file="secrets.yaml"), changed(fresh, "safety_copy:", "safety:", file="secrets.yaml"):
        answers = [fresh.ask_plan("check", "--json"), fresh.on_plan("run", "--yes", "--json")]
    for answer in answers:
        error = verify_refused(answer, 2, "usage", "2 secrets")
        assert "under backup" in error["facts"]["faults"]
        assert "under safety_copy" in error["facts"]["faults"]
    verify_nothing_begun(fresh)


def test_a_secrets_file_that_others_can_read_is_refused(fresh: Theatre) -> None:
    secrets = fresh.folder / "secrets.yaml"
    secrets.chmod(0o640)
    try:
        answer = fresh.on_plan("run", "--yes", "--json")
    finally:
        secrets.chmod(0o600)
    assert "chmod 600" in verify_refused(answer, 2, "usage", "can be read by others")["hint"]
    verify_nothing_begun(fresh)


@contextmanager
def changed(theatre: Theatre, old: str, new: str, file: str = "plan.yaml") -> Iterator[None]:
    """The plan, or its secrets, with one passage changed."""
    path = theatre.folder / file
    before = path.read_text()
    edit(path, old, new)
    try:
        yield
    finally:
        path.write_text(before)


# ---- what the world says: `check` tells it, and `run` stops there


@dataclass(frozen=True)
class Case:
    """One thing that is wrong. ``spoil`` makes it so for the length of a block."""

    name: str
    code: int
    error: str
    words: tuple[str, ...]
    spoil: Callable[[Theatre], AbstractContextManager[None]]


def of_old(fault: str, value: str = "on") -> Callable[[Theatre], AbstractContextManager[None]]:
    return lambda theatre: theatre.fault(theatre.rig.stage.old_box, fault, value)


def of_plan(old: str, new: str) -> Callable[[Theatre], AbstractContextManager[None]]:
    def spoil(theatre: Theatre) -> AbstractContextManager[None]:
        stage = theatre.rig.stage
        plan = theatre.read_plan()
        words = {
            "old_pin": plan.old.pin,
            "new_pin": plan.new.pin,
            "old": stage.old.admin,
            "new": stage.new.admin,
            "old_service": stage.old.visible,
            "site_pin": read_pin(stage.old.visible, stage.port),
        }
        return changed(theatre, old.format(**words), new.format(**words))

    return spoil


@contextmanager
def box_off(theatre: Theatre, which: str) -> Iterator[None]:
    box = getattr(theatre.rig.stage, f"{which}_box")
    box.stop()
    try:
        yield
    finally:
        box.start()


@contextmanager
def name_server_off(theatre: Theatre) -> Iterator[None]:
    names = theatre.rig.scene.names
    names.stop_one(names.primary)
    try:
        yield
    finally:
        names.start_one(names.primary)


@contextmanager
def record_elsewhere(theatre: Theatre) -> Iterator[None]:
    before = theatre.record()
    theatre.set_record("127.0.0.99", before[1])
    try:
        yield
    finally:
        theatre.set_record(*before)


@contextmanager
def another_box_at_old_address(theatre: Theatre) -> Iterator[None]:
    """As when somebody swapped two plugs: the new box's key is expected, the old one's is served."""
    with of_plan("pin: {old_pin}", "pin: " + "ab" * 32)(theatre):
        yield


@contextmanager
def forwarded_to_old(theatre: Theatre) -> Iterator[None]:
    """What the plan takes for the new box is a port forward to the old one."""
    stage = theatre.rig.stage
    elsewhere = stage.new.admin.removesuffix("12") + "13"
    spoil = of_plan(
        "address: {new}\n  port: " + f"{stage.port}\n" + "  pin: {new_pin}",
        f"address: {elsewhere}\n  port: {stage.port}\n" + "  pin: {old_pin}",
    )
    with forwarding((elsewhere, stage.port), (stage.old.admin, stage.port)), spoil(theatre):
        yield


@contextmanager
def forwarding(here: tuple[str, int], there: tuple[str, int]) -> Iterator[None]:
    """Pass on every connection, as a router does."""

    class Pass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(there) as far:
                back = threading.Thread(target=copy, args=(far, self.request), daemon=True)
                back.start()
                copy(self.request, far)
                back.join()

    with socketserver.ThreadingTCPServer(here, Pass) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def wrong_key(theatre: Theatre) -> AbstractContextManager[None]:
    secret = theatre.rig.scene.secrets.tsig.reveal()
    return changed(theatre, secret, ("A" if secret[0] != "A" else "B") + secret[1:], file="secrets.yaml")


WRONG = (
    Case("clock-ahead", 3, "blocked", ("clock of the old box", "clock-off"), of_old("clock", "3600")),
    Case("clock-behind", 3, "blocked", ("clock of the old box", "clock-off"), of_old("clock", "-90")),
    Case("unhealthy", 3, "blocked", ("not healthy",), of_old("unhealthy")),
    Case("old-off", 4, "unreachable", (), lambda theatre: box_off(theatre, "old")),
    Case("new-off", 4, "unreachable", (), lambda theatre: box_off(theatre, "new")),
    Case("old-has-another-key", 5, "changed", ("old box", "another key"), another_box_at_old_address),
    Case("new-has-another-key", 5, "changed", ("new box", "another key"), of_plan("pin: {new_pin}", "pin: " + "cd" * 32)),
    Case("old-has-another-guid", 5, "plan-outdated", ("GUID", "wrong-box"), of_plan("pin: {old_pin}", "pin: {old_pin}\n  guid: 'f00'")),
    Case("old-has-another-serial", 5, "plan-outdated", ("serial",), of_plan("pin: {old_pin}", "pin: {old_pin}\n  serial: '0012'")),
    Case(
        "old-was-updated",
        5,
        "plan-outdated",
        ("site software 22.1.4", "22.1.3"),
        of_plan("pin: {old_pin}", "pin: {old_pin}\n  expect: {{site: 22.1.3}}"),
    ),
    Case("same-box-through-a-forward", 3, "refused", ("same box",), forwarded_to_old),
    Case(
        "no-such-service", 3, "blocked", ("service address",), of_plan("service: {{address: {old_service}", "service: {{address: 127.9.9.9")
    ),
    Case("name-server-off", 4, "dns-unreachable", (), name_server_off),
    Case("name-server-refuses-key", 4, "dns-key-refused", (), wrong_key),
    Case("record-elsewhere", 3, "dns-record", ("does not point to the old box",), record_elsewhere),
)


def test_check_tells_of_a_hypervisor_that_does_not_answer(fresh: Theatre) -> None:
    with of_plan("pin: {old_pin}", f"pin: {{old_pin}}\n  {GONE}")(fresh):
        answer = fresh.on_plan("check", "--json")
    verify_refused(answer, 4, "unreachable", "hypervisor")
    verify_nothing_begun(fresh)


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_check_refuses(fresh: Theatre, case: Case) -> None:
    with case.spoil(fresh):
        answer = fresh.ask_plan("check", "--json")
    verify_refused(answer, case.code, case.error, *case.words)
    if case.error in {"blocked", "plan-outdated"}:  # a blocker is told among all that was found
        assert any(finding["severity"] == "blocker" for finding in answer.json["findings"])
    verify_nothing_begun(fresh)


def test_the_old_box_behind_its_other_address_is_recognised_without_a_login(fresh: Theatre) -> None:
    stage = fresh.rig.stage
    spoil = of_plan(
        "address: {new}\n  port: {port}\n  pin: {new_pin}".replace("{port}", str(stage.port)),
        "address: {old_service}\n  port: " + str(stage.port) + "\n  pin: {site_pin}",
    )
    before = failed_logins(stage.old_box)
    with spoil(fresh):
        answer = fresh.on_plan("run", "--yes", "--json")
    assert answer.code == 3, answer.all
    assert "same box" in answer.err
    assert failed_logins(stage.old_box) == before
    fresh.at("fresh")


PASSWORDS = {"old_site": "site", "old_appliance": "box", "old_api": ""}


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_wrong_password_is_tried_exactly_once(fresh: Theatre, name: str) -> None:
    fresh.at("fresh")
    secret = fresh.rig.scene.secrets
    text = getattr(secret, name).reveal()
    with changed(fresh, json.dumps(text), json.dumps(text + "x"), file="secrets.yaml"):
        answer = fresh.on_plan("run", "--yes", "--json")
        assert answer.code == 4, answer.all
        console = PASSWORDS[name]
        assert failed_logins(fresh.rig.stage.old_box) == ({console: 1} if console else {})
        assert fresh.rig.status().waiting == ("read-old",)
    if name != "old_site":
        return
    # The cause is mended: retry reads the secret anew and goes on, past everything that needs it.
    with fresh.start("retry", str(fresh.plan)) as child:
        assert wait_until(lambda: {"backup-old", "archive-extras"} <= set(fresh.finished()), child, LIMIT), fresh.rig.said()
        os.kill(child.pid, signal.SIGTERM)
        assert wait_end_quietly(child) == 130, fresh.rig.said()
    assert fresh.rig.status().node("read-old").attempt == 2
    assert failed_logins(fresh.rig.stage.old_box) == {}


# ---- the certificate


@pytest.mark.parametrize(
    ("name", "days", "complete", "words"),
    [
        (SITE, -3, True, ("expired",)),
        ("other.example.test", 90, True, ("name",)),
        (SITE, 90, False, ("chain",)),
    ],
    ids=["expired", "another-name", "chain-incomplete"],
)
def test_a_certificate_that_would_fail_visitors_is_refused(
    fresh: Theatre, name: str, days: int, complete: bool, words: tuple[str, ...]
) -> None:
    fresh.at("fresh")
    made = make_chain(name, days=days, complete=complete)
    (fresh.folder / "root.pem").write_text(made.root)
    with closing(sqlite3.connect(fresh.rig.stage.old_box.root / "data" / "box.db")) as database, database:
        database.execute("update address set certificate = null")
        database.execute("delete from certificate where not built_in")
    stage = fresh.rig.stage
    stage.old_box.seed({"certificate_pem": made.chain, "key_pem": made.key})
    edit(fresh.plan, f"pin: {fresh.read_plan().old.pin}", f"pin: {read_pin(stage.old.admin, stage.port)}")
    answer = fresh.ask_plan("check", "--json")
    verify_refused(answer, 3, "blocked", *words)
    verify_nothing_begun(fresh)
