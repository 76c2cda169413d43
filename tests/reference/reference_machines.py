"""Boxes in the machine skin, in network and host-name namespaces of their own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from images.local_appliance import SOFTWARE
from images.reference.packages import make_factory, make_vendor
from kit.errors import UnreachableError
from kit.process import Child, run
from kit.waiting import wait_for

# Loopback-range addresses, but on an interface like any other: the guard of these tests lets nothing else out, and here nothing gets out.
ADMIN = "127.9.2.15"
CLONE_NEWNET = 0x40000000
ONE_INTERFACE = f"""set -e
ip link set lo up
ip link add eth0 type veth peer name far0
ip link set far0 up
ip addr add {ADMIN}/24 dev eth0 scope global
ip link set eth0 up
exec "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A box that believes it is a machine, in its own network and host-name namespaces."""

    root: Path
    child: Child
    orders: Path

    def inside(self, work: Callable[[], object]) -> object:
        """Run ``work`` in a thread that sees the machine's network."""
        caught: list[object] = []

        def go() -> None:
            with Path(f"/proc/{self.child.pid}/ns/net").open() as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
            try:
                caught.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again outside
                caught.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if isinstance(caught[0], BaseException):
            raise caught[0]
        return caught[0]

    def addresses(self, interface: str = "eth0") -> list[str]:
        shown = run(["nsenter", "-t", str(self.child.pid), "-n", "ip", "-json", "addr", "show", "dev", interface], timeout=10).text
        return [one["local"] for one in json.loads(shown)[0]["addr_info"] if one["family"] == "inet"]

    def command(self, *words: str, stdin: bytes | None = None) -> str:
        """One of the box's own commands, in its namespaces."""
        enter = ["nsenter", "-t", str(self.child.pid), "-n", "-u"]
        return run([*enter, sys.executable, "-m", "appliance", *words, "--root", self.root], timeout=60, stdin=stdin, env=ENVIRONMENT).text


ENVIRONMENT = {"PYTHONPATH": str(SOFTWARE), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def start_machine(folder: Path, network: str = ONE_INTERFACE) -> Iterator[Machine]:
    """A box whose interfaces the script ``network`` makes; it is up, and answers on :data:`ADMIN`, when this gives it."""
    factory = make_factory(make_vendor(folder / "vendor"), folder / "factory")
    tools = folder / "tools"
    tools.mkdir()
    orders = folder / "orders"
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {orders}\n')
    (tools / "systemctl").chmod(0o755)
    # www-data must be able to reach the socket; pytest's folders are private. New each time: what is left of an earlier one may still
    # be taking its socket away.
    above = Path(tempfile.mkdtemp(prefix="boxshift-machine-", dir="/var/tmp"))
    above.chmod(0o755)
    root = above / "box"
    env = ENVIRONMENT | {"PATH": f"{tools}:{os.environ['PATH']}"}
    serve = [sys.executable, "-m", "appliance", "serve", "--skin", "machine", "--root", root, "--factory", factory, "--port", "443"]
    child = Child(["unshare", "--net", "--uts", "sh", "-c", network, "sh", *serve], log=folder / "log", env=env)
    try:
        box = Machine(root, child, orders)

        def answers() -> bool:
            try:
                answer = httpx.get(f"https://{ADMIN}/check_health", verify=False)
            except httpx.TransportError as error:
                raise UnreachableError(f"{error!r}; its log: {child.said()}") from error
            if answer.status_code != 200:
                raise UnreachableError(f"{answer.status_code} {answer.text}; its log: {child.said()}")
            return True

        wait_for(lambda: box.inside(answers), what="the machine", timeout=30, poll=0.1, give_up=lambda: child.status and child.said())
        yield box
    finally:
        child.stop()
        run(["rm", "-rf", above], timeout=20)
