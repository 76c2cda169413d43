"""Migrations killed with kill -9 in each node, forward and back: each goes on, nothing runs twice, nothing is lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from killed_moves import CUTOVER, Move, play_killed
from rig import Rig
from test_cutover_by_command import switch_by_command
from theatre import find_net

from kit.process import run
from migrate.demo.play import Scenario

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(900)]
PLAYER = Path(__file__).with_name("gateway_player.py")
TO_THE_PAIR = ("join-pair", "first-sync", "become-primary")
FROM_THE_PAIR = ("switch", "join-pair")  # with visitors the role goes back: there is nothing left for the undo of become-primary

# Killed by the command itself, while it is at work; the run that goes on meets it still working.
DYING = """
line="[\\"$([ "$2" = {new} ] || echo "undo ")switch\\", \\"sent\\", \\"$2\\"]"
grep -qxF "$line" {deaths} || {{ echo "$line" >> {deaths}; kill -9 $PPID; sleep 0.5; }}
"""


def switch_by_killing_command(rig: Rig) -> None:
    switch_by_command(rig)
    script = rig.plan.parent / "swing"
    deaths = rig.plan.parent.parent / "killer" / "deaths"
    text = script.read_text()
    script.write_text(text.replace("echo $$ >> swung\n", DYING.format(new=rig.stage.new.visible, deaths=deaths)))


MOVES = {
    "dns": Move(
        Scenario.MIGRATION,
        (),
        (
            *("read-cutover", "lower-ttl", "archive-extras", "first-login", "service-address", "transfer-certificate"),
            *("assign-certificate", "install-packages", "restore", "restore-vault-key", "carry-files", "quiesce-old", "final-restore"),
            *("switch", "restore-ttl", "factory-reset", "shut-down"),
        ),
        ("switch",),
    ),
    "failover": Move(
        Scenario.MIGRATE_BY_FAILOVER,
        (
            *("restore-vault-key", *TO_THE_PAIR, "compare", *CUTOVER, "clients-back", "inventory", "soak", "carry-files"),
            *("approve-retire", "end-pair", "retire-gate", "factory-reset"),
        ),
        ("restore-vault-key", *TO_THE_PAIR, "switch", "end-pair", "factory-reset"),
        ("end-pair", *FROM_THE_PAIR),
        by_failover=True,
    ),
    "shared-ip": Move(
        Scenario.SHARED_IP,
        (
            "read-cutover",
            "service-address",
            "assign-certificate",
            "quiesce-old",
            "final-backup",
            "final-restore",
            *CUTOVER,
            "approve-retire",
        ),
        ("service-address", "assign-certificate", "quiesce-old", "final-restore", "switch"),
        ("switch",),
        retires=False,
    ),
    "command": Move(
        Scenario.MIGRATE_BY_FAILOVER,
        ("read-cutover", *CUTOVER, "approve-retire"),
        ("switch",),
        FROM_THE_PAIR,
        switch_by_killing_command,
        by_failover=True,
        retires=False,
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_migration(tmp_path: Path, vendor: Path, move: str) -> None:
    assert play_killed(tmp_path / "scene", find_net(iter(range(171, 200))), vendor, MOVES[move])


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_a_migration_behind_a_gateway(tmp_path: Path) -> None:
    done = run([sys.executable, PLAYER, tmp_path / "scene"], timeout=600, env={"NO_COLOR": "1"}, accept=(0, 1))
    assert done.status == 0, done.err.decode()[-4000:]
    assert {"switch: sent nft", "switch: sent conntrack", "undo switch: sent nft", "undo switch: sent conntrack"} <= set(
        done.text.splitlines()
    )
