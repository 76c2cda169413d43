"""The appliance as one thing: what its pages, its API and its command line work with."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from pathlib import Path

from .accounts import FACTORY_NAME, FACTORY_PASSWORD, Accounts
from .box import Box, Skin, read_hardware
from .certificates import Certificates
from .failover import Failover
from .faults import Faults
from .front import Front
from .jobs import Jobs
from .network import Network, apply_names
from .packages import install, open_package, read_vendor_key
from .release import Kind, Release, read_release
from .roles import Roles
from .store import Database, Store
from .updates import Updates

LOOK_EVERY = 60.0  # seconds between two looks through a database


class Appliance:
    """Opens a box that has its factory state (:func:`create`) and loads what is installed on it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._looked: dict[str, float] = {}
        self.store = Store(box)
        self.faults = Faults(self.store.box)
        self.hardware = read_hardware(box)
        self.network = Network(box, self.store)
        self.certificates = Certificates(box, self.store)
        self.front = Front(box, self.network, self.certificates)
        self.jobs = Jobs(self.store)
        self.updates = Updates(box, self.store)
        self.box_accounts = Accounts("appliance", self.store)
        self.site_accounts = Accounts("login", self.store)
        self.base = self._release(Kind.BASE)
        self.site = self._release(Kind.SITE)
        self.failover = Failover(self)
        self.roles = Roles(self)

    def _release(self, kind: Kind) -> Release:
        folder = self.store.box.value("select folder from installed where kind = ?", kind.value)
        return read_release(self.box.releases / str(folder))

    @property
    def guid(self) -> str:
        return self.store.box.setting("guid")

    @property
    def hostname(self) -> str:
        return self.store.box.setting("hostname")

    def accounts(self, console: str) -> Accounts:
        return self.box_accounts if console == "appliance" else self.site_accounts

    def release_of(self, console: str) -> Release:
        return self.base if console == "appliance" else self.site

    def clock(self) -> str:
        """The box's time, ISO 8601 in UTC."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.faults.now()))

    def uptime(self) -> float:
        """Seconds since the box was switched on."""
        if self.box.skin is Skin.MACHINE:
            return float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (self.box.run / "started").stat().st_mtime

    def ensure_certificates_bound(self) -> None:
        """Newer versions choose the certificate of every address by themselves."""
        if not self.base.has("assign_ip"):
            self.certificates.select()

    def find_fault(self) -> str | None:
        """What keeps this box from working, as a sentence; None where it is healthy."""
        if self.faults.is_on("unhealthy"):
            return "the fault switch says so"
        for database in (self.store.box, self.store.site):
            if not self._is_sound(database):
                return f"{database.path.name} cannot be read or is damaged"
        if self.faults.is_on("disk-full") or shutil.disk_usage(self.box.data).free < 16 * 1024 * 1024:
            return "the disk is full"
        for kind, release in ((Kind.BASE, self.base), (Kind.SITE, self.site)):
            if self.store.box.value("select version from installed where kind = ?", kind.value) != release.version:
                return f"the {kind.value} software that runs is not the one that is installed"
        return None

    def _is_sound(self, database: Database) -> bool:
        """Whether it answers; its structure is looked through at most once a minute."""
        try:
            database.value("select count(*) from account")
            if time.monotonic() - self._looked.get(database.path.name, -LOOK_EVERY) >= LOOK_EVERY:
                sound = str(database.value("pragma quick_check(1)")) == "ok"
                self._looked[database.path.name] = time.monotonic() if sound else -LOOK_EVERY
                return sound
        except sqlite3.DatabaseError:
            return False
        return True


def create(box: Box) -> None:
    """Give a new (or reset) box its factory state: a new GUID, the factory's packages, certificate and accounts."""
    for folder in (box.data, box.keys, box.releases, box.downloads):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if box.skin is Skin.MACHINE:
        # For the workers of nginx a way to the one key that they read themselves, and to no list of what else is there.
        box.data.chmod(0o711)
        shutil.chown(box.keys, group="www-data")
        box.keys.chmod(0o2710)
    store = Store(box)
    if not store.is_new:
        return
    with store.box.transaction(), store.site.transaction():
        for path in sorted(box.factory.glob("*.pkg")):
            install(box, store, open_package(path.read_bytes(), read_vendor_key(box)), at_factory=True)
        _add_addresses(box, store)
        host = "appliance" if box.skin is Skin.MACHINE else f"appliance-{box.admin.replace('.', '-')}"
        Certificates(box, store).add_factory(host)
        Accounts("appliance", store).add(FACTORY_NAME, "Administrator", FACTORY_PASSWORD, must_change=True)
        Accounts("login", store).add(FACTORY_NAME, "Administrator", FACTORY_PASSWORD, must_change=True)
        store.site.set(site_name="", company="", public_host="", preshared_key="", failover_role="none", xml_api="on")
        store.site.set(upgrade_slots=8, lost_days=0)
        store.box.set(hostname=host, gateway="", dns="", ntp="", lockout_limit=5, agreement="off", agreement_text="", accepted="")
        server = box.factory / "update_server"
        store.box.set(update_server=server.read_text().strip() if server.exists() else "")
        store.box.set(page_secret=os.urandom(16).hex(), guid=str(uuid.uuid4()))
    apply_names(box, store)
    store.close()


def _add_addresses(box: Box, store: Store) -> None:
    network = Network(box, store)
    if box.skin is Skin.LOCAL:
        network.add(box.admin, "8", enabled=True, kind="admin")
    if read_hardware(box).resets == 0:
        for address in box.service:
            network.add(address, "8" if box.skin is Skin.LOCAL else "24", enabled=True)
