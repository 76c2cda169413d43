"""Give a stored image away: as qcow2, raw disk, or OVA with a manifest."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from images.convert import convert_out
from images.hardware import Bus, Card, Controller, DirectKernel, Drive, DriveKind, MachineHardware
from images.import_errors import SourceError
from images.ovf.write import ShippedFile, Shipping, render_ovf
from images.span import CHUNK, read_file
from images.store import DISK, Image, Store, no_space
from kit.findings import Finding, Severity
from kit.progress import Progress, Silent

DATE = 315532800  # what files of the archive carry, 1980-01-01: the same image makes the same names and dates
VMDK = ("-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic,hwversion=13")


class ExportFormat(StrEnum):
    """What an image can be given away as."""

    QCOW2 = "qcow2"
    RAW = "raw"
    OVA = "ova"


@dataclass(frozen=True)
class Exported:
    """A file that was written, with its SHA-256 in hex."""

    path: Path
    size: int
    digest: str
    findings: tuple[Finding, ...] = ()


def export_image(
    store: Store, image: Image, target: Path, format_: ExportFormat, *, disk: str = DISK, progress: Progress | None = None
) -> Exported:
    """Write the image to ``target``, which must not exist: whole, or not at all. ``disk``: which one, where only one fits.

    Raises:
        AlteredImageError: the stored image is not what was stored.
        SourceError: the target exists, or the image has no such disk.
        ConvertError, SpaceError: it could not be written.

    """
    if target.exists() or target.is_symlink():
        raise SourceError(f"{target} exists; it was not written over.", hint="Choose another name, or remove it first.")
    if not target.parent.is_dir():
        raise SourceError(f"The folder {target.parent} does not exist.")
    store.verify(image, thorough=True)
    with _beside(target) as half:
        if format_ is ExportFormat.OVA:
            _write_ova(image, half, target.stem, progress or Silent())
        else:
            _write_disk(image, half, format_, disk, progress)
        size, digest = _finish(half)
        _place(half, target)
    return Exported(target, size, digest, tuple(_check(image, format_, disk)))


def describe_machine(image: Image) -> MachineHardware:
    """The image's hardware; of one that was built here, what the lab gives its machines."""
    if image.hardware is not None:
        return image.hardware
    return MachineHardware(
        sockets=1,
        cores=image.cpus,
        memory_mib=image.memory_mib,
        controllers=(Controller(Bus.VIRTIO, 0),),
        drives=(Drive(DriveKind.DISK, DISK, read_capacity(image.folder / DISK), Bus.VIRTIO, 0, 0, 1),),
        cards=(Card("virtio", "network"),),
        kernel=DirectKernel(image.kernel_arguments),
    )


def read_capacity(disk: Path) -> int:
    """How many bytes a machine sees of a stored disk."""
    return int.from_bytes(read_file(disk).read(24, 8), "big")


def _write_disk(image: Image, half: Path, format_: ExportFormat, disk: str, progress: Progress | None) -> None:
    known = [drive.file for drive in describe_machine(image).drives if drive.file]
    if disk not in known:
        raise SourceError(f"The image {image.name} has no disk {disk!r}.", hint=f"Its disks: {', '.join(known)}.")
    options = ("-O", "raw") if format_ is ExportFormat.RAW else ("-O", "qcow2", "-c", "-o", "compression_type=zstd")
    convert_out(image.folder / disk, half, options=options, label=f"writing {disk}", progress=progress)


def _check(image: Image, format_: ExportFormat, disk: str) -> Iterator[Finding]:
    machine = describe_machine(image)
    if machine.kernel is not None:
        where = (
            "the archive carries both, and only boxshift starts them" if format_ is ExportFormat.OVA else "the disk alone does not start"
        )
        yield Finding("export.kernel", Severity.WARNING, f"{image.name} starts by a kernel beside its disk: {where}.", subject=image.name)
    others = [drive.file for drive in machine.drives if drive.file and drive.file != disk]
    if format_ is not ExportFormat.OVA and others:
        yield Finding("export.disks", Severity.WARNING, f"Only {disk} was written; {', '.join(others)} stayed.", "--disk, or --format ova.")


def _write_ova(image: Image, half: Path, name: str, progress: Progress) -> None:
    """Disks first into a folder beside the archive: the descriptor and the manifest, which come first in it, tell of them."""
    machine = describe_machine(image)
    work = half.with_suffix(".parts")
    work.mkdir(mode=0o700)
    try:
        disks = tuple(
            (drive.file, _ship_disk(image, drive, work, f"{name}-{number}", progress)) for number, drive in enumerate(_full(machine), 1)
        )
        sources = (image.kernel, image.initrd) if machine.kernel else ()
        kernel = tuple(ShippedFile(f"{name}.{path.name}", path.stat().st_size) for path in sources)
        for path, file in zip(sources, kernel, strict=True):
            shutil.copyfile(path, work / file.name)
        if machine.kernel and not machine.description:
            machine = replace(machine, description=image.name)
        (work / f"{name}.ovf").write_bytes(render_ovf(machine, Shipping(name, disks, kernel)))
        names = [f"{name}.ovf", *(file.name for _, file in disks), *(file.name for file in kernel)]
        lines = [f"SHA256({one})= {_hash(work / one, progress)}\n" for one in names]
        (work / f"{name}.mf").write_text("".join(lines))
        _pack(half, work, [names[0], f"{name}.mf", *names[1:]], progress)
    except OSError as error:
        raise no_space(half, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _full(machine: MachineHardware) -> tuple[Drive, ...]:
    return tuple(drive for drive in machine.drives if drive.file)


def _ship_disk(image: Image, drive: Drive, work: Path, name: str, progress: Progress) -> ShippedFile:
    is_disk = drive.kind is DriveKind.DISK
    file = f"{name}.vmdk" if is_disk else f"{name}.iso" if drive.kind is DriveKind.CDROM else f"{name}.img"
    options: Sequence[str] = VMDK if is_disk else ("-O", "raw")
    convert_out(image.folder / drive.file, work / file, options=options, label=f"writing {file}", progress=progress)
    return ShippedFile(file, (work / file).stat().st_size, drive.size if is_disk else 0)


def _pack(half: Path, work: Path, names: Sequence[str], progress: Progress) -> None:
    with half.open("xb") as sink, tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, name in enumerate(names):
            progress.update("putting the archive together", number, len(names))
            path = work / name
            about = tarfile.TarInfo(name)
            about.size, about.mode, about.mtime = path.stat().st_size, 0o644, DATE
            if about.size >= 8 << 30:  # more than ustar's eleven octal digits hold
                archive.format = tarfile.GNU_FORMAT
            with path.open("rb") as source:
                archive.addfile(about, source)
            path.unlink()
            archive.format = tarfile.USTAR_FORMAT


def _hash(path: Path, progress: Progress) -> str:
    progress.update("writing the manifest")
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name in the same folder, gone afterwards."""
    half = target.with_name(f".{target.name[:100]}.half-{secrets.token_hex(4)}")
    try:
        yield half
    finally:
        half.unlink(missing_ok=True)


def _finish(half: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with io.FileIO(half) as source:
        while piece := source.read(CHUNK):
            digest.update(piece)
        os.fsync(source.fileno())
    return half.stat().st_size, digest.hexdigest()


def _place(half: Path, target: Path) -> None:
    """Under its name, unless somebody has taken that meanwhile."""
    half.chmod(0o600)
    try:
        os.link(half, target)
    except FileExistsError as error:
        raise SourceError(f"{target} exists; it was not written over.", hint="Choose another name, or remove it first.") from error
    except OSError:  # a file system without hard links
        half.rename(target)
