"""Which libvirt daemon to use, and a private one for root where none runs.

As root, ``qemu:///session`` would reach the system daemon, so where no system daemon runs boxshift starts a ``libvirtd`` of its own. It
has its own mount namespace in which ``/etc/libvirt``, ``/var/lib/libvirt``, ``/var/cache/libvirt`` and ``/run/libvirt`` are folders of
boxshift's home: no domain of this machine is seen or started by it, and a system daemon may be started later beside it. It outlives the
process that started it, serves all of them, and is stopped by its pid.
"""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from images.acceleration import KVM, find_acceleration
from images.domain import Accelerator
from images.errors import HypervisorUnreachableError
from images.home import Home, ensure_home
from images.hypervisor import Hypervisor
from images.locking import hold
from kit.errors import DeadlineError, FailedError, ToolError, UsageError
from kit.process import need_program, run
from kit.progress import Progress
from kit.waiting import wait_for

VARIABLE = "BOXSHIFT_LIBVIRT_URI"
SYSTEM_URI, SESSION_URI = "qemu:///system", "qemu:///session"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
SOCKET_LIMIT = 107  # bytes of a UNIX socket's path

_LIBVIRTD = """\
# Written by boxshift at every start of its private daemon.
listen_tls = 0
listen_tcp = 0
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
unix_sock_admin_perms = "0700"
log_outputs = "2:file:/var/lib/libvirt/libvirtd.log"
"""
_QEMU = """\
# Written by boxshift at every start of its private daemon.
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
remember_owner = 0
max_core = 0
"""
# Folders inside the daemon's mount namespace, and where they are in the home.
_BINDS = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "run": "/run/libvirt"}


@dataclass(frozen=True)
class PrivateDaemon:
    """The private daemon's files."""

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "libvirt-sock"

    @property
    def pid_file(self) -> Path:
        return self.folder / "run" / "libvirtd.pid"

    @property
    def log(self) -> Path:
        return self.folder / "lib" / "libvirtd.log"

    @property
    def uri(self) -> str:
        return f"{SYSTEM_URI}?socket={self.socket}"


def find_uri(home: Home, *, progress: Progress) -> str:
    """The URI to use: ``BOXSHIFT_LIBVIRT_URI``; for a user the session daemon; for root the system daemon, or else a private one.

    The private one is started where no other answers, and that is said through ``progress``.

    Raises:
        ToolError, HypervisorUnreachableError: the private daemon could not be started.

    """
    given = os.environ.get(VARIABLE)
    if given:
        return given
    if os.geteuid() != 0:
        return SESSION_URI
    private = PrivateDaemon(home.daemon)
    if find_pid(private) is not None:
        return ensure_private_daemon(home, progress=progress).uri
    if answers(SYSTEM_URI):
        return SYSTEM_URI
    return ensure_private_daemon(home, progress=progress).uri


def answers(uri: str) -> bool:
    """Whether a daemon answers at the URI."""
    with Hypervisor(uri) as hypervisor:
        try:
            hypervisor.read_facts()
        except FailedError:
            return False
    return True


def ensure_private_daemon(home: Home, *, progress: Progress) -> PrivateDaemon:
    """Start the private daemon where it does not run, and wait until it answers. Several processes may call this at once.

    Raises:
        UsageError: the home's path is too long for a socket.
        ToolError: libvirtd or unshare is missing or fails.
        HypervisorUnreachableError: it started and does not answer.

    """
    ensure_home(home)
    daemon = PrivateDaemon(home.daemon)
    if len(os.fsencode(daemon.socket)) > SOCKET_LIMIT:
        raise UsageError(f"The path {daemon.socket} is too long for a socket.", hint="Set BOXSHIFT_HOME to a shorter path.")
    with hold(home.locks / "daemon", what="starting the private libvirt daemon", timeout=START_SECONDS):
        if find_pid(daemon) is None:
            progress.update(f"no libvirt daemon runs here: starting a private one, its files are in {daemon.folder}")
            _start(daemon, hide_kvm=find_acceleration(home, progress=progress).accelerator is Accelerator.TCG)
        try:
            wait_for(lambda: answers(daemon.uri) or None, what="the private libvirt daemon to answer", timeout=START_SECONDS, poll=0.1,
                     give_up=lambda: None if find_pid(daemon) else "it ended.")  # fmt: skip
        except DeadlineError as late:
            raise HypervisorUnreachableError(
                f"The private libvirt daemon does not answer: {_tail(daemon.log)}", hint=f"Its log is {daemon.log}."
            ) from late
    return daemon


def stop_private_daemon(home: Home) -> bool:
    """Stop the private daemon, by its pid; True where one ran. Machines keep running and are found again by the next one."""
    daemon = PrivateDaemon(home.daemon)
    pid = find_pid(daemon)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: True if find_pid(daemon) is None else None, what="the private libvirt daemon to end", timeout=STOP_SECONDS, poll=0.1)
    return True


def find_pid(daemon: PrivateDaemon) -> int | None:
    """The private daemon's pid; None where it does not run. Believed only where that process has our configuration as an argument."""
    try:
        pid = int(daemon.pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if state != "Z" and os.fsencode(_config(daemon)) in words else None


def _start(daemon: PrivateDaemon, *, hide_kvm: bool) -> None:
    libvirtd = need_program("libvirtd", package="libvirt-daemon-system")
    for name in _BINDS:
        folder = daemon.folder / name
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.chmod(0o711)
    daemon.folder.chmod(0o711)
    daemon.pid_file.unlink(missing_ok=True)
    _config(daemon).write_text(_LIBVIRTD)
    (daemon.folder / "etc" / "qemu.conf").write_text(_QEMU)
    binds = [f"mkdir -p {inside}; mount --bind {shlex.quote(str(daemon.folder / name))} {inside}" for name, inside in _BINDS.items()]
    if hide_kvm and KVM.exists():
        # libvirt finds KVM when it probes QEMU and then that QEMU's user may not open it: it throws its findings away and probes
        # again, a dozen times a minute long, whenever a machine is defined. What cannot be used is therefore not shown to it.
        closed = daemon.folder / "no-kvm"
        closed.touch(mode=0)
        closed.chmod(0)
        binds.append(f"mount --bind {shlex.quote(str(closed))} {KVM}")
    start = shlex.join([str(libvirtd), "--daemon", "--config", str(_config(daemon)), "--pid-file", str(daemon.pid_file)])
    argv: list[str | Path] = [need_program("unshare", package="util-linux"), "--mount", "--propagation", "private"]
    try:
        run([*argv, "/bin/sh", "-euc", "; ".join([*binds, f"exec {start}"])], timeout=START_SECONDS)
    except ToolError as error:
        raise ToolError(
            f"The private libvirt daemon could not be started: {error.facts.get('said') or error.sentence}",
            hint="Start the system's libvirt daemon instead (systemctl start libvirtd), or run where mount namespaces are allowed.",
        ) from error


def _config(daemon: PrivateDaemon) -> Path:
    return daemon.folder / "etc" / "libvirtd.conf"


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing."
