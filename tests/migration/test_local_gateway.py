"""Migrations whose visitors are led by a local gateway: real sshd, nftables and conntrack, in a network of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rig import BOXSHIFT

from kit.process import run

pytestmark = [
    *(pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root"),
]


def test_the_local_demo_loses_nothing(tmp_path: Path) -> None:
    words = ["demo", "--local", "--scenario", "nat", "--json", "--folder", tmp_path / "demo"]
    told = json.loads(run([BOXSHIFT, *words], timeout=500, env={"NO_COLOR": "1"}).text)
    assert (told["state"], told["records_lost"], told["served_chain_equal"], told["old_reset"]) == ("done", 0, True, True)
    assert told["records_written"] > 0, "the visitors wrote nothing: the test proves nothing"
