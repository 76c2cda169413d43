"""The lower layer of a build: Debian's packages as a tar archive, and, where the kernel can lay folders over each other, unpacked."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from images import sources
from images.build_work import Job, make_environment, place_hook, render_confinement, run_watched
from images.home import Home
from images.kernel import find_uncompressed
from images.locking import is_held
from kit.errors import ToolError
from kit.process import need_program, run

PACKAGES_SECONDS = 1800.0
UNPACK_SECONDS = 300.0


def ensure_packages(job: Job, digest: str, work: Path) -> Path:
    """The layer of Debian packages: a tar archive in the cache, made where it is not there yet."""
    cached = job.home.layers / f"packages-{digest}.tar"
    if cached.exists():
        job.progress.update("Debian packages: unchanged")
        return cached
    _sweep_halves(job.home, cached.stem)
    # A name of its own each time: the mmdebstrap of a process that was killed may still be writing the one before.
    half = cached.with_suffix(f".{secrets.token_hex(4)}.part")
    job.progress.update("Debian packages: fetching and installing")
    argv: list[str | Path] = [
        need_program("mmdebstrap", package="mmdebstrap"),
        "--variant=minbase",
        "--format=tar",
        "--mode=auto",
        *mmdebstrap_options(job, work),
    ]
    argv += [job.recipe.suite, half, *write_mirrors(job.sources, work)]
    env = {"INITRD_MODULES": ",".join(job.recipe.kernel.initrd), "SOURCE_DATE_EPOCH": str(job.recipe.date)}
    try:
        run_watched(argv, work / "packages.log", env=make_environment(env, work), job=job, timeout=PACKAGES_SECONDS)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return half.rename(cached)


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


def ensure_tree(job: Job, packages: Path) -> Path | None:
    """The layer unpacked in the cache, to build on without unpacking it again; None where that cannot be: only root can lay over it."""
    if not render_confinement() or any(mark in str(job.home.layers) for mark in ",:\\"):
        return None
    tree = packages.with_suffix("")
    if tree.is_dir():
        return tree
    half = tree.with_name(f"{tree.name}.{secrets.token_hex(4)}.part")
    job.progress.update("unpacking the packages: this once")
    try:
        half.mkdir(mode=0o755)
        words: list[str | Path] = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "-xf", packages]
        run([need_program("tar", package="tar"), "-C", half, *words], timeout=UNPACK_SECONDS)
        return half.rename(tree)
    except ToolError:
        shutil.rmtree(half, ignore_errors=True)
        return None
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


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
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        with suppress(FileNotFoundError, IsADirectoryError):
            left.unlink()
