"""The disks of a bundle: found, unpacked only where they have to be, checked, converted from where they lie, stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from images.archive import Bundle, parse_member_name
from images.convert import convert_in, create_blank, grow, verify_disk
from images.disk_headers import Limits
from images.fetch import is_address
from images.formats import DiskSource, find_compression, read_disk
from images.hardware import DirectKernel, Drive, DriveKind, MachineHardware
from images.import_errors import DamagedSourceError, HostileSourceError, OvfError
from images.ovf.drives import PlannedDrive
from images.ovf.hardware import PlannedMachine
from images.ovf.model import Envelope, FileReference
from images.ovf.units import parse_bytes
from images.span import Span
from images.store import DISK, INITRD, KERNEL, Image, Imported, Origin, Store, no_space
from images.unpack import unpack
from kit.findings import Finding, Severity
from kit.progress import Progress

MOST_CHUNKS = 10_000
SLACK = 64 << 20  # bytes that a disk's file may be longer than the disk
KERNEL_LIMIT = 1 << 30


@dataclass(frozen=True)
class Medium:
    """What goes into one drive: a disk of the bundle, a blank one of ``size`` bytes, or nothing (``size`` 0)."""

    drive: PlannedDrive
    source: DiskSource | None
    size: int
    findings: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        what = self.source.format.value if self.source else "blank" if self.size else "empty"
        place = f"{self.drive.bus.value} {self.drive.controller}:{self.drive.unit}"
        return f"{self.drive.label}: {self.drive.kind.value} on {place}, {what}, {self.size} bytes"


@dataclass(frozen=True)
class ReadyMachine:
    """A machine of which everything was checked. ``kernel``: kernel and initrd, empty where it starts by its firmware."""

    name: str
    planned: PlannedMachine
    media: tuple[Medium, ...]
    kernel: tuple[Span, ...] = ()


def files_needed(bundle: Bundle, envelope: Envelope) -> tuple[str, ...]:
    """The names of all files that the descriptor refers to, parts of files one by one.

    Raises:
        OvfError: one is not there.
        HostileSourceError: one does not lie in the bundle.

    """
    return tuple(name for file in envelope.files for name, _ in _parts(bundle, file))


def collect_media(bundle: Bundle, planned: PlannedMachine, work: Path, *, limits: Limits, progress: Progress) -> tuple[Medium, ...]:
    """What every drive will hold, each disk's header read and found harmless.

    Raises:
        HostileSourceError, DamagedSourceError, UnknownFormatError, OvfError, ConvertError: a disk is refused.

    """
    media = []
    for number, drive in enumerate(planned.drives):
        capacity = _capacity(drive, planned.hardware)
        if capacity:
            limits.verify(capacity)
        if drive.file is None:
            media.append(Medium(drive, None, capacity or 0))
            continue
        span = _content(bundle, drive.file, work / f"medium-{number}", most=(capacity or limits.disk) * 11 // 10 + SLACK, progress=progress)
        disk = read_disk(span, raw=True, limits=limits)
        if disk.span.path != span.path:  # a descriptor beside its content, which no manifest of the bundle speaks of
            raise HostileSourceError(f"{drive.label} names another file that holds its content.", hint="Export the machine as OVA.")
        verify_disk(disk)
        media.append(Medium(drive, disk, max(disk.size, capacity or 0), tuple(_check(drive, disk, span, capacity))))
    if not any(medium.size for medium in media):
        raise OvfError("The machine has no disk and no CD that it could start from.")
    return tuple(media)


def collect_kernel(bundle: Bundle, planned: PlannedMachine, work: Path, *, progress: Progress) -> tuple[Span, ...]:
    """Kernel and initrd where the bundle carries them beside its disk; else nothing.

    Raises:
        HostileSourceError: one is absurdly large.

    """
    if planned.kernel is None:
        return ()
    files = (planned.kernel.kernel, planned.kernel.initrd)
    spans = tuple(
        _content(bundle, file, work / f"kernel-{number}", most=KERNEL_LIMIT, progress=progress) for number, file in enumerate(files)
    )
    if any(span.length > KERNEL_LIMIT for span in spans):
        raise HostileSourceError("The kernel in the bundle is absurdly large.")
    return spans


def store_machine(store: Store, ready: ReadyMachine, origin: Origin, *, progress: Progress) -> Image:
    """Convert what the drives hold, and store it as one image with its hardware."""
    names = _name_files(ready.media)
    with store.importing() as folder:
        for number, (medium, file) in enumerate(zip(ready.media, names, strict=True), 1):
            if file:
                _write(medium, folder / file, label=f"converting disk {number} of {len(ready.media)}", progress=progress)
        for span, file in zip(ready.kernel, (KERNEL, INITRD), strict=False):
            _copy(span, folder / file)
        progress.update("storing the image")
        drives = tuple(_drive(medium, file) for medium, file in zip(ready.media, names, strict=True))
        kernel = ready.planned.kernel
        arguments = kernel.arguments if kernel else ()
        hardware = replace(ready.planned.hardware, drives=drives, kernel=DirectKernel(arguments) if kernel else None)
        imported = Imported(ready.name, f"imported from {origin.source}", arguments, hardware.memory_mib, hardware.cpus, hardware, origin)
        return store.add(folder, imported)


def _copy(span: Span, target: Path) -> None:
    try:
        with target.open("xb") as sink:
            for piece in span.stream():
                sink.write(piece)
    except OSError as error:
        raise no_space(target, error) from error


def _write(medium: Medium, target: Path, *, label: str, progress: Progress) -> None:
    if medium.source is None:
        create_blank(target, medium.size)
        return
    convert_in(medium.source, target, label=label, progress=progress)
    if medium.source.size < medium.size:
        grow(target, medium.size)


def _name_files(media: tuple[Medium, ...]) -> list[str]:
    """``disk.qcow2`` for what the machine starts from, ``disk-2.qcow2`` and so on for the others, empty for empty drives."""
    full = [medium for medium in media if medium.size]
    order = sorted(full, key=lambda one: (one.drive.kind is not DriveKind.DISK, one.drive.boot or 99))
    names = {id(medium): DISK if number == 1 else f"disk-{number}.qcow2" for number, medium in enumerate(order, 1)}
    return [names.get(id(medium), "") for medium in media]


def _drive(medium: Medium, file: str) -> Drive:
    one = medium.drive
    return Drive(one.kind, file, medium.size, one.bus, one.controller, one.unit, one.boot if file else 0)


def _capacity(drive: PlannedDrive, hardware: MachineHardware) -> int | None:
    if not isinstance(drive.capacity, str):
        return drive.capacity
    match = re.fullmatch(r"\$\{([^}]+)\}\s*(.*)", drive.capacity)
    found = next((one.answer for one in hardware.properties if match and one.key == match[1]), None)
    if match is None or not found:
        raise OvfError(f"The size of {drive.label} is to be given as a property, and nobody has.", hint="Give it with --property.")
    return parse_bytes(found, match[2], "a disk's size")


def _check(drive: PlannedDrive, disk: DiskSource, span: Span, capacity: int | None) -> Iterator[Finding]:
    for remark in disk.remarks:
        yield Finding("ovf.disk", Severity.NOTE, f"{drive.label}: {remark}")
    if capacity and disk.size > capacity:
        yield Finding(
            "ovf.disk-size",
            Severity.WARNING,
            f"{drive.label} is {disk.size} bytes large where {capacity} are declared; nothing is cut off.",
        )
    if capacity and disk.size < capacity:
        yield Finding(
            "ovf.disk-size",
            Severity.NOTE,
            f"{drive.label} is {disk.size} bytes large where {capacity} are declared; it is made that large.",
        )
    plain = drive.file is not None and not drive.file.compression and not drive.file.chunk
    if plain and drive.file is not None and drive.file.size is not None and drive.file.size != span.length:
        yield Finding(
            "ovf.file-size", Severity.WARNING, f"{drive.file.href} has {span.length} bytes where the descriptor says {drive.file.size}."
        )


def _content(bundle: Bundle, file: FileReference, target: Path, *, most: int, progress: Progress) -> Span:
    """The file as it is: where it lies, or joined and unpacked into ``target``."""
    parts = list(_parts(bundle, file))
    span = parts[0][1] if not file.chunk else _join(parts, file, target.with_suffix(".joined"))
    compression = find_compression(span)
    if file.compression not in ("", "identity", "gzip"):
        raise OvfError(f"{file.href[:100]!r} is compressed with {file.compression[:40]!r}, which is not known.", hint="gzip is.")
    if compression is None:
        if file.compression == "gzip":
            raise DamagedSourceError(f"{file.href[:100]!r} is said to be compressed, and is not.")
        return span
    return unpack(span, compression, target, most=most, progress=progress)


def _parts(bundle: Bundle, file: FileReference) -> Iterator[tuple[str, Span]]:
    names = [file.href, unquote(file.href)]
    if is_address(file.href) or file.href.lower().startswith("file:"):
        raise HostileSourceError(
            f"The descriptor refers to {file.href[:200]!r}, which does not lie in the bundle.", hint="Ask for the whole bundle."
        )
    if not file.chunk:
        found = next(((name, span) for name in names if (span := bundle.find(parse_member_name(name))) is not None), None)
        if found is None:
            raise OvfError(f"The bundle lacks {file.href[:200]!r}, which its descriptor refers to.", hint="Load it again.")
        yield parse_member_name(found[0]), found[1]
        return
    for number in range(MOST_CHUNKS):
        name = f"{parse_member_name(file.href)}.{number:09d}"
        span = bundle.find(name)
        if span is None:
            break
        yield name, span
    if bundle.find(f"{parse_member_name(file.href)}.{0:09d}") is None:
        raise OvfError(f"The bundle lacks {file.href[:200]!r}.000000000, the first part of a file that its descriptor refers to.")


def _join(parts: list[tuple[str, Span]], file: FileReference, target: Path) -> Span:
    """Parts of a file as one; all but the last must be of the declared size."""
    sizes = [span.length for _, span in parts]
    total = sum(sizes)
    if any(size != file.chunk for size in sizes[:-1]) or sizes[-1] > file.chunk or (file.size is not None and total != file.size):
        raise DamagedSourceError(f"A part of {file.href[:100]!r} is missing or has the wrong size.", hint="Load the bundle again.")
    try:
        with target.open("xb") as sink:
            for _, span in parts:
                for piece in span.stream():
                    sink.write(piece)
    except OSError as error:
        raise no_space(target, error) from error
    return Span(target, 0, total)
