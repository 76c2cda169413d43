"""The guard in tests/conftest.py, tried on small sessions of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from kit import process

pytestmark = pytest.mark.process

TESTS = Path(__file__).parent.parent
SETTINGS = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
markers =
    process: p
    network: n
    machine: m
    slow: s
"""
ALL_KINDS = """
import pytest
def test_plain(): pass
@pytest.mark.process
def test_process(): pass
@pytest.mark.network
def test_network(): pass
@pytest.mark.machine
def test_machine(): pass
@pytest.mark.slow
def test_slow(): pass
"""


@pytest.fixture
def session(tmp_path: Path):
    """Runs a session over one test file, beside a copy of the conftest; answers its completed process."""
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(SETTINGS)

    def run(body: str, *options: str) -> process.Completed:
        (tmp_path / "test_small.py").write_text(body)
        root = str(TESTS.parent)
        return process.run(
            [sys.executable, "-m", "pytest", *options],
            timeout=120,
            cwd=tmp_path,
            env={"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"},
            accept=(0, 1, 2, 5),
        )

    return run


def one_test(marker: str, *lines: str) -> str:
    mark = f"@pytest.mark.{marker}\n" if marker else ""
    body = "".join(f"    {line}\n" for line in lines)
    return f"import os, socket, subprocess, multiprocessing, threading, pytest\n{mark}def test_it():\n{body}"


STARTING = (
    "subprocess.run(['true'])",
    "subprocess.Popen('true', shell=True).wait()",
    "os.system('true')",
    "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "child = os.fork()\n    if child == 0: os._exit(0)\n    os.waitpid(child, 0)",
    "context = multiprocessing.get_context('spawn'); child = context.Process(target=print); child.start(); child.join()",
)
CONNECTING = (
    "socket.socket().connect_ex(('127.0.0.1', 1))",
    "socket.socket().bind(('127.0.0.1', 0))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "socket.socket(socket.AF_INET6).connect_ex(('::1', 1))",
)
LEAVING = (
    "socket.socket().connect_ex(('192.0.2.1', 1))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "socket.socket().bind(('0.0.0.0', 0))",
    "socket.create_connection(('www.example.com', 80))",
    "socket.getaddrinfo('www.example.com', 80)",
)


def as_tests(marker: str, bodies: tuple[str, ...]) -> str:
    """One test for each body, in one file: a session costs a second."""
    whole = one_test(marker, *[bodies[0]])
    for number, body in enumerate(bodies[1:]):
        whole += one_test(marker, body).partition("\n")[2].replace("test_it", f"test_{number}")
    return whole


@pytest.mark.parametrize(("marker", "bodies"), [("", STARTING), ("network", STARTING), ("", CONNECTING), ("network", LEAVING)])
def test_what_is_not_marked_fails(session, marker: str, bodies: tuple[str, ...]) -> None:
    done = session(as_tests(marker, bodies))
    assert done.status == 1
    assert f"{len(bodies)} failed" in done.text
    assert done.text.count("Refused by tests/conftest.py") >= len(bodies)


@pytest.mark.parametrize(("marker", "bodies"), [("process", STARTING), ("network", CONNECTING), ("machine", STARTING + CONNECTING)])
def test_what_is_marked_passes(session, marker: str, bodies: tuple[str, ...]) -> None:
    done = session(as_tests(marker, bodies))
    assert f"{len(bodies)} passed" in done.text, done.text


def test_swallowing_the_refusal_does_not_help(session) -> None:
    done = session(one_test("", "try: os.system('true')", "except BaseException: pass"))
    assert "1 failed" in done.text
    assert "Refused by tests/conftest.py" in done.text


def test_a_thread_is_watched_too(session) -> None:
    done = session(one_test("", "thread = threading.Thread(target=lambda: os.system('true')); thread.start(); thread.join()"))
    assert "1 failed" in done.text


def test_unix_sockets_need_no_marker(session) -> None:
    done = session(one_test("", "a, b = socket.socketpair()", "listener = socket.socket(socket.AF_UNIX); listener.bind('./s')"))
    assert "1 passed" in done.text


def test_a_hypervisor_needs_its_marker_and_the_test_driver_does_not(session) -> None:
    done = session(
        "import libvirt\n"
        "def test_real(): libvirt.open('qemu:///session')\n"
        "def test_read_only(): libvirt.openReadOnly(None)\n"
        "def test_built_in(): assert libvirt.open('test:///default').getType() == 'TEST'\n"
    )
    assert "2 failed, 1 passed" in done.text
    assert "opens a hypervisor" in done.text


def test_every_kind_is_counted_and_the_summary_comes_last(session) -> None:
    done = session(ALL_KINDS, "--require-all-kinds")
    assert done.status == 0
    assert "ran: unit 1, process 1, network 1, machine 1, slow 1; deselected: 0" in done.text
    assert "5 passed" in done.text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("body", "options", "complaint"),
    [
        (ALL_KINDS.replace("mark.machine", "mark.process"), (), "no test of the kind `machine` ran"),
        (ALL_KINDS, ("-k", "not process"), "no test of the kind `process` ran"),
        (ALL_KINDS + "def test_more(): pass", ("-k", "not more"), "1 tests were deselected"),
        (ALL_KINDS + "def test_more(): pytest.skip('no time')\n", (), "test_small.py::test_more was left out without being listed"),
        (
            ALL_KINDS + "@pytest.mark.skip(reason='why')\ndef test_more(): pass\n",
            (),
            "test_small.py::test_more was left out without being listed",
        ),
        (
            ALL_KINDS + "@pytest.mark.xfail(reason='why')\ndef test_more(): assert 0\n",
            (),
            "test_small.py::test_more was left out without being listed",
        ),
        ("import pytest\npytest.skip('whole file', allow_module_level=True)", (), "no test of the kind `unit` ran"),
    ],
    ids=["kind missing", "kind deselected", "one deselected", "skip inside", "skip mark", "expected failure", "whole file"],
)
def test_a_strict_session_fails_when_something_was_left_out(session, body: str, options: tuple[str, ...], complaint: str) -> None:
    done = session(body, "--require-all-kinds", *options)
    assert done.status == 1
    assert f"This session fails: {complaint}" in done.text
    assert " failed" not in done.text.strip().splitlines()[-1]


def test_a_file_that_cannot_be_collected_keeps_its_own_exit_status(session) -> None:
    assert session("import nothing_of_that_name", "--require-all-kinds").status == 2


def test_what_was_left_out_is_listed_with_its_reason(session) -> None:
    done = session(ALL_KINDS + "def test_more(): pytest.skip('no time')\n")
    assert done.status == 0
    assert "test_small.py::test_more: Skipped: no time" in done.text
