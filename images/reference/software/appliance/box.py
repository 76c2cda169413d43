"""Where a box keeps its things, which skin it wears, and what its hardware says of itself."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

DMI = Path("/sys/class/dmi/id")


class Skin(Enum):
    """What a box is made of.

    LOCAL: processes on loopback addresses. MACHINE: a whole (virtual) machine, whose network and power are really changed.
    """

    LOCAL = "local"
    MACHINE = "machine"


@dataclass(frozen=True)
class Box:
    """One box.

    ``admin`` is its administration address ("" in a machine: the one from DHCP); ``service`` are further addresses it
    starts with when it is new. All running processes have ``root`` as their working folder, so that socket paths stay short.
    """

    root: Path
    skin: Skin
    port: int
    factory: Path
    admin: str = ""
    service: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        """All that a factory reset wipes."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """Sockets, nginx's configuration, temporary files."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def releases(self) -> Path:
        return self.data / "releases"

    @property
    def downloads(self) -> Path:
        return self.data / "downloads"

    def save(self) -> None:
        """Write what other commands on this box need to find it."""
        facts = asdict(self) | {"skin": self.skin.value, "root": str(self.root), "factory": str(self.factory)}
        write_whole(self.root / "box.json", json.dumps(facts).encode())


def read_box(root: Path) -> Box:
    """The box that was once started in this folder."""
    facts = json.loads((root / "box.json").read_text())
    return Box(
        root=Path(facts["root"]),
        skin=Skin(facts["skin"]),
        port=facts["port"],
        factory=Path(facts["factory"]),
        admin=facts["admin"],
        service=tuple(facts["service"]),
    )


@dataclass(frozen=True)
class Hardware:
    """What survives a factory reset: the serial number, and how often the box was reset."""

    serial: str
    resets: int


def read_hardware(box: Box) -> Hardware:
    """The machine's own serial (DMI), or one made when the local box was first started."""
    path = box.root / "hardware.json"
    if not path.exists():
        save_hardware(box, Hardware(_serial(box), 0))
    facts = json.loads(path.read_text())
    return Hardware(facts["serial"], facts["resets"])


def save_hardware(box: Box, hardware: Hardware, *, durable: bool = True) -> None:
    """Write it down outside the data folder."""
    write_whole(box.root / "hardware.json", json.dumps(asdict(hardware)).encode(), durable=durable)


def _serial(box: Box) -> str:
    if box.skin is Skin.MACHINE:
        for name in ("product_serial", "product_uuid"):
            try:
                said = (DMI / name).read_text().strip()
            except OSError:
                continue
            if said and said.lower() not in ("none", "not specified", "0"):
                return said.upper()
    return f"RA-{uuid.uuid4().hex[:12].upper()}"


def write_whole(path: Path, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write a file so that it is whole or not there, with ``mode`` from its first byte on.

    It is on the disk at the end, unless it need not be ``durable``.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as sink:
            sink.write(content)
            if durable:
                sink.flush()
                os.fsync(sink.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
