"""Where the contract suite finds its boxes: makers, by name, and the kinds of boxes that every test of the suite runs on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from images.local_appliance import LocalAppliance, LocalUpdateServer
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.bomgar.catalogue import ConsoleName
from migrate.appliances.bomgar.driver import BomgarAppliance
from migrate.appliances.contract import Account, ApiAccount, Credentials, Endpoint
from migrate.facts import ClockReading

HOSTILE = "a!b@c$ 'd\"e\\;ñ"
FACTORY = Credentials(Account("admin", Secret("password")), Account("admin", Secret("password")))
OWN = Credentials(Account("admin", Secret(HOSTILE + " site")), Account("admin", Secret(HOSTILE + " box")))
API = ApiAccount("0123456789abcdef0123456789abcdef01234567", Secret(HOSTILE + " api"))

OWNED: Mapping[str, object] = {
    "site_password": OWN.site.password.reveal(),
    "appliance_password": OWN.appliance.password.reveal(),
    "api_client_id": API.client_id,
    "api_client_secret": API.secret.reveal(),
}


@dataclass
class Stand:
    """One box on which the contract is tried. ``seed``, ``fault`` and ``unlock`` are the box's own commands.

    ``read_clock`` tells the clock that it has, from a source that the appliance's software has no part in.
    """

    endpoint: Endpoint
    service: str
    spare: str
    language: str
    profile: str
    seed: Callable[[Mapping[str, object]], object]
    fault: Callable[[str, str], object]
    unlock: Callable[[], object]
    is_running: Callable[[], bool]
    read_clock: Callable[[], ClockReading]
    vendor: Path
    update_server: str
    patience: float = 1.0
    inside: str = ""
    drivers: list[BomgarAppliance] = field(default_factory=list)

    @property
    def admin(self) -> str:
        """The administration address as the box itself names it."""
        return self.inside or self.endpoint.host

    def open(self, credentials: Credentials = OWN, **change: Any) -> BomgarAppliance:
        """A driver for it, closed with the stand."""
        driver = BomgarAppliance(
            change.get("endpoint", self.endpoint), credentials, language=change.get("language", self.language), patience=self.patience
        )
        self.drivers.append(driver)
        return driver

    def open_with_api(self) -> BomgarAppliance:
        return self.open(replace(OWN, api=API))

    def settle(self, **content: object) -> BomgarAppliance:
        """Past the first login, with an API account and this content."""
        self.seed({**OWNED, **content})
        return self.open_with_api()

    @contextlib.contextmanager
    def faulty(self, name: str, value: str = "on") -> Iterator[None]:
        """With this fault switched on."""
        self.fault(name, value)
        try:
            yield
        finally:
            self.fault(name, "off")

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()


_numbers = itertools.count(secrets.randbelow(200) * 250)


def _new_address() -> str:
    """A loopback address that no other box of this session has, and hardly one of another session."""
    number = next(_numbers)
    return f"127.{100 + os.getpid() % 100}.{2 + number // 250 % 250}.{number % 250 + 2}"  # .0 and .1 are the rigs'


@contextlib.contextmanager
def local_stand(profile: str, language: str, folder: Path, vendor: Path, update_server: str, *, settled: bool = False) -> Iterator[Stand]:
    """A box as processes of this machine. ``settled``: past the first login, with an API account."""
    admin, service, spare = (_new_address() for _ in range(3))
    box = LocalAppliance(folder, admin, (service,), vendor=vendor, profile=profile, update_server=update_server)
    with box:
        stand = Stand(
            endpoint=Endpoint(admin, box.port),
            service=service,
            spare=spare,
            language=language,
            profile=profile,
            seed=box.seed,
            fault=box.fault,
            unlock=lambda: box.command("unlock", "admin"),
            is_running=lambda: box.is_running,
            read_clock=lambda: ClockReading(offset=0.0, uncertainty=0.0),  # it is this machine's
            vendor=vendor,
            update_server=update_server,
        )
        with contextlib.closing(stand):
            if settled:
                stand.settle()
            yield stand


SERVICE, SPARE = "10.0.2.20", "10.0.2.21"  # inside the machine
RESIDENT = Path(__file__).with_name("resident_commands.py").read_bytes()
START_RESIDENT = """cat > /run/resident.py
systemd-run --quiet /usr/bin/python3 /run/resident.py
while ! [ -p /run/resident-commands/ask ]; do sleep 0.1; done"""
# The first argument is all of them as JSON. After a restart of the machine nobody is resident any more.
COMMAND = """words=$1; shift; cd /run/resident-commands 2>/dev/null || exec /usr/local/sbin/appliance "$@"
{ printf '%s\\n' "$words"; cat; } > ask
{ read -r status; cat; exit "$status"; } < answer"""
FRESH, SETTLED = "fresh", "settled"
LEFT_BEHIND = 7200.0  # seconds after which others may remove a machine whose tests were killed


class LabMachine:
    """One virtual machine for the whole session. Each stand begins by taking it back, disk and memory, to a moment that was saved.

    A first boot, a factory reset and a power cut take half a minute each; the tests that are about them still do them.
    """

    def __init__(self) -> None:
        from images.domain import Forward
        from images.home import find_home
        from images.lab import GUEST_ADMIN, ensure_lab, reserve_lab
        from images.machine import open_machines
        from images.readiness import https_probe
        from images.reference_image import ensure_reference_image

        home = find_home()
        image = ensure_reference_image(home)
        self._saved: set[str] = set()
        with contextlib.ExitStack() as stack:
            self.machines = stack.enter_context(open_machines(home))
            (spec,) = reserve_lab(self.machines, image, 1, ttl=LEFT_BEHIND)
            # Not the address that is the lab's: while the machine is off, another home's lab might take that.
            self.name, self.forward = spec.name, Forward(_new_address(), 8443, GUEST_ADMIN, 443)
            stack.callback(self.machines.ensure_removed, self.name)
            ensure_lab(self.machines, (replace(spec, forwards=(self.forward,)),))
            self._run(START_RESIDENT, stdin=RESIDENT)
            self._probe = https_probe("/check_health", status=200, guest=self.forward.guest)
            self.command("seed", stdin=json.dumps({"service_addresses": [f"{SERVICE}/24"]}).encode())
            self._save(FRESH)
            self._stack = stack.pop_all()

    def command(self, *words: str, stdin: bytes | Secret | None = None) -> str:
        return self._run(COMMAND, json.dumps(words), *words, stdin=stdin or b"")

    def _run(self, script: str, *words: str, stdin: bytes | Secret | None) -> str:
        done = self.machines.run_in_guest(self.name, ["/bin/sh", "-c", script, "sh", *words], stdin=stdin, timeout=240.0)
        assert done.status == 0, done.text
        return done.text

    def seed(self, wish: Mapping[str, object]) -> str:
        return self.command("seed", stdin=Secret(json.dumps(dict(wish))))

    def _save(self, label: str) -> None:
        from images.snapshot import take_snapshot

        take_snapshot(self.machines, self.name, label)
        self._saved.add(label)

    def go_back(self, *, settled: bool) -> None:
        """To its factory state, or past the first login; whether it runs now or was shut down. Its clock is set to the present."""
        label = SETTLED if settled and SETTLED in self._saved else FRESH
        self._restore(label)
        if settled and label != SETTLED:
            self.seed(OWNED)
            self._save(SETTLED)

    def _restore(self, label: str) -> None:
        from images.readiness import wait_for_ready
        from images.snapshot import restore_snapshot

        assert restore_snapshot(self.machines, self.name, label), "the machine did not take the present time"
        # It serves the same key as before, so that what this process has seen refused would not be tried again.
        for console in (ConsoleName.APPLIANCE, ConsoleName.SITE, "api"):
            refusals.forget(self.forward.host, self.forward.host_port, console)
        wait_for_ready(self.machines, self.name, probe=self._probe)

    def read_clock(self) -> ClockReading:
        """Its clock against this machine's, asked past the appliance's own software."""
        asked = time.time()
        shown = float(self.machines.run_in_guest(self.name, ["/usr/bin/date", "+%s.%N"]).text)
        answered = time.time()
        return ClockReading(offset=shown - (asked + answered) / 2, uncertainty=(answered - asked) / 2)

    def close(self) -> None:
        self._stack.close()


_machine: list[LabMachine] = []


def close_machine() -> None:
    """At the end of the session."""
    while _machine:
        _machine.pop().close()


@contextlib.contextmanager
def machine_stand(profile: str, language: str, folder: Path, vendor: Path, update_server: str, *, settled: bool = False) -> Iterator[Stand]:
    """The same box as a virtual machine. Its image trusts the vendor of this machine's home, so that one's packages are sold."""
    from images.home import find_home
    from images.reference_image import HOST_SEEN_FROM_GUEST, UPDATE_PORT, vendor_folder

    del vendor, update_server
    if not _machine:
        _machine.append(LabMachine())
    lab = _machine[0]
    lab.go_back(settled=settled)
    own = vendor_folder(find_home())
    with shop(own, folder, UPDATE_PORT) as server:
        stand = Stand(
            endpoint=Endpoint(lab.forward.host, lab.forward.host_port, inside=lab.forward.guest),
            service=SERVICE,
            spare=SPARE,
            language=language,
            profile=profile,
            seed=lab.seed,
            fault=lambda name, value: lab.command("fault", name, value),
            unlock=lambda: lab.command("unlock", "admin"),
            is_running=lambda: not lab.machines.read_power(lab.name).is_off,
            read_clock=lab.read_clock,
            vendor=own,
            update_server=f"http://{HOST_SEEN_FROM_GUEST}:{server.port}",
            patience=10.0,
            inside=lab.forward.guest,
        )
        with contextlib.closing(stand):
            yield stand


MAKERS: dict[str, Callable[..., AbstractContextManager[Stand]]] = {"local": local_stand, "machine": machine_stand}

_local = (pytest.mark.process, pytest.mark.network)
_also = (*_local, pytest.mark.slow)  # the same again in other words: left out by the fast loop
_real = (pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(900))
PARAMS = [
    pytest.param(("local", "current", "en"), id="local-current-en", marks=_local),
    pytest.param(("local", "old", "es"), id="local-old-es", marks=_local),
    pytest.param(("local", "auto-select", "es"), id="local-auto-select-es", marks=_also),
    pytest.param(("local", "current", "es"), id="local-current-es", marks=_also),
    pytest.param(("local", "old", "en"), id="local-old-en", marks=_also),
]
# Every test runs on a virtual machine once: a class says in which language, and the classes together use both.
ON_MACHINE = {language: pytest.param(("machine", "current", language), id=f"machine-{language}", marks=_real) for language in ("en", "es")}


@contextlib.contextmanager
def shop(vendor: Path, folder: Path, port: int = 0) -> Iterator[LocalUpdateServer]:
    """An update server for all boxes of a session; ``port`` 0: any that is free."""
    import socket

    with socket.create_server(("127.0.0.1", port)) as probe:
        port = probe.getsockname()[1]
    with LocalUpdateServer(vendor, folder, port) as server:
        yield server
