"""The stage made of virtual machines: an old appliance boots from the reference image; the run itself makes the new one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path

from certs.served import read_pin
from images.clone import plan_ports
from images.domain import Forward
from images.home import find_home
from images.identity import plug
from images.local_appliance import LocalUpdateServer
from images.machine import Machines, MachineSpec, open_machines
from images.readiness import https_probe, wait_for_ready
from images.reference_image import UPDATE_PORT, ensure_reference_image, vendor_folder
from images.segment import SegmentCard, free_network, plan_segment
from kit.errors import ToolError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import Cast, Machine, OldSite, Pace, SiteSize, seed_input

INSIDE = "10.0.2.20"
APPLIANCE = "/usr/local/sbin/appliance"
PACKAGES = "/root/packages"
SEED_SECONDS = 240.0
HTTPS = 443
CPUS = 2  # emulation runs one thread for each


class MachineStage:
    """Old at ``127.N.1.11``, new at ``127.N.1.12``; both serve on 10.0.2.20 inside, each in a network of its own.

    ``meet``: they are on a private segment as well, where they reach each other.
    """

    def __init__(self, folder: Path, *, net: int = 0, port: int = 8443, keep: bool = False, meet: bool = False) -> None:
        self.port = port
        # An emulated processor needs a tenth of a second for one handshake: a visitor that gives up early only adds another.
        self.pace = Pace(rate=1.0, timeout=10.0, checkin_every=20.0, first_visit=300.0)
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
        updates = LocalUpdateServer(vendor_folder(home), self._folder / "updates", port=UPDATE_PORT)
        updates.start()
        self._stack.callback(updates.stop)
        machines = self._stack.enter_context(open_machines(home, progress=progress))
        for name in self._names.values():
            machines.ensure_removed(name)  # what an earlier demo was asked to keep, or lost in a crash
        name = self._names["old"]
        self._cards = self._plan_cards(machines) if self._meet else ()
        request = f"{name} in {self._folder}"
        machines.ensure_machine(MachineSpec(name, self._image, request, self._forwards(), cpus=CPUS, segments=self._cards[:1]))
        facts = wait_for_ready(machines, name, probe=https_probe("/check_health", status=200), progress=progress)
        if ports := plan_ports(facts):
            plug(machines.hypervisor, facts.uuid, ports, factor=machines.acceleration.factor)
        progress.update("filling the old site")
        summary = self._fill(machines, name, size.packages, seed_input(size, secrets, issued))
        clients = summary["jump_clients"]
        return OldSite(tuple(str(client) for client in clients) if isinstance(clients, list) else (), read_pin(self.old.admin, self.port))

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

    def _fill(self, machines: Machines, name: str, packages: Sequence[str], content: dict[str, object]) -> dict[str, object]:
        for package in packages:
            source = (vendor_folder(find_home()) / "packages" / f"{package}.pkg").read_bytes()
            _run(machines, name, ["/usr/bin/install", "-D", "-m", "600", "/dev/stdin", f"{PACKAGES}/{package}.pkg"], source)
        own = [f"{INSIDE}/24", *(card.address for card in self._cards[:1])]
        wish = content | {"packages": list(packages), "package_folder": PACKAGES, "service_addresses": own}
        summary: dict[str, object] = json.loads(_run(machines, name, [APPLIANCE, "seed"], Secret(json.dumps(wish))))
        return summary

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
                with open_machines(find_home()) as machines:
                    for name in self._names.values():
                        machines.ensure_removed(name)


def _run(machines: Machines, name: str, argv: list[str], stdin: bytes | Secret) -> str:
    """Run a program inside; what it says may quote its input, so only its exit status is told."""
    done = machines.run_in_guest(name, argv, stdin=stdin, timeout=SEED_SECONDS)
    if done.status != 0:
        raise ToolError(f"{argv[0]} in {name} ended with status {done.status}.", hint="Look at its console: boxshift lab console.")
    return done.text
