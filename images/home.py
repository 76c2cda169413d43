"""Where boxshift keeps images, machines and what it knows of them on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from kit.errors import FailedError, UsageError

VARIABLE = "BOXSHIFT_HOME"


@dataclass(frozen=True)
class Home:
    """The state folder.

    For root ``/var/lib/boxshift``: QEMU runs as another user there, so its folders may be passed through (0711) but not listed. For
    anyone else a private folder (0700).
    """

    root: Path

    @property
    def images(self) -> Path:
        """One folder per stored image, named by its digest."""
        return self.root / "images"

    @property
    def machines(self) -> Path:
        """One folder per machine, named by its UUID: disk and console log."""
        return self.root / "machines"

    @property
    def templates(self) -> Path:
        """Saved machines that are cloned: one folder each, named by what they depend on."""
        return self.root / "templates"

    @property
    def layers(self) -> Path:
        """Cached parts of images that were built."""
        return self.root / "layers"

    @property
    def daemon(self) -> Path:
        """The private libvirt daemon's folder."""
        return self.root / "libvirt"

    @property
    def ledger(self) -> Path:
        """What boxshift made: a SQLite file."""
        return self.root / "ledger.sqlite"

    def ledger_of(self, uri: str) -> Path:
        """What boxshift made on a hypervisor that keeps its files itself: a ledger for each, so that none is asked about another's."""
        return self.root / "hypervisors" / f"{render_slug(uri)}.sqlite"

    @property
    def cache(self) -> Path:
        """What can be measured again."""
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        """Lock files, one per thing that only one process may work on."""
        return self.root / "locks"


def find_home(env: Mapping[str, str] = os.environ) -> Home:
    """The state folder of this user: ``BOXSHIFT_HOME``, or the default.

    Raises:
        UsageError: the variable holds no absolute path.

    """
    given = env.get(VARIABLE)
    if given:
        if not Path(given).is_absolute():
            raise UsageError(f"{VARIABLE} must be an absolute path, not {given!r}.", hint=f"Set {VARIABLE} to a full path, or unset it.")
        return Home(Path(given))
    if os.geteuid() == 0:
        return Home(Path("/var/lib/boxshift"))
    data = env.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Home(Path(data) / "boxshift")


def render_slug(uri: str) -> str:
    """A file name for a hypervisor: where it is and which of its daemons, not by which key one gets there."""
    parts = urlsplit(uri)
    sockets = [value for key, value in parse_qsl(parts.query) if key == "socket"]
    where = "-".join((parts.netloc.rpartition("@")[2] or "here", parts.path.strip("/"), *sockets))
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", where).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(where.encode()).hexdigest()[:8]}"


def ensure_home(home: Home) -> Home:
    """Make the folders that are missing, with their modes.

    Raises:
        FailedError: a folder could not be made.

    """
    open_mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        home.root.parent.mkdir(parents=True, exist_ok=True)
        for folder in (home.root, home.images, home.machines, home.templates):
            folder.mkdir(mode=open_mode, exist_ok=True)
            folder.chmod(open_mode)
        for folder in (home.layers, home.cache, home.locks, home.ledger_of("any").parent):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FailedError(
            f"The state folder {home.root} could not be made: {error.strerror}.", hint=f"Set {VARIABLE} to a folder that can be written."
        ) from error
    return home


def find_closed_folder(path: Path) -> Path | None:
    """The first folder above ``path`` that other users may not pass through; None where all are open.

    With a system daemon QEMU runs as another user and must reach its disks.
    """
    for folder in reversed(path.resolve().parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None
