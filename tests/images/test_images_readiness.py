"""A machine that is not ready: the error says how far it came."""

from __future__ import annotations

import pytest
from fake_hypervisor import FakeHypervisor, FakeMachines, spec

from images.errors import NotReadyError
from images.hypervisor import Power
from images.readiness import https_probe, wait_for_ready
from kit.errors import UnreachableError

SAID = b"\x1b[0;32m  OK  \x1b[0m Started\r\n\r\n[    2.1] waiting for the disk\r\n"
PANIC = b"[    2.1] Kernel panic - not syncing: VFS: no root\r\n[    2.1] ---[ end Kernel panic ]---\r\n"


def _expect(machines: FakeMachines, **more: float) -> NotReadyError:
    facts = machines.ensure_machine(spec())
    facts.console_log.write_bytes(SAID)
    with pytest.raises(NotReadyError) as caught:
        wait_for_ready(machines, "old", probe=_silent, timeout=more.get("timeout", 0.3))
    return caught.value


def _silent(_: object) -> bool:
    raise UnreachableError("127.0.3.11:18443 does not answer")


def test_a_process_that_ended_is_told_at_once(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    facts = machines.ensure_machine(spec())
    facts.console_log.write_bytes(SAID)
    hypervisor.domains["old"][1] = Power.CRASHED
    with pytest.raises(NotReadyError, match="process does not run") as caught:
        wait_for_ready(machines, "old", probe=_silent, timeout=200)
    assert caught.value.facts["stage"] == "stopped"


def test_the_consoles_last_lines_are_in_the_error_without_control_characters(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.agent_answers = False
    error = _expect(machines)
    assert error.facts["stage"] == "starting"
    assert "waiting for the disk" in error.sentence
    assert error.facts["console"] == "  OK   Started\n[    2.1] waiting for the disk"
    assert error.facts["last_seen"] == "127.0.3.11:18443 does not answer"


def test_a_kernel_that_gave_up_is_told_at_once(machines: FakeMachines) -> None:
    facts = machines.ensure_machine(spec())
    facts.console_log.write_bytes(PANIC)
    with pytest.raises(NotReadyError, match="kernel gave up") as caught:
        wait_for_ready(machines, "old", probe=_silent, timeout=200)
    assert "VFS: no root" in str(caught.value.facts["console"])


def test_a_system_without_an_address_is_told(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.addresses = ()
    assert _expect(machines).facts["stage"] == "no_network"


@pytest.mark.network
def test_a_silent_service_is_told_with_the_failed_units(machines: FakeMachines) -> None:
    error = _expect(machines)
    assert error.facts["stage"] == "no_service"
    assert error.facts["failed_units"] == "appliance.service failed"


def test_a_machine_that_said_nothing_has_no_console_to_show(machines: FakeMachines, hypervisor: FakeHypervisor) -> None:
    hypervisor.agent_answers = False
    machines.ensure_machine(spec())
    with pytest.raises(NotReadyError, match="Its console said nothing"):
        wait_for_ready(machines, "old", probe=_silent, timeout=0.1)
    assert machines.read_console("old") == ()


def test_a_probe_without_a_forward_to_ask_says_so(machines: FakeMachines) -> None:
    facts = machines.ensure_machine(spec())
    with pytest.raises(UnreachableError, match=r"10\.9\.9\.9"):
        https_probe(guest="10.9.9.9")(facts)
