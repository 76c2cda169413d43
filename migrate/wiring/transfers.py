"""Packages for a closed network: the box's download key out, packages in, with a list that proves them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kit.errors import ChangedError, FailedError, RefusedError, UsageError
from kit.files import write_private
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.bomgar.shop import Fetched, Goods, UpdateShop
from migrate.plan_file import read_upgrade_plan
from migrate.secrets import resolve_secret
from migrate.transfer_folder import Transfer, read_transfer, verify_file
from migrate.wiring.boxes import open_planned_box

KEY_SECONDS = 2400 * 60.0  # how long a download key is valid


@dataclass(frozen=True)
class WrittenKey:
    """Where the key was written, and until when it is valid (Unix seconds of this machine)."""

    path: Path
    until: float


def write_key(plan_file: Path, target: Path) -> WrittenKey:
    """Read the box's download key into a file that only its owner can read.

    Raises:
        RefusedError: the box's clock is off: the key would not be taken.

    """
    loaded = read_upgrade_plan(plan_file, "The key is of the box that is upgraded.")
    with closing(open_planned_box(loaded)) as box:
        clock = box.read_clock()
        if abs(clock.offset) - clock.uncertainty > loaded.plan.verify.clock_tolerance:
            raise RefusedError(
                f"The clock of the box is off by {clock.offset:+.0f} s: its download key would be refused.",
                hint="Set NTP on /appliance under Networking > IP Configuration, then ask again.",
            )
        key = box.read_download_key()
    if key is None:
        raise FailedError("This version of the box shows no download key.", hint="Ask support for one.")
    write_private(target, key.reveal().encode() + b"\n")
    return WrittenKey(target, time.time() + KEY_SECONDS)


def read_goods(server: str, key: str, roots: Path | None) -> tuple[Goods, ...]:
    """What is on offer for a key; ``key`` is a reference to it."""
    with UpdateShop(server, roots) as shop:
        return shop.read_goods(_read_key(key))


def fetch(folder: Path, server: str, key: str, roots: Path | None, progress: Progress) -> Fetched:
    """Download everything on offer into ``folder``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}.") from error
    with UpdateShop(server, roots) as shop:
        return shop.fetch(_read_key(key), folder, progress)


def verify_folder(folder: Path) -> Transfer:
    """The folder's list, every file compared with it. Raises TransferError at the first that differs."""
    transfer = read_transfer(folder)
    if not transfer.packages:
        raise ChangedError(f"{folder} holds no packages.", hint="boxshift packages fetch fills it.")
    for entry in transfer.packages:
        verify_file(folder, entry)
    return transfer


def _read_key(reference: str) -> Secret:
    return Secret(resolve_secret(reference, base=Path(), what="the download key").reveal().strip())
