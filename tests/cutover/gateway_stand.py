"""A gateway with nftables and sshd, visitors before it and two boxes behind it, each in a network namespace of its own.

Nothing of it has a name outside, and all of it ends with the processes that hold the namespaces. sshd runs in a mount namespace besides,
with a password file of its own. Drivers are called in a thread that sees the gateway's network, or as a program in the namespace of
another machine behind a slow link (``slow_wire.py``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from kit.errors import UnreachableError
from kit.process import Child, Completed, run
from kit.secret import Secret
from kit.waiting import wait_for
from migrate.cutover.nat import NatCutover
from migrate.cutover.nat_values import NatCutoverPlan
from migrate.cutover.ssh import SshGateway, SshPlace
from migrate.demo.gateway import make_key
from migrate.demo.local_gateway import HIDE, SHADOW, SSHD

T = TypeVar("T")
HERE = Path(__file__).parent
PUBLIC, PUBLIC6 = "198.51.100.1", "2001:db8:1::1"
OLD, NEW, ELSE = "10.9.1.11", "10.9.2.12", "10.9.3.13"
OLD6, NEW6 = "fd00:9:1::11", "fd00:9:2::12"
PORT = 443
SSH = "127.0.0.1"
ADMIN_SIDE, GATEWAY_SIDE = "10.9.4.2", "10.9.4.1"  # the two ends of the slow link
CLONE_NEWNET = 0x40000000
RULES = f"""\
flush ruleset
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr {PUBLIC} tcp dport 22 counter dnat to 10.9.9.9
    iifname "visitors" ip daddr {PUBLIC} tcp dport {PORT} counter packets 7 bytes 420 dnat to {OLD} comment "the \\\\ $site"
    udp dport {PORT} dnat to {OLD}
  }}
}}
table ip6 nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip6 daddr {PUBLIC6} tcp dport {PORT} counter dnat to [{OLD6}]:{PORT}
  }}
}}
"""
# Each key opens the gateway in another way: as root; as root without any right; where there is no conntrack; where nft can be delayed.
KEYS = {
    "root": "",
    "weak": 'command="exec setpriv --bounding-set=-all --inh-caps=-all sh -c \\"$SSH_ORIGINAL_COMMAND\\"" ',
    "bare": 'environment="PATH={folder}/bare" ',
    "odd": 'environment="PATH={folder}/odd:/usr/sbin:/usr/bin:/bin" ',
}


class Space:
    """A network namespace, held by a process."""

    def __init__(self, stack: ExitStack, folder: Path, name: str) -> None:
        self.name = name
        ours = Path("/proc/self/ns/net").readlink()
        self.child = stack.enter_context(
            Child(["unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"], log=folder / f"{name}.log")
        )
        wait_for(lambda: self.network != ours or None, what=f"the namespace {name}", timeout=30, poll=0.01)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def network(self) -> Path:
        """What tells this network from others."""
        return Path(f"/proc/{self.pid}/ns/net").readlink()

    @property
    def pid(self) -> int:
        return self.child.pid

    def argv(self, *words: str | Path) -> list[str | Path]:
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "--", *words]

    def run(self, *words: str | Path, stdin: str = "", accept: tuple[int, ...] = (0,)) -> Completed:
        return run(self.argv(*words), timeout=60, stdin=stdin.encode(), accept=accept)

    def script(self, text: str) -> None:
        self.run("sh", "-ec", text)

    def inside(self, work: Callable[[], T]) -> T:
        """``work`` in a thread that sees this network."""
        caught: list[Any] = []

        def go() -> None:
            with Path(f"/proc/{self.pid}/ns/net").open() as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
            try:
                caught.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again outside
                caught.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if isinstance(caught[0], BaseException):
            raise caught[0]
        return caught[0]  # type: ignore[no-any-return]


class Inside:
    """A cutover whose methods are called inside a namespace."""

    def __init__(self, cutover: NatCutover, space: Space) -> None:
        self._cutover = cutover
        self._space = space

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cutover, name)
        return lambda *args, **more: self._space.inside(lambda: method(*args, **more))


@dataclass
class GatewayStand:
    """All of it, running."""

    folder: Path
    password: str
    spaces: dict[str, Space] = field(default_factory=dict)
    fingerprint: str = ""
    sshd: Child | None = None

    @property
    def gateway(self) -> Space:
        return self.spaces["gateway"]

    def load(self, rules: str = RULES) -> None:
        """The gateway's rules, all of them new, and nobody connected."""
        self.gateway.run("nft", "-f", "-", stdin=rules if rules.startswith("flush") else f"flush ruleset\n{rules}")
        self.gateway.run("conntrack", "-F")

    def nft(self, *words: str, stdin: str = "") -> str:
        return self.gateway.run("nft", *words, stdin=stdin).text

    def rules(self) -> str:
        """Without counts."""
        return self.nft("-s", "-a", "list", "ruleset")

    def place(self, key: str = "root", /, **changes: Any) -> SshPlace:
        values: dict[str, Any] = {
            "address": SSH,
            "port": 22,
            "user": "root",
            "host_key": self.fingerprint,
            "key": self.folder / f"key_{key}",
        }
        return SshPlace(**(values | {"timeout": 60.0} | changes))

    def cutover(self, place: SshPlace | None = None, /, **changes: Any) -> Inside:
        where = place or self.place()
        plan = NatCutoverPlan(**({"old": OLD, "new": NEW, "port": PORT} | changes))
        return Inside(NatCutover(plan, lambda: SshGateway(where), where=str(where)), self.gateway)

    def start_sshd(self) -> None:
        argv = self.gateway.argv("/usr/sbin/sshd", "-D", "-e", "-f", self.folder / "sshd_config")
        self.sshd = Child(argv, log=self.folder / "sshd.log")

        def greets() -> bool:
            said = self.gateway.run(
                sys.executable, "-c", f"import socket; print(socket.create_connection(('{SSH}', 22), 5).recv(9))", accept=(0, 1)
            )
            if b"SSH-2.0" not in said.out:
                raise UnreachableError(f"{said.err.decode()[-200:]}; {self.sshd.said() if self.sshd else ''}")
            return True

        wait_for(greets, what="sshd", timeout=60, poll=0.05)

    def stop_sshd(self) -> None:
        """With every connection that it holds, as a power cut would."""
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(OSError, psutil.Error):
                if process.name() == "sshd" and Path(f"/proc/{process.pid}/ns/net").readlink() == self.gateway.network:
                    process.kill()
        if self.sshd is not None:
            self.sshd.stop()
        self.sshd = None

    def start(self, where: str, *words: str | Path) -> Child:
        """A program of ours in one of the namespaces; ends with its own ``with``."""
        return Child(self.spaces[where].argv(sys.executable, *words), log=self.folder / f"{where}-{Path(words[0]).stem}.log")


@contextlib.contextmanager
def start_gateway(folder: Path, password: str) -> Iterator[GatewayStand]:
    """Everything up, sshd greets, both boxes answer with their names."""
    stand = GatewayStand(folder, password)
    with ExitStack() as stack:
        for name in ("gateway", "visitors", "old", "new"):
            stand.spaces[name] = Space(stack, folder, name)
        _link(stand)
        _prepare_sshd(stand)
        stand.load()
        stack.callback(stand.stop_sshd)
        stand.start_sshd()
        for name, address, address6 in (("old", OLD, OLD6), ("new", NEW, NEW6)):
            stack.enter_context(stand.start(name, HERE / "nat_people.py", "serve", name, address, address6, str(PORT)))
            wait_for(lambda box=name, at=address: _answers(stand, box, at), what=f"the {name} box", timeout=60, poll=0.05)  # type: ignore[misc]
        yield stand


def _answers(stand: GatewayStand, name: str, address: str) -> bool | None:
    said = stand.gateway.run(sys.executable, HERE / "nat_people.py", "ask", address, str(PORT), accept=(0, 1)).text.strip()
    return said == name or None


def _link(stand: GatewayStand) -> None:
    gateway = stand.gateway
    gateway.script("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    links = {
        "visitors": (f"{PUBLIC}/24", "198.51.100.2/24", f"{PUBLIC6}/64", "2001:db8:1::2/64"),
        "old": ("10.9.1.1/24", f"{OLD}/24", "fd00:9:1::1/64", f"{OLD6}/64"),
        "new": ("10.9.2.1/24", f"{NEW}/24", "fd00:9:2::1/64", f"{NEW6}/64"),
    }
    for name, (near, far, near6, far6) in links.items():
        space = stand.spaces[name]
        gateway.script(f"""
            ip link add {name} type veth peer name eth0 netns {space.pid}
            ip addr add {near} dev {name}; ip addr add {near6} dev {name} nodad; ip link set {name} up""")
        space.script(f"""
            ip addr add {far} dev eth0; ip addr add {far6} dev eth0 nodad; ip link set eth0 up
            ip route add default via {near.partition("/")[0]}; ip -6 route add default via {near6.partition("/")[0]}""")


def _prepare_sshd(stand: GatewayStand) -> None:
    folder = stand.folder
    stand.fingerprint = make_key(folder / "host_key")
    lines = []
    for name, options in KEYS.items():
        make_key(folder / f"key_{name}")
        lines.append(options.format(folder=folder) + (folder / f"key_{name}.pub").read_text())
    make_key(folder / "key_stranger")
    make_key(folder / "key_locked", passphrase=stand.password)
    lines.append((folder / "key_locked.pub").read_text())
    (folder / "authorized_keys").write_text("".join(lines))
    config = SSHD.format(listen="0.0.0.0", folder=folder)
    (folder / "sshd_config").write_text(config + "PasswordAuthentication yes\nPermitUserEnvironment yes\n")
    _make_programs(stand)
    digest = run(["openssl", "passwd", "-6", "-stdin"], timeout=30, stdin=Secret(stand.password)).text.strip()
    (folder / "shadow").write_text(SHADOW.format(digest=digest))
    stand.gateway.script(HIDE.format(folder=folder))


def _make_programs(stand: GatewayStand) -> None:
    """``bare``: a gateway without conntrack. ``odd``: a sudo that tells what it ran, and an nft that runs lines that a test wrote.

    ``listing``: before it lists a chain; ``before`` and ``after``: around a transaction.
    """
    bare, odd = stand.folder / "bare", stand.folder / "odd"
    bare.mkdir()
    for program in ("/usr/bin/env", "/bin/sh", "/bin/bash", "/usr/sbin/nft"):
        (bare / Path(program).name).symlink_to(program)
    odd.mkdir()
    body = f"""\
#!/bin/sh
case "$*" in
    *"list chain"*) [ ! -e {odd}/listing ] || . {odd}/listing; exec /usr/sbin/nft "$@";;
    *-c*|*list*) exec /usr/sbin/nft "$@";;
esac
[ ! -e {odd}/before ] || . {odd}/before
/usr/sbin/nft "$@" || exit
[ ! -e {odd}/after ] || . {odd}/after
"""
    (odd / "nft").write_text(body)
    (odd / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] || exit 1\nshift\necho "$*" >> "${0%/*}/sudone"\nexec "$@"\n')
    for program in odd.iterdir():
        program.chmod(0o755)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
