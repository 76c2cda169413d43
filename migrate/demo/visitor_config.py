"""The visitor's configuration: a file of mode 0600, since it holds the Jump Clients' secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kit.files import write_private
from kit.secret import Secret
from migrate.cutover.dns_values import NameServer
from migrate.demo.config_file import read_private
from migrate.demo.jump_client import ClientAccount


@dataclass(frozen=True)
class VisitorConfig:
    """``rate`` in requests a second; every ``session_every``-th is a session; ``timeout`` and ``checkin_every`` in seconds.

    ``clients`` hand in the sessions, and each is a Jump Client of the swarm; with none there are page visits only.
    """

    site: str
    port: int
    ca_file: Path
    name_servers: tuple[NameServer, ...]
    journal: Path
    clients: tuple[ClientAccount, ...] = ()
    rate: float = 4.0
    session_every: int = 4
    timeout: float = 2.5
    checkin_every: float = 5.0
    client_version: str = ""
    page: str = "/"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Server(_Strict):
    address: str
    port: Annotated[int, Field(gt=0, lt=65536)]


class _Client(_Strict):
    client: str
    secret: str


class _File(_Strict):
    site: str
    port: Annotated[int, Field(gt=0, lt=65536)]
    ca_file: Path
    name_servers: Annotated[list[_Server], Field(min_length=1)]
    journal: Path
    clients: list[_Client] = []
    rate: Annotated[float, Field(gt=0, le=1000)] = 4.0
    session_every: Annotated[int, Field(gt=0)] = 4
    timeout: Annotated[float, Field(gt=0, le=60)] = 2.5
    checkin_every: Annotated[float, Field(gt=0)] = 5.0
    client_version: str = ""
    page: Annotated[str, Field(pattern="^/")] = "/"


def write_config(config: VisitorConfig, path: Path) -> None:
    """Write it, mode 0600."""
    content = {
        "site": config.site,
        "port": config.port,
        "ca_file": str(config.ca_file),
        "name_servers": [{"address": server.address, "port": server.port} for server in config.name_servers],
        "journal": str(config.journal),
        "clients": [{"client": one.client, "secret": one.secret.reveal()} for one in config.clients],
        "rate": config.rate,
        "session_every": config.session_every,
        "timeout": config.timeout,
        "checkin_every": config.checkin_every,
        "client_version": config.client_version,
        "page": config.page,
    }
    write_private(path, json.dumps(content, indent=1).encode())


def read_config(path: Path) -> VisitorConfig:
    """Read it.

    Raises:
        As :func:`read_private`.

    """
    raw = read_private(path, _File, "the visitor's")
    return VisitorConfig(
        site=raw.site,
        port=raw.port,
        ca_file=raw.ca_file,
        name_servers=tuple(NameServer(one.address, one.port) for one in raw.name_servers),
        journal=raw.journal,
        clients=tuple(ClientAccount(one.client, Secret(one.secret)) for one in raw.clients),
        rate=raw.rate,
        session_every=raw.session_every,
        timeout=raw.timeout,
        checkin_every=raw.checkin_every,
        client_version=raw.client_version,
        page=raw.page,
    )
