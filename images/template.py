"""Templates: machines that were booted once, made ready, and saved with their memory, to be cloned in a second or two.

A saved machine goes on only under the QEMU, accelerator and virtual hardware that it was saved under, so a template is named by a digest
of all of these and of its image; where one of them changes, another template is made. What lies in its memory is private to this user.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images import identity
from images.acceleration import EMULATOR, stamp_emulator
from images.domain import Accelerator, Domain, Forward, Mark, render_domain
from images.errors import NotReadyError, SavedStateError
from images.locking import hold, is_held, read_self
from images.machine import Machines, MachineSpec
from images.readiness import https_probe, read_leaf, wait_for_ready
from images.ready_page import Speech
from images.saved import read_saved
from images.segment import SPARE, segment_mac
from images.store import Image
from kit.errors import FailedError
from kit.files import write_private
from kit.process import need_program
from kit.progress import Progress

REQUEST = "template:"
STATE, DISK, FACTS, SEAL, NONE = "state", "disk.qcow2", "template.json", "seal.json", ".none.json"
QCOW2 = b"QFI\xfb"
MAKE_SECONDS = 900.0
LAYOUT = 3  # of what is saved; a higher one makes every template anew


@dataclass(frozen=True)
class Template:
    """A saved machine. ``mac``: its network card's address; ``leaf``: SHA-256 of the certificate that it served, in hex.

    ``host_keys``: names of the files of its SSH host keys; ``spares``: how many cards for private segments it has.
    """

    key: str
    folder: Path
    image: str
    memory_mib: int
    cpus: int
    mac: str
    leaf: str
    created: float
    host_keys: tuple[str, ...]
    spares: int

    @property
    def state(self) -> Path:
        return self.folder / STATE

    @property
    def disk(self) -> Path:
        return self.folder / DISK


@dataclass(frozen=True)
class Without:
    """Why there is no template."""

    reason: str


def plan_key(machines: Machines, image: Image, *, memory_mib: int, cpus: int, spares: int = 1) -> str:
    """The name of the template of these: a digest of all that a saved machine depends on."""
    facts = machines.hypervisor.read_facts()
    accelerator = machines.acceleration.accelerator
    blank = "00000000-0000-0000-0000-000000000000"
    shape = Domain(
        name="any", uuid=blank, mark=Mark("any", "any", "any"), memory_mib=memory_mib, cpus=cpus, accelerator=accelerator,
        disk=Path("/any"), kernel=image.kernel, initrd=image.initrd, arguments=image.kernel_arguments, mac="52:54:00:00:00:00", forwards=(),
        console_log=Path("/any"), segments=(SPARE,) * spares,
    )  # fmt: skip
    emulator = stamp_emulator(need_program(EMULATOR, package="qemu-system-x86"))
    parts = (LAYOUT, identity.VERSION, image.digest, render_domain(shape), emulator, facts.qemu, facts.libvirt, _processor(accelerator))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def find_template(machines: Machines, key: str) -> Template | Without | None:
    """The template of that name; why there can be none, where that was found out; None where nobody tried yet.

    Raises:
        SavedStateError: it is damaged.

    """
    none = machines.home.templates / f"{key}{NONE}"
    if none.exists():
        return Without(str(json.loads(none.read_text())["reason"]))
    facts = next(iter(sorted(machines.home.templates.glob(f"{key}-*/{FACTS}"))), None)
    if facts is None:
        return None
    found, digests = _read(facts)
    _verify(found, digests)
    return found


def ensure_template(
    machines: Machines, image: Image, cpus: int, find_forward: Callable[[], Forward], *, progress: Progress, spares: int = 1
) -> Template | Without:
    """The template of an image: found, or made by booting a machine and saving it. A damaged one is removed, and this time there is none.

    ``find_forward`` names a free port that may lead to the HTTPS of the machine while it is made; ``spares``: cards for private segments.

    Raises:
        As :meth:`Machines.ensure_machine` and :func:`wait_for_ready`: it does not boot, so that a cold start would fail as well.

    """
    reason = _find_obstacle(machines, image)
    if reason:
        return Without(reason)
    key = plan_key(machines, image, memory_mib=image.memory_mib, cpus=cpus, spares=spares)
    with hold(machines.home.locks / f"template-{key}", what="making a template", timeout=MAKE_SECONDS * machines.acceleration.factor):
        try:
            found = find_template(machines, key)
        except SavedStateError as error:
            _forget(machines, key)
            return Without(f"the template was damaged and is removed ({error.sentence.rstrip('.')})")
        return found or _make(
            machines,
            image,
            key,
            MachineSpec(
                machine_name(key), image.digest, f"{REQUEST}{key}@{read_self()}", (find_forward(),), cpus=cpus, segments=(SPARE,) * spares
            ),
            progress,
        )


def list_templates(machines: Machines) -> tuple[Template, ...]:
    """All that are whole, by name; what is damaged is left out."""
    found = []
    for facts in sorted(machines.home.templates.glob(f"[0-9a-f]*/{FACTS}")):
        with suppress(SavedStateError):
            found.append(_read(facts)[0])
    return tuple(found)


def find_over(machines: Machines) -> Iterator[tuple[str, str]]:
    """What can be deleted among the templates, and why: half made, damaged, or of an image that is gone, and no disk stands on it."""
    if not machines.place.is_here:
        return  # there are none
    images = {image.digest for image in machines.store.list_images()}
    bases = {find_backing(disk) for disk in machines.home.machines.glob(f"*/{DISK}")}
    whole = {template.folder: template.image for template in list_templates(machines)}
    for path in sorted(machines.home.templates.iterdir()):
        if path.name.endswith(NONE):
            if json.loads(path.read_text()).get("image") not in images:
                yield path.name, "its image is gone"
        elif path.name.startswith(".half-"):
            if not is_held(machines.home.locks / f"template-{path.name.split('-')[1]}"):
                yield path.name, "it was never finished"
        elif str(path / DISK) not in bases and whole.get(path) not in images:
            yield path.name, "its image is gone" if path in whole else "it is damaged, and no disk stands on it any more"


def find_backing(disk: Path) -> str:
    """The file that a qcow2 disk stands on, as its header says; empty where it stands on none, or is no qcow2."""
    with disk.open("rb") as source:
        head = source.read(20)
        if len(head) < 20 or not head.startswith(QCOW2):
            return ""
        at, length = struct.unpack_from(">QI", head, 8)
        source.seek(at)
        return source.read(min(length, 4096)).decode(errors="replace") if at else ""


def machine_name(key: str) -> str:
    """The name of the machine that becomes the template."""
    return f"boxshift-template-{key[:12]}"


def _make(machines: Machines, image: Image, key: str, spec: MachineSpec, progress: Progress) -> Template | Without:
    name, forward = spec.name, spec.forwards[0]
    machines.ensure_removed(name)  # left by a process that was killed: nobody else makes this one, the lock is ours
    facts = machines.ensure_machine(spec)
    try:
        progress.update(f"booting a template of {image.name}: this once, clones of it start warm")
        wait_for_ready(machines, name, probe=https_probe(), progress=progress)
        factor = machines.acceleration.factor
        if not identity.find_agent(machines.hypervisor, facts.uuid, factor=factor):
            return _note_none(machines, image, key, "no identity agent of this version runs inside the image: clones would not be unique")
        leaf = read_leaf(forward.host, forward.host_port)
        progress.update(f"saving the template of {image.name}")
        cards = (facts.mac, *(segment_mac(facts.mac, number) for number in range(len(facts.segments))))
        prepared = identity.prepare(machines.hypervisor, facts.uuid, cards, factor=factor)
        record = {
            "image": image.digest, "memory_mib": facts.memory_mib, "cpus": facts.cpus, "mac": facts.mac, "leaf": leaf,
            "created": time.time(), "host_keys": list(prepared.host_keys), "spares": len(facts.segments),
        }  # fmt: skip
        half = machines.home.templates / f".half-{key}-{secrets.token_hex(4)}"
        half.mkdir(mode=0o711)
        try:
            machines.hypervisor.save(facts.uuid, half / STATE)
            facts.disk.rename(half / DISK)
            return _keep(machines, image, key, half, record)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    except NotReadyError:
        raise
    except FailedError as error:
        return Without(f"no template could be saved: {error.sentence.rstrip('.')}")
    finally:
        machines.ensure_removed(name)


def _keep(machines: Machines, image: Image, key: str, half: Path, record: Mapping[str, object]) -> Template | Without:
    try:
        with (half / STATE).open("rb") as source:
            read_saved(source)
    except PermissionError:
        return _note_none(machines, image, key, "libvirt keeps saved machines where only root may read them")
    except SavedStateError as error:
        return _note_none(machines, image, key, f"this libvirt saves machines in another form ({error.sentence.rstrip('.')})")
    (half / STATE).chmod(0o600)
    (half / DISK).chmod(0o444)
    digests = {name: _hash(half / name) for name in (STATE, DISK)}
    write_private(half / FACTS, json.dumps({**record, "digests": digests}, indent=1).encode())
    half.chmod(machines.home.templates.stat().st_mode & 0o777)
    # A name of its own each time: the disks of clones may still stand on an earlier one that was damaged.
    half.rename(machines.home.templates / f"{key}-{secrets.token_hex(4)}")
    found = find_template(machines, key)
    return found if found is not None else Without("the template vanished")


def _note_none(machines: Machines, image: Image, key: str, reason: str) -> Without:
    """Not to be tried again: the image, the hypervisor or the rights would have to be others."""
    write_private(machines.home.templates / f"{key}{NONE}", json.dumps({"reason": reason, "image": image.digest}).encode())
    return Without(reason)


def _forget(machines: Machines, key: str) -> None:
    """Take the memory away and what tells of it; the disk goes when no clone stands on it any more (:func:`find_over`)."""
    for folder in machines.home.templates.glob(f"{key}-*"):
        for name in (FACTS, STATE, SEAL):
            (folder / name).unlink(missing_ok=True)


def _read(facts: Path) -> tuple[Template, Mapping[str, str]]:
    try:
        record = json.loads(facts.read_text())
        digests = record.pop("digests")
        record["host_keys"] = tuple(record["host_keys"])
        return Template(key=facts.parent.name.partition("-")[0], folder=facts.parent, **record), digests
    except (ValueError, KeyError, TypeError) as error:
        raise SavedStateError("The template's facts cannot be read.", hint="It is made anew.") from error


def _verify(template: Template, digests: Mapping[str, str]) -> None:
    """Files whose size, modification time and inode are as last seen are not read again."""
    seal_path = template.folder / SEAL
    try:
        seal = json.loads(seal_path.read_text())
    except (FileNotFoundError, ValueError):
        seal = {}
    now: dict[str, list[int]] = {}
    for name in (STATE, DISK):
        path = template.folder / name
        if not path.exists():
            raise SavedStateError(f"The template has lost its file {name}.", hint="It is made anew.")
        found = path.stat()
        now[name] = [found.st_size, found.st_mtime_ns, found.st_ino]
        if seal.get(name) != now[name] and _hash(path) != digests.get(name):
            raise SavedStateError(f"The template's file {name} is no longer what was saved.", hint="It is made anew.")
    if seal != now:
        write_private(seal_path, json.dumps(now).encode())


def _processor(accelerator: Accelerator) -> str:
    """What the guest sees of this computer's processor: nothing under emulation, all of it under KVM."""
    if accelerator is Accelerator.TCG:
        return ""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("vendor_id", "model name", "stepping", "microcode", "flags")))


def _find_obstacle(machines: Machines, image: Image) -> str:
    """Why there can be no clones; empty where nothing is known against them."""
    if image.hardware is not None:
        return "the image was imported: no identity agent of ours runs in it, so that clones would not be unique"
    if image.ready is not None and image.ready.speech not in (Speech.TLS, Speech.HTTPS):
        return "its machines show no certificate, by which a clone proves that it has taken an identity of its own"
    scheme, _, rest = machines.hypervisor.uri.partition("://")
    if not machines.place.is_here:
        return "the hypervisor keeps its files itself: a saved machine there cannot be rewritten into a clone from here"
    if scheme != "qemu" or not rest.startswith("/"):
        return "only libvirt's QEMU driver on this computer can clone, and the hypervisor is reached otherwise"
    return ""


def _hash(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
