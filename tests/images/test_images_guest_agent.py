"""The agent inside the guest, as far as it can be tried outside of one: what it asks of services, and what it answers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import struct
import threading
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from images import identity
from images.domain import IDENTITY_PORT
from images.errors import IdentityError

SOURCE = Path(identity.__file__).parent / "guest/usr/local/lib/boxshift/identity.py"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = importlib.util.spec_from_file_location("guest_identity", SOURCE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    for name in ("SOCKETS", "PROGRAMS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(module, name, tmp_path / name)
    return module


def test_both_sides_mean_the_same_port_and_the_same_version(agent: ModuleType) -> None:
    assert (agent.PORT, agent.VERSION) == (IDENTITY_PORT, identity.VERSION)


@pytest.mark.parametrize(
    "line", [b"", b"no json\n", b"{}\n", b'{"ask": "fly"}\n', b'{"ask": "prepare", "cards": ["02:no:such"]}\n', b"[]\n"]
)
def test_whatever_goes_wrong_is_answered_and_not_fatal(agent: ModuleType, line: bytes) -> None:
    answer = agent.answer(line)
    assert answer["ok"] is False
    assert answer["error"]


def test_hello_tells_how_long_it_runs(agent: ModuleType) -> None:
    answer = agent.answer(b'{"ask": "hello"}\n')
    assert answer["ok"] is True
    assert answer["uptime"] > 0


def test_new_randomness_goes_into_the_kernel_before_anything_is_made(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for name in ("stir", "take_name", "write", "renew_boot_id", "find_cards", "replace_key"):
        monkeypatch.setattr(agent, name, lambda *_, name=name, **__: seen.append(name) or {})
    monkeypatch.setattr(agent, "telling_services", lambda _: contextlib.nullcontext(lambda: seen.append("services") or {}))
    monkeypatch.setattr(agent.time, "clock_settime", lambda *_: seen.append("clock"))
    asked = {"ask": "renew", "entropy": "AAAA", "time": 1.0, "name": "lab-31", "machine_id": "a" * 32, "serial": "S", "cards": {}}
    asked |= {"idle": {}, "ports": [], "certificate": {}}
    asked["host_keys"] = {"ssh_host_ed25519_key": {"private": "p", "public": "q"}}
    assert agent.answer(json.dumps(asked).encode())["ok"] is True
    assert seen[:2] == ["stir", "clock"]
    assert {"renew_boot_id", "replace_key", "services"} <= set(seen[2:])


def test_a_card_on_a_segment_keeps_its_address_over_a_restart(agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(agent, "NETWORKS", tmp_path)
    monkeypatch.setattr(agent, "find_cards", lambda macs: dict.fromkeys(macs, "eth1"))
    monkeypatch.setattr(agent, "set_network", lambda *what: given.append(what))
    port = {"mac": "52:54:01:aa:bb:cc", "address": "10.123.7.1/24"}
    assert agent.answer(json.dumps({"ask": "plug", "ports": [port]}).encode()) == {"ok": True}
    assert [(card, str(address)) for card, address in given] == [("eth1", "10.123.7.1/24")]
    told = (tmp_path / "04-boxshift-segment0.network").read_text()
    assert "MACAddress=52:54:01:aa:bb:cc\n" in told
    assert "Address=10.123.7.1/24\n" in told


@pytest.mark.network
def test_an_address_of_its_own_answers_to_nobody(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """No neighbour stands on the loopback interface, so that none is found within the time that is given."""
    monkeypatch.setattr(agent, "find_cards", lambda macs: dict.fromkeys(macs, "lo"))
    asked = {"ask": "reach", "mac": "52:54:01:aa:bb:cc", "peers": ["127.0.0.9"], "seconds": 0.1}
    assert agent.answer(json.dumps(asked).encode()) == {"ok": True, "found": {"127.0.0.9": ""}}


def test_the_clock_is_moved_by_what_is_asked(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[float] = []
    monkeypatch.setattr(agent.time, "clock_settime", lambda _, moment: moved.append(moment))
    monkeypatch.setattr(agent.time, "time", lambda: 1000.0)
    assert agent.answer(b'{"ask": "clock", "by": 0}') == {"ok": True, "time": 1000.0}
    assert moved == []
    agent.answer(b'{"ask": "clock", "by": -2.5}')
    assert moved == [997.5]


class Inside:
    """A machine whose clock is off, and that answers late."""

    def __init__(self, off: float, late: float) -> None:
        self.off, self.late, self.here = off, late, 1000.0

    def time(self) -> float:
        return self.here

    def ask_port(self, uuid: str, port: str, question: bytes, *, timeout: float) -> bytes:
        asked = json.loads(question)
        self.here += self.late
        if asked["ask"] == "stir":
            self.off = asked["time"] - self.here
        self.off += asked.get("by", 0.0)
        said = json.dumps({"ok": True, "time": self.here + self.off}).encode() + b"\n"
        self.here += self.late
        self.late = max(0.01, self.late / 4)
        return said


@pytest.mark.parametrize("late", [0.0, 0.01, 0.4, 4.0, 30.0])
def test_a_clock_that_was_set_late_is_set_right(late: float, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Inside(-500.0, late)
    monkeypatch.setattr(identity, "time", inside)
    identity.stir(inside, "uuid", factor=1.0)
    assert abs(inside.off) < 1.0


def test_a_clock_that_cannot_be_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Inside(0.0, 4.0)
    monkeypatch.setattr(identity, "time", inside)
    monkeypatch.setattr(identity, "CLOCK_TRIES", 1)
    with pytest.raises(IdentityError, match="clock"):
        identity.stir(inside, "uuid", factor=1.0)


def test_the_certificate_that_is_made_for_a_copy_is_its_own() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    made, other = identity.make_certificate("lab-31"), identity.make_certificate("lab-31")
    leaf = x509.load_pem_x509_certificate(made.public.encode())
    key = load_pem_private_key(made.private.to_bytes(), None)
    assert leaf.public_key() == key.public_key()
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == ["lab-31"]
    assert made.public != other.public
    assert "PRIVATE" not in repr(made)


def test_entropy_is_credited_as_the_kernel_counts_it(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(agent.fcntl, "ioctl", lambda _, *rest: calls.append(rest))
    agent.stir(b"x" * 256)
    (add, reseed) = calls
    assert add[0] == 0x40085203
    assert struct.unpack_from("ii", add[1]) == (2048, 256)
    assert reseed == (0x5207,)


def ask_services(agent: ModuleType, asked: dict[str, str]) -> object:
    with agent.telling_services(asked) as hear:
        return hear()


@pytest.mark.network
def test_services_are_asked_and_one_that_cannot_fails_the_whole(agent: ModuleType) -> None:
    with Service(agent.SOCKETS / "good.sock", b'{"ok": true, "certificate": "ab"}\n') as heard:
        assert ask_services(agent, {"ask": "renew", "name": "x"}) == {"good": {"certificate": "ab"}}
    assert json.loads(heard[0]) == {"ask": "renew", "name": "x"}
    for said in (b'{"ok": false, "error": "no"}\n', b"", b"garbage\n"):
        with Service(agent.SOCKETS / "good.sock", said), pytest.raises((RuntimeError, ValueError)):
            ask_services(agent, {"ask": "renew"})


@pytest.mark.process
def test_programs_are_asked_on_their_standard_input(agent: ModuleType) -> None:
    program = agent.PROGRAMS / "own"
    program.write_text('#!/bin/sh\ngrep -q renew && echo \'{"ok": true, "id": 7}\'\n')
    program.chmod(0o755)
    (agent.PROGRAMS / "no-program").write_text("not executable")
    assert ask_services(agent, {"ask": "renew"}) == {"own": {"id": 7}}
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(agent.subprocess.CalledProcessError):
        ask_services(agent, {"ask": "renew"})


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_host_keys_are_replaced_whole_by_the_ones_that_were_made(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(agent, "SSH", tmp_path)
    path = tmp_path / f"ssh_host_{kind}_key"
    path.write_text("old")
    made = identity.make_host_key(path.name, "lab-31")
    agent.replace_key(path, made.private.reveal(), made.public)
    loaded = load_ssh_private_key(path.read_bytes(), None)
    public = load_ssh_public_key(path.with_name(path.name + ".pub").read_bytes())
    assert loaded.public_key() == public
    assert path.stat().st_mode & 0o777 == 0o600
    assert identity.make_host_key(path.name, "lab-31").public != made.public
    assert sorted(one.name for one in tmp_path.iterdir()) == ["PROGRAMS", "SOCKETS", path.name, f"{path.name}.pub"]


@pytest.mark.parametrize("name", ["../shadow", "ssh_host_rsa_key", "/etc/passwd"])
def test_only_host_keys_that_are_there_are_replaced(agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(agent, "SSH", tmp_path)
    (tmp_path.parent / "shadow").touch()
    with pytest.raises(LookupError):
        agent.replace_key(tmp_path / name, "key", "key")


def test_a_host_key_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(IdentityError, match="ssh_host_dsa_key"):
        identity.make_host_key("ssh_host_dsa_key", "lab-31")


class Service:
    """Answers one question on a socket."""

    def __init__(self, path: Path, said: bytes) -> None:
        path.unlink(missing_ok=True)
        self._said, self._heard = said, []
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ear.bind(str(path))
        self._ear.listen(1)
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> list[bytes]:
        self._thread.start()
        return self._heard

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._ear.close()

    def _answer(self) -> None:
        link, _ = self._ear.accept()
        with link:
            self._heard.append(link.recv(65536))
            link.sendall(self._said)
