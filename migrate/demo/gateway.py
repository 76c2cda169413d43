"""The gateway of a demo: a virtual machine of the lab's own recipe that leads visitors to one of two boxes on its network."""

from __future__ import annotations

from pathlib import Path

from images.build import build
from images.home import find_home
from images.machine import Machines
from images.readiness import wait_for_ready
from images.recipe import find_recipe, read_recipe
from images.store import Image
from kit.process import need_program, run
from kit.progress import Progress
from migrate.demo.raising import ask, put
from migrate.demo.stage import Gateway

PUBLIC = "198.51.100.1"  # where visitors come in; no machine has it, the gateway only leads it on
RULES = """\
flush ruleset
table ip nat {{
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr {public} tcp dport {port} counter dnat to {box}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ct status dnat masquerade
	}}
}}
"""
# Boxes and visitors are on one network here, so answers come back through the gateway only because it puts its own address on requests.


def ensure_gateway_image(progress: Progress) -> Image:
    """Build it where it is not in the store yet."""
    return build(read_recipe(find_recipe("gateway")), find_home(), progress=progress)


def make_key(path: Path, passphrase: str = "") -> str:
    """A key pair for SSH; answers its fingerprint, ``SHA256:…``."""
    program = need_program("ssh-keygen", package="openssh-client")
    run([program, "-q", "-t", "ed25519", "-N", passphrase, "-C", "demo", "-f", path], timeout=30)
    return run([program, "-lf", path], timeout=30).text.split()[1]


def raise_gateway(machines: Machines, name: str, folder: Path, leads: tuple[str, int], progress: Progress) -> Gateway:
    """Wait for it, let it lead visitors to the box and port ``leads``, let a key of ours in. Its agent tells its host key."""
    facts = wait_for_ready(machines, name, progress=progress)
    key = folder / "gateway_key"
    make_key(key)
    put(machines, name, "/root/.ssh/authorized_keys", key.with_suffix(".pub").read_bytes())
    rules = RULES.format(public=PUBLIC, port=leads[1], box=leads[0])
    put(machines, name, "/etc/nftables.conf", rules.encode())
    ask(machines, name, "/usr/sbin/nft", "-f", "/etc/nftables.conf")
    shown = ask(machines, name, "/usr/bin/ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub")
    return Gateway(facts.address, shown.split()[1], key)


def lead_there(gateway: Gateway, bridge: str) -> None:
    """Make a way from here, in a network of our own, to the public address."""
    for scope in ("all", bridge):  # "go to the box yourself" is what a gateway says to neighbours of the box
        Path(f"/proc/sys/net/ipv4/conf/{scope}/accept_redirects").write_text("0")
    run([need_program("ip", package="iproute2"), "route", "add", PUBLIC, "via", gateway.address], timeout=30)
