"""A toy executor that writes every act to an append-only journal, and a worker program around it.

Run as a program: ``toy.py DATABASE FOLDER RUN submit|resume`` works on the run until it has ended or needs a person, and prints its state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from kit.errors import FailedError
from kit.progress import Progress
from migrate.engine import Call, Engine, Event, EventKind, Outcome
from migrate.runbook import Node, NodeKind, Phase, Runbook, Undo


class Toy:
    """Params of a node: ``seconds``; ``fails`` (attempts that fail); ``die`` and ``undo_die`` (places where the process kills itself, once
    each: begin, middle, end); ``undo_fails`` (undos that fail); ``value``; ``raises``.
    """  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, what: str, node: str, **facts: object) -> None:
        line = json.dumps({"what": what, "node": node, "pid": os.getpid(), "at": time.time(), **facts}) + "\n"
        handle = os.open(self.folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, line.encode())
        os.fsync(handle)
        os.close(handle)

    def once(self, name: str) -> bool:
        try:
            os.close(os.open(self.folder / f"once-{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def maybe_die(self, call: Call, key: str, place: str) -> None:
        if place in str(call.node.params.get(key, "")).split() and self.once(f"{key}-{call.node.name}-{place}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, call: Call, progress: Progress) -> Outcome:
        params = call.node.params
        self.maybe_die(call, "die", "begin")
        self.write("begin", call.node.name, attempt=call.attempt, again=call.again, results=sorted(call.results))
        progress.update(f"working on {call.node.name}", 0, 1)
        time.sleep(float(params.get("seconds", 0)))
        self.maybe_die(call, "die", "middle")
        if params.get("raises"):
            raise RuntimeError(str(params["raises"]))
        if call.attempt <= int(params.get("fails", 0)):
            self.write("failed", call.node.name, attempt=call.attempt)
            return Outcome.failed(FailedError(f"{call.node.name} had no luck.", hint="Try again."))
        self.write("end", call.node.name, attempt=call.attempt)
        self.maybe_die(call, "die", "end")
        return Outcome(ok=True, value=params.get("value", {"by": call.node.name}))

    def undo(self, call: Call, progress: Progress) -> Outcome:
        self.maybe_die(call, "undo_die", "begin")
        self.write("undo begin", call.node.name, again=call.again, own=call.node.name in call.results)
        time.sleep(float(call.node.params.get("undo_seconds", 0)))
        self.maybe_die(call, "undo_die", "middle")
        if any(self.once(f"undo-fails-{call.node.name}-{n}") for n in range(int(call.node.params.get("undo_fails", 0)))):
            return Outcome.failed(FailedError(f"{call.node.name} would not go."))
        self.write("undo end", call.node.name)
        self.maybe_die(call, "undo_die", "end")
        return Outcome(ok=True)


def read_journal(folder: Path) -> list[dict]:
    path = folder / "journal"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def said(folder: Path, what: str) -> list[str]:
    """Names of nodes for which the journal says ``what``, in order."""
    return [line["node"] for line in read_journal(folder) if line["what"] == what]


def node(name: str, *after: str, kind: NodeKind = NodeKind.STEP, undo: Undo = Undo.NONE, may_skip: bool = False, **params) -> Node:
    seconds = params.pop("soak", 0.0)
    until = params.pop("until", 0.0)
    return Node(name, name.title(), kind, name, params, after, undo=undo, may_skip=may_skip, estimate=2.0, seconds=seconds, until=until)


def book(*phases: tuple[Node, ...]) -> Runbook:
    return Runbook("toy", 1, "site", "plan.yaml", "0" * 64, tuple(Phase(f"p{n}", f"Phase {n}", nodes) for n, nodes in enumerate(phases)))


def work(database: str, folder: Path, run: str, how: str) -> None:
    toy = Toy(folder)

    def note(event: Event) -> None:
        """Written after the end of a node was stored and before the library's own checkpoint of it."""
        if event.kind is EventKind.ENDED and event.facts.get("state") == "done":
            toy.write("stored", event.node)
            if (folder / f"die-stored-{event.node}").exists() and toy.once(f"die-stored-{event.node}"):
                os.kill(os.getpid(), signal.SIGKILL)

    with Engine(database, toy, log=folder / "engine.log", lease=float(os.environ.get("TOY_LEASE", "4"))) as engine, engine.signals():
        engine.watch(note)
        if how == "submit":
            engine.submit(Runbook.from_json(json.loads((folder / "book.json").read_text())), run)
        elif how == "resume":
            engine.resume(run)
        if how == "serve":
            (folder / f"serving-{os.getpid()}").touch()
            engine.serve()
        sys.stdout.write(f"{engine.wait(run).state}\n")


if __name__ == "__main__":
    try:
        work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    except KeyboardInterrupt:
        sys.exit(130)
