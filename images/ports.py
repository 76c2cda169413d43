"""Whether a port that should lead into a machine is free."""

from __future__ import annotations

import socket

from images.domain import Forward


def is_taken(forward: Forward) -> bool:
    """Whether something listens on the forward's port of this machine, or its address cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((forward.host, forward.host_port))
        except OSError:
            return True
    return False
