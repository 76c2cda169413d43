"""The stage made of virtual machines on one network, where the boxes reach each other and visitors reach both.

It stands in a network of its own (:mod:`images.apart`): this computer's own has no part in it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from certs.served import read_pin
from images.apart import verify_apart
from images.home import find_home
from images.hypervisor_networks import NewNetwork, start_network
from images.machine import MachineSpec, open_machines
from images.reference_image import HOST_SEEN_FROM_GUEST, UPDATE_SERVER, ensure_reference_image
from images.uplink import Uplink, UplinkKind
from kit.progress import Progress
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.gateway import PUBLIC, ensure_gateway_image, lead_there, raise_gateway
from migrate.demo.raising import CPUS, GENTLE, HTTPS, boot, fill, remove, start_updates
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import Cast, Machine, OldSite, SiteSize, Stage, render_second, seed_input

NETWORK = "boxshift-demo"
PREFIX = 24
SERVICE = "10.0.2.20"


@dataclass(frozen=True)
class Card:
    """A machine's card on the network: the lease that DHCP keeps for it."""

    mac: str
    address: str


OLD, NEW = Card("52:54:00:00:02:0b", "10.0.2.11"), Card("52:54:00:00:02:0c", "10.0.2.12")
CARDS = {"old": OLD, "new": NEW, "gateway": Card("52:54:00:00:02:04", "10.0.2.4")}


class NetworkStage(Stage):
    """Old at 10.0.2.11, new at 10.0.2.12, the old one serving on 10.0.2.20 and the new one on 10.0.2.22.

    ``pair``: both boxes stand from the beginning, and share 10.0.2.20; otherwise the run makes the new one. ``nat``: visitors come in
    through a gateway.
    """

    def __init__(self, folder: Path, *, pair: bool = False, nat: bool = False) -> None:
        self.port = HTTPS
        self.pace = GENTLE
        own = SERVICE if pair else "10.0.2.22"
        self.old = Cast(OLD.address, SERVICE, SERVICE)
        self.new = Cast(NEW.address, own, own)
        self._folder, self._pair, self._nat = folder, pair, nat
        self._stack = ExitStack()
        self._image = ""

    @property
    def update_server(self) -> str:
        """The same from this computer as from the boxes."""
        return UPDATE_SERVER

    @property
    def entrance(self) -> str:
        """Visitors come in through the gateway, where there is one."""
        return PUBLIC if self._nat else self.old.visible

    @property
    def peers(self) -> tuple[PairPlace, PairPlace]:
        """The administration addresses."""
        return PairPlace(OLD.address, HTTPS), PairPlace(NEW.address, HTTPS)

    def raise_old(self, size: SiteSize, secrets: DemoSecrets, issued: Issued, progress: Progress) -> OldSite:
        """Put up the network, boot the old box (of a pair: both), bring it several packages ahead, fill it."""
        verify_apart()
        home = find_home()
        self._image = ensure_reference_image(home, progress=progress).digest
        machines = self._stack.enter_context(open_machines(home, progress=progress))
        wire = IPv4Interface(f"{HOST_SEEN_FROM_GUEST}/{PREFIX}")
        start_network(machines.hypervisor, NewNetwork(NETWORK, wire, tuple((card.mac, card.address) for card in CARDS.values())))
        start_updates(self._stack, self._folder, HOST_SEEN_FROM_GUEST)
        boxes = [self._spec(which) for which in (("old", "new") if self._pair else ("old",))]
        gateways = [self._spec("gateway", ensure_gateway_image(progress).digest)] if self._nat else []
        for spec in (*boxes, *gateways):
            machines.ensure_machine(spec)  # they boot side by side
        for spec in boxes:
            boot(machines, spec, progress)
        for spec in gateways:
            self.gateway = raise_gateway(machines, spec.name, self._folder, (self.old.visible, self.port), progress)
            lead_there(self.gateway, NETWORK)
        progress.update("filling the old site")
        wish = seed_input(size, secrets, issued) | {"service_addresses": [f"{self.old.inside}/{PREFIX}"]}
        clients = fill(machines, self._name("old"), size.packages, wish)
        if self._pair:
            progress.update("preparing the other box")
            second = render_second(wish, secrets, f"{self.new.inside}/{PREFIX}") | {"service_addresses": []}
            fill(machines, self._name("new"), size.packages, second)
        return OldSite(clients, read_pin(OLD.address, HTTPS))

    def _spec(self, which: str, image: str = "") -> MachineSpec:
        card, name = CARDS[which], self._name(which)
        uplink = Uplink(UplinkKind.NETWORK, NETWORK)
        cpus = None if image else CPUS
        return MachineSpec(name, image or self._image, f"{name} in {self._folder}", cpus=cpus, uplink=uplink, mac=card.mac)

    def _name(self, which: str) -> str:
        return f"boxshift-apart-{which}"

    def new_pin(self) -> str:
        """Of a pair it is read from the box that stands there; otherwise the run makes the box, and learns its key then."""
        return read_pin(NEW.address, HTTPS) if self._pair else ""

    def machine(self, which: str) -> Machine | None:
        """Both boxes are machines; of a migration the new one is made from an image by the run."""
        made = which == "new" and not self._pair
        return Machine("", self._name(which), self._image if made else "", CPUS, card=(NETWORK, CARDS[which].mac))

    def close(self) -> None:
        """Remove the machines. The network goes with the namespace that it is in."""
        with self._stack:
            remove(map(self._name, CARDS))
