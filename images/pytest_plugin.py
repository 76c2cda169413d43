"""The pytest plugin ``boxshift.lab``: a fresh appliance for every test that asks for one, removed when the test is over.

::

    def test_my_client(lab_appliance):
        with httpx.Client(base_url=lab_appliance.url, verify=lab_appliance.ssl_context()) as client:
            assert client.get("/check_health").status_code == 200
        assert lab_appliance.ssh("hostname").text.strip() == lab_appliance.name

pytest loads this module in every session of an environment that boxshift is installed in, so that nothing is imported before it is used.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from images.lab import LabBox
    from images.machine import Machines
    from images.store import Image
    from kit.process import Completed

SSH_SECONDS = 60.0
CONSOLE_LINES = 40
SETTINGS = {
    "image": ("name or digest of the image of `lab_appliance` and `lab_pair`; empty: the reference appliance, built where needed", ""),
    "ttl": ("how long an appliance may stay where pytest is killed before it removes it, such as 30m or 4h", "1h"),
}


@dataclass(frozen=True)
class LabAppliance:
    """An appliance of one test, ready when the test begins.

    ``host`` and ``port`` lead to its HTTPS, ``certificate`` is what it serves there as PEM, ``pin`` the SHA-256 of that in hex. ``peers``:
    name -> address on the private segment of the others of a pair; ``segment_address``: its own there, empty where it is on none.
    """

    name: str
    uuid: str
    host: str
    port: int
    certificate: str
    pin: str
    path: str
    segment_address: str = ""
    peers: dict[str, str] = field(default_factory=dict)
    _machines: Machines | None = field(default=None, repr=False, compare=False)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where its HTTPS is."""
        return f"https://{self.address}"

    def ssl_context(self) -> ssl.SSLContext:
        """Trusts its own certificate and nothing else; the name in it is not looked at, as it is reached by an address."""
        context = ssl.create_default_context(cadata=self.certificate)
        context.check_hostname = False
        return context

    def ssh(self, command: str, *, stdin: bytes | None = None, timeout: float = SSH_SECONDS) -> Completed:
        """Run a command as root inside, through SSH; any exit status but SSH's own 255 is an answer. ``timeout`` in seconds.

        Raises:
            ToolError, DeadlineError: SSH did not get there, or the command did not end.

        """
        from images.lab import ensure_ssh
        from kit.process import run

        machines = self._need_machines()
        ssh, *more = ensure_ssh(machines, self.name)
        argv = [ssh, "-o", "BatchMode=yes", *more, command]
        return run(argv, timeout=timeout * machines.acceleration.factor, stdin=stdin, accept=range(255))

    def console(self, lines: int = CONSOLE_LINES) -> tuple[str, ...]:
        """The last lines of its serial console."""
        return self._need_machines().read_console(self.name, lines=lines)

    def _need_machines(self) -> Machines:
        if self._machines is None:
            raise RuntimeError("This appliance was not made by the plugin.")
        return self._machines


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--lab-image``, ``--lab-ttl`` and, in the configuration file, ``boxshift_lab_image`` and ``boxshift_lab_ttl``."""
    group = parser.getgroup("boxshift.lab", "disposable appliances")
    for name, (told, usual) in SETTINGS.items():
        parser.addini(f"boxshift_lab_{name}", told, default=usual)
        group.addoption(f"--lab-{name}", default=None, help=told)


@pytest.fixture(scope="session")
def boxshift_lab_machines() -> Iterator[Machines]:
    """The hypervisor, opened when the first test needs it. What earlier sessions left and is over its time is removed."""
    from images.machine import open_machines
    from images.reap import apply_reap, plan_reap
    from kit.errors import BoxshiftError

    with open_machines() as machines:
        for one in plan_reap(machines):
            with suppress(BoxshiftError):  # `boxshift lab reap` tells
                apply_reap(machines, one)
        yield machines


@pytest.fixture
def lab_appliance(request: pytest.FixtureRequest, boxshift_lab_machines: Machines) -> Iterator[LabAppliance]:
    """A fresh appliance, removed when the test is over, whatever came of it."""
    from images.lab import ensure_lab, reserve_lab

    machines, stay = boxshift_lab_machines, ExitStack()

    def make(image: str | None, ttl: float | None) -> tuple[LabBox, ...]:
        specs = reserve_lab(machines, _find_image(machines, image), 1, ttl=ttl)
        stay.callback(_remove, machines, [spec.name for spec in specs])
        return ensure_lab(machines, specs)

    with stay:
        yield _raise(request, machines, make)[0]


@pytest.fixture
def lab_pair(request: pytest.FixtureRequest, boxshift_lab_machines: Machines) -> Iterator[tuple[LabAppliance, LabAppliance]]:
    """Two fresh appliances on a private segment of their own, each proved to reach the other."""
    from images.lab_group import ensure_pair

    machines, stay = boxshift_lab_machines, ExitStack()

    def make(image: str | None, ttl: float | None) -> tuple[LabBox, ...]:
        boxes = ensure_pair(machines, _find_image(machines, image), ttl=ttl)
        stay.callback(_remove, machines, [box.name for box in boxes])
        return boxes

    with stay:
        first, second = _raise(request, machines, make)
        yield first, second


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the consoles of its appliances said last."""
    report = yield
    if report.failed:
        asked = getattr(item, "funcargs", {})
        for one in (asked.get("lab_appliance"), *(asked.get("lab_pair") or ())):
            if isinstance(one, LabAppliance) and report.when == "call":
                report.sections.append((f"console of {one.name}", "\n".join(one.console())))
    return report


def read_setting(config: pytest.Config, name: str) -> str:
    """What the command line says, else the configuration file."""
    said = config.getoption(f"--lab-{name}")
    return str(said if said is not None else config.getini(f"boxshift_lab_{name}"))


def _raise(
    request: pytest.FixtureRequest, machines: Machines, make: Callable[[str | None, float | None], tuple[LabBox, ...]]
) -> tuple[LabAppliance, ...]:
    from images.lab import parse_ttl

    boxes = make(read_setting(request.config, "image") or None, parse_ttl(read_setting(request.config, "ttl")))
    addresses = {box.name: box.segments[0].address.partition("/")[0] for box in boxes if box.segments}
    return tuple(_describe(machines, box, addresses) for box in boxes)


def _describe(machines: Machines, box: LabBox, addresses: dict[str, str]) -> LabAppliance:
    host, _, port = box.address.partition(":")
    certificate = ssl.get_server_certificate((host, int(port)), timeout=SSH_SECONDS)
    return LabAppliance(
        name=box.name,
        uuid=box.uuid,
        host=host,
        port=int(port),
        certificate=certificate,
        pin=hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest(),
        path=box.path,
        segment_address=addresses.get(box.name, ""),
        peers={name: address for name, address in addresses.items() if name != box.name},
        _machines=machines,
    )


def _find_image(machines: Machines, wanted: str | None) -> Image:
    from images.lab import find_image

    return find_image(machines, wanted)


def _remove(machines: Machines, names: list[str]) -> None:
    for name in names:
        machines.ensure_removed(name)
