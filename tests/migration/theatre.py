"""One scene whose moments are kept: a test starts at the moment it needs, instead of playing everything before it again.

A moment is the boxes' folders, the zone's record, the plan with its secrets, and the runs beside it. They are taken while nothing works
on the run, and put back as they were; visitors go on all along.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.name
import dns.query
import dns.tsig
import dns.update
from rig import BOXSHIFT, SMALL, Rig, open_rig, wait_until

from images.local_appliance import LocalAppliance
from kit.errors import FailedError
from kit.process import Child, run
from kit.progress import Silent
from kit.secret import Secret
from kit.waiting import wait_for
from migrate.appliances import refusals
from migrate.appliances.bomgar.catalogue import ConsoleName
from migrate.cli.main import main
from migrate.cutover.dns_values import parse_dns_name
from migrate.cutover.dns_wire import ask
from migrate.demo.stage import SITE, ZONE
from migrate.engine.model import Call, NodeState, Outcome
from migrate.facts import SiteContent
from migrate.plan import Plan
from migrate.plan_file import read_plan
from migrate.secrets import resolve_secret
from migrate.wiring.boxes import PlannedBoxes, Stopwatch
from migrate.wiring.executor import StepExecutor
from migrate.wiring.workspace import Workspace

OLD_TTL = 5
LIMIT = 240.0
PLACES = ("old", "new", "updates")  # folders of the stage: two boxes, and what the update server has sold
# Moments in their order, each with the nodes that have ended by then; none named: the run waits there for a person.
MOMENTS: dict[str, tuple[str, ...]] = {
    "fresh": (),
    "prepared": ("backup-old", "safety-copy", "archive-extras", "lower-ttl"),
    "built": ("carry-files",),
    "verified": (),
    "quiesced": ("quiesce-old",),
    "restored": ("final-restore",),
    "switched": ("switch",),
    "watched": (),
}


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The same where it tells of an error."""
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def all(self) -> str:
        """Both outputs, for a message."""
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass(frozen=True)
class Kept:
    """One moment on disk."""

    folder: Path
    address: str
    ttl: int


@dataclass
class Theatre:
    """The scene and its kept moments. ``heard`` is everything any command has said."""

    rig: Rig
    store: Path
    kept: dict[str, Kept] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Path:
        return self.rig.plan

    @property
    def folder(self) -> Path:
        return self.plan.parent

    @property
    def runs(self) -> Path:
        """The work folder of the plan."""
        return self.folder / ".boxshift"

    @property
    def run_folder(self) -> Path:
        return self.runs / "runs" / self.rig.status().run

    # commands

    def say(self, *words: str, env: dict[str, str] | None = None, timeout: float = LIMIT, cwd: Path | None = None) -> Answer:
        """``boxshift WORDS`` to its end."""
        done = run([BOXSHIFT, *words], timeout=timeout, env={"NO_COLOR": "1", **(env or {})}, cwd=cwd, accept=range(-64, 256))
        answer = Answer(done.status, done.out.decode(), done.err.decode())
        self.heard.append(answer.all)
        assert "Traceback" not in answer.err, answer.err
        return answer

    def on_plan(self, word: str, *more: str) -> Answer:
        """``boxshift WORD PLAN MORE``."""
        return self.say(word, str(self.plan), *more)

    def ask(self, *words: str) -> Answer:
        """The same as :meth:`say` without a process of its own: for commands that look, and for those that are refused."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        before, argv = signal.getsignal(signal.SIGTERM), sys.argv
        sys.argv = [str(BOXSHIFT), *words]
        try:
            with redirect_stdout(out), redirect_stderr(err):
                main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.argv = argv
            signal.signal(signal.SIGTERM, before)
        answer = Answer(code, out.getvalue(), err.getvalue())
        self.heard.append(answer.all)
        return answer

    def ask_plan(self, word: str, *more: str) -> Answer:
        """``boxshift WORD PLAN MORE``, in this process."""
        return self.ask(word, str(self.plan), *more)

    def start(self, *words: str) -> Child:
        """The same as a process that can be watched and ended."""
        return self.rig.start(*words)

    # moments

    def at(self, moment: str) -> Rig:
        """Put the scene into this moment, whatever happened since."""
        self._forget_refusals()
        if moment in self.kept:
            self._put_back(self.kept[moment])
        else:
            self._reach(moment)
            self._keep(moment)
        return self.rig

    def _forget_refusals(self) -> None:
        """Steps that tests execute in this process would otherwise not log in again with what another moment's box had refused."""
        stage = self.rig.stage
        for box in (stage.old, stage.new):
            for console in (ConsoleName.APPLIANCE, ConsoleName.SITE, "api"):
                refusals.forget(box.admin, stage.port, console)

    def _reach(self, moment: str) -> None:
        names = list(MOMENTS)
        earlier = [name for name in names[: names.index(moment)] if name in self.kept]
        if moment == "fresh":
            assert not self.runs.exists(), "the scene was played on before its first moment was kept"
            return
        self._put_back(self.kept[earlier[-1]] if earlier else self._keep("fresh"))
        if MOMENTS[moment]:
            self.interrupt_after(*MOMENTS[moment])
            return
        waits = {"verified": "approve-cutover", "watched": "approve-retire"}[moment]
        if moment == "watched" and self._waits_for("approve-cutover"):
            answer = self.on_plan("approve", "--node", "approve-cutover")
        else:
            answer = self.on_plan("run")
            if moment == "watched" and self._waits_for("approve-cutover"):
                answer = self.on_plan("approve")
        assert answer.code == 6, answer.all
        assert self.rig.status().waiting == (waits,), answer.all

    def _waits_for(self, gate: str) -> bool:
        return (self.runs / "runs.sqlite").exists() and gate in self.rig.status().waiting

    def interrupt_after(self, *nodes: str) -> None:
        """Go on with the run, every gate approved, and end the program in an orderly way once these nodes have."""
        with self.start() as child:
            assert wait_until(lambda: set(nodes) <= set(self.finished()), child, LIMIT), self.rig.said()
            os.kill(child.pid, signal.SIGTERM)
            assert wait_end_quietly(child) == 130, self.rig.said()

    def finished(self) -> tuple[str, ...]:
        """Nodes that have ended well; none where no run has begun."""
        return tuple(self.rig.finished_so_far())

    def keep(self, moment: str) -> None:
        """Call the present state a moment: nothing may work on a run now."""
        self._keep(moment)

    def _keep(self, moment: str) -> Kept:
        folder = self.store / moment
        self._stop_boxes()
        for name in PLACES:
            shutil.copytree(self.folder / "stage" / name, folder / name, ignore=no_sockets)
        for name in ("plan.yaml", "secrets.yaml", "root.pem"):
            shutil.copy2(self.folder / name, folder / name)
        if self.runs.exists():
            shutil.copytree(self.runs, folder / ".boxshift")
        self._start_boxes()
        address, ttl = self.record()
        self.kept[moment] = Kept(folder, address, ttl)
        return self.kept[moment]

    def _put_back(self, kept: Kept) -> None:
        self._stop_boxes()
        for name in PLACES:
            shutil.rmtree(self.folder / "stage" / name, ignore_errors=True)
            shutil.copytree(kept.folder / name, self.folder / "stage" / name)
        for name in ("plan.yaml", "secrets.yaml", "root.pem"):
            shutil.copy2(kept.folder / name, self.folder / name)
        shutil.rmtree(self.runs, ignore_errors=True)
        if (kept.folder / ".boxshift").exists():
            shutil.copytree(kept.folder / ".boxshift", self.runs)
        self.set_record(kept.address, kept.ttl)
        self._start_boxes()

    def _stop_boxes(self) -> None:
        for part in (self.rig.stage.old_box, self.rig.stage.new_box, self.rig.stage.updates):
            part.stop()

    def _start_boxes(self) -> None:
        for part in (self.rig.stage.updates, self.rig.stage.old_box, self.rig.stage.new_box):
            part.start()

    # the zone

    def record(self) -> tuple[str, int]:
        """Where visitors are sent, and for how many seconds they keep the answer."""
        answer = ask(self.rig.scene.names.primary, parse_dns_name(SITE), "A", timeout=5.0)
        return answer.values[0], answer.ttl

    def set_record(self, address: str, ttl: int) -> None:
        """Somebody with the key writes the record."""
        names = self.rig.scene.names
        keyring = {dns.name.from_text(names.key.name): dns.tsig.Key(names.key.name, names.key.secret.reveal(), str(names.key.algorithm))}
        update = dns.update.UpdateMessage(ZONE, keyring=keyring)
        update.replace("support", ttl, "A", address)
        answer = dns.query.tcp(update, names.primary.address, port=names.primary.port, timeout=10.0)
        assert answer.rcode() == 0, answer

    # the boxes

    def read_plan(self) -> Plan:
        return read_plan(self.plan).plan

    @contextmanager
    def open_old(self) -> Iterator[Any]:
        """A driver for the old box, with the accounts of the plan."""
        with closing(self._boxes().open_old()) as box:
            yield box

    @contextmanager
    def open_new(self, *, restored: bool) -> Iterator[Any]:
        with closing(self._boxes().open_new(restored=restored)) as box:
            yield box

    def _boxes(self) -> PlannedBoxes:
        loaded = read_plan(self.plan)
        results = {node.name: node.value for node in self.rig.status().nodes if node.state is NodeState.DONE} if self.finished() else {}

        def reveal(reference: str, what: str) -> Secret:
            return resolve_secret(reference, base=loaded.folder, what=what)

        return PlannedBoxes(loaded.plan, results, reveal, Stopwatch(), 1.0)

    @contextmanager
    def fault(self, box: LocalAppliance, name: str, value: str = "on") -> Iterator[None]:
        """A box with a fault, for the length of a block."""
        box.fault(name, value)
        try:
            yield
        finally:
            box.fault(name, "off")

    def execute(self, node: str, results: dict[str, Any] | None = None) -> Outcome:
        """One node of the run alone, on what the nodes before it have left."""
        status = self.rig.status()
        values = {one.name: one.value for one in status.nodes if one.state is NodeState.DONE}
        executor = StepExecutor(Workspace.beside(self.plan), lambda _: self.plan)
        return executor.execute(Call(status.run, status.runbook.node(node), 1, values | (results or {})), Silent())

    # what a visitor sees

    def verify_old_in_service(self) -> None:
        """A visitor's next request goes to the old box and is good; the record lives as long as before; the box is whole."""
        stage = self.rig.stage
        assert self.record() == (stage.old.visible, OLD_TTL)
        wait_for(self._visited(stage.old.visible), what="a good visit and a record on the old box", timeout=60.0)
        with self.open_old() as old:
            content: SiteContent = old.read_content()
            row = next(row for row in old.read_addresses() if row.address == stage.old.inside)
        assert row.enabled
        assert len(content.users or ()) == SMALL.users
        assert len(content.sessions or ()) >= SMALL.sessions

    def _visited(self, address: str) -> Callable[[], bool]:
        begin = time.time()

        def look() -> bool:
            entries = [entry for entry in self.entries() if entry["at"] >= begin and entry["ok"] and entry.get("address") == address]
            if not {"page", "session"} <= {entry["kind"] for entry in entries}:
                raise FailedError(f"{len(entries)} good visits so far")
            return True

        return look

    def entries(self) -> list[dict[str, Any]]:
        """The visitors' journal so far; its last line may be half written."""
        found = []
        for line in self.rig.scene.journal.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


def no_sockets(folder: str, names: list[str]) -> set[str]:
    """What cannot be copied: sockets that a process left behind."""
    return {name for name in names if (Path(folder) / name).is_socket()}


def wait_end_quietly(child: Child, timeout: float = 60.0) -> int:
    """The exit status of a program that is about to end."""
    end = time.monotonic() + timeout
    while child.status is None:
        assert time.monotonic() < end, child.said()
        time.sleep(0.02)
    return child.status


def edit(path: Path, old: str, new: str) -> None:
    """Replace one passage of a file, which must be there."""
    text = path.read_text()
    assert old in text, f"{path} does not hold {old!r}"
    path.write_text(text.replace(old, new))


_claims: list[socket.socket] = []


def find_net(nets: Iterator[int]) -> int:
    """The next loopback network that no other test process has; it is this one's until it ends."""
    for net in nets:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0boxshift-tests-127.{net}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return net
    raise AssertionError("no loopback network is free")


@contextmanager
def open_theatre(folder: Path, net: int, vendor: Path, **settings: Any) -> Iterator[Theatre]:
    """Raise the scene; its moments are made when they are first asked for."""
    with open_rig(folder / "scene", net, vendor=vendor, **settings) as rig:
        yield Theatre(rig, folder / "moments")


PYTHON = sys.executable
