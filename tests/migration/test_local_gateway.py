"""Migrations whose visitors are led by a local gateway: real sshd, nftables and conntrack, in a network of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from rig import BOXSHIFT

from kit.process import run

pytestmark = [
    *(pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root"),
]
PLAYER = Path(__file__).with_name("gateway_player.py")


def test_the_local_demo_loses_nothing(tmp_path: Path) -> None:
    words = ["demo", "--local", "--scenario", "nat", "--json", "--folder", tmp_path / "demo"]
    told = json.loads(run([BOXSHIFT, *words], timeout=500, env={"NO_COLOR": "1"}).text)
    assert (told["state"], told["records_lost"], told["served_chain_equal"], told["old_reset"]) == ("done", 0, True, True)
    assert told["records_written"] > 0, "the visitors wrote nothing: the test proves nothing"


def test_with_data_by_failover_it_leads_back_after_the_switch_with_every_record(tmp_path: Path) -> None:
    done = run([sys.executable, PLAYER, tmp_path / "scene"], timeout=500, env={"NO_COLOR": "1"}, accept=(0, 1))
    assert done.status == 0, done.err.decode()[-4000:]
    told = json.loads(done.text)
    assert told["notes"] == []
    assert set(told["undone"]) == {"switch", "become-primary", "join-pair", "provision"}
