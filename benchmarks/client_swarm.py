"""Thousands of Jump Clients through the upgrade of one appliance: seconds, processor time, memory, and what boxshift's wait costs.

    python benchmarks/client_swarm.py [CLIENTS] [SLOTS]        (2000 and 100 where nothing is said)

The appliance runs as local processes, the swarm as a program of its own, `boxshift upgrade` as another. Prints also the most clients that
held a slot at one moment, by the appliance's own table, and how long the wait went on after the last client had reported.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

from kit.files import write_private
from kit.process import Child
from kit.progress import Silent
from migrate.demo.journal import Kind, read_entries
from migrate.demo.local_stage import LocalStage
from migrate.demo.play import Play, Scenario, Scene, open_scene
from migrate.demo.stage import SITE, SiteSize, find_free_net
from migrate.wiring.desk import open_desk

BOXSHIFT = Path(sys.executable).with_name("boxshift")
VERSION = "21.2.1"


def start_swarm(scene: Scene, folder: Path) -> Child:
    """The swarm of all clients that visitors do not play."""
    config = {
        "site": SITE,
        "port": scene.stage.port,
        "ca_file": str(folder / "root.pem"),
        "address": scene.stage.old.visible,
        "journal": str(folder / "swarm.jsonl"),
        "clients": scene.clients[1:],
        "secret": scene.secrets.jump_clients.reveal(),
        "version": "21.1.1",
        "until": VERSION,
        "passive_every": 8,
        "checkin_every": 600,
        "passive_checkin_every": 20,
        "update_takes": 0.2,
        "connects_per_second": 400,
    }
    write_private(folder / "swarm.json", json.dumps(config).encode())
    return Child([sys.executable, "-m", "migrate.demo.swarm", folder / "swarm.json"], log=folder / "swarm.log")


def run_upgrade(plan: Path) -> tuple[int, float]:
    """`boxshift upgrade` as a process of its own; its peak memory in KiB and its seconds of processor time."""
    pid = os.posix_spawn(
        BOXSHIFT,
        [str(BOXSHIFT), "upgrade", str(plan), "--yes"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, str(plan.parent / "boxshift.log"), os.O_WRONLY | os.O_CREAT, 0o600)],
    )
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"the upgrade failed: see {plan.parent / 'boxshift.log'}")
    return usage.ru_maxrss, usage.ru_utime + usage.ru_stime


def read_most_held(box: Path) -> int:
    """The most slots that were taken at one moment, from the appliance's own table."""
    rows = sqlite3.connect(box / "data" / "box.db").execute("select granted, ended from client_upgrade").fetchall()
    # At one and the same moment who ends makes room for who begins.
    steps = sorted([(granted, 1) for granted, _ in rows] + [(ended, -1) for _, ended in rows if ended is not None])
    return max(accumulate(change for _, change in steps), default=0)


def main() -> None:
    """Measure and print."""
    wanted = [int(word) for word in sys.argv[1:3]]
    clients, slots = [*wanted, *(2000, 100)[len(wanted) :]]
    with tempfile.TemporaryDirectory(prefix="boxshift-benchmark-") as place:
        folder = Path(place)
        stage = LocalStage(folder / "stage", net=find_free_net())
        play = Play(folder, SiteSize(sessions=100, recordings=2, jump_clients=clients + 1), scenario=Scenario.UPGRADE, visiting=1)
        with open_scene(play, stage, Silent()) as scene:
            scene.plan.write_text(
                scene.plan.read_text().replace("longest: 60s", f'longest: 60s, target: {{base: "5.2.0", site: "{VERSION}"}}')
            )
            stage.old_box.seed({"upgrade_slots": slots})
            swarm = start_swarm(scene, folder)
            memory, cpu = run_upgrade(scene.plan)
            swarm.stop(grace=60)
            told = json.loads((folder / "swarm.log").read_text().splitlines()[-1])
            with open_desk(scene.plan, "", "") as desk:
                status = desk.status()
            entries = list(read_entries(folder / "swarm.jsonl"))
            most = read_most_held(stage.old_box.root)
    last = max(entry.answered_at for entry in entries if entry.kind is Kind.CHECKIN and entry.ok and entry.version == VERSION)
    wait, install = status.node(f"clients-site-{VERSION}"), status.node(f"install-site-{VERSION}")
    print(f"clients                              {told['clients']:8d}, {told['missing']} of them stranded")
    print(f"from the installation to the last    {last - (install.ended or 0.0):8.1f} s")
    print(f"the wait after the last report       {(wait.ended or 0.0) - last:8.1f} s")
    print(f"slots taken at most                  {most:8d} of {slots}; {told['most_holding']} by the clients' own eyes")
    print(f"check-ins, failed, told to wait      {told['checkins']:8d}, {told['failures']}, {told['refused']}")
    each = told["cpu_seconds"] / told["clients"] * 1000, told["peak_kib"] / told["clients"]
    print(f"swarm's processor time               {each[0]:8.2f} ms a client, {told['cpu_seconds']} s in all")
    print(f"swarm's peak memory                  {told['peak_kib'] / 1024:8.1f} MiB, {each[1]:.1f} KiB a client")
    print(f"boxshift: peak memory, processor     {memory / 1024:8.1f} MiB, {cpu:.1f} s for the whole upgrade")


if __name__ == "__main__":
    main()
