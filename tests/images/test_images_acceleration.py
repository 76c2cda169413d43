"""The accelerator is believed only after something booted under it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images import acceleration
from images.acceleration import find_acceleration, prove
from images.domain import Accelerator
from images.home import Home
from kit.errors import ToolError
from kit.process import need_program

pytestmark = pytest.mark.process
BOOTS = "printf boxshift; exit 1"


def _emulator(folder: Path, *, kvm: str, tcg: str) -> Path:
    """A stand-in for QEMU, which cannot be made to hang under KVM on purpose."""
    path = folder / "qemu-system-x86_64"
    path.write_text(f'#!/bin/sh\ncase "$*" in --version) echo "QEMU 1.2" ;; *kvm*) {kvm} ;; *) {tcg} ;; esac\n')
    path.chmod(0o755)
    return path


def test_the_real_emulator_boots_the_tiny_system() -> None:
    found = prove(need_program("qemu-system-x86_64", package="qemu-system-x86"), kvm=Path("/absent"))
    assert found.accelerator is Accelerator.TCG
    assert found.factor >= 1.0
    assert found.reason == "/absent does not exist"


def test_a_kvm_under_which_the_guest_boots_is_used(tmp_path: Path) -> None:
    found = prove(_emulator(tmp_path, kvm=BOOTS, tcg="exit 3"), kvm=Path("/dev/null"))
    assert (found.accelerator, found.factor, found.reason) == (Accelerator.KVM, 1.0, "")


@pytest.mark.parametrize(
    ("kvm", "reason"),
    [("sleep 30", "hangs"), ("echo cannot set MSR >&2; exit 134", "cannot set MSR"), ("exit 1", "without a sign of life")],
)
def test_a_kvm_that_is_there_and_does_not_work_is_not_used(tmp_path: Path, kvm: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "KVM_SECONDS", 0.5)
    found = prove(_emulator(tmp_path, kvm=kvm, tcg=BOOTS), kvm=Path("/dev/null"))
    assert found.accelerator is Accelerator.TCG
    assert reason in found.reason


def test_an_emulator_that_cannot_even_emulate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError):
        prove(_emulator(tmp_path, kvm="exit 2", tcg="exit 2"), kvm=Path("/absent"))


@pytest.mark.parametrize("change", ["start", "emulator"])
def test_what_was_proved_is_kept_until_the_computer_starts_anew_or_has_another_emulator(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    emulator = _emulator(tmp_path, kvm="exit 2", tcg=BOOTS)
    monkeypatch.setattr(acceleration, "BOOT_ID", boot)
    monkeypatch.setattr(acceleration, "need_program", lambda *_, **__: emulator)
    found = find_acceleration(home)
    proofs: list[Path] = []
    monkeypatch.setattr(acceleration, "prove", lambda emulator: proofs.append(emulator) or found)
    assert find_acceleration(home) == found
    assert not proofs
    if change == "start":
        boot.write_text("second\n")
    else:
        _emulator(tmp_path, kvm="exit 2", tcg=f"{BOOTS}; true")
    find_acceleration(home)
    assert proofs == [emulator]


def test_a_damaged_cache_is_measured_again(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = _emulator(tmp_path, kvm="exit 2", tcg=BOOTS)
    monkeypatch.setattr(acceleration, "need_program", lambda *_, **__: emulator)
    for content in ("{", json.dumps({"key": "other"}), "[]"):
        (home.cache / "acceleration.json").write_text(content)
        assert find_acceleration(home).accelerator is Accelerator.TCG
