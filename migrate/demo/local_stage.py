"""The stage made of local processes: the reference appliance twice on loopback addresses. Both boxes stand already."""

from __future__ import annotations

from pathlib import Path

from certs.served import read_pin
from images.local_appliance import LocalAppliance, LocalUpdateServer
from kit.progress import Progress
from migrate.appliances.contract import PairPlace
from migrate.demo.authority import Issued
from migrate.demo.gateway import PUBLIC
from migrate.demo.local_gateway import LocalGateway
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import Cast, Machine, OldSite, Pace, SiteSize, Stage, render_second, seed_input


class LocalStage(Stage):
    """Boxes at ``127.N.1.11`` and ``127.N.1.12``, their services at ``127.N.0.11`` and ``.12``, the update server at ``127.N.1.1``.

    ``nat``: visitors come in through a gateway; then it has to be a network of our own (:func:`images.apart.enter`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        net: int = 0,
        port: int = 8443,
        profile: str = "current",
        vendor: Path | None = None,
        pair: bool = False,
        nat: bool = False,
    ) -> None:
        self.port = port
        self.pace = Pace(rate=4.0, timeout=2.5, checkin_every=5.0, first_visit=60.0)
        self.old = Cast(f"127.{net}.1.11", f"127.{net}.0.11", f"127.{net}.0.11")
        # The boxes of a pair share one address; otherwise each has its own.
        own = self.old.inside if pair else f"127.{net}.0.12"
        self.new = Cast(f"127.{net}.1.12", own, own)
        self._pair = pair
        self._gateway = LocalGateway(folder / "gateway", self.old.visible, port) if nat else None
        vendor = vendor or folder / "vendor"
        self.packages = vendor / "packages"
        self.updates = LocalUpdateServer(vendor, folder / "updates", port=port - 1, address=f"127.{net}.1.1")
        url = self.updates.url
        self.old_box = LocalAppliance(folder / "old", self.old.admin, (self.old.inside,), port, profile, vendor, url)
        self.new_box = LocalAppliance(folder / "new", self.new.admin, (), port, profile, vendor, url)

    @property
    def update_server(self) -> str:
        return self.updates.url

    @property
    def entrance(self) -> str:
        """Visitors come in through the gateway, where there is one."""
        return PUBLIC if self._gateway is not None else self.old.visible

    @property
    def peers(self) -> tuple[PairPlace, PairPlace]:
        """The administration addresses."""
        return PairPlace(self.old.admin, self.port), PairPlace(self.new.admin, self.port)

    def raise_old(self, size: SiteSize, secrets: DemoSecrets, issued: Issued, progress: Progress) -> OldSite:
        """Start both boxes and the update server, and fill the old one."""
        if self._gateway is not None:
            self.gateway = self._gateway.start()
        self.updates.start()
        self.old_box.start()
        self.new_box.start()
        progress.update("filling the old site")
        wish = seed_input(size, secrets, issued) | {"packages": list(size.packages), "package_folder": str(self.packages)}
        summary = self.old_box.seed(wish)
        if self._pair:
            self.new_box.seed(render_second(wish, secrets, self.new.inside))
        clients = summary["jump_clients"]
        return OldSite(tuple(str(client) for client in clients) if isinstance(clients, list) else (), read_pin(self.old.admin, self.port))

    def new_pin(self) -> str:
        """Read from the box that stands there."""
        return read_pin(self.new.admin, self.port)

    def machine(self, which: str) -> Machine | None:
        """There are no machines here."""
        del which
        return None

    def close(self) -> None:
        """End what was started."""
        for box in (self.old_box, self.new_box, self.updates):
            box.stop()
        if self._gateway is not None:
            self._gateway.stop()
