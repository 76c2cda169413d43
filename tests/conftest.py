"""What holds for every test: nothing of this machine is touched without a marker, and nothing is left out in silence.

``process`` may start programs; ``network`` may open sockets, to loopback addresses only; ``machine`` may do both and open a hypervisor.
README.md in this folder tells the rules.
"""

from __future__ import annotations

import _posixsubprocess
import fnmatch
import functools
import ipaddress
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from kit.secret import Secret

HERE = Path(__file__).parent
CENSUS = "boxshift-census"
KINDS = ("unit", "process", "network", "machine", "slow")
UMASK = 0o022
HOSTILE = "a!b@c$ 'd\"e\\;ñ"

# Tests that may be left out, by a pattern over their names, each with the reason why that is no loss.
MAY_BE_LEFT_OUT: dict[str, str] = dict.fromkeys(
    ("*/test_images_remote*.py::*", "*/test_on_a_network.py::*"), "a network of its own needs root"
)

hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


# ---- fixtures shared by the rooms


@pytest.fixture
def hostile_password() -> str:
    """Holds everything that shells, YAML, HTML, URLs and JSON trip over."""
    return HOSTILE


@pytest.fixture
def hostile_secret() -> Secret:
    """The same, masked."""
    return Secret(HOSTILE)


# ---- the guard


class Guard:
    """Knows what the running test may do. None: no test is running, and nothing is held back."""

    def __init__(self) -> None:
        self.allowed: frozenset[str] | None = None
        self.seen: set[str] = set()
        self.trespasses: list[str] = []

    def enter(self, item: pytest.Item) -> None:
        kinds = {mark.name for mark in item.iter_markers()} & {"process", "network", "machine"}
        if "machine" in kinds:
            kinds |= {"process", "network"}
        self.seen |= kinds
        self.trespasses.clear()
        self.allowed = frozenset(kinds)

    def loosen(self) -> None:
        """Tearing down may belong to a fixture that an earlier test asked for."""
        self.allowed = frozenset(self.seen)

    def leave(self) -> None:
        self.allowed = None

    def refuse(self, what: str) -> None:
        # Code under test may swallow what is raised here, so the test fails afterwards as well.
        self.trespasses.append(what)
        pytest.fail(f"Refused by tests/conftest.py: {what}")

    def need(self, kind: str, what: str) -> None:
        if self.allowed is not None and kind not in self.allowed:
            self.refuse(f"{what}, but the test has no marker `{kind}`")


GUARD = Guard()
STARTS = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
LOCAL_FAMILIES = {socket.AF_UNIX, socket.AF_NETLINK}


def is_loopback(host: object) -> bool:
    """Literal loopback addresses and the names every machine has for them. An empty host means every address: not loopback."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if not isinstance(host, str):
        return False
    if host.rstrip(".").lower() in {"localhost", "ip6-localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_literal(host: object) -> bool:
    """True where looking the host up asks no server."""
    text = host.decode(errors="replace") if isinstance(host, bytes) else host
    try:
        return text is None or text == "" or bool(ipaddress.ip_address(str(text).partition("%")[0]))
    except ValueError:
        return False


def watch(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: Python calls it for everything that leaves the interpreter, also from foreign libraries."""
    if GUARD.allowed is None:
        return
    if event in STARTS:
        GUARD.need("process", f"it starts a process ({event} {str(args[0])[:80] if args else ''})")
    elif event in {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}:
        sock, address = args[0], args[1]
        if sock.family in LOCAL_FAMILIES or address is None:
            return
        GUARD.need("network", f"it opens a socket ({event} {address!r})")
        host = address[0] if isinstance(address, tuple) else address
        if not is_loopback(host):
            GUARD.refuse(f"it leaves the loopback addresses ({event} {address!r})")
    elif event in LOOKUPS and not (is_literal(args[0]) or is_loopback(args[0])):
        GUARD.refuse(f"it asks this machine's resolver for {args[0]!r}")


sys.addaudithook(watch)


def _guard_spawning() -> None:
    """The multiprocessing module goes past the audited calls."""
    plain = _posixsubprocess.fork_exec

    def fork_exec(*args: Any) -> int:
        GUARD.need("process", f"it starts a process ({args[0]!r})")
        return plain(*args)

    _posixsubprocess.fork_exec = fork_exec  # type: ignore[assignment]


def _guard_hypervisor() -> None:
    """libvirt is C and raises no audit events. Its built-in test driver touches nothing and stays open to all."""
    try:
        import libvirt
    except ImportError:
        return

    def guarded(name: str) -> Any:
        plain = getattr(libvirt, name)

        def call(uri: str | None = None, *args: Any, **more: Any) -> Any:
            if uri is None or not str(uri).startswith("test:"):
                GUARD.need("machine", f"it opens a hypervisor ({uri})")
            return plain(uri, *args, **more)

        return call

    for name in ("open", "openReadOnly", "openAuth"):
        setattr(libvirt, name, guarded(name))


_guard_spawning()
_guard_hypervisor()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    os.umask(
        UMASK
    )  # code under test makes it narrower for its whole process, and every program that a later test starts would inherit that
    GUARD.enter(item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    result = yield
    if GUARD.trespasses:
        pytest.fail("Refused by tests/conftest.py: " + "; ".join(GUARD.trespasses))
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    GUARD.loosen()
    try:
        return (yield)
    finally:
        GUARD.leave()


# ---- nothing is left out in silence


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-all-kinds",
        action="store_true",
        help="fail when a kind of test did not run, or when a test was left out without a reason in tests/conftest.py",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts into the background with Ctrl-C ignored, and every program under test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Census(strict=config.getoption("--require-all-kinds")), CENSUS)


def find_share(nodeid: str) -> str:
    """Where two processes share the tests: one runs all tests with virtual machines; those of a file stay together.

    The process that hands tests out knows their names only: a machine is in the file's markers, or among the parameters.
    """
    path, _, name = nodeid.partition("::")
    return "machines" if "[machine-" in name or names_machines(path) else path


@functools.cache
def names_machines(path: str) -> bool:
    return "mark.machine" in (HERE.parent / path).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return find_share(nodeid)

    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shares are handed out in the order in which tests are collected: machines first, and no long file at the end."""
    if hasattr(config, "workerinput"):
        shares = {item: find_share(item.nodeid) for item in items}
        slow = Counter(shares[item] for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: (shares[item] != "machines", -slow[shares[item]], shares[item]))


def kinds_of(item: pytest.Item) -> list[str]:
    """Its markers out of KINDS; ``unit`` for a test that has none of them."""
    return [kind for kind in KINDS if item.get_closest_marker(kind)] or ["unit"]


class Census:
    """Counts the tests that really ran, by kind, and lists the others with their reasons.

    Where several processes share the tests, each tells the first one what it knows.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.ran: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self.deselected = 0

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        item.user_properties.append((CENSUS, kinds_of(item)))

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.deselected += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.left_out[report.nodeid] = reason_of(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.left_out[report.nodeid] = reason_of(report)
        elif report.when == "call":
            self.ran.update(dict(report.user_properties)[CENSUS])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Every process collects all tests, so each has deselected the same ones."""
        self.deselected = max(self.deselected, getattr(node, "workeroutput", {}).get(CENSUS, 0))

    def complaints(self) -> list[str]:
        """Why a strict session fails although no test failed."""
        missing = [f"no test of the kind `{kind}` ran" for kind in KINDS if not self.ran[kind]]
        unlisted = [f"{name} was left out without being listed in tests/conftest.py" for name in self.left_out if not allowed_because(name)]
        return [*missing, *unlisted, *([f"{self.deselected} tests were deselected"] if self.deselected else [])]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[CENSUS] = self.deselected
        elif self.strict and self.complaints() and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("what ran, and what did not")
        write("ran: " + ", ".join(f"{kind} {self.ran[kind]}" for kind in KINDS) + f"; deselected: {self.deselected}")
        write(f"left out: {len(self.left_out)}")
        for name, reason in sorted(self.left_out.items()):
            allowed = allowed_because(name)
            write(f"  {name}: {reason}" + (f" [allowed: {allowed}]" if allowed else ""))
        if self.strict:
            for complaint in self.complaints():
                write(f"This session fails: {complaint}.", red=True)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """In the words of the skip or of the expected failure."""
    expected = getattr(report, "wasxfail", None)
    if expected is not None:
        return f"expected to fail: {expected}"
    where = report.longrepr
    return str(where[2]) if isinstance(where, tuple) else str(where)


def allowed_because(name: str) -> str | None:
    """The reason in the list of tests that may be left out; None where it is not in there."""
    return next((reason for pattern, reason in MAY_BE_LEFT_OUT.items() if fnmatch.fnmatch(name, pattern)), None)
