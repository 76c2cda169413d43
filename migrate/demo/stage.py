"""Where a demo plays: two boxes, reached somehow. The same play runs on virtual machines and on local processes."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kit.errors import RefusedError, UnexpectedError
from kit.progress import Progress
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.secrets_file import DemoSecrets

SITE = "support.example.test"
ZONE = "example.test"
PORT = 8443
NETS = 32
TRANSFER = "transfer"  # folder of packages for a box that cannot go out
NEWEST = ("base-5.2.0", "base-5.3.0", "site-21.2.1", "site-21.3.2", "site-22.1.4")


@dataclass(frozen=True)
class Cast:
    """How one box is reached: ``admin`` from this machine, ``inside`` as the box names its service address, ``visible`` for visitors."""

    admin: str
    inside: str
    visible: str


@dataclass(frozen=True)
class Machine:
    """The machine that a box is, for the plan. ``image`` empty: it exists.

    ``segment``: a private one's name, and the address there; ``card``: the hypervisor's network that it is on, and its hardware address.
    """

    hypervisor: str
    name: str
    image: str
    cpus: int = 1
    segment: tuple[str, str] | None = None
    card: tuple[str, str] | None = None


@dataclass(frozen=True)
class Gateway:
    """What a plan says of a gateway. ``host_key``: its fingerprint; ``key``: the file that opens it."""

    address: str
    host_key: str
    key: Path


@dataclass(frozen=True)
class SiteSize:
    """How much the old site holds, and which packages are installed on the box that it is on."""

    users: int = 40
    sessions: int = 5000
    recordings: int = 200
    file_items: int = 60
    jump_clients: int = 25
    packages: tuple[str, ...] = NEWEST


@dataclass(frozen=True)
class Pace:
    """How hard visitors press: requests a second; seconds until one gives up, between two check-ins, and for the first visit."""

    rate: float
    timeout: float
    checkin_every: float
    first_visit: float


@dataclass(frozen=True)
class OldSite:
    """The old box's site when it is filled: its Jump Clients, and the key that its administration address serves."""

    jump_clients: tuple[str, ...]
    pin: str


class Stage(Protocol):
    """Two boxes. ``close`` takes away everything that the stage put up, and only that.

    ``gateway``: what leads visitors in; None where they reach the boxes themselves.
    """

    old: Cast
    new: Cast
    port: int
    pace: Pace
    gateway: Gateway | None = None

    @property
    def entrance(self) -> str:
        """The address that the site's name leads to at first: the old box's, unless something else leads visitors in."""
        return self.old.visible

    @property
    def update_server(self) -> str:
        """Its address from this machine."""
        ...

    @property
    def peers(self) -> tuple[PairPlace, PairPlace]:
        """Where the old and the new box answer each other."""
        ...

    def raise_old(self, size: SiteSize, secrets: DemoSecrets, issued: Issued, progress: Progress) -> OldSite:
        """The old box runs, has the packages that ``size`` names beyond those of its image, is filled, and serves the site."""
        ...

    def new_pin(self) -> str:
        """The key that the new box serves, where it stands already; empty where the run makes it."""
        ...

    def machine(self, which: str) -> Machine | None:
        """The virtual machine of ``old`` or ``new``, None on a stage without."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class PlanParts:
    """What goes into the demo's plan."""

    stage: Stage
    site: OldSite
    dns_port: int
    key_name: str
    soak: float


def render_demo_plan(parts: PlanParts) -> str:
    """The plan file of a demo: an ordinary plan, nothing in it that a user could not write."""
    cutover = f"""\
cutover:
  method: dns
  data: resync
  dns:
    server: 127.0.0.1
    port: {parts.dns_port}
    zone: {ZONE}
    key_name: {parts.key_name}
    key: "file:secrets.yaml#tsig"
    ttl: 2
    authoritative: [{{address: 127.0.0.1, port: {parts.dns_port}, name: ns1.{ZONE}}}]
"""
    return _render_migration(parts, cutover)


def render_nat_plan(parts: PlanParts) -> str:
    """The same with visitors led by a gateway."""
    gateway = parts.stage.gateway
    if gateway is None:
        raise UnexpectedError("This stage has no gateway.")
    cutover = f"""\
cutover:
  method: nat
  data: resync
  nat: {{gateway: {gateway.address}, host_key: "{gateway.host_key}", key: {gateway.key}, public: {parts.stage.entrance}}}
"""
    return _render_migration(parts, cutover)


def render_shared_plan(parts: PlanParts) -> str:
    """The same with the old box's service address taken over by the new one."""
    return _render_migration(parts, "cutover: {method: shared-ip, data: resync}\n")


def _render_migration(parts: PlanParts, cutover: str) -> str:
    stage = parts.stage
    return f"""\
# Written by `boxshift demo`. An ordinary plan: docs/reference/plan.md explains every line.
boxshift: 1
site: {{name: {SITE}, port: {stage.port}}}
{_render_old("old", parts)}new:
  address: {stage.new.admin}
  port: {stage.port}
{_render_pin(stage.new_pin())}{_render_machine(stage.machine("new"))}\
  service: {{address: {stage.new.inside}, reached_at: {stage.new.visible}}}
  accounts:
    site: {{password: "file:secrets.yaml#new_site"}}
    appliance: {{password: "file:secrets.yaml#new_appliance"}}
certificate: {{roots: root.pem, safety_passphrase: "file:secrets.yaml#safety_copy"}}
backup: {{password: "file:secrets.yaml#backup"}}
packages: {{source: box, accept_eula: true}}
{cutover}watch: {{soak: {parts.soak:g}s}}
retire: {{hold: 1s, carrier: "demo: nothing to carry"}}
"""


def render_failover_plan(parts: PlanParts) -> str:
    """The same with the data moved by failover."""
    return by_failover(render_demo_plan(parts), parts.stage)


def by_failover(plan: str, stage: Stage) -> str:
    """Another migration's plan with the data moved by failover."""
    places = stage.peers
    pair = f"""\
  data: failover
  failover:
    pre_shared_key: "file:secrets.yaml#pair"
    old: {{host: {places[0].host}, port: {places[0].port}}}
    new: {{host: {places[1].host}, port: {places[1].port}}}
"""
    return plan.replace("  data: resync\n", pair)


def render_offline_plan(parts: PlanParts) -> str:
    """The same with packages from a folder."""
    return render_upgrade_plan(parts).replace("source: box", f"source: folder, folder: {TRANSFER}")


def render_upgrade_plan(parts: PlanParts) -> str:
    """The plan file of a demo that upgrades the old box where it stands."""
    stage = parts.stage
    return f"""\
# Written by `boxshift demo --scenario upgrade`. An ordinary plan: docs/reference/upgrade-plan.md explains every line.
boxshift: 1
procedure: upgrade
site: {{name: {SITE}, port: {stage.port}}}
{_render_old("box", parts)}certificate: {{roots: root.pem, safety_passphrase: "file:secrets.yaml#safety_copy"}}
backup: {{password: "file:secrets.yaml#backup"}}
packages: {{source: box, accept_eula: true, longest: 60s}}
clients: {{wait: updated, at_most: 24h}}
"""


def render_pair_plan(parts: PlanParts, method: str) -> str:
    """The plan file of a demo that upgrades a failover pair to the first site package of the path."""
    stage = parts.stage
    accounts = """\
  accounts:
    site: {password: "file:secrets.yaml#new_site"}
    appliance: {password: "file:secrets.yaml#new_appliance"}
    api: {client_id: demo, secret: "file:secrets.yaml#old_api"}
"""
    return f"""\
# Written by `boxshift demo --scenario pair-{method}`. An ordinary plan: docs/reference/pair-upgrade-plan.md explains every line.
boxshift: 1
procedure: pair-upgrade
method: {method}
site: {{name: {SITE}, port: {stage.port}}}
{_render_old("a", parts)}b:
  address: {stage.new.admin}
  port: {stage.port}
  pin: {stage.new_pin()}
{_render_machine(stage.machine("new"))}  service: {{address: {stage.new.inside}, reached_at: {stage.new.visible}}}
{accounts}shared: [{stage.old.inside}]
pre_shared_key: "file:secrets.yaml#pair"
certificate: {{roots: root.pem, safety_passphrase: "file:secrets.yaml#safety_copy"}}
backup: {{password: "file:secrets.yaml#backup"}}
packages: {{source: box, accept_eula: true, longest: 60s, target: {{site: "21.2.1"}}}}
clients: {{wait: updated, at_most: 24h}}
"""


def _render_old(key: str, parts: PlanParts) -> str:
    """The box that is filled, under the name that the plan has for it."""
    stage = parts.stage
    return f"""\
{key}:
  address: {stage.old.admin}
  port: {stage.port}
  pin: {parts.site.pin}
{_render_machine(stage.machine("old"))}  service: {{address: {stage.old.inside}, reached_at: {stage.old.visible}}}
  accounts:
    site: {{password: "file:secrets.yaml#old_site"}}
    appliance: {{password: "file:secrets.yaml#old_appliance"}}
    api: {{client_id: demo, secret: "file:secrets.yaml#old_api"}}
"""


def _render_machine(machine: Machine | None) -> str:
    if machine is None:
        return ""
    image = f", image: {machine.image}, cpus: {machine.cpus}" if machine.image else ""
    segment = f", segment: {{name: {machine.segment[0]}, address: {machine.segment[1]}}}" if machine.segment and machine.image else ""
    card = f", network: {machine.card[0]}, mac: '{machine.card[1]}'" if machine.card and machine.image else ""
    return f"  machine: {{hypervisor: '{machine.hypervisor}', name: {machine.name}{image}{segment}{card}}}\n"


def _render_pin(pin: str) -> str:
    return f"  pin: {pin}\n" if pin else ""


def seed_input(size: SiteSize, secrets: DemoSecrets, issued: Issued) -> dict[str, object]:
    """What the reference appliance's own ``seed`` command reads on its standard input, secrets included."""
    return {
        "site_name": SITE,
        "company": "Example & Söhne <demo>",
        "users": size.users,
        "sessions": size.sessions,
        "recordings": size.recordings,
        "file_items": size.file_items,
        "jump_clients": size.jump_clients,
        "site_password": secrets.old_site.reveal(),
        "appliance_password": secrets.old_appliance.reveal(),
        "api_client_id": "demo",
        "api_client_secret": secrets.old_api.reveal(),
        "jump_client_secret": secrets.jump_clients.reveal(),
        "preshared_key": secrets.pair.reveal(),
        "certificate_pem": issued.chain,
        "key_pem": issued.key,
        "vault": True,
    }


def render_second(wish: dict[str, object], secrets: DemoSecrets, shared: str) -> dict[str, object]:
    """The other box of a pair: the same software and certificate, accounts of its own, nothing in it, the shared address switched off."""
    empty: dict[str, object] = dict.fromkeys(("sessions", "recordings", "file_items", "jump_clients"), 0)
    own = {"site_password": secrets.new_site.reveal(), "appliance_password": secrets.new_appliance.reveal(), "vault": False}
    return wish | empty | own | {"users": 1, "spare_addresses": [shared]}


def find_free_net(port: int = PORT) -> int:
    """The first N for which a stage's addresses in 127.N.0.0/16 are free on ``port``: another demo may be on.

    Raises:
        RefusedError: none of them.

    """
    for net in range(NETS):
        hosts = (f"127.{net}.1.11", f"127.{net}.0.11", f"127.{net}.1.12", f"127.{net}.0.12")
        if all(_is_free(host, port) for host in hosts):
            return net
    raise RefusedError(f"Port {port} is in use on every loopback address that a demo could take.", hint="ss -ltnp shows by what.")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True


def private_folder(path: Path) -> Path:
    """``path`` as a folder of mode 0700."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
