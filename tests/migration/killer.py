"""Kills a command at each moment of its work, asks after each death what `boxshift status` says, and types it again until it ends.

The moments, each met once in every node: ``sent`` (a form, an update or a rule is on its way, its answer unread; one for each), ``written``
(a file of the run; one for each kind), ``end`` (all is done, nothing recorded), ``stored`` (recorded, the engine's library not told;
where something was sent or written), ``waiting`` (a gate or a soak has begun).
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig import Finished, Rig, finished
from theatre import Theatre

from kit.errors import UsageError
from kit.process import Child
from kit.waiting import wait_for
from migrate.engine.model import NodeState, RunState, RunStatus, UndoState, UnknownRunError
from migrate.runbook import NodeKind

MOMENTS = ("sent", "written", "end", "stored", "waiting")
USUAL = tuple(moment for moment in MOMENTS if moment != "stored")  # which is the engine's own: met in one runbook, and in its tests
PROGRAM = Path(__file__).with_name("dying.py")
EVER = float("inf")
LIMIT = 240.0  # seconds for one start


@dataclass(frozen=True)
class Death:
    """``place``: a node, ``undo NODE``, or the command where it was at no node's work."""

    place: str
    moment: str
    what: str

    @property
    def undone(self) -> str:
        """The node whose undo it died in; empty where it was none's."""
        return self.place.removeprefix("undo ") if self.place.startswith("undo ") else ""


@dataclass
class Killer:
    """``between`` is called after each death; ``seen``: each finished node as it was right after a death. ``is_alone``: there is no run."""

    theatre: Theatre
    folder: Path
    wire: Any
    between: Callable[[RunStatus], None] = lambda _: None
    seen: dict[str, Finished] = field(default_factory=dict)
    is_alone: bool = False
    moments_met: Collection[str] = USUAL

    @property
    def rig(self) -> Rig:
        return self.theatre.rig

    def run(self, *words: str, then: Collection[str] = (), places: Collection[str] | None = None) -> int:
        """The command to its end, typed again after each death (or ``then`` typed instead). Answers its exit status.

        ``places``: the nodes in which alone it dies.
        """
        line = tuple(words)
        while (code := self._order(line, places, self.moments_met)) == -signal.SIGKILL:
            self._look()
            line = tuple(then) or line
        return code

    def roll_back(self) -> None:
        """`boxshift rollback`, typed again after each death. Who is killed in its last second is told that it has been done."""
        code = self.run("rollback", str(self.rig.plan))
        assert code == (3 if self.deaths()[-1].place == "rollback" else 0), self.said()
        assert self.rig.status().state is RunState.ROLLED_BACK, self.said()

    def die_once(self, *words: str, place: str, moment: str) -> None:
        """The command up to its first death there."""
        assert self._order(words, [place], [moment]) == -signal.SIGKILL, self.said()
        self._look()

    def deaths(self) -> list[Death]:
        path = self.folder / "deaths"
        return [Death(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def moments(self) -> dict[str, set[str]]:
        """By place, the moments that it died at."""
        found: dict[str, set[str]] = defaultdict(set)
        for death in self.deaths():
            found[death.place].add(death.moment)
        return found

    def said(self) -> str:
        """What the commands have said lately."""
        path = self.folder / "said"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _order(self, words: Collection[str], places: Collection[str] | None, moments: Collection[str]) -> int:
        order = {"words": list(words), "moments": list(moments), "places": None if places is None else sorted(places)}
        self.wire.write(json.dumps(order) + "\n")
        self.wire.flush()
        code = int(self.wire.readline())
        assert code >= 0 or code == -signal.SIGKILL, self.said()
        return code

    def _look(self) -> None:
        death = self.deaths()[-1]
        if self.is_alone:
            return
        try:
            status = self.rig.status()
        except (UsageError, UnknownRunError):
            return  # killed before there was a run
        self.between(status)
        if death.place.removeprefix("undo ") in {node.name for node in status.nodes}:
            verify_state(status, death)
            answer = self.theatre.ask("status", str(self.rig.plan))
            assert answer.code == 0, answer.all
            verify_words(answer.out, status, death, str(self.rig.plan))
        self.seen |= {name: record for name, record in finished(status).items() if name not in self.seen}

    def verify_nothing_ran_again(self) -> None:
        now = self.rig.finished()
        assert {name: now[name] for name in self.seen} == self.seen, "a node that had finished ran again"

    def verify_met(self, nodes: Collection[str], acting: Collection[str]) -> None:
        """Killed in each of these nodes at each moment that it has; in each of ``acting`` also while something was on its way."""
        book, met = self.rig.status().runbook, self.moments()
        for name in nodes:
            wanted = "end" if book.node(name).kind is NodeKind.STEP else "waiting"
            assert wanted in met[name], f"{name} was killed only when: {sorted(met[name])}"
        quiet = [name for name in acting if "sent" not in met[name]]
        assert quiet == [], f"nothing was on its way when these were killed: {quiet}"

    def verify_undos_met(self, acting: Collection[str]) -> None:
        """The same for each undo of the run."""
        met = self.moments()
        undone = {f"undo {node.name}" for node in self.rig.status().nodes if node.undo is UndoState.UNDONE}
        assert undone, "nothing was undone"
        spared = [name for name in undone if "end" not in met[name]]
        quiet = [name for name in acting if "sent" not in met[f"undo {name}"]]
        assert (spared, quiet) == ([], []), f"not killed: {spared}; only when nothing was on its way: {quiet}"


def verify_state(status: RunStatus, death: Death) -> None:
    """The state says what is so: nobody works on it, and which node was cut off."""
    node = status.node(death.undone or death.place)
    waits = death.moment in {"waiting", "stored"} and status.waiting and not death.undone
    assert status.state is (RunState.APPROVAL if waits else RunState.INTERRUPTED), (death, status.state)
    if death.undone:
        assert node.undo is (UndoState.UNDONE if death.moment == "stored" else UndoState.RUNNING), (death, node.undo)
    else:
        wanted = {"stored": NodeState.DONE, "waiting": NodeState.WAITING}.get(death.moment, NodeState.INTERRUPTED)
        assert node.state is wanted, (death, node.state)


def verify_words(said: str, status: RunStatus, death: Death, plan: str) -> None:
    """What a person reads: the state, the node, and the command that leads on."""
    assert status.state.value in said.splitlines()[0], said
    (line,) = [line for line in said.splitlines() if line.split()[1:2] == [death.undone or death.place]]
    word = {"stored": "done", "waiting": "waiting"}.get(death.moment, "interrupted") if not death.undone else ""
    assert word in line, (death, line)
    assert f"boxshift {'approve' if status.state is RunState.APPROVAL else 'run'} {plan}" in said, said


@contextmanager
def open_killer(theatre: Any, folder: Path) -> Iterator[Killer]:
    """``folder`` is made; what its commands say is in there. ``theatre`` None: for commands that belong to no run."""
    folder.mkdir()
    with (
        Child([sys.executable, PROGRAM, folder], log=folder / "said", env={"NO_COLOR": "1"}) as program,
        socket.socket(socket.AF_UNIX) as wire,
    ):

        def is_there() -> bool | None:
            try:
                wire.connect(f"\0boxshift-dying-{program.pid}")
            except OSError:
                return None
            return True

        wait_for(is_there, what="the program that dies", timeout=60, poll=0.05, give_up=lambda: program.said() if program.status else None)
        wire.settimeout(LIMIT)
        with wire.makefile("rw") as lines:
            yield Killer(theatre, folder, lines, is_alone=theatre is None)


def acknowledged(theatre: Theatre, *spans: tuple[float, float]) -> set[str]:
    """Records that visitors were told are kept, within these times."""
    written = [one for one in theatre.entries() if one["kind"] == "session" and one.get("status") == 201]
    return {one["lsid"] for one in written if any(begin <= one["at"] and one["at"] < end for begin, end in spans)}
