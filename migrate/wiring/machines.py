"""Virtual machines for the steps: the room ``images`` behind the port that steps know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from certs.served import read_pin
from images.clone import plan_ports
from images.domain import Accelerator, Forward
from images.home import find_home
from images.identity import plug
from images.machine import MachineFacts, Machines, MachineSpec, open_machines
from images.readiness import https_probe, page_probe, wait_for_ready
from images.ready_page import ReadyPage, parse_ready_page
from images.segment import SegmentCard
from images.uplink import find_uplink
from kit.errors import FailedError, UnexpectedError, UsageError
from kit.progress import Progress, Silent
from migrate.plan import MachinePlan, Plan
from migrate.steps.context import PowerProof

GUEST_ADMIN = "10.0.2.15"  # what user networking gives to the first network card
HTTPS = 443
EMULATED = 6.0  # an emulated box answers about this much slower than the deadlines of a driver assume


class LibvirtMachines:
    """Machines under libvirt, on whatever daemon the plan names; none named: the one that this machine has, or one of our own."""

    def patience(self, machine: MachinePlan | None) -> float:
        """How much longer than usual a driver must wait for a box that is this machine; None: no machine."""
        if machine is None:
            return 1.0
        with _open(machine, Silent()) as machines:
            found = machines.acceleration
            return EMULATED * found.factor if found.accelerator is Accelerator.TCG else 1.0

    def ensure_new(self, plan: Plan, request: str, progress: Progress) -> str:
        """Make it, boot it, wait for its health page or the one that the plan names; then learn the key it serves.

        The key is learned at this first contact: the way to it is a port of this very machine that leads into the guest which we have
        just made, or an address of which the hypervisor says that it is that guest's card.
        """
        machine = _need_machine(plan)
        with _open(machine, progress) as machines:
            page = find_page(machine)
            machines.ensure_machine(plan_machine(plan, request, page, find_segment_cards(machines, machine)))
            probe = https_probe("/check_health", status=200, guest=GUEST_ADMIN) if page is None else page_probe(page)
            facts = wait_for_ready(machines, machine.name, probe=probe, progress=progress)
            if facts.uplink is not None:
                verify_address(plan, facts)
            if ports := plan_ports(facts):
                plug(machines.hypervisor, facts.uuid, ports, factor=machines.acceleration.factor)
        return read_pin(plan.new.address, plan.new.port)

    def remove_new(self, plan: Plan, request: str) -> str:
        """Only the machine that this very run made."""
        machine = _need_machine(plan)
        with _open(machine, Silent()) as machines:
            found = machines.find_machine(machine.name)
            if found is None:
                return f"There is no machine {machine.name}; nothing to remove."
            if found.request_id != request:
                return f"The machine {machine.name} was made by another run; it is left as it is."
            machines.ensure_removed(machine.name)
        return f"The machine {machine.name} and its disk are removed."

    def read_hypervisor(self, machine: MachinePlan) -> str:
        """What answers there."""
        with _open(machine, Silent()) as machines:
            facts = machines.hypervisor.read_facts()
            return f"{facts}, {machines.acceleration.accelerator.value}"

    def read_power(self, machine: MachinePlan) -> PowerProof:
        """As the hypervisor says, also of machines that boxshift did not make."""
        with _open(machine, Silent()) as machines:
            domain = machines.hypervisor.find_domain(machine.name)
        if domain is None:
            return PowerProof(None, f"the hypervisor knows no machine {machine.name}")
        return PowerProof(not domain.power.is_off, f"libvirt says that {machine.name} is {domain.power.value}")

    def retire(self, machine: MachinePlan) -> str:
        """Ours is undefined, its disk kept; any other is only off."""
        with _open(machine, Silent()) as machines:
            if machines.find_machine(machine.name) is None:
                return f"{machine.name} was not made by boxshift: it is off, and stays defined."
            facts = machines.ensure_undefined(machine.name)
        return f"{machine.name} is undefined; its disk is kept at {facts.disk}."


@contextmanager
def _open(machine: MachinePlan, progress: Progress) -> Iterator[Machines]:
    with open_machines(find_home(), uri=machine.hypervisor or None, progress=progress) as machines:
        yield machines


def _need_machine(plan: Plan) -> MachinePlan:
    if plan.new.machine is None:
        raise UnexpectedError("The plan has no machine to provision.")
    return plan.new.machine


def find_segment_cards(machines: Machines, wanted: MachinePlan) -> tuple[SegmentCard, ...]:
    """The card for the segment that the plan names; none where it names none. Some machine is on it already, and tells where it runs."""
    if wanted.segment is None:
        return ()
    for facts in machines.list_machines():
        for card in facts.segments:
            if card.segment == wanted.segment.name:
                return (replace(card, address=wanted.segment.address),)
    raise UsageError(
        f"No machine of boxshift's is on a segment {wanted.segment.name}.",
        hint="new.machine.segment.name is that of a segment which the old box is on: boxshift lab list --json.",
    )


def find_page(machine: MachinePlan) -> ReadyPage | None:
    """The page that the plan names; None: the family's health page decides."""
    ready = machine.ready
    return None if ready is None else parse_ready_page(ready.page, status=ready.status, text=ready.text)


def plan_machine(plan: Plan, request: str, page: ReadyPage | None, segments: tuple[SegmentCard, ...] = ()) -> MachineSpec:
    """The machine that the plan asks for: behind ports of this machine, or on a network of its hypervisor's."""
    machine = _need_machine(plan)
    uplink = find_uplink(machine.network, machine.bridge)
    return MachineSpec(
        machine.name,
        machine.image,
        request,
        () if uplink is not None else plan_forwards(plan, page),
        machine.memory_mib or None,
        machine.cpus or None,
        page,
        segments,
        uplink=uplink,
        mac=machine.mac,
    )


def verify_address(plan: Plan, facts: MachineFacts) -> None:
    """Before a key is learned there: that the address of the plan is the one that this machine has.

    Raises:
        FailedError: it has another one.

    """
    if facts.address != plan.new.address:
        raise FailedError(
            f"The machine {facts.name} has the address {facts.address} on the {facts.uplink}, and the plan says {plan.new.address}.",
            hint=f"Let the DHCP server there keep {plan.new.address} for {facts.mac} (machine.mac sets it), or name the address it has.",
        )


def plan_forwards(plan: Plan, page: ReadyPage | None) -> tuple[Forward, ...]:
    """Ports of this machine that lead to the box's administration address, to its service address, and to the page that shows it is up."""
    new = plan.new
    if new.service.reached_at is None:
        raise UsageError(
            "A machine on user networking is reached through loopback addresses only.",
            hint="Set new.service.reached_at to a loopback address such as 127.0.0.12, or machine.network or machine.bridge.",
        )
    usual = (
        Forward(new.address, new.port, GUEST_ADMIN, HTTPS),
        Forward(new.service.visible, plan.site.port, str(new.service.address), HTTPS),
    )
    if page is None or page.port == HTTPS:
        return usual
    return (*usual, Forward(new.address, page.port + (10_000 if page.port in (new.port, *range(1024)) else 0), GUEST_ADMIN, page.port))
