"""A folder with a run database and a toy, and workers in processes of their own that tests may kill."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import migrate
from kit.process import Child
from migrate.engine import Control, RunState, RunStatus
from migrate.runbook import Runbook

HERE = Path(__file__).parent
ROOT = Path(migrate.__file__).parent.parent


class Bench:
    """A folder with a run database and a toy, and workers in processes of their own."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        self.children: list[Child] = []

    def start(self, name: str, how: str, book: Runbook | None = None) -> Child:
        if book is not None:
            (self.folder / "book.json").write_text(json.dumps(book.to_json()))
        argv = [sys.executable, str(HERE / "toy.py"), self.database, str(self.folder), name, how]
        log = self.folder / f"child-{len(self.children)}.log"
        child = Child(argv, log=log, env={"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])})
        self.children.append(child)
        return child

    def finish(self, child: Child, timeout: float = 60.0) -> int:
        end = time.monotonic() + timeout
        while child.status is None:
            assert time.monotonic() < end, child.said()
            time.sleep(0.02)
        return child.status

    def kill(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGKILL)
        self.finish(child)

    def until(self, what: Callable[[], object], timeout: float = 30.0) -> None:
        end = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < end, [child.said() for child in self.children]
            time.sleep(0.02)

    def until_state(self, name: str, *states: RunState, timeout: float = 30.0) -> RunStatus:
        control = Control(self.database)
        try:
            self.until(lambda: control.status(name).state in states, timeout)
            return control.status(name)
        finally:
            control.close()

    def run_to_end(self, name: str, book: Runbook, *, most: int = 20) -> RunStatus:
        """Submit, and resume after every death, until the worker ends by itself."""
        how = "submit"
        for _ in range(most):
            child = self.start(name, how, book if how == "submit" else None)
            if self.finish(child) == 0:
                control = Control(self.database)
                try:
                    return control.status(name)
                finally:
                    control.close()
            assert child.status == -signal.SIGKILL, child.said()
            how = "resume"
        raise AssertionError(f"still not at an end after {most} starts")
