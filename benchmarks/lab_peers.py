"""Other tools that bring up a virtual machine, on the same disk, image and computer; or why one of them cannot."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images.domain import Accelerator, Forward
from images.lab import choose_numbers, make_forwards
from images.machine import Machines
from images.readiness import TLS_PORT, read_answer
from images.store import Image
from kit.errors import FailedError
from kit.process import find_program, run
from kit.waiting import wait_for

READY_SECONDS = 600.0
# Their own ways to a network lead to one for all of the hypervisor's machines; what is measured is the way to a booted machine.
CARD = "-netdev user,id=bench,{forward} -device virtio-net-pci,netdev=bench,bus=pci.0,addr=0x10"


class Peer(Protocol):
    """A tool to compare with."""

    @property
    def name(self) -> str: ...

    def measure(self, machines: Machines, image: Image) -> float:
        """Seconds from asking it for a machine to the first answer of its HTTPS.

        Raises:
            FailedError: it cannot; says why.

        """
        ...


@dataclass(frozen=True)
class VirtInstall:
    """virt-install --import with the image's kernel."""

    name: str = "virt-install"

    def measure(self, machines: Machines, image: Image) -> float:
        """Also what it writes of the machine counts."""
        program = _need(self.name, "Debian package virtinst")
        with _bench(machines) as (folder, name, forward):
            machines.store.make_overlay(image, folder / "disk.qcow2")
            begun = time.monotonic()
            run(self._words(program, machines, image, name, folder / "disk.qcow2", forward.option), timeout=READY_SECONDS)
            wait_for_answer(forward.host, forward.host_port)
            return time.monotonic() - begun

    def _words(self, program: Path, machines: Machines, image: Image, name: str, disk: Path, forward: str) -> list[str | Path]:
        kind = "qemu" if machines.acceleration.accelerator is Accelerator.TCG else "kvm"
        boot = f"kernel={image.kernel},initrd={image.initrd},kernel_args={' '.join(image.kernel_arguments)}"
        return [
            program, "--connect", machines.hypervisor.uri, "--name", name, "--virt-type", kind, "--memory", str(image.memory_mib),
            "--vcpus", "2", "--import", "--disk", f"path={disk},format=qcow2,bus=virtio", "--boot", boot, "--osinfo", "generic",
            "--network", "none", "--graphics", "none", "--noautoconsole", "--quiet", f"--qemu-commandline={CARD.format(forward=forward)}",
        ]  # fmt: skip


@dataclass(frozen=True)
class Kcli:
    """kcli create vm, the image's kernel by QEMU's own options, since kcli itself boots only what a disk brings."""

    name: str = "kcli"

    def measure(self, machines: Machines, image: Image) -> float:
        """Its pool is there before; the disk over the image is its own work."""
        program = _need(self.name, "PyPI; in an environment of its own, its folder bin on the PATH")
        with _bench(machines) as (folder, name, forward), ExitStack() as stack:
            (folder / ".kcli").mkdir()
            client = {"default": {"client": "bench", "pool": name}, "bench": {"type": "kvm", "url": machines.hypervisor.uri}}
            (folder / ".kcli" / "config.yml").write_text(json.dumps(client))  # JSON is YAML
            (folder / "pool").mkdir(mode=0o755)
            machines.store.make_overlay(image, folder / "pool" / "base.qcow2")
            environment = dict(os.environ, HOME=str(folder))

            def kcli(*words: str | Path) -> None:
                run([program, *words], timeout=READY_SECONDS, env=environment)

            kcli("create", "pool", "-p", folder / "pool", name)
            stack.callback(kcli, "delete", "pool", "-y", name)
            # It splits the options at spaces, and the kernel its arguments at tabs as well.
            options = f"-kernel {image.kernel} -initrd {image.initrd} -append {chr(9).join(image.kernel_arguments)}"
            wish = {
                "pool": name, "nets": "[]", "cloudinit": "False", "disks": '[{"size": 4}]', "numcpus": "2",
                "memory": str(image.memory_mib), "qemuextra": f"{options} {CARD.format(forward=forward.option)}",
            }  # fmt: skip
            begun = time.monotonic()
            kcli("create", "vm", "-i", "base.qcow2", *(word for key, value in wish.items() for word in ("-P", f"{key}={value}")), name)
            wait_for_answer(forward.host, forward.host_port)
            return time.monotonic() - begun


@dataclass(frozen=True)
class VirtLightning:
    """It boots what a disk brings, and nothing tells it otherwise."""

    name: str = "virt-lightning"

    def measure(self, *_: object) -> float:
        """It cannot."""
        raise FailedError("the disk has no boot loader: its kernel is given from outside, and virt-lightning takes none")


PEERS: tuple[Peer, ...] = (VirtInstall(), Kcli(), VirtLightning())


def _need(name: str, source: str) -> Path:
    program = find_program(name)
    if program is None:
        raise FailedError(f"it is not installed here ({source})")
    return program


@contextmanager
def _bench(machines: Machines) -> Iterator[tuple[Path, str, Forward]]:
    """A folder, the name of a machine, and a port for its HTTPS; afterwards the machine and the folder are gone."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    (number,) = choose_numbers(machines, 1)
    forward = next(one for one in make_forwards(number) if one.guest_port == TLS_PORT)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=machines.home.machines))
    folder.chmod(0o711)
    try:
        yield folder, name, forward
    finally:
        found = machines.hypervisor.find_domain(name)
        if found is not None:
            machines.hypervisor.destroy(found.uuid)
            machines.hypervisor.undefine(found.uuid)
        for pool in machines.hypervisor.link().listAllStoragePools():
            if pool.name() == folder.name:  # virt-install makes a pool of every folder with a disk
                if pool.isActive():
                    pool.destroy()
                pool.undefine()
        shutil.rmtree(folder)


def wait_for_answer(host: str, port: int, *, timeout: float = READY_SECONDS) -> None:
    """Return at the first answer of a service over HTTPS.

    Raises:
        DeadlineError: there is none within ``timeout`` seconds.

    """
    wait_for(lambda: read_answer(host, port).is_service or None, what=f"{host}:{port} to answer", timeout=timeout, poll=0.02)
