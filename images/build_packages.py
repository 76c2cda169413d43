"""The lower layer of a build: Debian's packages, as a folder where the kernel can lay another one over it, else as a tar archive."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from images import sources
from images.build_work import PROBE_SECONDS, Job, make_environment, place_hook, render_confinement, run_watched
from images.home import Home
from images.kernel import find_uncompressed
from images.locking import is_held
from kit.process import need_program, run

PACKAGES_SECONDS = 1800.0


def can_lay_over(job: Job, work: Path) -> bool:
    """Whether the kernel lays a folder of this build over one of the cache: only root can, and not on every file system."""
    confined = render_confinement()
    if not confined or any(mark in f"{job.home.layers}{work}" for mark in ",:\\"):
        return False
    over = Path(tempfile.mkdtemp(dir=work))
    for name in ("upper", "work", "tree"):
        (over / name).mkdir()
    options = f"lowerdir={job.home.layers},upperdir={over / 'upper'},workdir={over / 'work'}"
    mount: list[str | Path] = [need_program("mount", package="mount"), "-t", "overlay", "boxshift", "-o", options, over / "tree"]
    return run([*confined, *mount], timeout=PROBE_SECONDS, accept=range(256)).status == 0


def ensure_packages(job: Job, digest: str, work: Path, *, unpacked: bool) -> Path:
    """The layer of Debian packages in the cache, made where it is not there yet: a folder to build on, or a tar archive."""
    cached = job.home.layers / f"packages-{digest}{'' if unpacked else '.tar'}"
    if cached.exists():
        job.progress.update("Debian packages: unchanged")
        return cached
    _sweep_halves(job.home, cached.stem)
    # A name of its own each time: the mmdebstrap of a process that was killed may still be writing the one before.
    half = cached.with_suffix(f".{secrets.token_hex(4)}.part")
    job.progress.update("Debian packages: fetching and installing")
    form = "directory" if unpacked else "tar"
    argv: list[str | Path] = [need_program("mmdebstrap", package="mmdebstrap"), "--variant=minbase", f"--format={form}", "--mode=auto"]
    argv += [*mmdebstrap_options(job, work), job.recipe.suite, half, *write_mirrors(job.sources, work)]
    env = {"INITRD_MODULES": ",".join(job.recipe.kernel.initrd), "SOURCE_DATE_EPOCH": str(job.recipe.date)}
    try:
        run_watched(argv, work / "packages.log", env=make_environment(env, work), job=job, timeout=PACKAGES_SECONDS)
    except BaseException:
        _remove(half)
        raise
    return half.rename(cached)


def _remove(half: Path) -> None:
    if half.is_dir():
        shutil.rmtree(half, ignore_errors=True)
    with suppress(FileNotFoundError, IsADirectoryError):
        half.unlink()


def mmdebstrap_options(job: Job, work: Path) -> Iterator[str]:
    """What mmdebstrap is told of the recipe's packages."""
    kernel = job.recipe.kernel
    yield f"--include={','.join((*job.recipe.packages, 'tiny-initramfs', kernel.package))}"
    yield f"--essential-hook={place_hook('packages', work)}"
    yield "--dpkgopt=force-unsafe-io"
    for pattern in (*job.recipe.leave_out, "/lib/modules/*/kernel/*"):
        yield f"--dpkgopt=path-exclude={pattern}"
    for module in kernel.modules:
        yield f"--dpkgopt=path-include=/lib/modules/*/kernel/{module}"
        yield f"--dpkgopt=path-include=/lib/modules/*/kernel/{module}/*"
    if job.sources.keyring is not None:
        yield f"--keyring={job.sources.keyring}"


def write_mirrors(apt: sources.Sources, work: Path) -> tuple[str, ...]:
    """What mmdebstrap gets as its last arguments: a file of sources, or none, and it takes its own default."""
    if not apt.text:
        return ()
    path = work / "debian.sources"
    path.write_text(apt.text)
    return (str(path),)


def ensure_uncompressed(cached: Path, kernel: Path) -> None:
    """Put the uncompressed form in the place of a layer's kernel, where it has one that QEMU starts. Unpacked once: it takes a second."""
    if not cached.exists():
        found = find_uncompressed(kernel.read_bytes())
        if found is None:
            return
        half = cached.with_suffix(f".{secrets.token_hex(4)}.part")
        half.write_bytes(found)
        half.rename(cached)
    shutil.copyfile(cached, kernel)


def list_halves(home: Home) -> tuple[Path, ...]:
    """What killed builds left in the cache: layers that nobody is making any more."""
    found = [left for left in sorted(home.layers.glob("*.part")) if not is_held(home.locks / f"build-{left.name.split('.')[0][-64:]}")]
    return tuple(found)


def _sweep_halves(home: Home, stem: str) -> None:
    """Remove them, and earlier halves of the layer that we make now ourselves."""
    for left in {*list_halves(home), *home.layers.glob(f"{stem}.*.part")}:
        _remove(left)
