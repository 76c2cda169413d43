"""Pairs and topologies of disposable appliances: planned as one, all made or nothing left, each proved to reach the others from within."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from images import identity, lab
from images.errors import AddressTakenError, NotOursError, SegmentError, SpecError
from images.lab import LabBox
from images.machine import MachineFacts, Machines, MachineSpec
from images.segment import SegmentCard, free_network, plan_segment, segment_mac
from images.store import Image
from images.topology import Seat, Topology, TopologyBox
from images.uplink import Uplink
from kit.errors import BoxshiftError
from kit.progress import Progress, Silent

PAIR = "pair"
ATTEMPTS = 3


def ensure_pair(
    machines: Machines,
    image: Image,
    *,
    ttl: float | None = None,
    cold: bool = False,
    uplink: Uplink | None = None,
    progress: Progress | None = None,
) -> tuple[LabBox, ...]:
    """Two appliances of an image on a private segment of their own, ready, and each proved to reach the other there.

    ``uplink``: what the first card of each hangs on, None: user networking.

    Raises:
        As :func:`ensure_topology`.

    """
    return _ensure(machines, lambda: plan_pair(machines, image, uplink=uplink), ttl=ttl, cold=cold, shown=progress or Silent())


def ensure_topology(
    machines: Machines,
    topology: Topology,
    *,
    ttl: float | None = None,
    cold: bool = False,
    uplink: Uplink | None = None,
    progress: Progress | None = None,
) -> tuple[LabBox, ...]:
    """All machines of the topology, ready, and each proved to reach the others on its segments. Where one fails none is left.

    ``uplink`` as :func:`ensure_pair` has it.

    Raises:
        SpecError, NotOursError: the topology stands already, or a machine of someone else has one of its names. Nothing was made.
        SegmentError: two do not reach each other.
        As :func:`images.lab.ensure_lab`.

    """
    found = find_images(machines, topology, progress=progress)
    return _ensure(
        machines, lambda: plan_topology(machines, topology, found, uplink=uplink), ttl=ttl, cold=cold, shown=progress or Silent()
    )


def find_images(machines: Machines, topology: Topology, *, progress: Progress | None = None) -> dict[str | None, Image]:
    """The image of each box, by what the topology calls it."""
    return {wanted: lab.find_image(machines, wanted, progress=progress) for wanted in dict.fromkeys(box.image for box in topology.boxes)}


def plan_topology(
    machines: Machines, topology: Topology, found: Mapping[str | None, Image], *, uplink: Uplink | None = None
) -> tuple[MachineSpec, ...]:
    """The machines of a topology, with names, networks and addresses that nothing uses.

    Raises:
        SpecError, NotOursError: it stands already, a name is taken, an image cannot be on a segment, or nothing is left to choose from.

    """
    _refuse_standing(machines, topology)
    for box in topology.boxes:
        if box.seats and found[box.image].hardware is not None:
            raise SpecError(
                f"The image {found[box.image].name} was imported, with cards of its own; it cannot be put on a segment.",
                hint="Use an image that boxshift built, or leave out its segments.",
            )
    cards = _plan_cards(machines, topology)
    count = sum(box.count for box in topology.boxes)
    numbers = iter(lab.choose_numbers(machines, count))
    return tuple(
        lab.plan_box(
            found[box.image], next(numbers), name=f"{topology.name}-{name}", group=topology.name, segments=cards[name], uplink=uplink
        )
        for box in topology.boxes
        for name in box.machine_names
    )


def plan_pair(machines: Machines, image: Image, *, uplink: Uplink | None = None) -> tuple[MachineSpec, ...]:
    """Two machines ``a`` and ``b`` on a segment; pair and segment have the first name that no group has."""
    taken = {lab.find_group(request) for request in machines.ledger.list_lab()}
    name = next(name for number in range(1, len(taken) + 2) if (name := f"{PAIR}-{number}") not in taken)
    boxes = tuple(TopologyBox(one, image.digest, 1, (Seat(name),)) for one in ("a", "b"))
    return plan_topology(machines, Topology(name, {name: None}, boxes), {image.digest: image}, uplink=uplink)


def verify_reach(machines: Machines, names: tuple[str, ...]) -> None:
    """Ask inside each machine whether the cards of the others answer on the segments that they share.

    Raises:
        SegmentError: one does not, or another card answers for it.
        IdentityError, GuestSilentError: a machine does not say.

    """
    all_cards = tuple(card for name in names for card in _list_cards(machines.read_machine(name)))
    for one in all_cards:
        peers = {str(card.address.ip): card for card in all_cards if card.segment == one.segment and card.machine != one.machine}
        answers = identity.reach(machines.hypervisor, one.uuid, one.mac, tuple(peers), factor=machines.acceleration.factor)
        for address, peer in peers.items():
            if answers[address] != peer.mac:
                who = f"{answers[address]} answers in its place" if answers[address] else "nothing answers"
                raise SegmentError(
                    f"{one.machine} does not reach {peer.machine} at {address} on the segment {one.segment}: {who}.",
                    hint="Does a filter on this computer stop multicast on its loopback interface?",
                )


@dataclass(frozen=True)
class _Card:
    machine: str
    uuid: str
    segment: str
    mac: str
    address: ipaddress.IPv4Interface


def _list_cards(facts: MachineFacts) -> Iterator[_Card]:
    for number, card in enumerate(facts.segments):
        if card.address:
            yield _Card(facts.name, facts.uuid, card.segment, segment_mac(facts.mac, number), ipaddress.IPv4Interface(card.address))


def _ensure(
    machines: Machines, plan: Callable[[], tuple[MachineSpec, ...]], *, ttl: float | None, cold: bool, shown: Progress
) -> tuple[LabBox, ...]:
    """Addresses that others took between the plan and the start are no failure: it is planned anew, some times."""
    for _ in range(ATTEMPTS - 1):
        with suppress(AddressTakenError):
            return _raise_all(machines, lab.reserve(machines, plan, ttl=ttl), cold=cold, shown=shown)
        shown.update("choosing other addresses: one was taken meanwhile")
    return _raise_all(machines, lab.reserve(machines, plan, ttl=ttl), cold=cold, shown=shown)


def _raise_all(machines: Machines, specs: tuple[MachineSpec, ...], *, cold: bool, shown: Progress) -> tuple[LabBox, ...]:
    names = tuple(spec.name for spec in specs)

    def verify() -> None:
        shown.update("looking from within whether they reach each other")
        verify_reach(machines, names)

    try:
        return lab.ensure_lab(machines, specs, cold=cold, verify=verify, progress=shown)
    except BaseException:
        shown.update("removing what was made of it")
        _remove(machines, specs)
        raise


def _remove(machines: Machines, specs: tuple[MachineSpec, ...]) -> None:
    """What cannot be removed now stays in the ledger, and `boxshift lab reap` finds it."""
    for spec in specs:
        with suppress(BoxshiftError):
            if machines.ledger.find_request(spec.request_id) is not None:
                machines.ensure_removed(spec.name)
            machines.ledger.forget_lab(spec.request_id)


def _refuse_standing(machines: Machines, topology: Topology) -> None:
    if topology.name in {lab.find_group(request) for request in machines.ledger.list_lab()}:
        raise SpecError(f"A group {topology.name} stands already.", hint=f"Remove it first: boxshift lab down {topology.name}.")
    wanted = {f"{topology.name}-{name}" for box in topology.boxes for name in box.machine_names}
    ours = {facts.name for facts in machines.list_machines()}
    taken = sorted(wanted & (ours | {domain.name for domain in machines.hypervisor.list_domains()}))
    if taken:
        raise NotOursError(f"A machine named {taken[0]} is there already; it is left alone.", hint="Give the topology another name.")


def _plan_cards(machines: Machines, topology: Topology) -> dict[str, tuple[SegmentCard, ...]]:
    """Machine's name in the topology -> its cards."""
    used = [
        ipaddress.IPv4Interface(card.address).network for facts in machines.list_machines() for card in facts.segments if card.address
    ] + [network for network in topology.segments.values() if network is not None]
    cards: dict[str, list[SegmentCard]] = {name: [] for box in topology.boxes for name in box.machine_names}
    for segment, wanted in topology.segments.items():
        network = wanted or free_network(used)
        used.append(network)
        members = [(box, name) for box in topology.boxes for name in box.machine_names if _seat(box, segment) is not None]
        shown = segment if segment == topology.name else f"{topology.name}-{segment}"
        addresses = _choose_addresses(segment, network, members)
        for (_, name), card in zip(members, plan_segment(shown, network, addresses), strict=True):
            cards[name].append(card)
    return {name: tuple(found) for name, found in cards.items()}


def _seat(box: TopologyBox, segment: str) -> ipaddress.IPv4Address | str | None:
    """The address that the box asks for on the segment; empty: any; None: it is not on it."""
    return next((seat.address or "" for seat in box.seats if seat.segment == segment), None)


def _choose_addresses(segment: str, network: ipaddress.IPv4Network, members: list[tuple[TopologyBox, str]]) -> list[str]:
    asked = {str(_seat(box, segment)) for box, _ in members}
    free = (str(one) for one in network.hosts() if str(one) not in asked)
    try:
        return [str(_seat(box, segment)) or next(free) for box, _ in members]
    except StopIteration:
        raise SpecError(f"{network} has not enough addresses for the segment {segment}.", hint="Give it a larger network.") from None
