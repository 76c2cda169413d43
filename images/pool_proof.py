"""What a hypervisor's machines run on, proved by booting the tiny system of :mod:`images.acceleration` there, through libvirt."""

from __future__ import annotations

import datetime as dt
import json
import secrets
import time
from dataclasses import asdict
from io import BytesIO
from xml.etree import ElementTree as ET

from images.acceleration import KVM_SECONDS, REFERENCE_SECONDS, TCG_SECONDS, WORD, Acceleration, render_boot_sector
from images.domain import QEMU_NAMESPACE, Accelerator
from images.home import Home, render_slug
from images.hypervisor import Hypervisor
from images.locking import hold, is_held
from images.pool import Pool
from kit.errors import DeadlineError, FailedError, ToolError
from kit.files import write_private
from kit.progress import Progress
from kit.waiting import wait_for

PROOF = "proof-"
FLOPPY_BYTES = 1440 * 1024


class PoolProof:
    """Remembered for a day: what runs there may be changed by somebody else."""

    def __init__(self, home: Home, hypervisor: Hypervisor, pool: Pool, progress: Progress) -> None:
        self._hypervisor = hypervisor
        self._pool = pool
        self._progress = progress
        slug = render_slug(hypervisor.uri)
        self._cached = home.cache / f"acceleration-{slug}.json"
        self._lock = home.locks / f"acceleration-{slug}"

    def find(self, *, again: bool = False) -> Acceleration:
        """The accelerator in use there; ``again``: proved anew.

        Raises:
            ToolError, DeadlineError: not even emulation comes through.

        """
        facts = self._hypervisor.read_facts()
        key = f"{facts.libvirt} {facts.qemu} {dt.datetime.now(dt.UTC):%Y-%m-%d}"
        with hold(self._lock, what="proving the hypervisor's accelerator", timeout=TCG_SECONDS + KVM_SECONDS):
            found = None if again else self._read(key)
            if found is None:
                self._progress.update("finding out what the hypervisor can run: booting a tiny system there")
                found = self._prove()
                told = {**asdict(found), "accelerator": found.accelerator.value, "key": key}
                write_private(self._cached, json.dumps(told).encode())
        return found

    def is_running(self) -> bool:
        """Whether a process is proving now."""
        return is_held(self._lock)

    def _read(self, key: str) -> Acceleration | None:
        try:
            told = json.loads(self._cached.read_text())
            if told.pop("key") != key:
                return None
            return Acceleration(**{**told, "accelerator": Accelerator(told["accelerator"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _prove(self) -> Acceleration:
        try:
            return Acceleration(Accelerator.KVM, 1.0, "", self._boot(Accelerator.KVM, timeout=KVM_SECONDS))
        except DeadlineError:
            reason = f"the hypervisor has KVM, but a guest hangs under it (no sign of life in {KVM_SECONDS:.0f} s)"
        except FailedError as error:
            reason = f"the hypervisor does not run a guest under KVM ({error.sentence.rstrip('.')})"
        seconds = self._boot(Accelerator.TCG, timeout=TCG_SECONDS)
        return Acceleration(Accelerator.TCG, max(1.0, round(seconds / REFERENCE_SECONDS, 2)), reason, seconds)

    def _boot(self, accelerator: Accelerator, *, timeout: float) -> float:
        """Seconds until the tiny system had done its work."""
        self._pool.ensure()
        name = f"{PROOF}{secrets.token_hex(4)}"
        disk, log = f"{name}.img", f"{name}.log"
        content = render_boot_sector().ljust(FLOPPY_BYTES, b"\0")
        try:
            self._pool.write(disk, BytesIO(content), len(content))
            self._pool.ensure_empty(log)
            xml = _render(name, accelerator, str(self._pool.path_of(disk)), str(self._pool.path_of(log)))
            with self._hypervisor.passing(xml) as is_over:
                start = time.monotonic()
                wait_for(lambda: is_over() or None, what="a tiny system to come through", timeout=timeout, poll=0.05)
                seconds = time.monotonic() - start
            if WORD not in self._pool.read(log):
                raise ToolError("QEMU ended without a sign of life from the guest.", hint="Is QEMU installed whole on the hypervisor?")
        finally:
            self._pool.delete(disk)
            self._pool.delete(log)
        return round(seconds, 3)


def _render(name: str, accelerator: Accelerator, disk: str, log: str) -> str:
    fast = accelerator is Accelerator.KVM
    root = ET.Element("domain", {"type": accelerator.domain_type})
    for tag, text in (("name", f"boxshift-{name}"), ("memory", "16384"), ("vcpu", "1"), ("on_reboot", "destroy")):
        ET.SubElement(root, tag).text = text
    system = ET.SubElement(root, "os")
    ET.SubElement(system, "type", {"arch": "x86_64", "machine": "pc"}).text = "hvm"
    ET.SubElement(system, "boot", {"dev": "fd"})
    ET.SubElement(root, "cpu", {"mode": "host-passthrough"} if fast else {"mode": "maximum"})
    devices = ET.SubElement(root, "devices")
    floppy = ET.SubElement(devices, "disk", {"type": "file", "device": "floppy"})
    ET.SubElement(floppy, "driver", {"name": "qemu", "type": "raw"})
    ET.SubElement(floppy, "source", {"file": disk})
    ET.SubElement(floppy, "target", {"dev": "fda", "bus": "fdc"})
    ET.SubElement(floppy, "readonly")
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    ET.SubElement(ET.SubElement(devices, "serial", {"type": "file"}), "source", {"path": log})
    ET.SubElement(devices, "memballoon", {"model": "none"})
    commandline = ET.SubElement(root, f"{{{QEMU_NAMESPACE}}}commandline")
    for value in ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"):
        ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", {"value": value})
    return ET.tostring(root, encoding="unicode")
