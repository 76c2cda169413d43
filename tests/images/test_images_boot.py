"""The reference image is built and boots: one machine for the whole file, kept on failure where BOXSHIFT_KEEP is set."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.domain import Forward
from images.errors import GuestError, NotReadyError
from images.home import Home, find_home
from images.machine import MachineFacts, Machines, MachineSpec, open_machines
from images.readiness import https_probe, wait_for_ready
from images.reference_image import ensure_reference_image
from images.store import Image, Imported
from kit.errors import DeadlineError
from kit.process import need_program, run
from kit.secret import Secret

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(1800)]
FORWARDS = (Forward("127.0.3.31", 8443, "10.0.2.15", 443), Forward("127.0.3.31", 8022, "10.0.2.15", 22))


@dataclass(frozen=True)
class Bench:
    machines: Machines
    image: Image
    spec: MachineSpec


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The user's own home: its image is cached there by content. Only machines of this file's own names are made and removed."""
    home: Home = find_home()
    image = ensure_reference_image(home)
    name = f"t-{uuid.uuid4().hex[:8]}"
    with open_machines(home) as machines:
        yield Bench(machines, image, MachineSpec(name, image.digest, f"test {name}", FORWARDS))
        for used in (name, f"{name}-lost"):
            if not os.environ.get("BOXSHIFT_KEEP"):
                machines.ensure_removed(used)


@pytest.fixture(scope="module")
def ready(bench: Bench) -> MachineFacts:
    bench.machines.ensure_machine(bench.spec)
    return wait_for_ready(bench.machines, bench.spec.name, probe=https_probe("/check_health", status=200))


def test_the_second_build_finds_the_first(bench: Bench) -> None:
    assert ensure_reference_image(bench.machines.home) == bench.image
    bench.machines.store.verify(bench.image, thorough=True)


def test_it_boots_to_a_healthy_answer_through_its_forward(bench: Bench, ready: MachineFacts) -> None:
    assert not ready.power.is_off
    assert bench.machines.hypervisor.read_addresses(ready.uuid) == ("10.0.2.15",)


def test_asked_again_it_is_found_running(bench: Bench, ready: MachineFacts) -> None:
    assert bench.machines.ensure_machine(bench.spec) == ready


def test_programs_inside_get_input_and_give_output_and_status(bench: Bench, ready: MachineFacts, hostile_secret: Secret) -> None:
    done = bench.machines.run_in_guest(ready.name, ["/bin/sh", "-c", "cat; echo gone wrong >&2; exit 3"], stdin=hostile_secret)
    assert (done.status, done.out, done.err) == (3, hostile_secret.reveal().encode(), b"gone wrong\n")


def test_a_program_that_is_not_inside_is_an_error(bench: Bench, ready: MachineFacts) -> None:
    with pytest.raises(GuestError, match="/no/such"):
        bench.machines.run_in_guest(ready.name, ["/no/such"])


def test_a_program_that_does_not_end_is_a_deadline(bench: Bench, ready: MachineFacts) -> None:
    with pytest.raises(DeadlineError):
        bench.machines.run_in_guest(ready.name, ["/bin/sleep", "600"], timeout=0.5)


def test_its_identity_is_its_own_and_nothing_failed(bench: Bench, ready: MachineFacts) -> None:
    script = "cat /etc/machine-id; systemctl --failed --plain --no-legend | wc -l; cat /etc/apt/sources.list.d/* 2>/dev/null | wc -l"
    machine_id, failed, sources = bench.machines.run_in_guest(ready.name, ["/bin/sh", "-c", script]).text.split()
    assert machine_id == ready.uuid.replace("-", "")
    assert (failed, sources) == ("0", "0")


def test_a_machine_that_loses_its_root_file_system_says_so(bench: Bench) -> None:
    """Its image has the same kernel and an empty disk."""
    image = _lost_image(bench)
    name = f"{bench.spec.name}-lost"
    bench.machines.ensure_machine(MachineSpec(name, image.digest, f"test {name}", (Forward("127.0.3.32", 8443, "10.0.2.15", 443),)))
    with pytest.raises(NotReadyError, match="kernel gave up") as caught:
        wait_for_ready(bench.machines, name)
    assert caught.value.facts["stage"] == "panic"
    bench.machines.ensure_removed(name)
    bench.machines.store.remove(image)


def test_shut_down_and_taken_out_its_disk_stays_until_removed(bench: Bench, ready: MachineFacts) -> None:
    assert bench.machines.ensure_stopped(ready.name, grace=120).is_off
    facts = bench.machines.ensure_undefined(ready.name)
    assert facts.disk.exists()
    assert bench.machines.ensure_removed(ready.name)
    assert not facts.disk.exists()


def _lost_image(bench: Bench) -> Image:
    store = bench.machines.store
    with store.importing() as folder:
        for name in ("kernel", "initrd"):
            (folder / name).write_bytes((bench.image.folder / name).read_bytes())
        size = 16 + uuid.uuid4().int % 64  # another size, so another digest than a test beside this one has
        run(
            [need_program("qemu-img", package="qemu-utils"), "create", "-q", "-f", "qcow2", Path(folder) / "disk.qcow2", f"{size}M"],
            timeout=60,
        )
        return store.add(folder, Imported(f"lost-{size}", "a test", bench.image.kernel_arguments, 256, 1))
