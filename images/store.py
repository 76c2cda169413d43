"""The image store: every image in a folder named by the SHA-256 of its disk, files read-only, checked before a machine boots from it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from images.errors import AlteredImageError, SpaceError, SpecError, UnknownImageError
from images.hardware import MachineHardware
from images.home import Home, ensure_home
from images.locking import hold
from images.ready_page import ReadyPage
from images.seal import find_altered, hash_file
from kit.errors import FailedError, ToolError
from kit.files import write_private
from kit.findings import Finding
from kit.process import need_program, run

DISK, KERNEL, INITRD, FACTS, SEAL = "disk.qcow2", "kernel", "initrd", "image.json", "seal.json"
QEMU_IMG_SECONDS = 120.0
DIGEST = re.compile("[0-9a-f]{64}")
HALF_AGE = 60.0  # seconds; a younger one may be about to be held

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where a foreign image came from: a file name or address, what its manifest and its signature were worth, what was found."""

    source: str
    manifest: str = ""
    trust: str = ""
    signer: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What is known of an image that is given to the store; memory in MiB. ``built_from`` is the digest of the recipe and its inputs.

    ``hardware`` and ``origin``: of a foreign image, which need not have a kernel beside its disk. ``ready``: the page by which its
    machines are found ready, None: the usual one.
    """

    name: str
    built_from: str
    kernel_arguments: tuple[str, ...]
    memory_mib: int
    cpus: int
    hardware: MachineHardware | None = None
    origin: Origin | None = None
    ready: ReadyPage | None = None


@dataclass(frozen=True)
class Image:
    """A stored image. ``size``: bytes on this machine's disk. ``created``: seconds since 1970.

    ``digest``: SHA-256 in hex, of its disk; of a foreign image, over the digests of all its files and its hardware. ``other_names``:
    the same image was stored under these before. ``hardware``: what a foreign image's machine needs; None for one that was built here.
    """

    digest: str
    name: str
    built_from: str
    created: float
    size: int
    folder: Path
    kernel_arguments: tuple[str, ...]
    memory_mib: int
    cpus: int
    other_names: tuple[str, ...] = ()
    hardware: MachineHardware | None = None
    origin: Origin | None = None
    ready: ReadyPage | None = None

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def kernel(self) -> Path:
        self._need_kernel()
        return self.folder / KERNEL

    @property
    def initrd(self) -> Path:
        self._need_kernel()
        return self.folder / INITRD

    def _need_kernel(self) -> None:
        if self.hardware is not None and self.hardware.kernel is None:
            raise SpecError(f"The image {self.name} has no kernel beside its disk: its machines are started by their firmware.")


def create_overlay(base: Path, target: Path, *, timeout: float) -> None:
    """A qcow2 disk at ``target`` that holds what differs from ``base``. ``timeout`` in seconds."""
    qemu_img = need_program("qemu-img", package="qemu-utils")
    run([qemu_img, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, target], timeout=timeout)


class Store:
    """The images of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @contextmanager
    def importing(self) -> Iterator[Path]:
        """A folder to put an image's files in, for :meth:`add`. Gone afterwards, whatever happens."""
        ensure_home(self._home)
        for left in self.list_leftovers():
            if left.name.startswith(".half-"):
                shutil.rmtree(left, ignore_errors=True)
        folder = self._home.images / f".half-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # ends with this process, however that ends
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def list_leftovers(self) -> tuple[Path, ...]:
        """What killed processes left: half imports whose process is gone, half removals, folders without facts."""
        folders = [path for path in self._home.images.glob("*") if path.is_dir() and not path.is_symlink()]
        half = [path for path in folders if path.name.startswith(".half-") and _is_abandoned(path)]
        lost = [path for path in folders if len(path.name) == 64 and not (path / FACTS).exists()]
        return tuple(sorted({*half, *lost, *(path for path in folders if path.name.startswith(".gone-"))}))

    def add(self, folder: Path, facts: Imported) -> Image:
        """Take the files of ``folder`` as an image: hashed, made read-only, moved in as one.

        An image that was built has disk.qcow2, kernel and initrd; a foreign one (``facts.hardware``) the files that its hardware names.
        """
        names = (DISK, KERNEL, INITRD) if facts.hardware is None else _files_of(facts.hardware)
        for name in names:
            (folder / name).chmod(0o444 if facts.hardware is None else 0o400)
        # Writing to the disk and counting digests side by side: one waits, the other works.
        with ThreadPoolExecutor(max_workers=2) as beside:
            written = [beside.submit(_sync, folder / name) for name in names]
            digests = {name: hash_file(folder / name) for name in names}
            for one in written:
                one.result()
        target = self._home.images / (digests[DISK] if facts.hardware is None else _identity(digests, facts.hardware))
        record = {**asdict(facts), "created": time.time(), "digests": digests, "other_names": self._names_before(target, facts.name)}
        write_private(folder / FACTS, json.dumps(record, indent=1).encode())
        with hold(self._home.locks / "store", what="changing the image store", timeout=60):
            if target.exists():  # the same disk under another name or recipe: its facts are the newer ones
                write_private(target / FACTS, json.dumps(record, indent=1).encode())
            else:
                folder.chmod(self._home.images.stat().st_mode & 0o777)
                folder.rename(target)
        return self._read(target)

    def list_images(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        found = [self._read(path.parent) for path in self._home.images.glob(f"[0-9a-f]*/{FACTS}")]
        return tuple(sorted(found, key=lambda image: image.created, reverse=True))

    def find_built(self, built_from: str) -> Image | None:
        """The image that was built from exactly these inputs."""
        return next((image for image in self.list_images() if image.built_from == built_from), None)

    def read_image(self, wanted: str) -> Image:
        """The image of that digest (or at least 8 first digits of it), or the newest one of that name.

        Raises:
            UnknownImageError: there is none.

        """
        exact = self._home.images / wanted
        if DIGEST.fullmatch(wanted) and (exact / FACTS).exists():  # what machines name; all the others need not be read for it
            return self._read(exact)
        images = self.list_images()
        for image in images:
            if wanted in (image.name, *image.other_names) or (len(wanted) >= 8 and image.digest.startswith(wanted)):
                return image
        known = ", ".join(sorted({image.name for image in images})) or "none yet"
        raise UnknownImageError(
            f"There is no image {wanted!r} in the store.", hint=f"Known images: {known}. `boxshift images build` and `import` make one."
        )

    def read_digests(self, image: Image) -> Mapping[str, str]:
        """The SHA-256 in hex of every file of the image, by its name in the image's folder."""
        digests: Mapping[str, str] = json.loads((image.folder / FACTS).read_text())["digests"]
        return digests

    def verify(self, image: Image, *, thorough: bool = False) -> None:
        """Make sure that the image is what was stored. Files whose size, modification time and inode are as last seen are not read again.

        Raises:
            AlteredImageError: a file is another one, or missing.

        """
        try:
            altered = find_altered(image.folder, self.read_digests(image), image.folder / SEAL, thorough=thorough)
        except FileNotFoundError as error:
            lost = Path(error.filename).name
            raise AlteredImageError(
                f"The stored image {image.name} has lost its file {lost}.",
                hint=f"Remove it (boxshift images remove {image.digest[:12]}) and build it again.",
                image=image.digest,
                file=lost,
            ) from error
        if altered:
            raise AlteredImageError(
                f"The stored image {image.name} was altered: {altered} is no longer what was stored.",
                hint=f"Do not boot from it. Remove it (boxshift images remove {image.digest[:12]}) and make it again.",
                image=image.digest,
                file=altered,
            )

    def make_overlay(self, image: Image, target: Path, *, disk: str = DISK) -> None:
        """A disk for one machine: a qcow2 overlay on a read-only disk of the image. Whole or not there at all.

        Raises:
            AlteredImageError: the image is not what was stored.
            SpaceError: no room left.
            ToolError: qemu-img failed otherwise.

        """
        self.verify(image)
        # A name of its own each time: the qemu-img of a process that was killed may still be writing the one before.
        half = target.with_name(f".{target.name}.half-{secrets.token_hex(4)}")
        _remove_halves(target)
        try:
            create_overlay(image.folder / disk, half, timeout=QEMU_IMG_SECONDS)
            _sync(half)
            half.rename(target)
            _remove_halves(target)
        except ToolError as error:
            half.unlink(missing_ok=True)
            if "No space left" in str(error.facts.get("said", "")):
                raise no_space(target) from error
            raise
        except OSError as error:
            half.unlink(missing_ok=True)
            raise no_space(target, error) from error

    def remove(self, image: Image) -> None:
        """Delete the image from the disk. Whether a machine stands on it is for the caller to know."""
        with hold(self._home.locks / "store", what="changing the image store", timeout=60):
            gone = image.folder.with_name(f".gone-{image.digest[:16]}-{secrets.token_hex(4)}")
            if image.folder.exists():
                image.folder.rename(gone)
        for left in self._home.images.glob(".gone-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _read(self, folder: Path) -> Image:
        record = json.loads((folder / FACTS).read_text())
        size = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        return Image(
            digest=folder.name,
            name=str(record["name"]),
            built_from=str(record["built_from"]),
            created=float(record["created"]),
            size=size,
            folder=folder,
            kernel_arguments=tuple(record["kernel_arguments"]),
            memory_mib=int(record["memory_mib"]),
            cpus=int(record["cpus"]),
            other_names=tuple(record.get("other_names", ())),
            hardware=_load(MachineHardware, record.get("hardware")),
            origin=_load(Origin, record.get("origin")),
            ready=_load(ReadyPage, record.get("ready")),
        )

    def _names_before(self, target: Path, name: str) -> list[str]:
        if not (target / FACTS).exists():
            return []
        image = self._read(target)
        return sorted({image.name, *image.other_names} - {name})


def _load(kind: type[T], record: object) -> T | None:
    if record is None:
        return None
    from pydantic import TypeAdapter

    loaded: T = TypeAdapter(kind).validate_python(record)
    return loaded


def _files_of(hardware: MachineHardware) -> tuple[str, ...]:
    drives = tuple(dict.fromkeys(drive.file for drive in hardware.drives if drive.file))
    return (*drives, KERNEL, INITRD) if hardware.kernel is not None else drives


def _identity(digests: Mapping[str, str], hardware: MachineHardware) -> str:
    """Over what the machine is, not over the answers it was given."""
    asked = tuple(replace(one, value=None, reference="") for one in hardware.properties)
    told = json.dumps([sorted(digests.items()), asdict(replace(hardware, properties=asked))], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _is_abandoned(folder: Path) -> bool:
    """True where no process holds the folder any more."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return not Path("/proc", folder.name.split("-")[1]).exists() or time.time() - folder.stat().st_mtime > HALF_AGE


def no_space(target: Path, error: OSError | None = None) -> SpaceError:
    """The error for a disk that could not be written in full."""
    reason = f": {error.strerror}" if error is not None else ": no space left on the disk"
    return SpaceError(f"The disk {target} could not be made{reason}.", hint=f"Free space under {target.parent}, then do it again.")


def _remove_halves(target: Path) -> None:
    for left in target.parent.glob(f".{target.name}.half-*"):
        left.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        raise FailedError(f"{path} could not be written to the disk: {error.strerror}.", hint="Is the disk failing?") from error
    finally:
        os.close(handle)
