"""Templates: machines that were booted once, made ready, and saved with their memory, to be cloned in a second or two.

A saved machine goes on only under the QEMU, accelerator and virtual hardware that it was saved under, so a template is named by a digest
of all of these and of its image; where one of them changes, another template is made. What lies in its memory is private to this user.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import identity
from images.domain import Domain, Forward, Mark, render_domain
from images.errors import NotReadyError, SavedStateError
from images.locking import hold, read_self
from images.machine import MachineFacts, Machines, MachineSpec
from images.readiness import TLS_PORT, https_probe, read_leaf, wait_for_ready
from images.ready_page import ReadyPage, Speech
from images.segment import SPARE, segment_mac
from images.store import Image
from images.template_store import Template, lock_of
from images.uplink import Uplink
from kit.errors import FailedError
from kit.files import write_private
from kit.progress import Progress

REQUEST = "template:"
NONE = ".none.json"
MAKE_SECONDS = 900.0
LAYOUT = 4  # of what is saved; a higher one makes every template anew


@dataclass(frozen=True)
class Without:
    """Why there is no template."""

    reason: str


def plan_key(machines: Machines, image: Image, *, memory_mib: int, cpus: int, spares: int = 1, uplink: Uplink | None = None) -> str:
    """The name of the template of these: a digest of all that a saved machine depends on. Networks of one kind make no difference."""
    facts = machines.hypervisor.read_facts()
    accelerator = machines.acceleration.accelerator
    blank = "00000000-0000-0000-0000-000000000000"
    shape = Domain(
        name="any", uuid=blank, mark=Mark("any", "any", "any"), memory_mib=memory_mib, cpus=cpus, accelerator=accelerator,
        disk=Path("/any"), kernel=image.kernel, initrd=image.initrd, arguments=image.kernel_arguments, mac="52:54:00:00:00:00", forwards=(),
        console_log=Path("/any"), segments=(SPARE,) * spares, uplink=uplink and Uplink(uplink.kind, "any"),
    )  # fmt: skip
    host = machines.place.templates.read_fingerprint(accelerator)
    parts = (LAYOUT, identity.VERSION, image.digest, render_domain(shape), facts.qemu, facts.libvirt, host)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def find_template(machines: Machines, key: str) -> Template | Without | None:
    """The template of that name; why there can be none, where that was found out; None where nobody tried yet.

    Raises:
        SavedStateError: it is damaged.

    """
    none = machines.home.templates / f"{key}{NONE}"
    if none.exists():
        return Without(str(json.loads(none.read_text())["reason"]))
    return machines.place.templates.find(key)


def ensure_template(
    machines: Machines,
    image: Image,
    cpus: int,
    find_forward: Callable[[], Forward],
    *,
    progress: Progress,
    spares: int = 1,
    uplink: Uplink | None = None,
    ready: ReadyPage | None = None,
) -> Template | Without:
    """The template of an image: found, or made by booting a machine and saving it. A damaged one is removed, and this time there is none.

    ``find_forward`` names a free port that may lead to the HTTPS of the machine while it is made, where it has no ``uplink``; ``spares``:
    cards for private segments; ``ready``: what shows that the clones are ready, None: in the way of their image.

    Raises:
        As :meth:`Machines.ensure_machine` and :func:`wait_for_ready`: it does not boot, so that a cold start would fail as well.

    """
    reason = _find_obstacle(machines, image, ready)
    if reason:
        return Without(reason)
    key = plan_key(machines, image, memory_mib=image.memory_mib, cpus=cpus, spares=spares, uplink=uplink)
    with hold(lock_of(machines.home, key), what="making a template", timeout=MAKE_SECONDS * machines.acceleration.factor):
        name = machine_name(key)
        if machines.ledger.find_name(name) is not None:
            machines.ensure_removed(name)  # left by a process that was killed: nobody else makes this one, the lock is ours
        try:
            found = find_template(machines, key)
        except SavedStateError as error:
            machines.place.templates.forget(key)
            return Without(f"the template was damaged and is removed ({error.sentence.rstrip('.')})")
        if found is not None:
            return found
        request, forwards = f"{REQUEST}{key}@{read_self()}", () if uplink is not None else (find_forward(),)
        spec = MachineSpec(name, image.digest, request, forwards, cpus=cpus, segments=(SPARE,) * spares, uplink=uplink)
        return _make(machines, image, key, spec, progress)


def list_templates(machines: Machines) -> tuple[Template, ...]:
    """All that are whole, by name; what is damaged is left out."""
    return machines.place.templates.list_all()


def find_over(machines: Machines) -> Iterator[tuple[str, str]]:
    """What can be deleted among the templates, and why: half made, damaged, or of an image that is gone, and no disk stands on it."""
    images = frozenset(image.digest for image in machines.store.list_images())
    for path in sorted(machines.home.templates.glob(f"*{NONE}")):
        if json.loads(path.read_text()).get("image") not in images:
            yield path.name, "its image is gone"
    yield from machines.place.templates.list_over(images)


def remove_over(machines: Machines, name: str) -> None:
    """Delete one of these."""
    if name.endswith(NONE):
        (machines.home.templates / name).unlink(missing_ok=True)
    else:
        machines.place.templates.remove(name)


def machine_name(key: str) -> str:
    """The name of the machine that becomes the template."""
    return f"boxshift-template-{key[:12]}"


def _make(machines: Machines, image: Image, key: str, spec: MachineSpec, progress: Progress) -> Template | Without:
    facts = machines.ensure_machine(spec)
    try:
        progress.update(f"booting a template of {image.name}: this once, clones of it start warm")
        wait_for_ready(machines, spec.name, probe=https_probe(), progress=progress)
        factor = machines.acceleration.factor
        if not identity.find_agent(machines.hypervisor, facts.uuid, factor=factor):
            return _note_none(machines, image, key, "no identity agent of this version runs inside the image: clones would not be unique")
        leaf = read_leaf(*machines.read_machine(spec.name).find_way(TLS_PORT))
        progress.update(f"saving the template of {image.name}")
        cards = (facts.mac, *(segment_mac(facts.mac, number) for number in range(len(facts.segments))))
        prepared = identity.prepare(machines.hypervisor, facts.uuid, cards, factor=factor)
        record = {
            "image": image.digest, "memory_mib": facts.memory_mib, "cpus": facts.cpus, "mac": facts.mac, "leaf": leaf,
            "created": time.time(), "host_keys": list(prepared.host_keys), "spares": len(facts.segments),
        }  # fmt: skip
        return _keep(machines, image, key, facts, record)
    except NotReadyError:
        raise
    except FailedError as error:
        return Without(f"no template could be saved: {error.sentence.rstrip('.')}")
    finally:
        machines.ensure_removed(spec.name)


def _keep(machines: Machines, image: Image, key: str, facts: MachineFacts, record: Mapping[str, object]) -> Template | Without:
    try:
        machines.place.templates.keep(key, facts, record, lambda: machines.ensure_forgotten(facts.name))
    except PermissionError:
        return _note_none(machines, image, key, "libvirt keeps saved machines where only root may read them")
    except SavedStateError as error:
        return _note_none(machines, image, key, f"this libvirt saves machines in another form ({error.sentence.rstrip('.')})")
    found = find_template(machines, key)
    return found if found is not None else Without("the template vanished")


def _note_none(machines: Machines, image: Image, key: str, reason: str) -> Without:
    """Not to be tried again: the image, the hypervisor or the rights would have to be others."""
    write_private(machines.home.templates / f"{key}{NONE}", json.dumps({"reason": reason, "image": image.digest}).encode())
    return Without(reason)


def _find_obstacle(machines: Machines, image: Image, ready: ReadyPage | None) -> str:
    """Why there can be no clones; empty where nothing is known against them."""
    if image.hardware is not None:
        return "the image was imported: no identity agent of ours runs in it, so that clones would not be unique"
    if any(page is not None and page.speech not in (Speech.TLS, Speech.HTTPS) for page in (image.ready, ready)):
        return "its machines show no certificate, by which a clone proves that it has taken an identity of its own"
    return machines.place.templates.find_obstacle()
