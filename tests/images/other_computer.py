"""Another computer with a hypervisor, as far as this one can play it: its own network, its own files of libvirt, its own sshd.

A network namespace and, inside, a private libvirt daemon whose ``/var/lib/libvirt`` is a folder that only its own mount namespace has at
that place. What boxshift makes there can be reached by SSH and libvirt's streams alone; a path of that computer means nothing here.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.daemon import PrivateDaemon, find_pid
from images.home import Home, ensure_home, find_home
from kit.process import Completed, need_program, run
from kit.waiting import wait_for

PORT = 2022
CHECKOUT = Path(__file__).parents[2]
_START = """
import sys
from pathlib import Path
from images.daemon import ensure_private_daemon
from images.home import Home
from kit.progress import Silent
ensure_private_daemon(Home(Path(sys.argv[1])), progress=Silent())
"""
_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
PidFile {root}/sshd.pid
AuthorizedKeysFile {root}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
_SSH = """\
Host *
IdentityFile {root}/key
IdentitiesOnly yes
UserKnownHostsFile {root}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
BatchMode yes
"""


@dataclass(frozen=True)
class OtherComputer:
    """``root``: what plays its disk, and the keys that lead to it; ``namespace``: its network."""

    root: Path
    namespace: str

    @property
    def uri(self) -> str:
        """Where its hypervisor is reached from here, as a user would write it who has an SSH configuration."""
        return f"qemu+ssh://root@127.0.0.1:{PORT}/system?command={self.root}/ssh&no_tty=1"

    @property
    def daemon(self) -> PrivateDaemon:
        return PrivateDaemon(Home(self.root / "far").daemon)

    @property
    def pools(self) -> Path:
        """Where its /var/lib/libvirt/images lies here: for looking, never for boxshift."""
        return self.daemon.folder / "lib" / "images"

    def run(self, argv: Sequence[str | Path], *, timeout: float = 60.0, accept: Sequence[int] = (0,), **env: str) -> Completed:
        """Run a program in its network."""
        inside = [need_program("ip", package="iproute2"), "netns", "exec", self.namespace]
        return run([*inside, "env", *(f"{key}={value}" for key, value in env.items()), *argv], timeout=timeout, accept=accept)


@contextmanager
def open_other_computer() -> Iterator[OtherComputer]:
    """Raise it; afterwards nothing of it is left."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    root = Path(tempfile.mkdtemp(prefix="bx-far-", dir="/var/tmp"))
    root.chmod(0o711)
    other = OtherComputer(root, root.name)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, root, ignore_errors=True)
        ip = need_program("ip", package="iproute2")
        run([ip, "netns", "add", other.namespace], timeout=30)
        undo.callback(run, [ip, "netns", "del", other.namespace], timeout=30)
        run([ip, "-n", other.namespace, "link", "set", "lo", "up"], timeout=30)
        undo.callback(_end, other)
        _start_daemon(other)
        _start_sshd(other)
        yield other


def _start_daemon(other: OtherComputer) -> None:
    far = ensure_home(Home(other.root / "far"))
    proved = find_home().cache / "acceleration.json"
    if proved.exists():
        shutil.copy(proved, far.cache)
    other.run([sys.executable, "-c", _START, far.root], timeout=120, PYTHONPATH=str(CHECKOUT))


def _start_sshd(other: OtherComputer) -> None:
    root = other.root
    keygen = need_program("ssh-keygen", package="openssh-client")
    for name in ("key", "host_key"):
        run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", root / name], timeout=30)
    (root / "sshd_config").write_text(_SSHD.format(port=PORT, root=root))
    (root / "ssh_config").write_text(_SSH.format(root=root))
    host_key = " ".join((root / "host_key.pub").read_text().split()[:2])
    (root / "known_hosts").write_text(f"[127.0.0.1]:{PORT} {host_key}\n")
    script = root / "ssh"
    script.write_text(f'#!/bin/sh\nexec ip netns exec {other.namespace} ssh -F {root}/ssh_config "$@"\n')
    script.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it for its unprivileged half; its service would make it
    pid = find_pid(other.daemon)
    assert pid is not None
    enter = [need_program("nsenter", package="util-linux"), "--target", str(pid), "--mount", "--net"]
    sshd = need_program("sshd", package="openssh-server")
    run([*enter, sshd, "-f", root / "sshd_config", "-E", root / "sshd.log"], timeout=30)
    wait_for(lambda: True if (root / "sshd.pid").exists() else None, what="sshd to listen", timeout=30, poll=0.05)


def _end(other: OtherComputer) -> None:
    """Everything that runs in its network was started by it."""
    found = run([need_program("ip", package="iproute2"), "netns", "pids", other.namespace], timeout=30).text.split()
    for pid in found:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(
        lambda: (
            True if not run([need_program("ip", package="iproute2"), "netns", "pids", other.namespace], timeout=30).text.split() else None
        ),
        what="the other computer's programs to end",
        timeout=30,
        poll=0.1,
    )
