"""The reference appliance as processes on this machine, on loopback addresses: for tests and for rehearsals without a hypervisor."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from images.reference.packages import make_factory, make_vendor
from kit.errors import RefusedError, UnreachableError
from kit.process import Child, need_program, run
from kit.secret import Secret
from kit.waiting import wait_for

SOFTWARE = Path(__file__).parent / "reference" / "software"
SERVER = Path(__file__).parent / "reference" / "update_server.py"


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(SOFTWARE), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class LocalAppliance:
    """One box in ``folder`` (which is its hardware: delete it and the box is gone).

    ``admin`` is its administration address, ``service`` further loopback addresses it starts with when new; all on ``port``.
    ``vendor`` is the folder with the lab's keys and packages (made there if missing), shared by all boxes of a lab and their update
    server; None: one of its own. ``profile``: ``current``, ``auto-select`` (no Assign IP page), ``old`` or ``ancient``.
    """

    folder: Path
    admin: str
    service: tuple[str, ...] = ()
    port: int = 8443
    profile: str = "current"
    vendor: Path | None = None
    update_server: str = ""
    _child: Child | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        """Where its administration address answers."""
        return f"https://{self.admin}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.status is None

    @property
    def pid(self) -> int | None:
        """Process id of the supervisor, None while it is not running."""
        return self._child.pid if self._child is not None and self.is_running else None

    def start(self, *, timeout: float = 30.0) -> None:
        """Switch it on and wait until its web server answers.

        Raises:
            DeadlineError: it did not come up; carries what it said.

        """
        if self.is_running:
            return
        need_program("nginx", package="nginx-light")
        self.folder.mkdir(parents=True, exist_ok=True)
        factory = self.folder / "factory"
        if not factory.exists():
            vendor = make_vendor(self.vendor if self.vendor is not None else self.folder / "vendor")
            make_factory(vendor, factory, self.profile, update_server=self.update_server)
        services = [word for address in self.service for word in ("--service", address)]
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "appliance",
            "serve",
            "--root",
            self.root,
            "--factory",
            factory,
            "--admin",
            self.admin,
        ]
        self._child = Child([*argv, "--port", str(self.port), *services], log=self.folder / "appliance.log", env=_environment())
        try:
            wait_for(self._find_answer, what=f"the appliance on {self.url}", timeout=timeout, poll=0.02, give_up=self._find_end)
        except BaseException:
            self.stop()
            raise

    @property
    def root(self) -> Path:
        """What the box itself calls its root folder."""
        return self.folder / "box"

    def _find_end(self) -> str | None:
        if self._child is None or self._child.status is None:
            return None
        return f"its process ended with status {self._child.status}: {self._child.said()}"

    def _find_answer(self) -> bool | None:
        # The pid file is nginx's word that it has its addresses; another box on the same ones would answer, too.
        return True if (self.root / "run" / "nginx.pid").exists() and self.answers() else None

    def answers(self) -> bool:
        """Whether the web server and the application behind it answer."""
        import http.client
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self.admin, self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/get_mech_list")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Pull the plug, gently; the box's data stay."""
        if self._child is not None:
            self._child.stop(grace=20)
            self._child = None

    def command(self, *words: str, stdin: bytes | Secret | None = None, timeout: float = 60.0) -> str:
        """Run one of the box's own commands, as if on its console; answers what it printed."""
        argv: list[str | Path] = [sys.executable, "-m", "appliance", *words, "--root", self.root]
        return run(argv, timeout=timeout, stdin=stdin, env=_environment()).text

    def seed(self, content: Mapping[str, object]) -> dict[str, object]:
        """Fill the site (the box runs or not); ``content`` as the seed command of the box describes it, secrets revealed.

        Raises:
            UnreachableError: the box was never started, so there is nothing to fill.

        """
        if not (self.root / "box.json").exists():
            raise UnreachableError("The local appliance was never started.", hint="Start it before it is filled.")
        summary: dict[str, object] = json.loads(self.command("seed", stdin=json.dumps(content).encode()))
        return summary

    def fault(self, name: str, value: str = "on") -> None:
        """Switch a fault of the box; ``off`` removes it."""
        self.command("fault", name, value)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class LocalUpdateServer:
    """The update server of a lab as a process: sells the packages of ``vendor`` on ``http://address:port``."""

    vendor: Path
    folder: Path
    port: int
    address: str = "127.0.0.1"
    _child: Child | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def start(self, *, timeout: float = 20.0) -> None:
        """Start it and wait until it answers."""
        self._verify_free()
        make_vendor(self.vendor)
        self.folder.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [sys.executable, SERVER, "--vendor", self.vendor, "--state", self.folder / "sold.json"]
        self._child = Child([*argv, "--address", self.address, "--port", str(self.port)], log=self.folder / "update-server.log")
        wait_for(self._find_answer, what=f"the update server on {self.url}", timeout=timeout, poll=0.02, give_up=self._find_end)

    def _verify_free(self) -> None:
        """Another server on the port would answer in our place, and sell another lab's packages."""
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((self.address, self.port))
            except OSError as error:
                raise RefusedError(
                    f"{self.address}:{self.port} is in use.", hint="Is another demo running? ss -ltnp shows by what."
                ) from error

    def _find_end(self) -> str | None:
        if self._child is None or self._child.status is None:
            return None
        return f"its process ended with status {self._child.status}: {self._child.said()}"

    def _find_answer(self) -> bool | None:
        import http.client

        connection = http.client.HTTPConnection(self.address, self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return True if connection.getresponse().status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
