"""`boxshift`, killed with SIGKILL by its own hand at chosen moments of its work, at each of them once. Argument: a folder.

It imports everything once, then plays one command line after the other, each in a process of its own (a fork), as they come over a socket:
a start costs a tenth of the program's own, so that a run can be killed hundreds of times. Nothing is patched but where it dies, and no
handler runs then. Where it has died are lines of the file ``deaths`` in the folder, written before the signal: no moment is met twice.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.query
import dns.rdatatype
import dns.update
import httpx

from migrate import steps
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.driver import BomgarAppliance
from migrate.appliances.http import BoxClient, Request
from migrate.cli import running
from migrate.cli.main import main
from migrate.cutover import command, nat, shared_ip
from migrate.cutover import dns as by_dns
from migrate.cutover.ssh import SshGateway
from migrate.engine import flow, worker
from migrate.engine.hub import Hub
from migrate.engine.model import Call, EventKind, Outcome
from migrate.wiring import boxes, pairs, reporting, transfers
from migrate.wiring import running as work
from migrate.wiring.executor import StepExecutor

# What commands import when they need it is imported here, once for all.
LOADED = (BomgarAppliance, running, command, nat, shared_ip, by_dns, flow, worker, boxes, pairs, reporting, transfers, work)
READS = ("/oauth2/token", "/api/reporting", "/api/backup")  # what is posted there changes nothing
HERE = threading.local()  # ``place``: the node that this thread works on; ``login``: it is logging in


class Reaper:
    """Knows where this process is to die, and where it has died before."""

    def __init__(self) -> None:
        self.ledger = Path()
        self._command = ""
        self._moments: frozenset[str] = frozenset()
        self._places: frozenset[str] | None = None
        self._met: frozenset[str] = frozenset()
        self._turn = threading.Lock()

    def wake(self, order: dict[str, Any]) -> None:
        self._command = " ".join(word for word in order["words"] if not word.startswith("-") and "/" not in word)
        self._moments = frozenset(order["moments"])
        self._places = None if order["places"] is None else frozenset(order["places"])
        self._met = frozenset(self.ledger.read_text().splitlines() if self.ledger.exists() else ())

    def die(self, moment: str, what: str = "", place: str = "") -> None:
        """``place``: the node, ``undo NODE``, or the command where it is no node's work. ``what``: what has just been sent or written."""
        place = place or getattr(HERE, "place", "") or self._command
        line = json.dumps([place, moment, what])
        if moment == "stored" and not self._has_acted(place):
            return  # who only looks is killed when it has looked; the engine's own tests kill after that
        if moment not in self._moments or line in self._met or (self._places is not None and place not in self._places):
            return
        self._turn.acquire()  # never given back: who comes second dies with the first, at the first one's moment
        with self.ledger.open("a") as sink:
            sink.write(f"{line}\n")
            sink.flush()
            os.fsync(sink.fileno())
        os.kill(os.getpid(), signal.SIGKILL)

    def _has_acted(self, place: str) -> bool:
        return any(json.loads(line)[:2] in ([place, "sent"], [place, "written"]) for line in self._met)


REAPER = Reaper()


def around(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put a function around another one, which it is given first."""

    def put(wrapper: Callable[..., Any]) -> None:
        plain = getattr(owner, name)
        setattr(owner, name, functools.wraps(plain)(functools.partial(wrapper, plain)) if owner is os else _method(wrapper, plain))

    return put


def _method(wrapper: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(plain, *args, **kwargs)

    return call


@around(StepExecutor, "execute")
def execute(plain: Callable[..., Outcome], executor: StepExecutor, call: Call, progress: Any) -> Outcome:
    return _work(plain, executor, call, progress, call.node.name)


@around(StepExecutor, "undo")
def undo(plain: Callable[..., Outcome], executor: StepExecutor, call: Call, progress: Any) -> Outcome:
    return _work(plain, executor, call, progress, f"undo {call.node.name}")


def _work(plain: Callable[..., Outcome], executor: StepExecutor, call: Call, progress: Any, place: str) -> Outcome:
    """Dies when all of a node is done, and none of that is written down."""
    HERE.place = place
    outcome = plain(executor, call, progress)
    if outcome.ok:
        REAPER.die("end")
    HERE.place = ""
    return outcome


@around(Hub, "tell")
def tell(plain: Callable[..., None], hub: Hub, kind: EventKind, run: str, node: str = "", text: str = "", /, **facts: Any) -> None:
    """Dies when the end of a node is written down and the library does not know of it, and where a gate or a soak has begun to wait."""
    plain(hub, kind, run, node, text, **facts)
    if kind is EventKind.ENDED and facts["state"] == "done":
        REAPER.die("stored", place=node)
    elif kind is EventKind.UNDONE and facts["state"] == "undone":
        REAPER.die("stored", place=f"undo {node}")
    elif kind is EventKind.WAITING and node:
        REAPER.die("waiting", place=node)


@around(BoxClient, "_build")
def build(plain: Callable[..., httpx.Request], client: BoxClient, request: Request, files: Any) -> httpx.Request:
    """Dies when a form is on its way to a box as a whole, and before its answer is read."""
    built = plain(client, request, files)
    if _acts(request):
        what = f"{client.endpoint.host} {built.url.path} {' '.join(sorted({name for name, _ in request.pairs}))}"

        def trace(event: str, _facts: object) -> None:
            if event.endswith("send_request_body.complete"):
                REAPER.die("sent", what)

        built.extensions["trace"] = trace
    return built


def _acts(request: Request) -> bool:
    reads = request.path in READS or (request.path == "/api/command" and dict(request.pairs).get("action") != "set_failover_role")
    return request.method != "GET" and not reads and not getattr(HERE, "login", False)


@around(Console, "_log_in")
def log_in(plain: Callable[..., Any], console: Console, *args: Any) -> Any:
    HERE.login = True
    try:
        return plain(console, *args)
    finally:
        HERE.login = False


@around(dns.query, "tcp")
def tcp(plain: Callable[..., Any], message: Any, *args: Any, **kwargs: Any) -> Any:
    """Dies when a name server has taken an update, and before its answer is looked at."""
    answer = plain(message, *args, **kwargs)
    if isinstance(message, dns.update.UpdateMessage):
        records = [rrset.to_text() for rrset in message.update if rrset.rdtype == dns.rdatatype.A]
        REAPER.die("sent", "; ".join(records))
    return answer


@around(SshGateway, "_run")
def on_gateway(plain: Callable[..., Any], gateway: SshGateway, line: str, stdin: bytes) -> Any:
    """Dies when a rule was replaced, and when connections were ended."""
    said = plain(gateway, line, stdin)
    if "conntrack -D" in line:
        REAPER.die("sent", "conntrack")
    elif "boxshift" in line:
        REAPER.die("sent", "nft")
    return said


@around(os, "replace")
def replace(plain: Callable[..., None], source: Any, target: Any, **kwargs: Any) -> None:
    plain(source, target, **kwargs)
    REAPER.die("written", _kind_of(Path(target)))


@around(Path, "touch")
def touch(plain: Callable[..., None], path: Path, *args: Any, **kwargs: Any) -> None:
    plain(path, *args, **kwargs)
    REAPER.die("written", _kind_of(path))


def _kind_of(path: Path) -> str:
    """Of many files of a kind one is enough."""
    return re.sub(r"(?<=-)[0-9a-f]+$", "*", path.name)


def play(order: dict[str, Any], log: int) -> None:
    """One command line, in the fork."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for output in (1, 2):
        os.dup2(log, output)
    sys.argv = ["boxshift", *order["words"]]
    REAPER.wake(order)
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(folder: Path) -> None:
    """Each line is ``{"words": […], "moments": […], "places": […] or null}``; answered by an exit status, negative for a signal."""
    REAPER.ledger = folder / "deaths"
    steps.load_all()
    log = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"\0boxshift-dying-{os.getpid()}")
        door.listen(1)
        wire, _ = door.accept()
    with wire, wire.makefile("rw") as orders:
        for line in orders:
            child = os.fork()
            if child == 0:
                play(json.loads(line), log)
            _, status = os.waitpid(child, 0)
            orders.write(f"{os.waitstatus_to_exitcode(status)}\n")
            orders.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
