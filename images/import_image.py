"""Import an image: find out what the source is, check all of it, convert its disks, store them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from images.archive import Bundle, Folder, read_archive, read_folder
from images.convert import convert_in, verify_disk
from images.fetch import fetch, is_address, parse_checksum, verify_checksum, without_query
from images.formats import DiskFormat, DiskSource, find_compression, is_archive, is_ovf, read_disk
from images.hardware import DriveKind, MachineHardware, plain_hardware
from images.import_appliance import Shipment, import_appliance
from images.import_errors import SourceError, UnknownFormatError
from images.import_request import ImportReport, ImportRequest, Nobody, Person, PlannedImage, parse_image_name, plan_name
from images.span import Span, read_file
from images.store import DISK, Imported, Origin, Store
from images.unpack import unpack
from kit.findings import Finding, Severity
from kit.progress import Progress, Silent

MOST_LAYERS = 2  # of compression: an .ova.gz whose author compressed it again


@dataclass(frozen=True)
class _Job:
    request: ImportRequest
    store: Store
    person: Person
    progress: Progress
    work: Path


def import_image(request: ImportRequest, store: Store, *, person: Person | None = None, progress: Progress | None = None) -> ImportReport:
    """Bring a foreign image into the store; everything is checked before any of it is used.

    Raises:
        SourceError, UnknownFormatError, PropertyError: it is not there, nothing to import, or does not have what is asked for.
        HostileSourceError, DamagedSourceError, ChecksumError, ManifestError, SignatureError, OvfError: refused; nothing was stored.
        EulaError: a person has to accept a licence first.
        DownloadError, ConvertError, SpaceError: it could not be loaded or converted.

    """
    if request.name:
        parse_image_name(request.name)
    with store.importing() as work:
        job = _Job(request, store, person or Nobody(), progress or Silent(), work)
        path = Path(request.source)
        if not is_address(request.source) and path.is_dir():
            return _import_folder(job, path)
        span = _peel(job, _open(job))
        if is_archive(span):
            bundle = read_archive(span)
            return _import_bundle(job, bundle, _descriptor_of(bundle), clutter=len(bundle.clutter))
        if is_ovf(span):
            if span.path.parent == work:
                raise SourceError("An OVF descriptor alone was loaded; its disks are other files.", hint="Give the .ova, or a folder.")
            return _import_bundle(job, Folder(path.absolute().parent), path.name)
        return _import_disk(job, span)


def _open(job: _Job) -> Span:
    request = job.request
    checksum = parse_checksum(request.checksum) if request.checksum else None
    if is_address(request.source):
        if checksum is None:
            raise SourceError(
                "An image is loaded from an address only with its checksum.", hint="Give --checksum sha256:HEX, as the origin tells it."
            )
        target = job.work / "loaded"
        return fetch(request.source, target, checksum, most=request.limits.disk, ca=request.ca, progress=job.progress)
    span = read_file(Path(request.source))
    if checksum is not None:
        verify_checksum(span, checksum, progress=job.progress)
    return span


def _peel(job: _Job, span: Span) -> Span:
    for layer in range(MOST_LAYERS):
        compression = find_compression(span)
        if compression is None:
            return span
        span = unpack(span, compression, job.work / f"unpacked-{layer}", most=job.request.limits.disk, progress=job.progress)
    if find_compression(span) is not None:
        raise UnknownFormatError(f"The file is compressed more than {MOST_LAYERS} times over.", hint="Unpack it by hand.")
    return span


def _import_folder(job: _Job, path: Path) -> ImportReport:
    if job.request.checksum:
        raise SourceError("A folder has no checksum.", hint="Its manifest is checked; leave --checksum out.")
    folder = read_folder(path.absolute())
    return _import_bundle(job, folder, _descriptor_of(folder))


def _descriptor_of(bundle: Bundle) -> str:
    found = [name for name in bundle.names if name.lower().endswith(".ovf") and "/" not in name]
    if len(found) != 1:
        what = f"{len(found)} OVF descriptors ({', '.join(found[:5])})" if found else "no OVF descriptor"
        raise UnknownFormatError(f"It holds {what}; one is needed.", hint="Give the .ovf file that is meant, or the disk image itself.")
    return found[0]


def _import_bundle(job: _Job, bundle: Bundle, descriptor: str, *, clutter: int = 0) -> ImportReport:
    shipment = Shipment(
        bundle, descriptor, without_query(Path(job.request.source).name if not is_address(job.request.source) else job.request.source)
    )
    report = import_appliance(shipment, job.request, job.store, job.work, person=job.person, progress=job.progress)
    if not clutter:
        return report
    note = Finding("ovf.clutter", Severity.NOTE, f"{clutter} files that macOS wrote into the archive were left out.")
    return replace(report, findings=(*report.findings, note))


def _import_disk(job: _Job, span: Span) -> ImportReport:
    request = job.request
    disk = read_disk(span, raw=request.raw or _is_called_raw(request.source), limits=request.limits)
    verify_disk(disk)
    kind = DriveKind.CDROM if disk.format is DiskFormat.ISO else DriveKind.DISK
    hardware = plain_hardware(((DISK, disk.size, kind),), firmware=request.firmware)
    source = without_query(request.source if is_address(request.source) else Path(request.source).name)
    findings = tuple(_check_disk(disk, hardware))
    name = request.name or plan_name(source.rpartition("/")[2])
    planned = (PlannedImage(name, hardware, (f"{disk.format.value}, {disk.size} bytes",)),)
    if request.dry_run:
        return ImportReport((), planned, findings)
    with job.store.importing() as folder:
        convert_in(disk, folder / DISK, label=f"converting {name}", progress=job.progress)
        job.progress.update("storing the image")
        origin = Origin(source, findings=findings)
        image = job.store.add(folder, Imported(name, f"imported from {source}", (), hardware.memory_mib, hardware.cpus, hardware, origin))
    return ImportReport((image,), planned, findings)


def _check_disk(disk: DiskSource, hardware: MachineHardware) -> Iterator[Finding]:
    for remark in disk.remarks:
        yield Finding("image.disk", Severity.NOTE, remark)
    if disk.format is DiskFormat.ISO:
        yield Finding("image.cd", Severity.NOTE, "It is a CD: a machine of it starts from the CD and has no disk of its own.")
    yield Finding(
        "image.no-description",
        Severity.NOTE,
        f"It comes without a description: {hardware.firmware.value.upper()}, SATA, {hardware.memory_mib} MiB and"
        f" {hardware.cpus} processors are assumed.",
        "--firmware uefi where it needs that.",
    )


def _is_called_raw(source: str) -> bool:
    name = without_query(source).lower()
    for suffix in (".gz", ".xz", ".zst"):
        name = name.removesuffix(suffix)
    return name.endswith((".raw", ".img", ".dd"))
