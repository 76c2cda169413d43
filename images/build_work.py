"""Where a build works and how its programs are run: a folder of its own, progress from their logs, reasons when they fail."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from images import sources
from images.errors import BuildError
from images.home import Home
from images.locking import hold, is_held
from images.recipe import Recipe
from kit.errors import DeadlineError, ToolError
from kit.process import TAIL, Child, need_program, run
from kit.progress import Progress
from kit.waiting import wait_for

HERE = Path(__file__).parent
WORK_PREFIX = "boxshift-build-"
PROBE_SECONDS = 30.0
WORK_AGE = 60.0  # seconds; a younger work folder may be about to be locked


@dataclass(frozen=True)
class Job:
    """One build: what, where, from where, and who is told how it goes on."""

    recipe: Recipe
    home: Home
    sources: sources.Sources
    progress: Progress


def render_confinement() -> list[str | Path]:
    """What runs a program of root's so that all of it ends with us, and nothing that it mounts is ever seen outside.

    mmdebstrap mounts ``/proc`` and the like into its tree, as root in everybody's view: killed, it would leave them there. Without root it
    does all this by itself.
    """
    if os.geteuid() != 0:
        return []
    setpriv, unshare = (need_program(name, package="util-linux") for name in ("setpriv", "unshare"))
    apart: list[str | Path] = [unshare, "--mount", "--pid", "--fork", "--kill-child", "--"]
    if run([*apart, "true"], timeout=PROBE_SECONDS, accept=range(256)).status != 0:
        return []  # a container that lets root mount nothing: then nothing is left mounted either
    return [setpriv, "--pdeathsig", "KILL", "--", *apart]


def run_watched(argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str], job: Job, timeout: float) -> None:
    """Run a long program and pass its ``I:`` lines on as progress while it runs."""
    with Child([*render_confinement(), *argv], log=log, env=env) as child:
        seen = 0

        def look() -> int | None:
            nonlocal seen
            lines = log.read_text(errors="replace").splitlines()
            for line in lines[seen:]:
                if line.startswith("I: ") and "/" not in line:
                    job.progress.update(line[3:])
            seen = len(lines)
            return child.status

        try:
            status = wait_for(look, what=f"{Path(argv[0]).name} to end", timeout=timeout, poll=0.2)
        except DeadlineError as late:
            raise BuildError(
                f"{late.sentence}.", hint="Look at what it says last; is the package mirror slow?", said=child.said()
            ) from late
        if status != 0:
            raise _explain(
                argv, status, log.read_bytes()[-TAIL:].decode(errors="replace"), log=job.home.cache / "build-failed.log", whole=log
            )


def _explain(argv: Sequence[str | Path], status: int, said: str, *, log: Path, whole: Path) -> BuildError:
    shutil.copyfile(whole, log)
    faults = [line for line in said.splitlines() if line.startswith(("E:", "Err:", "mke2fs:"))]
    hint = f"The whole log is {log}."
    if "No space left" in said:
        hint = f"Free space on this machine. {hint}"
    elif "Failed to fetch" in said or "Temporary failure resolving" in said:
        hint = f"Check that this machine reaches its Debian mirror (apt-get update). {hint}"
    elif "newuidmap" in said or "unshare" in said:
        hint = f"Without root, mmdebstrap needs the package uidmap and a line for you in /etc/subuid and /etc/subgid. {hint}"
    sentence = faults[0] if faults else (said.splitlines() or ["it said nothing"])[-1]
    return BuildError(f"{Path(argv[0]).name} ended with status {status}: {sentence}", hint=hint, status=status, said=said)


def make_environment(own: Mapping[str, str], work: Path) -> dict[str, str]:
    """What the programs of a build see: ``own``, where programs lie, and the build's folder for what is temporary."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return {**own, "PATH": path, "TMPDIR": str(work), "LC_ALL": "C.UTF-8"}


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for one build, under TMPDIR or /var/tmp. Others may pass through: in a user namespace mmdebstrap is another user."""
    base = work_base()
    sweep(base)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=base))
    try:
        work.chmod(0o1733)
        with hold(work / "lock", what="this build", timeout=0):
            yield work
    finally:
        _remove_tree(work)


def work_base() -> Path:
    """Where builds work: TMPDIR, or /var/tmp, since large files do not belong into a /tmp that may be memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 - a folder of a random name is made in it


def list_abandoned(base: Path) -> tuple[Path, ...]:
    """The work folders of builds that were killed: nobody holds their locks any more."""
    found = []
    for left in sorted(base.glob(f"{WORK_PREFIX}*")):
        about = left.lstat()
        if about.st_uid == os.geteuid() and time.time() - about.st_mtime >= WORK_AGE and left.is_dir() and not is_held(left / "lock"):
            found.append(left)
    return tuple(found)


def sweep(base: Path) -> None:
    """Remove the work folders of builds that were killed."""
    for left in list_abandoned(base):
        with suppress(DeadlineError), hold(left / "lock", what="another build", timeout=0):
            shutil.rmtree(left, ignore_errors=True)


def make_output_folder(work: Path) -> Path:
    """Where the hook puts its results: files that it may write whoever it is. Others would have to guess the folder's name."""
    out = Path(tempfile.mkdtemp(dir=work))
    out.chmod(0o777)
    for name in ("root.raw", "kernel", "initrd"):
        (out / name).touch()
        (out / name).chmod(0o666)
    return out


def _remove_tree(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    if work.exists():
        raise ToolError(f"The work folder {work} could not be removed.", hint="Remove it by hand; is something mounted below it?")


def hook(name: str) -> Path:
    """One of our own scripts that run inside a build."""
    return HERE / f"hook_{name}.sh"


def place_layer(layer: Path, work: Path) -> Path:
    """The layer where mmdebstrap's other user can read it. It holds Debian's packages only, so that anyone may."""
    placed = work / "layer.tar"
    try:
        placed.hardlink_to(layer)
    except OSError:
        shutil.copyfile(layer, placed)
    placed.chmod(0o644)
    return placed


def place_hook(name: str, work: Path) -> Path:
    """A copy of the hook that may be run, in a folder that mmdebstrap's other user can pass through."""
    placed = work / hook(name).name
    shutil.copyfile(hook(name), placed)
    placed.chmod(0o755)
    return placed
