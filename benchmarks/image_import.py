"""What importing an OVA costs over converting its unpacked disks, in one run on one machine. Target: at most 1.1.

    python benchmarks/image_import.py                  # the reference appliance, exported as OVA first
    python benchmarks/image_import.py --ova FILE --rounds 5

``qemu-img convert`` gets the disk's file as it lies unpacked, and writes a plain qcow2. An import also checks manifest and headers, copies
kernel and initrd where there are any, hashes what it stored, and waits until it is on the disk; how long the disk alone takes
for the same bytes is printed too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from images.export import ExportFormat, export_image
from images.home import Home, ensure_home, find_home
from images.import_image import import_image
from images.import_request import ImportRequest
from images.reference_image import ensure_reference_image
from images.store import Store
from kit.process import need_program, run

LIMIT = 900.0


def main() -> None:
    """Print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ova", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="boxshift-bench-", dir="/var/tmp"))
    try:
        ova = asked.ova or export_reference(folder)
        disks = unpack(ova, folder / "disks")
        bare, ours, written = [], [], []
        for number in range(asked.rounds):
            bare.append(timed(lambda: convert(disks, folder / "bare")))
            written.append(timed(lambda: write_down(folder / "bare")))
            home = ensure_home(Home(folder / f"home-{number}"))
            request = ImportRequest(str(ova), name="bench", accept_eula=True)
            ours.append(timed(lambda: import_image(request, Store(home))))  # noqa: B023 - called at once
            shutil.rmtree(home.root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base, import_ = statistics.median(bare), statistics.median(ours)
    print(f"{ova.name}, {len(disks)} disk(s), {asked.rounds} rounds, medians")
    print(f"qemu-img convert                       {base:6.2f} s")
    print(f"the same bytes onto the disk (fsync)   {statistics.median(written):6.2f} s")
    print(f"boxshift images import                 {import_:6.2f} s")
    print(f"import over qemu-img convert           {import_ / base:6.2f}     (target: at most 1.1)")


def export_reference(folder: Path) -> Path:
    """The reference appliance as an OVA."""
    home = find_home()
    return export_image(Store(home), ensure_reference_image(home), folder / "reference.ova", ExportFormat.OVA).path


def unpack(ova: Path, folder: Path) -> list[Path]:
    """The archive's disks."""
    folder.mkdir()
    with tarfile.open(ova) as archive:
        for one in archive.getmembers():
            content = archive.extractfile(one) if one.name.endswith(".vmdk") else None
            if content is not None:
                (folder / Path(one.name).name).write_bytes(content.read())
    return sorted(folder.iterdir())


def convert(disks: list[Path], folder: Path) -> None:
    """What nobody could leave out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, disk in enumerate(disks):
        target = folder / f"{number}.qcow2"
        run([need_program("qemu-img", package="qemu-utils"), "convert", "-f", "vmdk", "-O", "qcow2", disk, target], timeout=LIMIT)


def write_down(folder: Path) -> None:
    """Wait until the disk has it."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
