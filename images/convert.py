"""qemu-img: disks in and out. It is always told the format, never finds one out by itself, and never opens a file that we did not name."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from images.formats import DiskSource
from images.import_errors import ConvertError, HostileSourceError, SourceError
from images.store import no_space
from images.vmdk_stream import convert_grains, find_grains
from kit.errors import DeadlineError, ToolError
from kit.process import Child, find_program, need_program, run
from kit.progress import Progress, Silent

STALL_SECONDS = 600.0
INFO_SECONDS = 60.0
MEMORY = 4 << 30  # bytes of address space for qemu-img: a header that asks for more is hostile
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


def render_node(disk: DiskSource, *, alone: bool) -> str:
    """The disk as QEMU's ``json:`` file name, every layer with its driver. ``alone``: open no file behind it, whatever it says.

    Raises:
        SourceError: the path is not UTF-8, which JSON cannot carry.

    """
    try:
        path = os.fsencode(disk.span.path).decode()
    except UnicodeDecodeError as error:
        raise SourceError("The file's path is not UTF-8; qemu-img cannot be told it.", hint="Rename it.") from error
    file = {"driver": "file", "filename": path, "locking": "off"}
    # In whole sectors: an archive pads its members, and QEMU reads a file's missing end as zeros.
    length = -(-disk.span.length // 512) * 512
    window: dict[str, object] = {"driver": "raw", "offset": disk.span.offset, "size": length, "file": file}
    whole = disk.span.offset == 0 and disk.span.path.stat().st_size == disk.span.length and not disk.span.length % 512
    if disk.driver == "raw":
        return "json:" + json.dumps(window)
    more: dict[str, object] = {"force_size_calc": "current_size"} if disk.driver == "vpc" else {}
    if alone and disk.driver in ("qcow2", "vmdk"):
        more["backing"] = None
    return "json:" + json.dumps({"driver": disk.driver, **more, "file": file if whole else window})


def verify_disk(disk: DiskSource) -> None:
    """Let qemu-img look at the header too, within narrow limits; both must see the same.

    Raises:
        HostileSourceError: it sees another file behind the disk.
        ConvertError: it cannot read the disk, or sees another size.

    """
    argv = [*_limited(), need_program("qemu-img", package="qemu-utils"), "info", "--output=json", render_node(disk, alone=False)]
    try:
        seen = json.loads(run(argv, timeout=INFO_SECONDS).out)
    except (ToolError, DeadlineError) as error:
        raise ConvertError(f"qemu-img cannot read the disk: {_reason(error)}", hint="Load it again; compare its checksum.") from error
    if "backing-filename" in seen or "data-file" in json.dumps(seen.get("format-specific", {})):
        raise HostileSourceError(
            "The disk stands on another file, which could be any file of this computer.", hint="Ask for the whole disk."
        )
    if int(seen["virtual-size"]) != disk.size:
        raise ConvertError(f"qemu-img sees a disk of {seen['virtual-size']} bytes where the header says {disk.size}.")


def convert_in(disk: DiskSource, target: Path, *, label: str, progress: Progress | None = None) -> None:
    """Write the disk as plain qcow2 to ``target``, which must not exist. The same content makes the same file.

    Raises:
        DamagedSourceError: a part of it cannot be unpacked.
        ConvertError, SpaceError, DeadlineError: it cannot be read, there is no room, or nothing moves for ten minutes.

    """
    grains = find_grains(disk.span) if disk.driver == "vmdk" else None
    if grains is not None and grains.size == disk.size:
        convert_grains(grains, target, label=label, progress=progress or Silent())
        return
    _convert([render_node(disk, alone=True)], ("-O", "qcow2"), target, label=label, progress=progress)


def convert_out(disk: Path, target: Path, *, options: Sequence[str], label: str, progress: Progress | None = None) -> None:
    """Write a stored qcow2 disk in another form. ``options``: qemu-img's, with ``-O``."""
    _convert(["-f", "qcow2", str(disk)], options, target, label=label, progress=progress)


def create_blank(target: Path, size: int) -> None:
    """An empty qcow2 disk of ``size`` bytes."""
    run([need_program("qemu-img", package="qemu-utils"), "create", "-q", "-f", "qcow2", target, str(size)], timeout=INFO_SECONDS)


def grow(target: Path, size: int) -> None:
    """Make a qcow2 disk ``size`` bytes large; what is new reads as zeros."""
    run([need_program("qemu-img", package="qemu-utils"), "resize", "-q", "-f", "qcow2", target, str(size)], timeout=INFO_SECONDS)


def _convert(source: Sequence[str], options: Sequence[str], target: Path, *, label: str, progress: Progress | None) -> None:
    shown = progress or Silent()
    argv = [*_limited(), need_program("qemu-img", package="qemu-utils"), "convert", "-p", *options, *source, target]
    with tempfile.TemporaryDirectory(prefix=".qemu-img-", dir=target.parent) as folder:
        log = Path(folder) / "log"
        with Child(argv, log=log) as child:
            _watch(child, log, label=label, shown=shown)
            status, said = child.status, _said(log)
    if status == 0:
        return
    if "No space left" in said:
        raise no_space(target)
    raise ConvertError(
        f"qemu-img could not convert the disk: {said or 'it said nothing'}", hint="Is the file whole?", status=status, said=said
    )


def _watch(child: Child, log: Path, *, label: str, shown: Progress) -> None:
    last, moved = -1.0, time.monotonic()
    while child.status is None:
        done = _percent(log)
        if done != last:
            last, moved = done, time.monotonic()
            shown.update(label, round(done, 1), 100)
        if time.monotonic() - moved > STALL_SECONDS:
            raise DeadlineError(f"qemu-img has not moved for {STALL_SECONDS:.0f} s.", hint="Is the disk or the network share stuck?")
        time.sleep(0.02)
    shown.update(label, 100, 100)


def _percent(log: Path) -> float:
    found = _PERCENT.findall(_tail(log))
    return float(found[-1]) if found else 0.0


def _tail(log: Path) -> bytes:
    with log.open("rb") as source:
        source.seek(max(0, log.stat().st_size - 4000))
        return source.read()


def _said(log: Path) -> str:
    text = re.sub(r"\s*\([\d.]+/100%\)\s*", "", _tail(log).decode(errors="replace")).strip()
    return text.splitlines()[-1].removeprefix("qemu-img: ")[-500:] if text else ""


def _reason(error: ToolError | DeadlineError) -> str:
    said = str(error.facts.get("said", "")) or error.sentence
    return said.splitlines()[-1].removeprefix("qemu-img: ")[-500:]


def _limited() -> list[str | Path]:
    """What limits the memory of a program that reads foreign headers."""
    prlimit = find_program("prlimit")
    return [prlimit, f"--as={MEMORY}", "--core=0", "--"] if prlimit else []
