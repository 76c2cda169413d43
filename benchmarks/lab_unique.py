"""What clones of one template say of themselves right after they were called ready: nothing of it may be the same twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from images.lab import LabBox
from images.machine import Machines
from images.readiness import read_leaf

SECRETS = "select value from setting where name in ('guid', 'page_secret')"
# What is asked, and the command that tells it.
KINDS = {
    "random UUIDs": "for n in 1 2 3 4 5; do cat /proc/sys/kernel/random/uuid; done",
    "bytes of getrandom": "python3 -c 'import os; print(os.getrandom(16).hex())'",
    "boot ids": "cat /proc/sys/kernel/random/boot_id",
    "machine ids": "cat /etc/machine-id",
    "host names": "hostname",
    "MAC addresses": "cat /sys/class/net/eth*/address",
    "SSH host keys": "cut -d' ' -f2 /etc/ssh/ssh_host_*_key.pub",
    "appliance secrets": f"python3 -c \"import sqlite3; b = sqlite3.connect('/var/lib/appliance/data/box.db'); "
    f'print(*(row[0] for row in b.execute(\\"{SECRETS}\\")), sep=chr(10))"',
}
MARK = "=== "


@dataclass(frozen=True)
class Told:
    """``found``: by kind, all that the clone has of it. ``clock_off`` in seconds, ``uptime`` when it was asked."""

    found: dict[str, tuple[str, ...]]
    clock_off: float
    uptime: float


def ask(machines: Machines, box: LabBox) -> Told:
    """Session cookies first, as a user would be quick to draw them; then the clock, and all else."""
    with httpx.Client(verify=False, timeout=60) as client:  # noqa: S501 - a lab's own certificate, and nothing is told to it
        jars = [client.get(f"https://{box.address}/{console}").cookies for console in ("appliance", "login")]
    before = time.time()
    clock = float(machines.run_in_guest(box.name, ["/usr/bin/date", "+%s.%N"]).text)
    after = time.time()
    script = "".join(f"echo '{MARK}{kind}'; {command}\n" for kind, command in KINDS.items()) + f"echo '{MARK}uptime'; cat /proc/uptime"
    parts = machines.run_in_guest(box.name, ["/bin/sh", "-c", script]).text.split(MARK)[1:]
    found = {lines[0]: tuple(lines[1:]) for lines in (part.splitlines() for part in parts)}
    uptime = float(found.pop("uptime")[0].split()[0])
    host, port = box.address.split(":")
    found |= {"session cookies": tuple(value for jar in jars for value in jar.values()), "certificates": (read_leaf(host, int(port)),)}
    found |= {"addresses on this computer": (box.address,)}
    return Told(found, max(0.0, before - clock, clock - after), uptime)


def render(told: Sequence[Told]) -> str:
    """A line for each kind, with what is the same twice."""
    lines = [f"{len(told)} clones of a template that ran for {min(one.uptime for one in told):.0f} s or a little less when it was saved:"]
    for kind in told[0].found:
        values = [value for one in told for value in one.found[kind]]
        same = len(values) - len(set(values))
        lines.append(f"  {kind:<28} {len(values):3} drawn, " + (f"{same} THE SAME" if same else "all different"))
    lines.append(f"  clocks off by at most {max(one.clock_off for one in told):.2f} s (target: less than 1)")
    return "\n".join(lines)
