"""Runs a box: nginx and the application beside it, restarted when told; factory reset and power.

The supervisor has everything imported before it forks the application, so that a restart costs no imports.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from .application import create_application
from .box import Box, Hardware, Skin, read_hardware, save_hardware
from .control import APPLICATION, CONTROL, Order, listen, note_start, wake_application
from .core import Appliance, create
from .front import end_workers, wait_for_workers
from .identity import Asked, Renewing, listen_for_identity, renew
from .keeper import Keeper
from .programs import die_with_parent, run, start

log = logging.getLogger("appliance")
RTMGRP_IPV4_IFADDR = 0x10


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one process and some threads, on a socket of the box's run folder."""

    def __init__(self, box: Box) -> None:
        self._box = box
        super().__init__()

    def load_config(self) -> None:
        chosen = {
            "bind": f"unix:{APPLICATION}",
            "workers": 1,
            "threads": 8,
            "worker_class": "gthread",
            "worker_tmp_dir": "run",
            "graceful_timeout": 5,
            # No watch over the worker: it goes by the clock, which jumps by the age of the template in a copy, and would kill it there.
            "timeout": 0,
            "keepalive": 1,
            "loglevel": "warning",
            "proc_name": "appliance",
            "umask": 0 if self._box.skin is Skin.MACHINE else 0o077,
            "control_socket_disable": True,
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        box = Appliance(self._box)
        box.jobs.settle()
        box.failover.works.settle()
        note_start()
        keeper = Keeper()

        def build() -> Flask:
            keeper.box = Appliance(self._box)
            return create_application(keeper.box)

        application = Renewing(self._box, build)
        keeper.start()
        return application


class Supervisor:
    """Keeps the box running until it is switched off."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._ending = False
        self._front: subprocess.Popen[bytes] | None = None
        self._application = 0
        self._links = _listen_to_links() if box.skin is Skin.MACHINE else None
        self._identity = listen_for_identity() if box.skin is Skin.MACHINE else None

    def run(self) -> None:
        """Start, obey, end."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        self._start()
        ear = listen()
        while not self._ending:
            heard = self._wait(ear)
            if heard is not None:
                self._obey(heard)
            self._look_after_children()
        self._stop()
        ear.close()
        (self._box.root / CONTROL).unlink(missing_ok=True)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _wait(self, ear: socket.socket) -> Order | None:
        ears = [one for one in (ear, self._links, self._identity) if one is not None]
        ready, _, _ = select.select(ears, [], [], 0.5)
        if self._identity in ready and self._identity is not None:
            with Asked(self._identity) as asked:
                self._copy(asked)
        if self._links in ready and self._links is not None:
            self._links.recv(65536)
            self._follow_links()
        return Order(ear.recv(64).decode()) if ear in ready else None

    # starting and stopping

    def _start(self) -> None:
        for folder in (self._box.run, self._box.log):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        create(self._box)
        appliance = Appliance(self._box)
        if self._box.skin is Skin.MACHINE:
            _wait_for_address(appliance)
        appliance.failover.sharing.drop_at_start()
        appliance.network.apply()
        appliance.front.write()
        appliance.store.close()
        (self._box.run / "started").write_text(str(os.getpid()))
        self._start_application()
        log_file = self._box.log / "nginx.log"
        (self._box.run / "nginx.pid").unlink(missing_ok=True)  # left behind by a sudden death
        self._front = start(["nginx", "-e", str(log_file), "-p", str(self._box.root), "-c", appliance.front.path], log_file)

    def _start_application(self) -> None:
        (self._box.root / APPLICATION).unlink(missing_ok=True)
        self._application = os.fork()
        if not self._application:
            os._exit(self._be_application())

    def _be_application(self) -> int:
        """In the forked process (and in the workers that gunicorn forks from it): answers the exit status."""
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            Server(self._box).run()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            log.exception("the application ended")
        return 1

    def _stop_application(self) -> None:
        if self._application:
            os.kill(self._application, signal.SIGTERM)
            self._reap_application(10)

    def _reap_application(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while os.waitpid(self._application, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(self._application, signal.SIGKILL)
                os.waitpid(self._application, 0)
                break
            time.sleep(0.01)
        self._application = 0

    def _stop(self) -> None:
        """The application first, so that its last answers get out through nginx."""
        self._stop_application()
        if self._front is not None:
            self._front.send_signal(signal.SIGQUIT)
            try:
                self._front.wait(10)
            except subprocess.TimeoutExpired:
                self._front.kill()
                self._front.wait()
            self._front = None

    def _look_after_children(self) -> None:
        if self._ending:
            return
        if self._application and os.waitpid(self._application, os.WNOHANG) != (0, 0):
            log.error("the application ended by itself; starting it again")
            self._start_application()
        if self._front is not None and self._front.poll() is not None:
            said = (self._box.log / "nginx.log").read_text().splitlines()[-1:]
            raise SystemExit(f"nginx ended by itself: {' '.join(said)}")

    # orders

    def _obey(self, order: Order) -> None:
        time.sleep(0.2)  # the page that gave the order is on its way out
        log.warning("order: %s", order.value)
        if order is Order.RESTART:
            self._stop_application()
            self._start_application()
            if self._front is not None:
                # New software ends every connection. Clients that are always connected learn by it that they should ask.
                self._front.send_signal(signal.SIGHUP)
        elif order is Order.RESET:
            self._stop()
            self._reset()
            self._start()
        elif self._box.skin is Skin.MACHINE:
            run(["systemctl", "poweroff" if order is Order.POWER_OFF else "reboot"])
        elif order is Order.POWER_OFF:
            self._ending = True
        else:
            self._stop()
            self._start()

    def _reset(self) -> None:
        appliance = Appliance(self._box)
        appliance.network.drop_services()
        appliance.store.close()
        hardware = read_hardware(self._box)
        for folder in (self._box.data, self._box.log):
            shutil.rmtree(folder)
        for path in self._box.run.iterdir():
            if path.name != "control":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        save_hardware(self._box, Hardware(hardware.serial, hardware.resets + 1))

    # copies of a machine that was saved

    def _copy(self, asked: Asked) -> None:
        """In a copy: the box's identity, TLS workers with randomness of their own, then the application.

        Whoever asks over TLS afterwards is answered with the new certificate, and only after the application has followed.
        """
        if asked.ask != "renew":
            return
        master = 0 if self._front is None else self._front.pid
        old = end_workers(master) if master else set()
        renew(self._box, asked)
        with wake_application():
            if master:
                wait_for_workers(master, old)

    def _follow_links(self) -> None:
        """The network changed (DHCP, a card that was plugged in): put the box's addresses where they belong."""
        appliance = Appliance(self._box)
        try:
            changed = appliance.network.follow_dhcp()
            appliance.network.apply()
            if changed:
                appliance.front.write()
                if self._front is not None:
                    self._front.send_signal(signal.SIGHUP)
        except Exception:
            log.exception("the network could not be followed")
        finally:
            appliance.store.close()


def _listen_to_links() -> socket.socket:
    links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    links.bind((0, RTMGRP_IPV4_IFADDR))
    return links


def _wait_for_address(appliance: Appliance) -> None:
    """Give DHCP a minute; without an address nginx starts all the same, and :meth:`Supervisor._follow_links` completes it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        appliance.network.follow_dhcp()
        if any(row.kind == "admin" for row in appliance.network.rows()):
            return
        time.sleep(0.2)


def serve(box: Box) -> None:
    """Run a box until it is switched off or told to end."""
    box.root.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chdir(box.root)
    box.save()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    Supervisor(box).run()
