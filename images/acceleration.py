"""Which accelerator really works here, and how fast emulation is: found out by booting a 512-byte system, with a deadline.

``/dev/kvm`` proves nothing: it may open, create machines and be listed by libvirt while every ordinary guest hangs under it.
"""

from __future__ import annotations

import json
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.domain import Accelerator
from images.home import Home, ensure_home
from images.locking import hold
from images.seal import read_stamp
from kit.errors import DeadlineError, FailedError, ToolError
from kit.files import write_private
from kit.process import need_program, run
from kit.progress import Progress, Silent

WORD = b"boxshift"
ROUNDS = 400_000_000
# What the rounds take under TCG on the machine that measured.md's boot times are of; deadlines are scaled by the ratio to it.
REFERENCE_SECONDS = 1.5
KVM_SECONDS = 8.0
TCG_SECONDS = 120.0
KVM = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
EMULATOR = "qemu-system-x86_64"


@dataclass(frozen=True)
class Acceleration:
    """What was proved.

    ``factor``: how many times slower than the reference machine deadlines must reckon (at least 1.0). ``reason``: why KVM is not
    used, empty where it is. ``seconds``: how long the proof took.
    """

    accelerator: Accelerator
    factor: float
    reason: str
    seconds: float


def find_acceleration(home: Home, *, progress: Progress | None = None, again: bool = False) -> Acceleration:
    """The accelerator that was proved since this machine was booted (``again``: prove it anew).

    Raises:
        ToolError: QEMU is missing or cannot even emulate.
        DeadlineError: emulation did not get through a boot sector in time.

    """
    ensure_home(home)
    emulator = need_program(EMULATOR, package="qemu-system-x86")
    # Its stamp, not its version: to ask for that takes longer than a clone may.
    key = f"{BOOT_ID.read_text().strip()} {read_stamp(emulator)} {KVM.exists()}"
    cached = home.cache / "acceleration.json"
    with hold(home.locks / "acceleration", what="proving the accelerator", timeout=TCG_SECONDS + KVM_SECONDS):
        found = None if again else _read_cached(cached, key)
        if found is None:
            (progress or Silent()).update("finding out what this machine can run: booting a tiny system")
            found = prove(emulator)
            record = {
                "key": key,
                "accelerator": found.accelerator.value,
                "factor": found.factor,
                "reason": found.reason,
                "seconds": found.seconds,
            }
            write_private(cached, json.dumps(record).encode())
    return found


def prove(emulator: Path, *, kvm: Path = KVM) -> Acceleration:
    """Boot the tiny system, under KVM where its device is there, else (and where it does not come through) under TCG."""
    reason = f"{kvm} does not exist"
    if kvm.exists():
        try:
            return Acceleration(Accelerator.KVM, 1.0, "", _boot(emulator, ("-accel", "kvm", "-cpu", "host"), timeout=KVM_SECONDS))
        except DeadlineError:
            reason = f"{kvm} is there, but a guest hangs under it (no sign of life in {KVM_SECONDS:.0f} s)"
        except FailedError as error:
            said = str(error.facts.get("said") or error.sentence).splitlines()[0]
            reason = f"{kvm} is there, but a guest cannot start under it ({said.rstrip('.')})"
    seconds = _boot(emulator, ("-accel", "tcg,thread=multi", "-cpu", "max"), timeout=TCG_SECONDS)
    return Acceleration(Accelerator.TCG, max(1.0, round(seconds / REFERENCE_SECONDS, 2)), reason, seconds)


def render_boot_sector(rounds: int = ROUNDS) -> bytes:
    """A boot sector in 16-bit x86 code: counts ``rounds`` down while it adds, mixes and stores; writes a word to the serial port; exits."""
    head = bytes.fromhex("fa 31c0 8ed8 8ed0 bc007c") + b"\x66\xb9" + struct.pack("<I", rounds)  # cli; ax=ds=ss=0; sp; mov ecx, rounds
    loop = bytes.fromhex("6601c8 6635b979379e 66a30080 6649")  # add eax,ecx; xor eax,imm; mov [0x8000],eax; dec ecx
    loop += bytes((0x75, 256 - len(loop) - 2))  # jnz loop
    tail = bytes.fromhex("ac 84c0 7403 ee ebf8 b000 e6f4 f4 ebfd")  # lodsb; test al,al; jz +3; out dx,al; jmp -8; out 0xf4,0; hlt
    message = 0x7C00 + len(head) + len(loop) + 6 + len(tail)
    code = head + loop + b"\xbe" + struct.pack("<H", message) + bytes.fromhex("baf803") + tail + WORD + b"\0"
    return code.ljust(510, b"\0") + b"\x55\xaa"


def _boot(emulator: Path, accelerator: Sequence[str], *, timeout: float) -> float:
    """Seconds until the tiny system had done its work."""
    with tempfile.TemporaryDirectory(prefix="boxshift-boot-") as folder:
        disk = Path(folder) / "boot.img"
        disk.write_bytes(render_boot_sector().ljust(1440 * 1024, b"\0"))
        argv: list[str | Path] = [
            emulator, "-machine", "pc", *accelerator, "-m", "16", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", "stdio", "-drive", f"file={disk},format=raw,if=floppy,readonly=on", "-boot", "a",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
        ]  # fmt: skip
        start = time.monotonic()
        done = run(argv, timeout=timeout, accept=(1,))  # isa-debug-exit turns the written 0 into status 1
        seconds = time.monotonic() - start
    if WORD not in done.out:
        said = done.err.decode(errors="replace").strip()
        raise ToolError(
            f"{emulator.name} ended without a sign of life from the guest.",
            hint="Is QEMU installed whole?",
            program=emulator.name,
            said=said,
        )
    return round(seconds, 3)


def _read_cached(path: Path, key: str) -> Acceleration | None:
    try:
        record = json.loads(path.read_text())
        if record["key"] != key:
            return None
        return Acceleration(Accelerator(record["accelerator"]), float(record["factor"]), str(record["reason"]), float(record["seconds"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
