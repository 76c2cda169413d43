"""Pairs of local boxes for the tests of failover: two boxes, a shared address, and what to do with them."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import Browser
from reference_boxes import PASSWORD, SEED, look, next_address

from images.local_appliance import LocalAppliance

KEY = str(SEED["preshared_key"])
PAGE = ("Management", "Failover")
PULL_FIRST = "Check this box to pull a data-sync from the site instance while becoming the {role}"
FORCE = "Become the backup even if the peer cannot be contacted"
OWN_SETTINGS = {"failover_role", "failover_pair", "preshared_key"}
TABLES = ("account", "setting", "api_account", "jump_client", "session", "recording", "file_item", "vault_account")


def failover_page(box: LocalAppliance, language: str = "en") -> Browser:
    return look(box, "login", language).follow(*(PAGE if language == "en" else ("Administración", "Conmutación por error")))


def content(box: LocalAppliance) -> dict[str, set[tuple[Any, ...]]]:
    """All that a data sync moves, as it is on the box's disk."""
    with contextlib.closing(sqlite3.connect(f"file:{box.root}/data/site.db?mode=ro", uri=True)) as site:
        rows = {table: set(site.execute(f"select * from {table}").fetchall()) for table in TABLES}
    rows["setting"] = {row for row in rows["setting"] if row[0] not in OWN_SETTINGS}
    return rows


def sessions(box: LocalAppliance) -> set[str]:
    return {row[0] for row in content(box)["session"]}


def send_session(address: str, port: int, lsid: str, client: httpx.Client | None = None) -> int:
    """A client tells the end of a session; the status, 0 where nothing answers."""
    body = {"client": "jump-0001", "secret": SEED["jump_client_secret"], "lsid": lsid, "customer": "x", "started": 1, "ended": 2}
    try:
        if client is not None:
            return client.post(f"https://{address}:{port}/client/session", json=body).status_code
        return httpx.post(f"https://{address}:{port}/client/session", json=body, verify=False).status_code
    except httpx.TransportError:
        return 0


def wait_until(look: Callable[[], object], what: str, seconds: float = 20.0, tell: Callable[[], str] = str) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"{what} did not happen; {tell()}"
        time.sleep(0.05)


def kill(box: LocalAppliance) -> None:
    """Pull the plug: SIGKILL for every process of the box at once."""
    assert box.pid is not None
    for process in [box.pid, *_descendants(box.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_until(lambda: not box.is_running and not box.answers(), "the end of the box")
    box.stop()


def _descendants(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(stat.parent.name), *_descendants(int(stat.parent.name))]
    return found


def clear_faults(box: LocalAppliance) -> None:
    """All switches off; at the box's database, since its command takes a while to start."""
    with contextlib.closing(sqlite3.connect(box.root / "data" / "box.db", timeout=30)) as database, database:
        database.execute("delete from fault")


@dataclass
class BoxPair:
    """``a`` is filled, ``b`` is not; both know the shared address, which ``a`` has switched on."""

    a: LocalAppliance
    b: LocalAppliance
    shared: str
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))

    @property
    def boxes(self) -> tuple[LocalAppliance, LocalAppliance]:
        return self.a, self.b

    def lsid(self) -> str:
        """A new one."""
        return f"{next(self.numbers):032x}"

    def establish(self, primary: LocalAppliance | None = None, *, share: bool = True) -> Browser:
        """On the page of the primary (``a``)."""
        primary = primary or self.a
        backup = self.b if primary is self.a else self.a
        page = failover_page(primary)
        if share:
            for box in self.boxes:
                tick_shared(failover_page(box), self.shared)
            page = failover_page(primary)
        values = {("Host Name or IP Address", 0): backup.admin, ("TLS Port", 0): str(backup.port)}
        return page.fill("Establish Relationship", values)

    def sync(self, box: LocalAppliance | None = None) -> dict[str, str]:
        """Sync Now, to its end; the facts of the page then."""
        page = failover_page(box or self.a)
        before = page.facts()
        while before.get("Data Sync Ended", "") >= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()):
            time.sleep(0.05)  # the page shows full seconds: the next end must be told from the last one
        page.press("Sync Now")
        assert page.notice == "The data sync has begun.", page.error
        return wait_for_sync(page, before)

    def swap(self, new_primary: LocalAppliance) -> dict[str, str]:
        """Become Primary with a data sync first, to its end."""
        page = press(new_primary, "Become Primary", {PULL_FIRST.format(role="primary"): True})
        assert "has begun" in page.notice, page.error
        return wait_for_role_change(page)

    def separate(self) -> None:
        """In no pair any more; the shared address at ``a``."""
        for box in (self.b, self.a):
            page = failover_page(box)
            if page.facts()["Failover Role"] != "None":
                press(box, "Break Failover Relationships")

    def role(self, box: LocalAppliance) -> str:
        return failover_page(box).facts()["Failover Role"]

    def tell(self) -> str:
        """Both pages, for messages of failed tests."""
        return "\n".join(failover_page(box).text.partition("Failover Failover")[2] for box in self.boxes)

    def holders(self) -> list[str]:
        """Which of the two has the shared address on."""
        rows = {box.folder.name: look(box, "appliance").follow("Networking", "IP Configuration") for box in self.boxes}
        return [
            name
            for name, page in rows.items()
            if any(row["IP Address"] == self.shared and row["Enabled"] == "Yes" for row in page.texts("Networking :: IP Addresses"))
        ]


RUNNING = "A data sync or a role change is running. Try again when it has ended."


def press(box: LocalAppliance, button: str, values: dict[str | tuple[str, int], str | bool] | None = None) -> Browser:
    """Press a button of the Failover page; again where the box is just at a data sync of its own."""
    end = time.monotonic() + 20
    while True:
        page = failover_page(box).fill(button, values or {})
        if page.error != RUNNING or time.monotonic() > end:
            return page
        time.sleep(0.1)


def tick_shared(page: Browser, address: str) -> None:
    row = next(row for row in page.rows("Failover :: Shared IPs") if row["IP Address"].text_content() == address)
    section = page.page.xpath("//section[h2[normalize-space()='Failover :: Shared IPs']]")[0]
    page.fill("Save Changes", {}, within=section, ticks=(page.tick_in(row),))
    assert page.notice == "The changes were saved.", page.error


def wait_for_sync(page: Browser, before: dict[str, str]) -> dict[str, str]:
    def has_ended() -> bool:
        facts = page.open(str(page.answer.url)).facts()
        return facts.get("Data Sync Status") not in {"Running", "None"} and facts != before

    wait_until(has_ended, "the end of the data sync")
    return page.facts()


def wait_for_role_change(page: Browser) -> dict[str, str]:
    wait_until(lambda: page.open(str(page.answer.url)).facts().get("Last Role Change") not in {None, "Running"}, "the change of roles")
    return page.facts()


@contextlib.contextmanager
def make_pair(folder: Path, vendor: Path, profile: str = "current") -> Iterator[BoxPair]:
    """Two boxes that know the same key, and are not in a pair yet."""
    shared = next_address()
    a = LocalAppliance(folder / "a", next_address(), (shared,), vendor=vendor, profile=profile)
    b = LocalAppliance(folder / "b", next_address(), (next_address(),), vendor=vendor, profile=profile)
    with contextlib.ExitStack() as stack:
        for box in (a, b):
            stack.callback(box.stop)
            box.start()
        a.seed(SEED | {"public_host": "", "vault": profile == "current"})
        b.seed({"site_password": PASSWORD, "appliance_password": PASSWORD, "preshared_key": KEY, "spare_addresses": [shared]})
        yield BoxPair(a, b, shared)


@pytest.fixture(scope="module")
def two_boxes(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[BoxPair]:
    """Two boxes that the tests of a file share."""
    with make_pair(tmp_path_factory.mktemp("two"), vendor) as boxes:
        yield boxes


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[BoxPair]:
    """A pair that the tests of a file share, established and synced; each test leaves ``a`` as the primary."""
    with make_pair(tmp_path_factory.mktemp("pair"), vendor) as pair:
        pair.establish()
        pair.sync()
        yield pair
