"""The doctor: every finding says what is and what to do; what it cannot find out is never fine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from images import doctor
from images.acceleration import Acceleration
from images.doctor import Finding, Verdict, check_addresses, check_computer, check_disk, check_libvirt, check_tools
from images.domain import Accelerator, Forward
from images.home import Home
from kit.errors import DeadlineError

FORWARD = Forward("127.0.3.21", 18443, "10.0.2.15", 443)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.machine
@pytest.mark.slow
def test_this_computer_is_examined_whole(home: Home) -> None:
    findings = list(check_computer(home, forwards=(FORWARD,)))
    codes = {one.code for one in findings}
    assert {"tool.mmdebstrap", "tool.qemu-img", "acceleration", "libvirt", "disk", "memory", "home", "apparmor", "address"} <= codes
    assert all(one.sentence for one in findings)
    assert all(one.do for one in findings if one.verdict is Verdict.PROBLEM)
    assert not any(home.machines.iterdir())


@pytest.mark.process
def test_a_missing_program_is_a_problem_with_its_package(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_program", lambda _: None)
    found = {one.code: one for one in check_tools(home)}
    assert found["tool.mke2fs"] == Finding("tool.mke2fs", Verdict.PROBLEM, "mke2fs is not installed.", "apt-get install e2fsprogs")


@pytest.mark.network
def test_a_port_in_use_is_a_problem() -> None:
    with socket.create_server((FORWARD.host, FORWARD.host_port)):
        (found,) = check_addresses((FORWARD,))
    assert found.verdict is Verdict.PROBLEM
    assert "127.0.3.21:18443" in found.sentence
    (found,) = check_addresses((FORWARD,))
    assert found.verdict is Verdict.OK


@pytest.mark.parametrize(("free", "verdict"), [(1 << 40, Verdict.OK), (4 << 30, Verdict.WARNING), (1 << 20, Verdict.PROBLEM)])
def test_free_space_is_judged(home: Home, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(1 << 41, 0, free))
    (found,) = check_disk(home)
    assert found.verdict is verdict
    assert bool(found.do) is (verdict is not Verdict.OK)


def test_a_check_that_fails_itself_is_could_not_tell(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> Acceleration:
        raise DeadlineError("QEMU did not end.", hint="Look.")

    def vanish(_: Home) -> object:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setattr(doctor, "find_acceleration", hang)
    monkeypatch.setattr(doctor, "check_memory", vanish)
    monkeypatch.setattr(doctor, "check_tools", lambda _: iter(()))
    monkeypatch.setattr(doctor, "check_libvirt", lambda _: iter(()))
    found = {one.code: one for one in check_computer(home)}
    assert found["acceleration"] == Finding("acceleration", Verdict.UNKNOWN, "QEMU did not end.", "Look.")
    assert found["memory"].verdict is Verdict.UNKNOWN


def test_slow_emulation_is_a_warning_with_the_reason_for_no_kvm(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    proved = Acceleration(Accelerator.TCG, 4.0, "/dev/kvm is there, but a guest hangs under it", 6.0)
    monkeypatch.setattr(doctor, "find_acceleration", lambda *_, **__: proved)
    accelerator, speed = doctor.check_acceleration(home)
    assert "hangs" in accelerator.sentence
    assert (accelerator.verdict, speed.verdict) == (Verdict.WARNING, Verdict.WARNING)


@pytest.mark.machine
def test_a_daemon_that_is_named_and_silent_is_a_problem(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOXSHIFT_LIBVIRT_URI", f"qemu:///system?socket={tmp_path}/none")
    (found,) = check_libvirt(home)
    assert found.verdict is Verdict.PROBLEM
