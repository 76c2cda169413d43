"""Other tools that bring up a virtual machine, on the same disk, image and computer; or why one of them cannot."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from images.domain import Accelerator
from images.lab import choose_numbers, make_forwards
from images.machine import Machines
from images.readiness import read_answer
from images.store import Image
from kit.errors import BoxshiftError, UnreachableError
from kit.process import find_program, run
from kit.waiting import wait_for

READY_SECONDS = 600.0
NO_LOADER = "the disk has no boot loader: its kernel is given from outside, and {} boots only what a disk brings"


@dataclass(frozen=True)
class Missing:
    """A peer that cannot be measured with this image; ``reason`` says why, ``need`` what else it wants that is not here."""

    name: str
    reason: str
    needs: tuple[str, ...] = ()

    def compare(self, *_: object) -> str:
        """The line for the output."""
        absent = [name for name in self.needs if find_program(name) is None]
        more = f"; and it needs {', '.join(absent)}, not installed here" if absent else ""
        return f"cold boot by {self.name}: not measured: {self.reason}{more}"


@dataclass(frozen=True)
class VirtInstall:
    """virt-install --import with the image's kernel, and forwards of QEMU's user networking."""

    name: str = "virt-install"

    def compare(self, machines: Machines, image: Image, warm: float) -> str:
        """Measure it, where it is installed."""
        program = find_program(self.name)
        if program is None:
            return f"cold boot by {self.name}: not measured: it is not installed here (Debian package virtinst)"
        try:
            seconds = self._measure(program, machines, image)
        except BoxshiftError as error:
            return f"cold boot by {self.name}: not measured: {error.sentence}"
        return f"cold boot by {self.name}: {seconds:.2f} s, a warm clone is {seconds / warm:.1f} times as fast (target: 10)"

    def _measure(self, program: Path, machines: Machines, image: Image) -> float:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        (number,) = choose_numbers(machines, 1)
        forward = make_forwards(number)[0]
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=machines.home.machines))
        folder.chmod(0o711)
        try:
            machines.store.make_overlay(image, folder / "disk.qcow2")
            begun = time.monotonic()
            run(self._words(program, machines, image, name, folder / "disk.qcow2", forward.option), timeout=READY_SECONDS)
            wait_for(lambda: _answers(forward.host, forward.host_port), what=f"{name} to answer", timeout=READY_SECONDS, poll=0.2)
            return time.monotonic() - begun
        finally:
            found = machines.hypervisor.find_domain(name)
            if found is not None:
                machines.hypervisor.destroy(found.uuid)
                machines.hypervisor.undefine(found.uuid)
            shutil.rmtree(folder)

    def _words(self, program: Path, machines: Machines, image: Image, name: str, disk: Path, forward: str) -> list[str | Path]:
        kind = "qemu" if machines.acceleration.accelerator is Accelerator.TCG else "kvm"
        boot = f"kernel={image.kernel},initrd={image.initrd},kernel_args={' '.join(image.kernel_arguments)}"
        return [
            program, "--connect", machines.hypervisor.uri, "--name", name, "--virt-type", kind, "--memory", str(image.memory_mib),
            "--vcpus", "2", "--import", "--disk", f"path={disk},format=qcow2,bus=virtio", "--boot", boot, "--osinfo", "generic",
            "--network", "none", "--graphics", "none", "--noautoconsole", "--quiet",
            f"--qemu-commandline=-netdev user,id=bench,{forward} -device virtio-net-pci,netdev=bench,bus=pci.0,addr=0x10",
        ]  # fmt: skip


def _answers(host: str, port: int) -> bool | None:
    try:
        return read_answer(host, port).is_service or None
    except UnreachableError:
        return None


PEERS: tuple[VirtInstall | Missing, ...] = (
    VirtInstall(),
    Missing("kcli", NO_LOADER.format("kcli"), ("dnsmasq", "genisoimage")),
    Missing("virt-lightning", NO_LOADER.format("virt-lightning"), ("dnsmasq", "genisoimage")),
)
