"""What building an image costs over the bare tools, in one run on one machine; targets of the images issue beside each figure.

    python benchmarks/image_build.py                # debian-minimal: cold twice, bare twice, and once more after a changed file
    python benchmarks/image_build.py --recipe FILE

Bare is what nobody could leave out: mmdebstrap with the same packages, rules and hooks straight to an ext4 image (``mke2fs -d`` within
mmdebstrap), then ``qemu-img convert``. Cold begins with nothing cached. Both use the mirror that this machine uses.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from images import sources
from images.build import build
from images.build_packages import mmdebstrap_options, write_mirrors
from images.build_work import Job, make_environment, work_folder
from images.home import Home, ensure_home
from images.recipe import FileSet, Recipe, find_recipe, read_recipe
from images.store import Image, Store
from kit.process import need_program, run
from kit.progress import Silent

LIMIT = 1800.0


def time_bare(recipe: Recipe, home: Home) -> float:
    """Seconds of mmdebstrap, mke2fs and qemu-img alone."""
    job = Job(recipe, home, sources.find_sources(recipe.suite, snapshot=recipe.snapshot), Silent())
    with work_folder() as work:
        begun = time.monotonic()
        disk = work / "root.raw"
        make = (
            f'view=$(mktemp -d {work}/view.XXXXXX); mount --bind "$1" "$view"; '
            f'mke2fs -q -F -t ext4 -d "$view" -m 0 {disk} {recipe.disk_mib}M; umount "$view"'
        )
        argv: list[str | Path] = [need_program("mmdebstrap", package="mmdebstrap"), "--variant=minbase", "--format=null", "--mode=auto"]
        argv += [*mmdebstrap_options(job, work), f"--customize-hook={make}", recipe.suite, "/dev/null", *write_mirrors(job.sources, work)]
        env = {"INITRD_MODULES": ",".join(recipe.kernel.initrd), "SOURCE_DATE_EPOCH": str(recipe.date)}
        run(argv, timeout=LIMIT, env=make_environment(env, work))
        run(
            [need_program("qemu-img", package="qemu-utils"), "convert", "-f", "raw", "-O", "qcow2", disk, work / "disk.qcow2"],
            timeout=LIMIT,
        )
        return time.monotonic() - begun


def time_build(recipe: Recipe, home: Home) -> tuple[float, Image]:
    """Seconds until the image is in the store."""
    begun = time.monotonic()
    image = build(recipe, home)
    return time.monotonic() - begun, image


def main() -> None:
    """Print every figure with its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="debian-minimal")
    recipe = read_recipe(find_recipe(parser.parse_args().recipe))
    folder = Path(tempfile.mkdtemp(prefix="boxshift-bench-", dir="/var/tmp"))
    try:
        home = ensure_home(Home(folder / "one"))
        cold, image = time_build(recipe, home)
        bare = time_bare(recipe, home)
        note = folder / "note"
        note.write_text("changed\n")
        changed = replace(recipe, files=(*recipe.files, FileSet(note, PurePosixPath("/etc/note"))))
        again, other = time_build(changed, home)
        found, same = time_build(changed, home)
        shutil.rmtree(home.root)
        second_home = ensure_home(Home(folder / "two"))
        bare_again = time_bare(recipe, second_home)
        second, twin = time_build(recipe, second_home)
        Store(second_home).verify(twin, thorough=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{recipe.name}, {image.size >> 20} MiB")
    print(f"bare mmdebstrap, mke2fs, qemu-img   {bare:6.1f} s   {bare_again:6.1f} s")
    print(f"boxshift images build, cold         {cold:6.1f} s   {second:6.1f} s")
    print(f"cold over bare                      {(cold + second) / (bare + bare_again):6.2f}     (target: at most 1.15)")
    print(f"rebuild after a changed file        {again:6.1f} s   (target: at most 5)")
    print(f"nothing changed                     {found:6.1f} s   the same image: {same.digest == other.digest}")
    print(f"two cold builds, same digest        {image.digest == twin.digest}   {image.digest[:16]} {twin.digest[:16]}")


if __name__ == "__main__":
    main()
