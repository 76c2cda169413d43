"""Templates in folders of this computer. A copy's state goes to libvirt through a pipe, so that it is not written once more."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from images.acceleration import EMULATOR
from images.domain import Accelerator, Domain
from images.errors import SavedStateError
from images.home import Home
from images.hypervisor import Hypervisor
from images.locking import is_held
from images.memory_file import take_memory
from images.saved import read_saved, render_copy, render_saved
from images.seal import find_altered, hash_file, read_stamp
from images.spec import MachineFacts
from images.template_store import Template, lock_of, parse_record, render_record
from kit.files import write_private
from kit.process import need_program

STATE, DISK, MEMORY, FACTS, SEAL = "state", "disk.qcow2", "memory", "template.json", "seal.json"
QCOW2 = b"QFI\xfb"
PIPE_BYTES = 1 << 20
PIPE_POLL = 0.002


class LocalTemplates:
    """The templates of one home."""

    def __init__(self, home: Home, hypervisor: Hypervisor) -> None:
        self._home = home
        self._hypervisor = hypervisor

    def find_obstacle(self) -> str:
        """Only QEMU of this computer takes a state from us."""
        scheme, _, rest = self._hypervisor.uri.partition("://")
        if scheme == "qemu" and rest.startswith("/"):
            return ""
        return "only libvirt's QEMU driver on this computer can clone, and the hypervisor is reached otherwise"

    def read_fingerprint(self, accelerator: Accelerator) -> tuple[object, ...]:
        """The emulator's file, and under KVM this computer's processor."""
        return (*read_stamp(need_program(EMULATOR, package="qemu-system-x86")), _processor(accelerator))

    def find(self, key: str) -> Template | None:
        """Files whose size, modification time and inode are as last seen are not read again."""
        facts = next(iter(sorted(self._home.templates.glob(f"{key}-*/{FACTS}"))), None)
        if facts is None:
            return None
        found, digests = _read(facts)
        _verify(found, digests)
        return found

    def keep(self, key: str, machine: MachineFacts, record: Mapping[str, object], leave: Callable[[], None]) -> None:  # noqa: ARG002 - the machine keeps nothing here
        """In a folder that takes its name when all is in it."""
        half = self._home.templates / f".half-{key}-{secrets.token_hex(4)}"
        half.mkdir(mode=0o711)
        try:
            self._hypervisor.save(machine.uuid, half / STATE)
            machine.disk.rename(half / DISK)
            with (half / STATE).open("rb") as source:
                read_saved(source)
            (half / STATE).chmod(0o600)
            (half / DISK).chmod(0o444)
            files = (STATE, DISK, MEMORY) if take_memory(self._hypervisor, half / STATE, half / MEMORY) else (STATE, DISK)
            write_private(half / FACTS, render_record(record, digests={name: hash_file(half / name) for name in files}))
            half.chmod(self._home.templates.stat().st_mode & 0o777)
            # A name of its own each time: the disks of clones may still stand on an earlier one that was damaged.
            half.rename(self._home.templates / f"{key}-{secrets.token_hex(4)}")
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def forget(self, key: str) -> None:
        """The folder goes with its disk (:meth:`list_over`), and so does the memory that snapshots of clones start on."""
        for folder in self._home.templates.glob(f"{key}-*"):
            for name in (FACTS, STATE, SEAL):
                (folder / name).unlink(missing_ok=True)

    def list_all(self) -> tuple[Template, ...]:
        """By what their folders tell."""
        found = []
        for facts in sorted(self._home.templates.glob(f"[0-9a-f]*/{FACTS}")):
            with suppress(SavedStateError):
                found.append(_read(facts)[0])
        return tuple(found)

    def list_over(self, images: frozenset[str]) -> Iterator[tuple[str, str]]:
        """Half made, damaged, or of an image that is gone, and no disk stands on it."""
        bases = {find_backing(disk) for disk in self._home.machines.glob(f"*/{DISK}")}
        whole = {template.name: template.image for template in self.list_all()}
        for path in sorted(one for one in self._home.templates.iterdir() if one.is_dir()):
            if path.name.startswith(".half-"):
                if not is_held(lock_of(self._home, path.name.split("-")[1])):
                    yield path.name, "it was never finished"
            elif str(path / DISK) not in bases and whole.get(path.name) not in images:
                yield path.name, "its image is gone" if path.name in whole else "it is damaged, and no disk stands on it any more"

    def remove(self, name: str) -> None:
        """With its folder."""
        path = self._home.templates / name
        if path.is_dir():
            for secret in (STATE, MEMORY):
                (path / secret).unlink(missing_ok=True)
            shutil.rmtree(path)

    def restore(self, template: Template, domain: Domain) -> None:
        """Through a pipe beside the domain's disk; its memory, where that is in a file, is mapped by QEMU."""
        memory = template.state.with_name(MEMORY)
        if memory.exists():
            domain = replace(domain, memory=memory)
        with template.state.open("rb") as source:
            saved = read_saved(source)
        head = render_saved(replace(saved, xml=render_copy(saved.xml, domain)))
        with _feeding(domain.disk.with_name("state.pipe"), head, template.state, saved.start) as pipe:
            self._hypervisor.restore(pipe)


def find_backing(disk: Path) -> str:
    """The file that a qcow2 disk stands on, as its header says; empty where it stands on none, or is no qcow2."""
    with disk.open("rb") as source:
        head = source.read(20)
        if len(head) < 20 or not head.startswith(QCOW2):
            return ""
        at, length = struct.unpack_from(">QI", head, 8)
        source.seek(at)
        return source.read(min(length, 4096)).decode(errors="replace") if at else ""


def _read(facts: Path) -> tuple[Template, Mapping[str, str]]:
    folder = facts.parent
    place = {"key": folder.name.partition("-")[0], "name": folder.name, "state": folder / STATE, "disk": folder / DISK}
    return parse_record(facts.read_bytes(), "digests", **place)


def _verify(template: Template, digests: Mapping[str, str]) -> None:
    folder = template.state.parent
    try:
        altered = find_altered(folder, {STATE: "", DISK: "", **digests}, folder / SEAL)
    except FileNotFoundError as error:
        raise SavedStateError(f"The template has lost its file {Path(error.filename).name}.", hint="It is made anew.") from error
    if altered:
        raise SavedStateError(f"The template's file {altered} is no longer what was saved.", hint="It is made anew.")


def _processor(accelerator: Accelerator) -> str:
    """What the guest sees of this computer's processor: nothing under emulation, all of it under KVM."""
    if accelerator is Accelerator.TCG:
        return ""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("vendor_id", "model name", "stepping", "microcode", "flags")))


@contextmanager
def _feeding(pipe: Path, head: bytes, state: Path, start: int) -> Iterator[Path]:
    """A named pipe that whoever opens it reads ``head`` and then the rest of ``state`` from."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    done = threading.Event()
    feeder = threading.Thread(target=_feed, args=(pipe, head, state, start, done), name="state", daemon=True)
    feeder.start()
    try:
        yield pipe
    finally:
        done.set()
        pipe.unlink(missing_ok=True)
        feeder.join()


def _feed(pipe: Path, head: bytes, state: Path, start: int, done: threading.Event) -> None:
    """Whoever reads may go away at any time: then libvirt says what was wrong."""
    sink = _open_sink(pipe, done)
    if sink is None:
        return
    try:
        os.set_blocking(sink, True)
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        view = memoryview(head)
        while view:
            view = view[os.write(sink, view) :]
        with state.open("rb") as source:
            at, end = start, state.stat().st_size
            while at < end:
                at += os.splice(source.fileno(), sink, end - at, offset_src=at)
    except BrokenPipeError:
        return
    finally:
        os.close(sink)


def _open_sink(pipe: Path, done: threading.Event) -> int | None:
    """The pipe for writing, as soon as someone reads; None where nobody will."""
    while not done.is_set():
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # nobody reads yet, or the pipe is gone
            time.sleep(PIPE_POLL)
    return None
