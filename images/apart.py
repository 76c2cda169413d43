"""A network and a hypervisor apart from this computer's: for what needs addresses that this computer's own network must never see.

Everything that is started inside is in one PID namespace, so the kernel ends all of it with the first process there: machines, daemons
and servers cannot outlive the command, however that ends. Images are those of the ordinary home; machines are in a home below it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from images.daemon import VARIABLE as URI_VARIABLE
from images.daemon import ensure_private_daemon, stop_private_daemon
from images.home import VARIABLE as HOME_VARIABLE
from images.home import Home, ensure_home
from images.locking import hold
from images.pool_place import VARIABLE as POOL_VARIABLE
from kit.errors import DeadlineError, RefusedError
from kit.process import need_program, run
from kit.progress import Progress

NAME = "apart"
SHARED = ("images", "layers", "vendor", "cache", "locks")  # of the ordinary home: nothing is built or proved twice
CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1


def verify_allowed() -> None:
    """Make sure that :func:`enter` may be tried.

    Raises:
        RefusedError: not root.

    """
    if os.geteuid() != 0:
        raise RefusedError("A network of its own needs root.", hint="Do it as root; nothing outside that network is touched.")


def enter() -> int | None:
    """Go on in a network, a process table and a mount table of our own. Call it before anything else runs.

    Answers twice: None in the new process, which goes on with the work; and, when that has ended, its exit status in the old one.

    Raises:
        RefusedError: not root, or this computer allows no namespaces.

    """
    verify_allowed()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) != 0:
        raise RefusedError(f"No network of its own is allowed here: {os.strerror(ctypes.get_errno())}.", hint="Do it outside a container.")
    sys.stdout.flush()
    sys.stderr.flush()
    first = os.fork()
    if first != 0:
        return _wait_for(first)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # and with the first process of a namespace all others end
    worker = os.fork()
    if worker != 0:
        os._exit(_wait_for(worker))
    _set_up()
    return None


def verify_apart() -> None:
    """Make sure that this computer's own network is not in reach: in a new one there is nothing but the loopback interface.

    Raises:
        RefusedError: there is more.

    """
    found = sorted(name for _, name in socket.if_nameindex())
    if found != ["lo"]:
        raise RefusedError(f"This is not a network of its own: it has {', '.join(found)}.", hint="Nothing was put up here.")


def _wait_for(child: int) -> int:
    """Its exit status; meanwhile signals are passed on, each once, and what else ended below us is buried."""
    passed: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number not in passed:
            passed.add(number)
            os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    # At a terminal Ctrl-C reaches every process of ours by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN if sys.stdin.isatty() else pass_on)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _set_up() -> None:
    if not sys.stdin.isatty():
        os.setpgid(0, 0)  # a signal to the whole group would otherwise come here twice
    mount, ip = need_program("mount", package="mount"), need_program("ip", package="iproute2")
    run([mount, "--make-rprivate", "/"], timeout=30)
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys")):  # both show what is seen by who mounted them
        run([mount, "-t", kind, kind, place], timeout=30)
    run([ip, "link", "set", "lo", "up"], timeout=30)


@contextmanager
def open_apart(home: Home, *, progress: Progress) -> Iterator[Home]:
    """A home below ``home`` with a private daemon, for a process that has entered. Both are found through the environment from now on.

    Raises:
        RefusedError: another process is at it.
        As :func:`images.daemon.ensure_private_daemon`.

    """
    ensure_home(home)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(home.locks / NAME, what="working in a network of its own", timeout=0))
        except DeadlineError as late:
            raise RefusedError("Another command works in a network of its own already.", hint="Wait for its end.") from late
        apart = _make(home)
        stack.callback(shutil.rmtree, apart.root)
        os.environ[HOME_VARIABLE] = str(apart.root)
        os.environ.pop(POOL_VARIABLE, None)
        stack.callback(stop_private_daemon, apart)
        os.environ[URI_VARIABLE] = ensure_private_daemon(apart, progress=progress).uri
        yield apart


def _make(home: Home) -> Home:
    """Anew: what a killed process left there stands on nothing any more."""
    apart = Home(home.root / NAME)
    if apart.root.exists():
        shutil.rmtree(apart.root)
    apart.root.mkdir(mode=0o711)
    (home.root / "vendor").mkdir(mode=0o700, exist_ok=True)
    for name in SHARED:
        (apart.root / name).symlink_to(home.root / name)
    return ensure_home(apart)
