"""A machine that is wanted, and what is true of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from images.domain import Forward
from images.errors import SpecError
from images.hypervisor import Power
from images.ledger import EntryState
from images.ready_page import ReadyPage
from images.segment import MOST_CARDS, SegmentCard

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class MachineSpec:
    """A machine that is wanted. ``image``: a name or digest in the store; memory in MiB, None for what the image asks for.

    ``ready``: the page that shows that it is ready; None: in the way of its image. ``segments``: cards beside the one to the outside.

    ``request_id`` makes asking twice the same as asking once: it finds the machine that was made for it, whole or half.
    """

    name: str
    image: str
    request_id: str
    forwards: tuple[Forward, ...] = ()
    memory_mib: int | None = None
    cpus: int | None = None
    ready: ReadyPage | None = None
    segments: tuple[SegmentCard, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(f"{self.name!r} cannot be a machine's name.", hint="Use lower-case letters, digits and dashes, at most 63.")
        if len({(one.host, one.host_port) for one in self.forwards}) != len(self.forwards):
            raise SpecError(f"Two forwards of {self.name} share one port.", hint="Give each its own address or port.")
        if len(self.segments) > MOST_CARDS:
            raise SpecError(f"{self.name} cannot have {len(self.segments)} cards on segments.", hint=f"It can have {MOST_CARDS}.")


@dataclass(frozen=True)
class MachineFacts:
    """What is true of a machine now. ``image`` is a digest; ``disk`` and ``console_log`` are files on the hypervisor.

    ``ready``: the page by which it is found ready, None for one of ours, which is asked for its health.
    """

    name: str
    uuid: str
    mac: str
    power: Power
    state: EntryState
    request_id: str
    image: str
    memory_mib: int
    cpus: int
    forwards: tuple[Forward, ...]
    disk: Path
    console_log: Path
    ready: ReadyPage | None = None
    segments: tuple[SegmentCard, ...] = ()
