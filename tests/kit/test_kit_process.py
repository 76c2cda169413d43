from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from kit.errors import DeadlineError, ToolError
from kit.process import Child, find_program, need_program, run
from kit.secret import Secret

pytestmark = pytest.mark.process

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


def python(body: str) -> list[str]:
    return [sys.executable, "-c", body]


def gone(pid: int) -> bool:
    """Ended; a zombie whose parent is not us counts as ended."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_output_status_and_environment_come_back(tmp_path: Path) -> None:
    body = "import os, sys; print(os.environ['EXTRA'], os.getcwd()); print('loud', file=sys.stderr); sys.exit(3)"
    done = run(python(body), timeout=30, env={"EXTRA": HOSTILE}, cwd=tmp_path, accept=(0, 3))
    assert (done.status, done.text, done.err) == (3, f"{HOSTILE} {tmp_path}\n", b"loud\n")


def test_arguments_are_passed_as_they_are_never_through_a_shell() -> None:
    assert run([*python("import sys; print(sys.argv[1])"), HOSTILE + "; $(id) `id`"], timeout=30).text == HOSTILE + "; $(id) `id`\n"


def test_the_input_is_closed_unless_something_is_given() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), timeout=30).text == "''\n"
    assert run(["cat"], timeout=30, stdin=b"\x00\xff").out == b"\x00\xff"


def test_a_secret_goes_in_by_the_input_byte_for_byte(hostile_secret: Secret) -> None:
    assert run(["cat"], timeout=30, stdin=hostile_secret).out == HOSTILE.encode()
    assert run(["cat"], timeout=30, stdin=Secret("x\udcff")).out == b"x\xff"


def test_a_secret_never_goes_into_the_arguments(hostile_secret: Secret) -> None:
    with pytest.raises(TypeError, match="never goes into argv"):
        run(["echo", hostile_secret], timeout=30)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="never goes into argv"):
        Child(["echo", hostile_secret], log=Path(os.devnull))  # type: ignore[list-item]


@pytest.mark.parametrize(
    "echo",
    ["sys.stderr.write(s)", "sys.stderr.write(repr(s))", "sys.stdout.write(s)", "sys.stderr.write('x' * 3000 + s + 'y' * 1995)"],
)
def test_a_program_that_echoes_the_secret_and_fails_does_not_spread_it(hostile_secret: Secret, echo: str) -> None:
    with pytest.raises(ToolError) as caught:
        run(python(f"import sys; s = sys.stdin.read(); {echo}; sys.exit(7)"), timeout=30, stdin=hostile_secret)
    told = str(caught.value) + str(caught.value.to_record())
    for part in (HOSTILE, "b@c", 'd"e', "e\\", ";ñ"):
        assert part not in told


def test_a_program_that_echoes_the_secret_and_hangs_does_not_spread_it(hostile_secret: Secret) -> None:
    body = "import sys, time; s = sys.stdin.read(); print(s, file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(DeadlineError) as caught:
        run(python(body), timeout=3, stdin=hostile_secret)
    assert HOSTILE not in str(caught.value.to_record())
    assert caught.value.__cause__ is None


def test_failing_tells_the_last_line_the_status_and_the_tail() -> None:
    with pytest.raises(ToolError) as caught:
        run(python("import sys; print('first', file=sys.stderr); print('no such pool', file=sys.stderr); sys.exit(9)"), timeout=30)
    assert "status 9: no such pool" in caught.value.sentence
    assert caught.value.facts["status"] == 9
    assert caught.value.facts["said"] == "first\nno such pool"


def test_a_program_that_dies_of_a_signal_is_a_failure() -> None:
    with pytest.raises(ToolError) as caught:
        run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), timeout=30)
    assert caught.value.facts["status"] == -signal.SIGKILL
    assert "it said nothing" in caught.value.sentence


def test_a_missing_program_is_told_with_its_package() -> None:
    with pytest.raises(ToolError, match="program-of-no-name is not installed"):
        run(["program-of-no-name"], timeout=30)
    with pytest.raises(ToolError) as caught:
        need_program("program-of-no-name", package="nothing-deb")
    assert "nothing-deb" in caught.value.hint
    assert find_program("program-of-no-name") is None


def test_a_file_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(ToolError, match="could not be started"):
        run([tmp_path / "text"], timeout=30)


def test_programs_of_the_administrator_are_found_without_them_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = find_program("ldconfig")
    assert found is not None
    assert found.is_file()


def test_the_deadline_kills_the_program_and_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "import os, subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}');"
        "time.sleep(600)"
    )
    with pytest.raises(DeadlineError, match="did not end within"):
        run(python(body), timeout=5)
    for pid in pids.read_text().split():
        assert gone(int(pid))


def test_the_deadline_also_ends_a_child_that_keeps_the_output_open(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(pids)!r}, 'w').write(str(child.pid))"
    )
    with pytest.raises(DeadlineError):
        run(python(body), timeout=5)
    assert gone(int(pids.read_text()))


def test_an_interrupted_wait_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    started = []

    def interrupted(self: subprocess.Popen[bytes], *_: object, **__: object) -> None:
        started.append(self.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "600"], timeout=30)
    assert gone(started[0])


def test_a_child_ends_with_its_block_and_its_log_is_kept(tmp_path: Path) -> None:
    with Child(python("import time; print('up', flush=True); time.sleep(600)"), log=tmp_path / "log") as child:
        assert child.status is None
        while "up" not in child.said():
            time.sleep(0.02)
    assert child.status == -signal.SIGTERM
    assert gone(child.pid)
    child.stop()  # a second time is harmless


def test_a_child_tells_its_exit_status() -> None:
    for body, status in (("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 9)", -9)):
        child = Child(python(body), log=Path(os.devnull))
        while child.status is None:
            time.sleep(0.02)
        assert (child.status, child.status) == (status, status)
        child.stop()
        assert child.status == status


def test_a_child_that_ignores_the_request_is_killed_after_the_grace(tmp_path: Path) -> None:
    body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    child = Child(python(body), log=tmp_path / "log")
    while "up" not in child.said():
        time.sleep(0.02)
    child.stop(grace=0.2)
    assert child.status == -signal.SIGKILL


def test_what_a_child_started_ends_with_it_even_when_the_child_died_first(tmp_path: Path) -> None:
    body = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    with Child(python(body), log=tmp_path / "log") as child:
        while child.status is None:
            time.sleep(0.02)
    assert gone(int((tmp_path / "log").read_text()))
