"""The stage for a vendor's image: the old box is local processes, the new one a machine that the run makes of the imported image."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from certs.served import read_pin
from images.home import find_home
from images.local_appliance import LocalAppliance, LocalUpdateServer
from images.machine import open_machines
from kit.progress import Progress
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import Cast, Machine, OldSite, Pace, SiteSize, Stage, seed_input

AHEAD = ("base-5.2.0", "site-21.2.1")
SERVICE_INSIDE = "10.0.2.20"


class VendorStage(Stage):
    """Old at ``127.N.1.11`` and ``127.N.0.11``; new at ``127.N.1.12``, serving at ``127.N.0.12``. ``image``: the imported one's name."""

    def __init__(self, folder: Path, *, net: int, vendor: Path, image: str, update_port: int) -> None:
        self.port = 8443
        self.pace = Pace(rate=1.0, timeout=10.0, checkin_every=10.0, first_visit=60.0)
        self.old = Cast(f"127.{net}.1.11", f"127.{net}.0.11", f"127.{net}.0.11")
        self.new = Cast(f"127.{net}.1.12", SERVICE_INSIDE, f"127.{net}.0.12")
        self.name = f"vendor-new-{net}"
        self._image, self._packages = image, vendor / "packages"
        self._updates = LocalUpdateServer(vendor, folder / "updates", port=update_port)
        self._box = LocalAppliance(
            folder / "old", self.old.admin, (self.old.inside,), self.port, vendor=vendor, update_server=self._updates.url
        )

    @property
    def update_server(self) -> str:
        """Its address from this machine."""
        return self._updates.url

    @property
    def peers(self) -> tuple[PairPlace, PairPlace]:
        """The administration addresses."""
        return PairPlace(self.old.admin, self.port), PairPlace(self.new.admin, self.port)

    def raise_old(self, size: SiteSize, secrets: DemoSecrets, issued: Issued, progress: Progress) -> OldSite:
        """Start the old box and the update server, and fill the box."""
        del progress
        self._updates.start()
        self._box.start()
        wish = seed_input(size, secrets, issued) | {"packages": list(AHEAD), "package_folder": str(self._packages)}
        clients = self._box.seed(wish)["jump_clients"]
        assert isinstance(clients, list)
        return OldSite(tuple(str(client) for client in clients), read_pin(self.old.admin, self.port))

    def new_pin(self) -> str:
        """The run makes the new box, and learns its key then."""
        return ""

    def machine(self, which: str) -> Machine | None:
        """Only the new box is one."""
        return Machine("", self.name, self._image) if which == "new" else None

    def close(self) -> None:
        """End what was started, the run's machine too."""
        with ExitStack() as stack:
            for ending in (self._box.stop, self._updates.stop, self._remove_machine):
                stack.callback(ending)

    def _remove_machine(self) -> None:
        with open_machines(find_home()) as machines:
            machines.ensure_removed(self.name)
