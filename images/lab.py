"""Disposable appliances: a free loopback address for each, started side by side, removed without trace."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from images import identity
from images.clone import clone, plan_ports
from images.domain import Forward
from images.errors import AddressTakenError, SpecError, UnknownMachineError
from images.ledger import LabEntry
from images.locking import hold, read_self
from images.machine import MachineFacts, Machines, MachineSpec
from images.ports import is_taken
from images.readiness import wait_for_ready
from images.ready_page import ReadyPage
from images.reference_image import ensure_reference_image
from images.segment import SPARE, SegmentCard, segment_mac
from images.store import Image
from images.template import Without, ensure_template
from images.template_store import Template
from images.uplink import Uplink
from kit.errors import FailedError, ToolError
from kit.process import need_program, run
from kit.progress import Progress, Silent

REQUEST = "lab:"
GUEST_ADMIN, GUEST_SERVICE = "10.0.2.15", "10.0.2.20"
TLS_PORT, SSH_PORT = 8443, 8022
FIRST, LAST = 31, 250
RESERVE_SECONDS = 60.0


@dataclass(frozen=True)
class LabSegment:
    """A private segment that an appliance is on; its hardware address, and its address there with prefix (empty: none)."""

    name: str
    mac: str
    address: str


@dataclass(frozen=True)
class LabBox:
    """A disposable appliance.

    ``address`` leads to its administration address, ``service`` to the one where its site would be. ``path``: how it came up, ``warm`` (a
    clone) or ``cold`` (booted), and ``reason`` why. ``ready_seconds``: from being asked for until its HTTPS answered, None for one that
    never did. ``expires``: ISO 8601 in UTC, None: it stays until it is removed. ``group``: the pair or topology that it
    belongs to, or empty. ``uplink``: the network or bridge that it is on with an address of its own; empty: user networking.
    """

    name: str
    uuid: str
    address: str
    service: str
    image: str
    power: str
    path: str
    reason: str
    ready_seconds: float | None
    expires: str | None
    group: str = ""
    segments: tuple[LabSegment, ...] = ()
    uplink: str = ""


def make_forwards(number: int, ready: ReadyPage | None = None) -> tuple[Forward, ...]:
    """The forwards of lab appliance ``number`` (11 to 250): HTTPS of both addresses, SSH of the first, and the port of its own page."""
    admin, service = f"127.0.1.{number}", f"127.0.0.{number}"
    usual = (
        Forward(admin, TLS_PORT, GUEST_ADMIN, 443),
        Forward(admin, SSH_PORT, GUEST_ADMIN, 22),
        Forward(service, TLS_PORT, GUEST_SERVICE, 443),
    )
    if ready is None or ready.port in (443, 22):
        return usual
    port = ready.port + (8000 if ready.port < 1024 else 10_000 if ready.port in (TLS_PORT, SSH_PORT) else 0)
    return (*usual, Forward(admin, port, GUEST_ADMIN, ready.port))


def find_image(machines: Machines, wanted: str | None, *, progress: Progress | None = None) -> Image:
    """The image of that name or digest; None means the reference appliance, which is built where it is missing."""
    return machines.store.read_image(wanted) if wanted else ensure_reference_image(machines.home, progress=progress)


def plan_lab(
    machines: Machines, image: Image, count: int, *, ready: ReadyPage | None = None, uplink: Uplink | None = None
) -> tuple[MachineSpec, ...]:
    """``count`` new machines with names and addresses that nothing uses. ``ready`` and ``uplink``: as :class:`MachineSpec` has them.

    Raises:
        SpecError: there are not so many free addresses.

    """
    return tuple(plan_box(image, number, ready=ready, uplink=uplink) for number in choose_numbers(machines, count))


def choose_numbers(machines: Machines, count: int) -> list[int]:
    """Numbers of lab appliances whose names and addresses nothing uses.

    Raises:
        SpecError: there are not so many free addresses.

    """
    numbers = _free_numbers(machines)
    try:
        return [next(numbers) for _ in range(count)]
    except StopIteration:
        raise SpecError(
            f"There are not {count} free loopback addresses for lab appliances.", hint="Remove some: boxshift lab down."
        ) from None


def plan_box(
    image: Image,
    number: int,
    *,
    name: str = "",
    group: str = "",
    segments: Sequence[SegmentCard] = (),
    ready: ReadyPage | None = None,
    uplink: Uplink | None = None,
) -> MachineSpec:
    """Lab appliance ``number``. ``name``: left out, it says the number; ``group``: the pair or topology that it belongs to."""
    is_own = image.hardware is None
    return MachineSpec(
        name or f"lab-{number}",
        image.digest,
        f"{REQUEST}{number}:{uuid.uuid4()}" + (f":{group}" if group else ""),
        () if uplink is not None else make_forwards(number, ready),
        # Emulation runs one thread for each processor, and two are much faster than one. A foreign image says itself what it wants.
        cpus=max(image.cpus, min(2, os.cpu_count() or 1)) if is_own else None,
        ready=ready,
        # A spare card, so that machines on a segment and others are clones of one template.
        segments=tuple(segments) or (SPARE,) if is_own else (),
        uplink=uplink,
    )


def find_group(request: str) -> str:
    """The group of the appliance that was made for this request; empty: none."""
    return "".join(request.split(":")[3:])


def reserve_lab(
    machines: Machines,
    image: Image,
    count: int,
    *,
    ttl: float | None = None,
    ready: ReadyPage | None = None,
    uplink: Uplink | None = None,
) -> tuple[MachineSpec, ...]:
    """As :func:`plan_lab`, and no other process plans the same ones. ``ttl``: seconds until their time is over; None: never.

    From here on :mod:`images.reap` knows of them, whatever happens to this process.
    """
    return reserve(machines, lambda: plan_lab(machines, image, count, ready=ready, uplink=uplink), ttl=ttl)


def reserve(machines: Machines, plan: Callable[[], tuple[MachineSpec, ...]], *, ttl: float | None = None) -> tuple[MachineSpec, ...]:
    """What ``plan`` answers while no other process plans, written down."""
    expires = None if ttl is None else time.time() + ttl
    with hold(machines.home.locks / "lab", what="choosing addresses for lab appliances", timeout=RESERVE_SECONDS):
        specs = plan()
        for spec in specs:
            machines.ledger.note_lab(LabEntry(spec.request_id, read_self(), expires=expires))
    return specs


def ensure_lab(
    machines: Machines,
    specs: Sequence[MachineSpec],
    *,
    cold: bool = False,
    verify: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> tuple[LabBox, ...]:
    """Bring all up side by side and return when each one's HTTPS answers: clones of a template, or booted where that is not possible.

    ``specs`` from :func:`reserve_lab`. ``cold``: boot them. ``verify`` raises where they are not what was wanted although each is
    ready; until it has returned, all are half made, and :mod:`images.reap` takes them if this process dies.

    Raises:
        As :meth:`Machines.ensure_machine` and :func:`wait_for_ready`. What was started stays, to be looked at.

    """
    begun, shown = time.monotonic(), progress or Silent()
    known = machines.ledger.list_lab()
    noted = [known.get(spec.request_id) or machines.ledger.note_lab(LabEntry(spec.request_id, read_self())) for spec in specs]
    shapes = {_shape(spec): spec for spec in specs}
    sources = {
        shape: Without("asked for with --cold") if cold else _find_template(machines, spec, specs, shown) for shape, spec in shapes.items()
    }
    at_once = min(len(specs), os.cpu_count() or 1) if any(isinstance(one, Template) for one in sources.values()) else len(specs)
    note = machines.ledger.note_lab if verify is None else lambda entry: entry
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        raised = tuple(
            pool.map(lambda spec, entry: _raise(machines, spec, entry, sources[_shape(spec)], begun, note, shown), specs, noted)
        )  # fmt: skip
    if verify is not None:
        verify()
        for _, entry in raised:
            machines.ledger.note_lab(entry)
    return tuple(describe(facts, entry) for facts, entry in raised)


def list_lab(machines: Machines) -> tuple[LabBox, ...]:
    """The disposable appliances that exist, not the machines of migrations."""
    known = machines.ledger.list_lab()
    return tuple(
        describe(facts, known.get(facts.request_id)) for facts in machines.list_machines() if facts.request_id.startswith(REQUEST)
    )  # fmt: skip


def read_lab(machines: Machines, name: str) -> LabBox:
    """The disposable appliance of that name.

    Raises:
        UnknownMachineError: there is none.

    """
    found = next((box for box in list_lab(machines) if box.name == name), None)
    if found is None:
        raise UnknownMachineError(f"There is no disposable appliance {name!r}.", hint="`boxshift lab list` shows them.")
    return found


def extend_lab(machines: Machines, name: str, ttl: float | None) -> LabBox:
    """Let an appliance stay ``ttl`` seconds from now; None: until it is removed."""
    box = read_lab(machines, name)
    request = machines.read_machine(box.name).request_id
    entry = machines.ledger.list_lab().get(request, LabEntry(request, read_self(), "cold", "", ready_seconds=box.ready_seconds))
    machines.ledger.note_lab(replace(entry, expires=None if ttl is None else time.time() + ttl))
    return read_lab(machines, name)


def start_lab(machines: Machines, name: str, *, progress: Progress | None = None) -> LabBox:
    """Boot an appliance that was stopped, and wait until its HTTPS answers."""
    box = read_lab(machines, name)
    machines.ensure_started(box.name)
    wait_for_ready(machines, box.name, progress=progress)
    return read_lab(machines, name)


def read_log(machines: Machines, name: str, *, lines: int) -> str:
    """The last lines of its system log, read through the guest agent; of an imported appliance, which has none, what its console said.

    Raises:
        GuestSilentError, GuestError, ToolError: it could not be read.

    """
    facts = machines.read_machine(name)
    if facts.ready is not None and not machines.hypervisor.ping_agent(facts.uuid):
        return "".join(f"{line}\n" for line in machines.read_console(name, lines=lines))
    done = machines.run_in_guest(name, ["/usr/bin/journalctl", "--no-pager", "--quiet", "-n", str(lines)])
    if done.status != 0:
        raise ToolError(f"The log of {name} could not be read: {done.err.decode(errors='replace').strip()}", status=done.status)
    return done.text


def parse_ttl(text: str) -> float | None:
    """Seconds of ``90s``, ``30m``, ``4h``, ``2d``; None for ``never``.

    Raises:
        SpecError: it is none of these.

    """
    if text == "never":
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise SpecError(f"{text!r} is no time to live.", hint="Write a number and a unit, such as 30m, 4h or 2d, or never.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def describe(facts: MachineFacts, entry: LabEntry | None = None) -> LabBox:
    """The facts of a machine as a lab shows them."""
    hosts = {one.guest: f"{one.host}:{one.host_port}" for one in facts.forwards if one.guest_port == 443}
    known = entry or LabEntry(facts.request_id, "", "cold", "booted from its own disk")
    until = None if known.expires is None else datetime.fromtimestamp(known.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return LabBox(
        name=facts.name,
        uuid=facts.uuid,
        address=(facts.address and f"{facts.address}:443") if facts.uplink else hosts.get(GUEST_ADMIN, ""),
        service=hosts.get(GUEST_SERVICE, ""),
        image=facts.image,
        power=facts.power.value,
        path=known.path,
        reason=known.reason or "it did not become ready",
        ready_seconds=known.ready_seconds,
        expires=until,
        group=find_group(facts.request_id),
        segments=tuple(
            LabSegment(card.segment, segment_mac(facts.mac, number), card.address)
            for number, card in enumerate(facts.segments)
            if card.segment
        ),
        uplink=str(facts.uplink or ""),
    )


def _shape(spec: MachineSpec) -> tuple[str, int | None, int, Uplink | None, ReadyPage | None]:
    """Machines that are equal in this are clones of one template."""
    return spec.image, spec.cpus, len(spec.segments), spec.uplink, spec.ready


def _find_template(machines: Machines, one: MachineSpec, specs: Sequence[MachineSpec], shown: Progress) -> Template | Without:
    asked = {one.host for spec in specs for one in spec.forwards}
    image = machines.store.read_image(one.image)

    def find_forward() -> Forward:
        return next(forwards[0] for forwards in map(make_forwards, _free_numbers(machines)) if forwards[0].host not in asked)

    return ensure_template(
        machines, image, one.cpus or image.cpus, find_forward, progress=shown, spares=len(one.segments), uplink=one.uplink, ready=one.ready
    )


def _raise(
    machines: Machines,
    spec: MachineSpec,
    entry: LabEntry,
    source: Template | Without,
    begun: float,
    note: Callable[[LabEntry], LabEntry],
    shown: Progress,
) -> tuple[MachineFacts, LabEntry]:
    facts, reason = None, source.reason if isinstance(source, Without) else ""
    if isinstance(source, Template):
        shown.update(f"cloning {spec.name}")
        try:
            facts = clone(machines, source, spec)
            saved = datetime.fromtimestamp(source.created, UTC)
            path, reason = "warm", f"cloned from the template saved at {saved:%Y-%m-%d %H:%M} UTC"
        except AddressTakenError:
            raise
        except FailedError as error:
            reason = f"a clone was tried and did not succeed: {error.sentence.rstrip('.')}"
            shown.update(f"{spec.name} is booted instead: {reason}")
            machines.ledger.note_lab(entry)
    if facts is None:
        path = "cold"
        shown.update(f"starting {spec.name}")
        machines.ensure_machine(spec)
        facts = wait_for_ready(machines, spec.name, progress=shown)
        if ports := plan_ports(facts):
            identity.plug(machines.hypervisor, facts.uuid, ports, factor=machines.acceleration.factor)
    seconds = round(time.monotonic() - begun, 2)
    return facts, note(replace(entry, path=path, reason=reason, ready_seconds=seconds))


def ensure_ssh(machines: Machines, name: str) -> tuple[str, ...]:
    """The ``ssh`` command that leads into the machine as root; its key is made once per home and put in through the guest agent.

    Raises:
        SpecError, UnreachableError: nothing leads to its SSH port.
        GuestSilentError, GuestError, ToolError: the key could not be put in.

    """
    facts = machines.read_machine(name)
    host, port = facts.find_way(22)
    key = machines.home.cache / "lab_key"
    if not key.exists():
        run(
            [need_program("ssh-keygen", package="openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "boxshift-lab", "-f", key],
            timeout=60,
        )
    script = "umask 077; mkdir -p /root/.ssh; cat > /root/.ssh/authorized_keys"
    done = machines.run_in_guest(name, ["/bin/sh", "-c", script], stdin=key.with_suffix(".pub").read_bytes())
    if done.status != 0:
        raise ToolError(f"The SSH key could not be put into {name}: {done.err.decode(errors='replace').strip()}", status=done.status)
    known = machines.home.cache / f"known-hosts-{facts.uuid}"
    options = ("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes")
    return ("ssh", "-i", str(key), "-p", str(port), *options, f"root@{host}")


def _free_numbers(machines: Machines) -> Iterator[int]:
    known = machines.list_machines()
    taken = {(one.host, one.host_port) for facts in known for one in facts.forwards}
    names = {facts.name for facts in known} | {domain.name for domain in machines.hypervisor.list_domains()}
    names |= {f"lab-{request.split(':')[1]}" for request in machines.ledger.list_lab()}
    for number in range(FIRST, LAST + 1):
        forwards = make_forwards(number)
        if f"lab-{number}" not in names and not any((one.host, one.host_port) in taken or is_taken(one) for one in forwards):
            yield number
