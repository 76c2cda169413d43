"""A whole migration as a test sees it: a raised scene on local processes, and `boxshift` run as a program that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.local_appliance import LocalAppliance
from kit.process import Child
from kit.progress import Silent
from migrate.demo.local_stage import LocalStage
from migrate.demo.machine_stage import MachineStage
from migrate.demo.play import Play, Scenario, Scene, open_scene
from migrate.demo.stage import SiteSize
from migrate.engine.model import NodeState, RunStatus
from migrate.wiring.desk import Desk, open_desk

SMALL = SiteSize(users=6, sessions=60, recordings=3, file_items=12, jump_clients=3)
BOXSHIFT = Path(sys.executable).with_name("boxshift")


@dataclass(frozen=True)
class Finished:
    """A node that the database calls finished; running it again would change the record."""

    attempt: int
    started: float | None
    ended: float | None


@dataclass
class Rig:
    """One scene and the runs on it. ``stage`` gives access to the two boxes."""

    scene: Scene
    stage: Any
    log: Path

    @property
    def plan(self) -> Path:
        return self.scene.plan

    def start(self, *words: str) -> Child:
        """`boxshift run PLAN --yes`, or another command line, as a process of its own."""
        return Child([BOXSHIFT, *(words or ("run", str(self.plan), "--yes"))], log=self.log, env={"NO_COLOR": "1"})

    def run(self, *words: str, timeout: float = 240.0) -> int:
        """The same to its end; answers the exit status."""
        with self.start(*words) as child:
            return wait_end(child, timeout)

    def desk(self) -> Desk:
        return open_desk(self.plan, "", "")

    def status(self) -> RunStatus:
        desk = self.desk()
        try:
            return desk.status()
        finally:
            desk.control.close()

    def finished(self) -> dict[str, Finished]:
        """What has finished so far. A gate's record is its approval, which is no execution."""
        return finished(self.status())

    def finished_so_far(self) -> dict[str, Finished]:
        """The same while the run may just be beginning: nothing where there is no run yet."""
        try:
            return self.finished()
        except Exception:  # noqa: BLE001 - the database is being made right now
            return {}

    def said(self) -> str:
        """Everything the command said, plus the logs of the run."""
        logs = sorted((self.plan.parent / ".boxshift").rglob("*.log"))
        return "\n".join(path.read_text(errors="replace") for path in (self.log, *logs) if path.exists())


def sessions_of(box: LocalAppliance) -> set[str]:
    """The sessions that a box has written down."""
    return {row[0] for row in _read(box, "site", "select lsid from session")}


def role_of(box: LocalAppliance) -> str:
    """The part in a failover pair that a box has written down; "none" also where it never was in one."""
    rows = _read(box, "site", "select value from setting where name = 'failover_role'")
    return str(rows[0][0]) if rows else "none"


def is_at(box: LocalAppliance, kind: str) -> bool:
    """Whether a box is at a data sync (``pull``) or a change of roles (``role``) that it leads, by its own notes."""
    return bool(_read(box, "box", f"select 1 from failover_work where kind = '{kind}' and state = 'running'"))


def seen_by(box: LocalAppliance) -> dict[str, Any]:
    """What a box of a pair saw of the other one at its last look: its ``role``, or the ``problem``."""
    rows = _read(box, "box", "select value from setting where name = 'failover_seen'")
    return dict(json.loads(rows[0][0])) if rows else {}


def installations(box: LocalAppliance) -> list[str]:
    """How each installation stands, by the box's own notes, the first one first. It is ``running`` once the package is on the box.

    A box that restarts before that has lost a package which the vendor does not offer a second time.
    """
    told = "case when state = 'running' and step not like 'Installing %' then 'starting' else state end"
    return [row[0] for row in _read(box, "box", f"select {told} from job where kind = 'install' order by id")]


def _read(box: LocalAppliance, name: str, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{box.root}/data/{name}.db?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(sql).fetchall()


def set_key(box: LocalAppliance, key: str) -> str:
    """The box's pre-shared key is this one; answers the one before."""
    with closing(sqlite3.connect(box.root / "data" / "site.db", timeout=30)) as database, database:
        (before,) = database.execute("select value from setting where name = 'preshared_key'").fetchone()
        database.execute("update setting set value = ? where name = 'preshared_key'", (key,))
    return str(before)


def finished(status: RunStatus) -> dict[str, Finished]:
    """The nodes that a status calls finished."""
    return {node.name: Finished(node.attempt, node.started, node.ended) for node in status.nodes if node.state is NodeState.DONE}


def wait_end(child: Child, timeout: float) -> int:
    end = time.monotonic() + timeout
    while child.status is None:
        assert time.monotonic() < end, f"did not end within {timeout:g} s: {child.said()}"
        time.sleep(0.05)
    return child.status


def kill(child: Child) -> None:
    """As a power cut ends it: no handler, no clean-up. Only the process itself; it is its own group's leader."""
    os.kill(child.pid, signal.SIGKILL)
    while child.status is None:
        time.sleep(0.01)


def wait_until(look: Callable[[], bool], child: Child, timeout: float = 120.0) -> bool:
    """True once ``look`` is; False when the program ended first."""
    end = time.monotonic() + timeout
    while not look():
        if child.status is not None:
            return False
        assert time.monotonic() < end, child.said()
        time.sleep(0.03)
    return True


@contextmanager
def open_rig(
    folder: Path,
    net: int,
    *,
    size: SiteSize = SMALL,
    profile: str = "current",
    vendor: Path | None = None,
    scenario: Scenario = Scenario.MIGRATION,
    visiting: int | None = None,
) -> Iterator[Rig]:
    """Raise a scene on the loopback network 127.``net``. Everything is taken away afterwards."""
    stage = LocalStage(folder / "stage", net=net, profile=profile, vendor=vendor, pair=scenario.is_pair, nat=scenario is Scenario.NAT)
    with open_scene(Play(folder, size, soak=2.0, scenario=scenario, visiting=visiting), stage, Silent()) as scene:
        yield Rig(scene, stage, folder / "boxshift.log")


@contextmanager
def open_machine_rig(folder: Path, net: int, *, size: SiteSize = SMALL, scenario: Scenario = Scenario.MIGRATION) -> Iterator[Rig]:
    """The same on virtual machines; the run of a migration makes the new one."""
    stage = MachineStage(folder / "stage", net=net)
    with open_scene(Play(folder, size, soak=5.0, scenario=scenario), stage, Silent()) as scene:
        yield Rig(scene, stage, folder / "boxshift.log")


@contextmanager
def spoiled(path: Path) -> Iterator[None]:
    """A file with one byte too many."""
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    try:
        yield
    finally:
        path.write_bytes(whole)
