"""Clones: a new machine goes on from where a template was saved, and takes an identity of its own before anyone can reach it."""

from __future__ import annotations

from images import identity
from images.errors import IdentityError
from images.identity import Identity
from images.machine import MachineFacts, Machines, MachineSpec
from images.readiness import TLS_PORT, read_answer
from images.segment import segment_mac
from images.template_store import Template
from kit.errors import DeadlineError, FailedError
from kit.waiting import wait_for

ANSWER_SECONDS = 60.0


def clone(machines: Machines, template: Template, spec: MachineSpec) -> MachineFacts:
    """Make the machine ``spec`` from the template, and return when its HTTPS answers with a certificate of its own.

    Raises:
        IdentityError, GuestSilentError, SavedStateError, HypervisorError, …: it is no clone to use, and is removed again.

    """
    facts: MachineFacts | None = None
    try:
        facts = machines.ensure_restored(
            spec, base=template.disk, restore=lambda domain: machines.place.templates.restore(template, domain)
        )
        factor = machines.acceleration.factor
        wish = plan_wish(facts, template)
        own = identity.renew(machines.hypervisor, wish, factor=factor)
        _wait_for_own_answer(machines, facts, template, own, timeout=ANSWER_SECONDS * factor)
    except FailedError:
        # Nothing that may still be the template under another name stays.
        if facts is not None or machines.ledger.find_request(spec.request_id) is not None:
            machines.ensure_removed(spec.name)
        raise
    return facts if facts.uplink is None else machines.read_machine(spec.name)  # which has its address by now


def plan_wish(facts: MachineFacts, template: Template) -> identity.Wish:
    """What the copy shall be that was restored from the template."""
    idle = {segment_mac(template.mac, number): segment_mac(facts.mac, number) for number in range(template.spares)}
    return identity.Wish(facts.name, facts.uuid, {template.mac: facts.mac}, template.host_keys, idle, plan_ports(facts))


def plan_ports(facts: MachineFacts) -> tuple[identity.Port, ...]:
    """The cards of a machine that have an address on a private segment."""
    return tuple(identity.Port(segment_mac(facts.mac, number), card.address) for number, card in enumerate(facts.segments) if card.address)


def _wait_for_own_answer(machines: Machines, facts: MachineFacts, template: Template, own: Identity, *, timeout: float) -> None:
    if facts.uplink is None and not any(one.guest_port == TLS_PORT for one in facts.forwards):
        return

    def look() -> bool | None:
        now = facts if facts.uplink is None else machines.read_machine(facts.name)  # its address there is one that it asks for
        answer = read_answer(*now.find_way(TLS_PORT))
        fresh = answer.leaf in own.certificates if own.certificates else answer.leaf != template.leaf
        return True if answer.is_service and fresh else None

    try:
        wait_for(look, what=f"{facts.name} to answer with a certificate of its own", timeout=timeout, poll=0.02)
    except DeadlineError as late:
        raise IdentityError(f"The copy {facts.name} does not serve a certificate of its own: {late.sentence}") from late
