"""What a machine's first network card hangs on, where that is not QEMU's user networking: a network of the hypervisor's, or its bridge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from images.errors import SpecError

# What libvirt and Linux take for a name, less what would need quoting somewhere.
_NAMES = {"network": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"), "bridge": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")}


class UplinkKind(StrEnum):
    """The words are libvirt's."""

    NETWORK = "network"
    BRIDGE = "bridge"


@dataclass(frozen=True)
class Uplink:
    """``name``: of a libvirt network, or of a bridge of the hypervisor's."""

    kind: UplinkKind
    name: str

    def __post_init__(self) -> None:
        if not _NAMES[self.kind.value].fullmatch(self.name):
            raise SpecError(f"{self.name!r} cannot be the name of a {self.kind.value}.", hint="Letters, digits, dots, dashes.")

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}"


def find_uplink(network: str, bridge: str) -> Uplink | None:
    """The one that is named; None: neither is.

    Raises:
        SpecError: both are, or it is no name.

    """
    if network and bridge:
        raise SpecError("A machine's card hangs on a network or on a bridge, not on both.", hint="Name one of them.")
    if network or bridge:
        return Uplink(UplinkKind.NETWORK, network) if network else Uplink(UplinkKind.BRIDGE, bridge)
    return None
