"""A whole migration whose visitors are switched by commands of the operator's own, killed at the switch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rig import Rig, kill, wait_until
from test_killed_runs import verify_ended_well

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]

# It changes the demo's own name server, which its visitors ask, but not in boxshift's way.
SWING = """\
#!/bin/sh
read -r key
if [ "$1" = show ]; then exec dig +short +time=5 @127.0.0.1 -p {port} {name} A; fi
echo $$ >> swung
nsupdate -y "hmac-sha256:{key}:$key" <<END
server 127.0.0.1 {port}
update delete {name} A
update add {name} 2 A $2
send
END
"""
COMMAND = """\
  method: command
  command:
    check: [./swing, show]
    switch: [./swing, to, {new}]
    switch_back: [./swing, to, {old}]
    secret: "file:secrets.yaml#tsig"
    seconds: 4s
"""


def switch_by_command(rig: Rig) -> None:
    """The demo's plan, with its `dns` section replaced."""
    names, plan = rig.scene.names, rig.plan.read_text()
    script = rig.plan.parent / "swing"
    script.write_text(SWING.format(port=names.primary.port, name=f"support.{names.zone}", key=names.key.name))
    script.chmod(0o755)
    dns = plan[plan.index("  dns:\n") : plan.index("watch:")]
    section = COMMAND.format(old=rig.stage.old.visible, new=rig.stage.new.visible)
    rig.plan.write_text(plan.replace(dns, "").replace("  method: dns\n", section))


def test_killed_at_the_switch_it_goes_on_and_nothing_is_lost(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    switch_by_command(rig)
    with rig.start() as child:
        assert wait_until((rig.plan.parent / "swung").exists, child, timeout=300), rig.said()[-4000:]
        kill(child)
        seen = rig.finished_so_far()
    assert rig.run() == 0, rig.said()[-4000:]
    verify_ended_well(rig, seen)
    status = rig.status()
    assert not {"lower-ttl", "wait-for-old-ttl", "restore-ttl"} & {node.name for node in status.nodes}
    assert "from the beginning of the switch to the first good answer" in str(status.node("prove").value)
