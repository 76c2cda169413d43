"""What stages of virtual machines have in common: a reference appliance is booted, given packages, and filled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from images.clone import plan_ports
from images.home import find_home
from images.identity import plug
from images.local_appliance import LocalUpdateServer
from images.machine import GUEST_SECONDS, MachineFacts, Machines, MachineSpec, open_machines
from images.readiness import https_probe, wait_for_ready
from images.reference_image import UPDATE_PORT, vendor_folder
from kit.errors import ToolError
from kit.progress import Progress
from kit.secret import Secret
from migrate.demo.stage import Pace

APPLIANCE = "/usr/local/sbin/appliance"
PACKAGES = "/root/packages"
SEED_SECONDS = 240.0
HTTPS = 443
CPUS = 2  # emulation runs one thread for each
# An emulated processor needs a tenth of a second for one handshake: a visitor that gives up early only adds another.
GENTLE = Pace(rate=1.0, timeout=10.0, checkin_every=20.0, first_visit=300.0)


def start_updates(stack: ExitStack, folder: Path, address: str) -> None:
    """The vendor's update server, where the reference appliance's image looks for it."""
    updates = LocalUpdateServer(vendor_folder(find_home()), folder / "updates", port=UPDATE_PORT, address=address)
    updates.start()
    stack.callback(updates.stop)


def boot(machines: Machines, spec: MachineSpec, progress: Progress) -> MachineFacts:
    """Make it, and wait until its health page answers."""
    machines.ensure_machine(spec)
    facts = wait_for_ready(machines, spec.name, probe=https_probe("/check_health", status=200), progress=progress)
    if ports := plan_ports(facts):
        plug(machines.hypervisor, facts.uuid, ports, factor=machines.acceleration.factor)
    return facts


def fill(machines: Machines, name: str, packages: Sequence[str], content: dict[str, object]) -> tuple[str, ...]:
    """Have the appliance's own ``seed`` command install the packages and fill it; its Jump Clients."""
    for package in packages:
        source = (vendor_folder(find_home()) / "packages" / f"{package}.pkg").read_bytes()
        put(machines, name, f"{PACKAGES}/{package}.pkg", source, timeout=SEED_SECONDS)
    wish = content | {"packages": list(packages), "package_folder": PACKAGES}
    clients = json.loads(ask(machines, name, APPLIANCE, "seed", stdin=Secret(json.dumps(wish)), timeout=SEED_SECONDS))["jump_clients"]
    return tuple(str(client) for client in clients) if isinstance(clients, list) else ()


def remove(names: Iterable[str]) -> None:
    """The machines of these names, where there are such."""
    with open_machines(find_home()) as machines:
        for name in names:
            machines.ensure_removed(name)


def put(machines: Machines, name: str, path: str, content: bytes, *, timeout: float = GUEST_SECONDS) -> None:
    """A file inside, for root alone."""
    ask(machines, name, "/usr/bin/install", "-D", "-m", "600", "/dev/stdin", path, stdin=content, timeout=timeout)


def ask(machines: Machines, name: str, *argv: str, stdin: bytes | Secret | None = None, timeout: float = GUEST_SECONDS) -> str:
    """Run a program inside; what it prints.

    Raises:
        ToolError: it failed. What it said is told, unless it was given a secret, which it may quote.

    """
    done = machines.run_in_guest(name, argv, stdin=stdin, timeout=timeout)
    if done.status != 0:
        said = "" if isinstance(stdin, Secret) else f": {done.err.decode(errors='replace').strip()}"
        raise ToolError(f"{argv[0]} in {name} ended with status {done.status}{said}.", hint="Look at its console: boxshift lab console.")
    return done.text
