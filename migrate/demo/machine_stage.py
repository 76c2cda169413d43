"""The stage made of virtual machines: an old appliance boots from the reference image; the run itself makes the new one."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path

from certs.served import read_pin
from images.domain import Forward
from images.home import find_home
from images.machine import Machines, MachineSpec, open_machines
from images.reference_image import UPDATE_PORT, ensure_reference_image
from images.segment import SegmentCard, free_network, plan_segment
from kit.progress import Progress
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.raising import CPUS, GENTLE, HTTPS, boot, fill, remove, start_updates
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import Cast, Machine, OldSite, SiteSize, Stage, seed_input

INSIDE = "10.0.2.20"


class MachineStage(Stage):
    """Old at ``127.N.1.11``, new at ``127.N.1.12``; both serve on 10.0.2.20 inside, each in a network of its own.

    ``meet``: they are on a private segment as well, where they reach each other.
    """

    def __init__(self, folder: Path, *, net: int = 0, port: int = 8443, keep: bool = False, meet: bool = False) -> None:
        self.port = port
        self.pace = GENTLE
        self.old = Cast(f"127.{net}.1.11", INSIDE, f"127.{net}.0.11")
        self.new = Cast(f"127.{net}.1.12", INSIDE, f"127.{net}.0.12")
        self._folder, self._keep = folder, keep
        self._names = {which: f"boxshift-demo-{which}" + (f"-{net}" if net else "") for which in ("old", "new")}
        self._meet = meet
        self._cards: tuple[SegmentCard, ...] = ()
        self._stack = ExitStack()
        self._image = ""

    @property
    def update_server(self) -> str:
        return f"http://127.0.0.1:{UPDATE_PORT}"

    def raise_old(self, size: SiteSize, secrets: DemoSecrets, issued: Issued, progress: Progress) -> OldSite:
        """Build the image, boot the old box, bring it several packages ahead, fill it."""
        home = find_home()
        self._image = ensure_reference_image(home, progress=progress).digest
        start_updates(self._stack, self._folder, "127.0.0.1")
        machines = self._stack.enter_context(open_machines(home, progress=progress))
        for name in self._names.values():
            machines.ensure_removed(name)  # what an earlier demo was asked to keep, or lost in a crash
        name = self._names["old"]
        self._cards = self._plan_cards(machines) if self._meet else ()
        spec = MachineSpec(name, self._image, f"{name} in {self._folder}", self._forwards(), cpus=CPUS, segments=self._cards[:1])
        boot(machines, spec, progress)
        progress.update("filling the old site")
        own = {"service_addresses": [f"{INSIDE}/24", *(card.address for card in self._cards[:1])]}
        clients = fill(machines, name, size.packages, seed_input(size, secrets, issued) | own)
        return OldSite(clients, read_pin(self.old.admin, self.port))

    def _plan_cards(self, machines: Machines) -> tuple[SegmentCard, ...]:
        """The two ends of a segment of their own, the old box's first."""
        used = [IPv4Interface(card.address).network for one in machines.list_machines() for card in one.segments if card.address]
        network = free_network(used)
        return plan_segment(self._names["old"], network, (str(network[1]), str(network[2])))

    @property
    def peers(self) -> tuple[PairPlace, PairPlace]:
        """Their ends of the segment."""
        old, new = (PairPlace(card.address.partition("/")[0], HTTPS) for card in self._cards)
        return old, new

    def _forwards(self) -> tuple[Forward, ...]:
        return (Forward(self.old.admin, self.port, "10.0.2.15", 443), Forward(self.old.visible, self.port, INSIDE, 443))

    def new_pin(self) -> str:
        """The run makes the new box, and learns its key then."""
        return ""

    def machine(self, which: str) -> Machine | None:
        """Both boxes are machines; only the new one is made from an image by the run."""
        segment = (self._cards[1].segment, self._cards[1].address) if self._cards else None
        return Machine("", self._names[which], self._image if which == "new" else "", CPUS, segment)

    def close(self) -> None:
        """Remove both machines, unless they shall be kept to be looked at."""
        with self._stack:
            if not self._keep:
                remove(self._names.values())
