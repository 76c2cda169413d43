"""A hypervisor in memory with the verbs of the real one, for tests of what is decided above it. It can die before or after any verb."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images import identity
from images.acceleration import Acceleration
from images.domain import Accelerator, Forward, Mark, find_mark
from images.errors import AddressTakenError, GuestSilentError, HypervisorError, UnknownMachineError
from images.home import Home
from images.hypervisor import DomainFacts, HypervisorFacts, Power
from images.machine import Machines, MachineSpec
from images.saved import Saved, read_saved, render_saved
from images.store import Image, Imported, Store
from kit.process import Completed
from kit.secret import Secret

EMULATED = Acceleration(Accelerator.TCG, 1.0, "a test", 0.1)
FORWARDS = (Forward("127.0.3.11", 18443, "10.0.2.15", 443),)


class Killed(BaseException):
    """As kill -9: nothing that catches errors sees it."""


@dataclass
class FakeHypervisor:
    """``domains``: name -> [uuid, power, xml]. ``before`` is called with each verb's name before it acts, ``after`` when it has."""

    uri: str = "test:///fake"
    domains: dict[str, list[object]] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    agent_answers: bool = True
    addresses: tuple[str, ...] = ("10.0.2.15",)
    address_taken: bool = False
    obeys_shutdown: bool = True
    calls: list[str] = field(default_factory=list)
    identity_agent: bool = True
    answers: dict[str, dict[str, object] | Callable[[dict[str, object]], dict[str, object]]] = field(default_factory=dict)
    asked: list[dict[str, object]] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    capabilities: str = "<capabilities><host><secmodel><model>apparmor</model></secmodel></host></capabilities>"
    stream: bytes = b"QEVM and what QEMU wrote"
    stream_without_memory: bytes = b""

    def find_domain(self, name: str) -> DomainFacts | None:
        self._verb("find_domain")
        found = self.domains.get(name)
        return DomainFacts(name, str(found[0]), found[1], find_mark(str(found[2]))) if found else None

    def list_domains(self) -> tuple[DomainFacts, ...]:
        return tuple(self.find_domain(name) for name in sorted(self.domains))

    def define(self, xml: str) -> None:
        self._verb("define")
        name, uuid = (re.search(f"<{tag}>(.*?)</{tag}>", xml).group(1) for tag in ("name", "uuid"))
        power = self.domains[name][1] if name in self.domains else Power.OFF
        self.domains[name] = [uuid, power, xml]
        self.after("define")

    def start(self, uuid: str) -> None:
        self._verb("start")
        if self.address_taken:
            raise AddressTakenError("libvirt could not start the machine: a port that leads into the machine is in use.")
        self._of(uuid)[1] = Power.RUNNING
        self.after("start")

    def request_shutdown(self, uuid: str) -> None:
        self._verb("request_shutdown")
        if self.obeys_shutdown:
            self._of(uuid)[1] = Power.OFF
        self.after("request_shutdown")

    def destroy(self, uuid: str) -> None:
        self._verb("destroy")
        self._of(uuid)[1] = Power.OFF
        self.after("destroy")

    def undefine(self, uuid: str) -> None:
        self._verb("undefine")
        self._of(uuid)
        self.domains = {name: one for name, one in self.domains.items() if one[0] != uuid}
        self.after("undefine")

    def read_capabilities(self) -> str:
        return self.capabilities

    def read_facts(self) -> HypervisorFacts:
        return HypervisorFacts(self.uri, "9.0.0", "7.2.22")

    def save(self, uuid: str, target: Path) -> None:
        self._verb("save")
        one = self._of(uuid)
        target.write_bytes(render_saved(Saved(str(one[2]), "<cookie/>", was_running=True, start=0)) + self.stream)
        one[1] = Power.OFF
        self.after("save")

    def restore(self, source: Path) -> None:
        self._verb("restore")
        with source.open("rb") as stream:
            everything = stream.read()
        saved = read_saved(io.BytesIO(everything))
        assert everything[saved.start :] in (self.stream, self.stream_without_memory)
        name = re.search("<name>(.*?)</name>", saved.xml).group(1)
        self.domains[name][1] = Power.RUNNING
        self.restored.append(saved.xml)
        self.after("restore")

    def ask_port(self, uuid: str, port: str, question: bytes, *, timeout: float) -> bytes:
        asked = json.loads(question)
        self._verb(asked["ask"])
        self.asked.append(asked)
        if not self.identity_agent:
            raise GuestSilentError("the agent inside does not answer")
        self.after(asked["ask"])
        answer = self.answers.get(asked["ask"], {})
        told = answer(asked) if callable(answer) else answer
        return json.dumps({"ok": True, "version": identity.VERSION, "time": time.time()} | told).encode() + b"\n"

    def ping_agent(self, uuid: str) -> bool:
        return self.agent_answers

    def read_addresses(self, uuid: str, *, mac: str = "") -> tuple[str, ...]:
        return self.addresses

    def link(self) -> object:
        raise HypervisorError("a hypervisor in memory has no networks")

    def run_in_guest(self, uuid: str, argv: Sequence[str], *, stdin: bytes | Secret | None, timeout: float) -> Completed:
        if not self.agent_answers:
            raise GuestSilentError("the agent does not answer")
        return Completed(0, b"appliance.service failed\n", b"")

    def _verb(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)

    def _of(self, uuid: str) -> list[object]:
        found = next((one for one in self.domains.values() if one[0] == uuid), None)
        if found is None:
            raise UnknownMachineError("no such domain")
        return found


class QuickStore(Store):
    """A store whose overlays need no program."""

    def make_overlay(self, image: Image, target: Path, *, disk: str = "disk.qcow2") -> None:
        self.verify(image)
        target.write_bytes(b"overlay")


class FakeMachines(Machines):
    """Machines on a fake hypervisor, with overlays that need no program, and no accelerator to prove."""

    def __init__(self, home: Home, hypervisor: FakeHypervisor) -> None:
        super().__init__(home, hypervisor)
        self.store = QuickStore(home)

    @property
    def acceleration(self) -> Acceleration:
        return EMULATED


def store_image(store: Store, name: str = "tiny", content: bytes = b"disk", kernel: bytes = b"kernel") -> Image:
    """An image of three small files."""
    with store.importing() as folder:
        for file, data in (("disk.qcow2", content), ("kernel", kernel), ("initrd", b"initrd")):
            (folder / file).write_bytes(data)
        return store.add(folder, Imported(name, f"inputs of {name}", ("quiet",), 256, 1))


def spec(name: str = "old", request: str = "request-1") -> MachineSpec:
    return MachineSpec(name, "tiny", request, FORWARDS)


def foreign_xml(name: str, uuid: str, mark: Mark | None = None) -> str:
    """A domain that someone else made, or that pretends to be ours."""
    tag = f'<m:machine xmlns:m="urn:boxshift:machine:1" owner="{mark.owner}" mark="{mark.mark}" request="{mark.request}"/>' if mark else ""
    return f"<domain><name>{name}</name><uuid>{uuid}</uuid><metadata>{tag}</metadata></domain>"
