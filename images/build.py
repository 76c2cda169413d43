"""Build an image from a recipe: Debian packages by mmdebstrap, the file system by ``mke2fs -d``, then qcow2 into the store.

Two layers, each cached by the digest of all that goes into it: the packages (about a minute), and on top of them the recipe's own
files (seconds). No root is needed: mmdebstrap uses a user namespace of its own where the caller is not root.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from images import sources
from images.build_packages import PACKAGES_SECONDS, can_lay_over, ensure_packages, ensure_uncompressed
from images.build_work import Job, hook, make_environment, make_output_folder, place_hook, place_layer, run_watched, work_folder
from images.ext4_times import set_times
from images.filesets import pack
from images.home import Home, ensure_home
from images.initrd import find_repacked
from images.locking import hold
from images.recipe import FileSet, Recipe, render_users
from images.seal import hash_file
from images.store import Image, Imported, Store
from kit.process import need_program, run
from kit.progress import Progress, Silent

IMAGE_SECONDS = 600.0
# The Debian packages of the programs that a build runs.
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}


@dataclass(frozen=True)
class Layers:
    """The digests of a build's two layers: what they are cached under."""

    packages: str
    image: str


def build(recipe: Recipe, home: Home, *, extra: Sequence[FileSet] = (), progress: Progress | None = None) -> Image:
    """The image of this recipe: from the store where nothing changed, else built. ``extra`` files come on top of the recipe's.

    Raises:
        ToolError: a program is missing or failed (:class:`BuildError` with the tail of its log).
        DeadlineError: another process builds the same for too long, or a program hangs.

    """
    ensure_home(home)
    recipe = replace(recipe, files=(*recipe.files, *extra))
    job = Job(recipe, home, sources.find_sources(recipe.suite, snapshot=recipe.snapshot), progress or Silent())
    store = Store(home)
    with work_folder() as work:
        files = work / "files.tar"
        pack(recipe.files, files, mtime=recipe.date)
        layers = plan_layers(recipe, job.sources, files)
        found = store.find_built(layers.image)
        if found is not None:
            job.progress.update(f"image {recipe.name} is built already")
            return found
        with hold(home.locks / f"build-{layers.packages}", what=f"building {recipe.name}", timeout=PACKAGES_SECONDS):
            return store.find_built(layers.image) or _build_image(job, layers, files, work, store)


def plan_layers(recipe: Recipe, apt: sources.Sources, files: Path) -> Layers:
    """The digests under which both layers are cached: the recipe, the files' contents, the tools' versions and our own hooks."""
    versions = {name: read_version(name) for name in TOOLS}
    packages = _digest(
        recipe.suite, recipe.packages, recipe.kernel.package, recipe.kernel.modules, recipe.kernel.initrd, recipe.leave_out,
        apt.text, recipe.date, versions["mmdebstrap"], hook("packages").read_text(),
    )  # fmt: skip
    image = _digest(
        packages, recipe.name, recipe.hostname, recipe.kernel.arguments, recipe.disk_mib, recipe.hardware.memory_mib, recipe.hardware.cpus,
        render_configure(recipe), hash_file(files), versions["mke2fs"], versions["qemu-img"], hook("image").read_text(), recipe.date,
        str(recipe.ready or ""),
    )  # fmt: skip
    return Layers(packages, image)


def read_version(program: str) -> str:
    """What a program says of its version, first line.

    Raises:
        ToolError: it is not installed.

    """
    said = run([need_program(program, package=TOOLS[program]), "-V" if program == "mke2fs" else "--version"], timeout=30)
    return (said.out or said.err).decode(errors="replace").splitlines()[0]


def render_configure(recipe: Recipe) -> str:
    """The shell script that configures the image from inside: names, units, own commands, and Python compiled ahead."""
    lines = [
        "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=",
        f"printf '%s\\n' {recipe.hostname} > /etc/hostname",
        f"printf '127.0.0.1 localhost\\n127.0.1.1 {recipe.hostname}\\n::1 localhost\\n' > /etc/hosts",
        "printf 'blacklist pcspkr\\n' > /etc/modprobe.d/boxshift.conf",
        "usermod --lock root",
        *render_users(recipe.users),
        *recipe.commands,
    ]
    if recipe.mask:
        lines.append("systemctl --quiet mask " + shlex.join(recipe.mask))
    if recipe.enable:
        lines.append("systemctl --quiet --no-reload enable " + shlex.join(recipe.enable))
    lines.append("systemctl --quiet set-default multi-user.target")
    lines += [f"python3 -m compileall -q --invalidation-mode unchecked-hash {shlex.quote(str(one))}" for one in recipe.compile]
    return "\n".join(lines) + "\n"


def _build_image(job: Job, layers: Layers, files: Path, work: Path, store: Store) -> Image:
    is_laid_over = can_lay_over(job, work)
    packages = ensure_packages(job, layers.packages, work, unpacked=is_laid_over)
    job.progress.update(f"putting {job.recipe.name} together")
    configure = work / "boxshift-configure.sh"
    configure.write_text(render_configure(job.recipe))
    disk_uuid = str(uuid.UUID(layers.image[:32]))
    out = make_output_folder(work)
    env = {"DISK_MIB": str(job.recipe.disk_mib), "DISK_UUID": disk_uuid, "OUT": str(out), "SOURCE_DATE_EPOCH": str(job.recipe.date)}
    argv = _over(packages, files, configure, work) if is_laid_over else _mmdebstrap(job, packages, files, configure, work)
    run_watched(argv, work / "image.log", env=make_environment(env, work), job=job, timeout=IMAGE_SECONDS)
    set_times(out / "root.raw", job.recipe.date)
    return _import(job, layers, out, store)


def _over(packages: Path, files: Path, configure: Path, work: Path) -> list[str | Path]:
    """Build on the packages: what is written goes elsewhere."""
    over = work / "over"
    over.mkdir(mode=0o755)
    return [place_hook("overlay", work), packages, over, files, configure, place_hook("image", work)]


def _mmdebstrap(job: Job, packages: Path, files: Path, configure: Path, work: Path) -> list[str | Path]:
    """The same without root: in a user namespace, on packages that are unpacked anew."""
    return [
        need_program("mmdebstrap", package="mmdebstrap"), "--variant=custom", "--format=null", "--mode=auto",
        "--skip=update,cleanup/apt,cleanup/tmp,chroot/start-stop-daemon,chroot/policy-rc.d",
        f"--setup-hook=tar -C \"$1\" --numeric-owner --exclude='./dev/*' -xf {shlex.quote(str(place_layer(packages, work)))}",
        f"--customize-hook=upload {shlex.quote(str(files))} /boxshift-files.tar",
        f"--customize-hook=upload {shlex.quote(str(configure))} /boxshift-configure.sh", f"--customize-hook={place_hook('image', work)}",
        job.recipe.suite, "/dev/null", "-",
    ]  # fmt: skip


def _import(job: Job, layers: Layers, out: Path, store: Store) -> Image:
    job.progress.update("storing the image")
    ensure_uncompressed(job.home.layers / f"packages-{layers.packages}.kernel", out / "kernel")
    initrd = find_repacked((out / "initrd").read_bytes(), job.recipe.date)
    if initrd is not None:
        (out / "initrd").write_bytes(initrd)
    with store.importing() as folder:
        run(
            [
                need_program("qemu-img", package="qemu-utils"),
                "convert",
                "-f",
                "raw",
                "-O",
                "qcow2",
                out / "root.raw",
                folder / "disk.qcow2",
            ],
            timeout=IMAGE_SECONDS,
        )
        shutil.copyfile(out / "kernel", folder / "kernel")
        shutil.copyfile(out / "initrd", folder / "initrd")
        return store.add(
            folder,
            Imported(
                name=job.recipe.name,
                built_from=layers.image,
                kernel_arguments=("root=/dev/vda", "rootfstype=ext4", "rw", "console=ttyS0", *job.recipe.kernel.arguments),
                memory_mib=job.recipe.hardware.memory_mib,
                cpus=job.recipe.hardware.cpus,
                ready=job.recipe.ready,
            ),
        )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
