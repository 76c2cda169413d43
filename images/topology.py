"""A small network of appliances as a file: boxes, the image of each, and the private segments that they are on.

::

    name: branch
    segments:
      office: 10.123.40.0/24
      transfer:                  # a network is chosen
    boxes:
      gateway:
        segments: {office: 10.123.40.1, transfer: }    # an address, or one is chosen
      desk:
        image: debian-minimal    # left out: the reference appliance
        count: 3
        segments: [office]
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from images.errors import TopologyError
from images.segment import MOST_CARDS
from kit.yaml_lines import Document, Fault, FaultyYaml, Place, Tree, parse_yaml, render_key

MOST_BYTES = 64_000
OUTSIDE = ipaddress.IPv4Network("10.0.2.0/24")  # of user networking, in every machine
MOST_BOXES = 64
WORD = re.compile(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?")
A_WORD = "lower-case letters, digits and dashes, beginning with a letter, at most 16"


@dataclass(frozen=True)
class Seat:
    """A card of a box on a segment; ``address`` None: one is chosen."""

    segment: str
    address: ipaddress.IPv4Address | None = None


@dataclass(frozen=True)
class TopologyBox:
    """Machines of one kind, ``count`` of them. ``image``: a name or digest, None for the reference appliance."""

    name: str
    image: str | None
    count: int
    seats: tuple[Seat, ...]

    @property
    def machine_names(self) -> tuple[str, ...]:
        """Without the topology's own name in front."""
        return (self.name,) if self.count == 1 else tuple(f"{self.name}-{number}" for number in range(1, self.count + 1))


@dataclass(frozen=True)
class Topology:
    """A network that is wanted. ``segments``: name -> the network that its addresses are of, None: one is chosen."""

    name: str
    segments: dict[str, ipaddress.IPv4Network | None]
    boxes: tuple[TopologyBox, ...]


def read_topology(path: Path) -> Topology:
    """The topology in a file; its name is the file's where it gives none.

    Raises:
        TopologyError: it cannot be read, or has faults: all of them, each with its line.

    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TopologyError(f"The topology {path} cannot be read: {error.strerror}.", hint="Give the path of a file.") from error
    return parse_topology(raw, str(path), usual_name=path.stem)


def parse_topology(raw: bytes, source: str, *, usual_name: str) -> Topology:
    """The same of what stands in the file; ``source`` names it in messages."""
    found, faults = _read(raw, usual_name)
    if found is None or faults:
        told = "; ".join(f"line {fault.line}: {fault.text}" for fault in sorted(faults, key=lambda fault: fault.line))
        raise TopologyError(
            f"The topology {source} has faults: {told}.", hint="`boxshift lab topology --help` shows one with every setting."
        )
    return found


def _read(raw: bytes, usual_name: str) -> tuple[Topology | None, list[Fault]]:
    if len(raw) > MOST_BYTES:
        return None, [Fault(1, f"it is longer than the {MOST_BYTES} bytes that a topology may have")]
    try:
        reader = _Reader(parse_yaml(raw.decode()))
    except UnicodeDecodeError:
        return None, [Fault(1, "it is not text in UTF-8")]
    except FaultyYaml as faulty:
        return None, faulty.faults
    return reader.read(usual_name), reader.faults


@dataclass
class _Reader:
    """Walks through the values and collects what is wrong with them."""

    document: Document
    faults: list[Fault] = field(init=False)

    def __post_init__(self) -> None:
        self.faults = list(self.document.faults)

    def read(self, usual_name: str) -> Topology:
        tree = self._mapping(self.document.tree, (), {"name", "segments", "boxes"})
        name = self._word(tree.get("name", usual_name), ("name",), what="the topology's name")
        segments = self._read_segments(tree.get("segments"))
        boxes = self._read_boxes(tree.get("boxes"), segments)
        if not boxes and not self.faults:
            self._fault(("boxes",), "boxes: there is none")
        if sum(box.count for box in boxes) > MOST_BOXES:
            self._fault(("boxes",), f"boxes: there are more than {MOST_BOXES}")
        self._check_names(boxes)
        self._check_addresses(boxes)
        return Topology(name, segments, boxes)

    def _read_segments(self, tree: Tree) -> dict[str, ipaddress.IPv4Network | None]:
        found: dict[str, ipaddress.IPv4Network | None] = {}
        for name, value in self._mapping(tree, ("segments",)).items():
            place = ("segments", name)
            self._word(name, place, what="a segment's name")
            found[name] = None
            if value is not None:
                found[name] = self._network(value, place)
        named = [(name, network) for name, network in found.items() if network is not None]
        for number, (name, network) in enumerate(named):
            for other, theirs in named[:number]:
                if network.overlaps(theirs):
                    self._fault(("segments", name), f"segments.{name}: its addresses are those of {other} as well")
        return found

    def _network(self, value: Tree, place: Place) -> ipaddress.IPv4Network | None:
        try:
            network = ipaddress.IPv4Network(str(value))
        except ValueError:
            self._fault(place, f"{_show(place)}: this is no IPv4 network such as 10.123.90.0/24")
            return None
        if not 8 <= network.prefixlen <= 30 or network.is_loopback or network.is_multicast:
            self._fault(place, f"{_show(place)}: a segment cannot have this network; take one of /8 to /30 such as 10.123.90.0/24")
        if network.overlaps(OUTSIDE):
            self._fault(place, f"{_show(place)}: {OUTSIDE} leads out of each machine; take another network")
        return network

    def _read_boxes(self, tree: Tree, segments: dict[str, ipaddress.IPv4Network | None]) -> tuple[TopologyBox, ...]:
        boxes = []
        for name, value in self._mapping(tree, ("boxes",)).items():
            place = ("boxes", name)
            self._word(name, place, what="a box's name")
            box = self._mapping(value, place, {"image", "count", "segments"})
            image = box.get("image")
            if not isinstance(image, str | None):
                self._fault((*place, "image"), f"{_show((*place, 'image'))}: this is no name of an image")
                image = None
            seats = self._read_seats(box.get("segments"), (*place, "segments"), segments)
            boxes.append(TopologyBox(name, image, self._count(box.get("count", "1"), (*place, "count")), seats))
        return tuple(boxes)

    def _read_seats(self, tree: Tree, place: Place, segments: dict[str, ipaddress.IPv4Network | None]) -> tuple[Seat, ...]:
        pairs: list[tuple[Place, str, Tree]]
        if isinstance(tree, list):
            pairs = [((*place, str(number)), str(name), None) for number, name in enumerate(tree)]
        else:
            pairs = [((*place, name), name, value) for name, value in self._mapping(tree, place).items()]
        seats: list[Seat] = []
        for where, name, value in pairs:
            if name not in segments:
                self._fault(where, f"{_show(place)}: there is no segment of this name under segments")
            elif name in {seat.segment for seat in seats}:
                self._fault(where, f"{_show(place)}: {name} stands twice")
            else:
                seats.append(Seat(name, None if value is None else self._address(value, where, segments[name])))
        if len(seats) > MOST_CARDS:
            self._fault(place, f"{_show(place)}: a box can be on {MOST_CARDS} segments at most")
        return tuple(seats)

    def _address(self, value: Tree, place: Place, network: ipaddress.IPv4Network | None) -> ipaddress.IPv4Address | None:
        try:
            address = ipaddress.IPv4Address(str(value))
        except ValueError:
            self._fault(place, f"{_show(place)}: this is no IPv4 address")
            return None
        if network is None:
            self._fault(place, f"{_show(place)}: an address needs the segment's network; write it under segments")
        elif address not in network or address in (network.network_address, network.broadcast_address):
            self._fault(place, f"{_show(place)}: this address is not one that a machine on {network} can have")
        return address

    def _count(self, value: Tree, place: Place) -> int:
        if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]?", value) and int(value) <= MOST_BOXES:
            return int(value)
        self._fault(place, f"{_show(place)}: this is no number from 1 to {MOST_BOXES}")
        return 1

    def _check_names(self, boxes: tuple[TopologyBox, ...]) -> None:
        names = Counter(name for box in boxes for name in box.machine_names)
        for box in boxes:
            if any(names[name] > 1 for name in box.machine_names):
                self._fault(("boxes", box.name), f"boxes.{render_key(box.name)}: a machine of another box would have the same name")

    def _check_addresses(self, boxes: tuple[TopologyBox, ...]) -> None:
        taken: dict[tuple[str, ipaddress.IPv4Address], str] = {}
        for box in boxes:
            for seat in box.seats:
                place = ("boxes", box.name, "segments", seat.segment)
                if seat.address is None:
                    continue
                if box.count > 1:
                    self._fault(place, f"{_show(place)}: {box.count} machines cannot have one address; leave it out")
                other = taken.setdefault((seat.segment, seat.address), box.name)
                if other != box.name:
                    self._fault(place, f"{_show(place)}: {render_key(other)} has this address")

    def _mapping(self, tree: Tree, place: Place, known: set[str] | None = None) -> dict[str, Tree]:
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            self._fault(place, f"{_show(place) or 'the file'}: names with values belong here")
            return {}
        for name in tree:
            if known is not None and name not in known:
                shown = ", ".join(sorted(known))
                self._fault((*place, name), f"{_show((*place, name))}: there is no such setting; there are {shown}")
        return tree

    def _word(self, value: Tree, place: Place, *, what: str) -> str:
        if isinstance(value, str) and WORD.fullmatch(value):
            return value
        self._fault(place, f"{_show(place)}: this cannot be {what}; use {A_WORD}")
        return ""

    def _fault(self, place: Place, text: str) -> None:
        while place and place not in self.document.lines:
            place = place[:-1]
        self.faults.append(Fault(self.document.lines.get(place, 1), text))


def _show(place: Place) -> str:
    return ".".join(render_key(part) for part in place)
