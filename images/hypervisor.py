"""libvirt: the only module that imports it. Its errors are translated here, in one place, into boxshift's."""

from __future__ import annotations

import base64
import enum
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import libvirt
import libvirt_qemu

from images.domain import Mark, find_mark
from images.errors import (
    AddressTakenError,
    GuestError,
    GuestSilentError,
    HypervisorError,
    HypervisorUnreachableError,
    SpaceError,
    UnknownMachineError,
)
from kit.errors import BoxshiftError, DeadlineError, RejectedError
from kit.process import Completed
from kit.secret import Secret, scrub

AGENT_SECONDS = 10
AGENT_POLL = 0.15
LINE_BYTES = 65536

# libvirt prints every error to standard error unless told not to; ours carry what it said.
libvirt.registerErrorHandler(lambda *_: None, None)


class Power(enum.Enum):
    """Whether a machine runs, as the hypervisor says."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    CRASHED = "crashed"
    ABSENT = "absent"

    @property
    def is_off(self) -> bool:
        """No process runs for it."""
        return self in (Power.OFF, Power.CRASHED, Power.ABSENT)


_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.RUNNING,  # on its way; its process still runs
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.OFF,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
}
# Codes that mean the daemon is gone or never was there, whatever the call; and the layers whose system errors mean the same.
_GONE = {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_RPC}
_WIRE = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
_DENIED = {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE, libvirt.VIR_ERR_ACCESS_DENIED}


@dataclass(frozen=True)
class DomainFacts:
    """What libvirt says of one domain. ``mark`` is None for one that boxshift did not make."""

    name: str
    uuid: str
    power: Power
    mark: Mark | None


@dataclass(frozen=True)
class HypervisorFacts:
    """Versions as ``major.minor.patch``."""

    uri: str
    libvirt: str
    qemu: str


def translate(error: libvirt.libvirtError, doing: str) -> BoxshiftError:  # noqa: PLR0911 - one row for each meaning
    """Our error for one of libvirt's; ``doing`` completes "The hypervisor could not …"."""
    code, said = error.get_error_code(), " ".join((error.get_error_message() or "").split())
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return UnknownMachineError(
            f"The hypervisor could not {doing}: it knows no such domain.", hint="`boxshift lab list` shows what is there."
        )
    if code in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED):
        return GuestSilentError(
            f"The hypervisor could not {doing}: the agent inside the machine does not answer.", hint="Is it still starting?"
        )
    if code in _DENIED:
        return RejectedError(f"libvirt refused to {doing}: {said}.", hint="Join the group libvirt, run as root, or use qemu:///session.")
    if "Could not set up host forwarding rule" in said:
        return AddressTakenError(
            f"The hypervisor could not {doing}: a port that leads into the machine is in use.",
            hint="Find what listens there (ss -ltnp), or choose other addresses.",
            said=said,
        )
    if "No space left on device" in said:
        return SpaceError(f"The hypervisor could not {doing}: no space left on the disk.", hint="Free space on the hypervisor.", said=said)
    if code in _GONE or (code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_error_domain() in _WIRE) or "client socket is closed" in said:
        return HypervisorUnreachableError(
            f"The hypervisor could not {doing}: its daemon does not answer.",
            hint="`boxshift doctor` tells what is wrong with it.",
            said=said,
        )
    hint = "The folders above the machine's disk must be open to the user that QEMU runs as." if "Permission denied" in said else ""
    return HypervisorError(
        f"The hypervisor could not {doing}: {said}.", hint=hint or "`boxshift doctor` looks for the usual causes.", code=code
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Errors of libvirt become ours; ``doing`` as :func:`translate` has it."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, doing) from error


class Hypervisor:
    """One libvirt daemon. Opens its connection at first use and again when the daemon was restarted. Safe to use from several threads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._link: libvirt.virConnect | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection up; machines keep running."""
        with self._lock:
            link, self._link = self._link, None
            if link is not None:
                with _quiet():
                    link.close()

    def read_facts(self) -> HypervisorFacts:
        """Its versions.

        Raises:
            HypervisorUnreachableError: no daemon answers at the URI.

        """
        with translated(f"open {self.uri}"):
            link = self.link()
            return HypervisorFacts(self.uri, _version(link.getLibVersion()), _version(link.getVersion()))

    def read_capabilities(self) -> str:
        """What libvirt tells of its computer and its drivers, as XML."""
        with translated("tell what it can do"):
            return str(self.link().getCapabilities())

    def find_domain(self, name: str) -> DomainFacts | None:
        """The domain of that name, whoever made it."""
        with translated(f"look for {name}"):
            for one in self.link().listAllDomains():
                with _ignoring_vanished():
                    if one.name() == name:
                        return self._facts(one)
            return None

    def list_domains(self) -> tuple[DomainFacts, ...]:
        """All domains, whoever made them, by name."""
        with translated("list its domains"):
            found: list[DomainFacts] = []
            for one in self.link().listAllDomains():
                with _ignoring_vanished():
                    found.append(self._facts(one))
            return tuple(sorted(found, key=lambda facts: facts.name))

    def define(self, xml: str) -> None:
        """Make a domain known, or change one of the same name and UUID."""
        with translated("define the machine"):
            self.link().defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def start(self, uuid: str) -> None:
        """Start it, where it does not run."""
        with translated("start the machine"):
            domain = self._domain(uuid)
            if not domain.isActive():
                domain.create()

    @contextmanager
    def passing(self, xml: str) -> Iterator[Callable[[], bool]]:
        """Start a machine that is nowhere written down, and end it afterwards; libvirt ends it too if this process dies.

        What is yielded tells whether it has ended by itself.
        """
        with translated("start a machine for a moment"):
            domain = self.link().createXML(xml, libvirt.VIR_DOMAIN_START_AUTODESTROY)

        def is_over() -> bool:
            with translated("ask for the machine"):
                return _is_gone(domain)

        try:
            yield is_over
        finally:
            with _quiet():
                domain.destroy()

    def request_shutdown(self, uuid: str) -> None:
        """Ask the system inside to shut down; does not wait."""
        with translated("shut the machine down"):
            domain = self._domain(uuid)
            if domain.isActive():
                # Through the agent; where none answers, by the power button.
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT | libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def destroy(self, uuid: str) -> None:
        """Cut its power, where it runs."""
        with translated("cut the machine's power"):
            domain = self._domain(uuid)
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it went off by itself in between
                    raise

    def undefine(self, uuid: str) -> None:
        """Make libvirt forget it; its disk stays. Not while it runs."""
        with translated("forget the machine"):
            self._domain(uuid).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)

    def ping_agent(self, uuid: str) -> bool:
        """Whether the agent inside answers."""
        try:
            self._agent(uuid, "guest-ping", {})
        except (GuestSilentError, HypervisorError):
            return False
        return True

    def read_addresses(self, uuid: str, *, mac: str = "") -> tuple[str, ...]:
        """The IPv4 addresses inside, but loopback, as the agent says; ``mac``: only those of this card."""
        answer = self._agent(uuid, "guest-network-get-interfaces", {})
        cards = (card for card in answer if mac in ("", card.get("hardware-address")))
        found = (address for card in cards for address in card.get("ip-addresses", ()))
        return tuple(
            one["ip-address"] for one in found if one["ip-address-type"] == "ipv4" and not one["ip-address"].startswith("127.")
        )  # fmt: skip

    def run_in_guest(self, uuid: str, argv: Sequence[str], *, stdin: bytes | Secret | None, timeout: float) -> Completed:
        """Run a program inside the machine through its agent, to its end; any exit status is an answer. ``timeout`` in seconds.

        Raises:
            GuestSilentError: the agent does not answer.
            GuestError: it could not start the program.
            DeadlineError: the program did not end in time (it goes on inside).

        """
        given = stdin.to_bytes() if isinstance(stdin, Secret) else stdin
        asked: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if given is not None:
            asked["input-data"] = base64.b64encode(given).decode()
        try:
            pid = self._agent(uuid, "guest-exec", asked)["pid"]
        except HypervisorError as error:
            said = scrub(str(error), stdin) if isinstance(stdin, Secret) else str(error)
            raise GuestError(f"The machine could not run {argv[0]}: {said}", hint="Is it installed in the image?") from None
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            state = self._agent(uuid, "guest-exec-status", {"pid": pid})
            if state["exited"]:
                status = state.get("exitcode", 128 + int(state.get("signal", 0)))
                return Completed(int(status), *(base64.b64decode(state.get(key, "")) for key in ("out-data", "err-data")))
            time.sleep(AGENT_POLL)
        raise DeadlineError(f"{argv[0]} inside the machine did not end within {timeout:g} s.", hint="Look inside: boxshift lab console.")

    def save(self, uuid: str, target: Path) -> None:
        """Write a running machine's whole state to a file of the hypervisor and end its process. The file can be read by root only."""
        with translated("save the machine"):
            self._domain(uuid).saveFlags(str(target), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)

    def restore(self, source: Path) -> None:
        """Start the machine that a saved state (a file or a pipe) describes, from where it was saved."""
        with translated("restore the machine"):
            self.link().restoreFlags(str(source), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)

    def ask_port(self, uuid: str, port: str, question: bytes, *, timeout: float) -> bytes:
        """Write one line to the machine's virtio port and read the line that answers it. ``timeout`` in seconds.

        Raises:
            GuestSilentError: nothing answers, or not in time.

        """
        with translated("talk to the machine"):
            stream = self.link().newStream(0)
            self._domain(uuid).openChannel(port, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE)
            return _converse(stream, question, timeout=timeout)

    def _agent(self, uuid: str, command: str, arguments: Mapping[str, object]) -> Any:
        asked = json.dumps({"execute": command, "arguments": dict(arguments)})
        with translated(f"ask the machine's agent ({command})"):
            return json.loads(libvirt_qemu.qemuAgentCommand(self._domain(uuid), asked, AGENT_SECONDS, 0))["return"]

    def link(self) -> libvirt.virConnect:
        """The connection itself, for the modules of this adapter."""
        with self._lock:
            if self._link is not None and not _alive(self._link):
                self._link = None
            if self._link is None:
                self._link = libvirt.open(self.uri)
            return self._link

    def _domain(self, uuid: str) -> libvirt.virDomain:
        return self.link().lookupByUUIDString(uuid)

    def _facts(self, domain: libvirt.virDomain) -> DomainFacts:
        power = _POWER.get(domain.state()[0], Power.RUNNING)
        return DomainFacts(domain.name(), domain.UUIDString(), power, find_mark(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))


def _converse(stream: libvirt.virStream, question: bytes, *, timeout: float) -> bytes:
    """Reading blocks, so that a timer gives the stream up."""
    late = threading.Timer(timeout, _abort, (stream,))
    late.start()
    heard = b""
    try:
        stream.send(question)
        while not heard.endswith(b"\n"):
            part = stream.recv(LINE_BYTES)
            if not part:
                raise GuestSilentError("The agent inside the machine hung up.", hint="Look at its console: boxshift lab console.")
            heard += part
    except libvirt.libvirtError as error:
        raise GuestSilentError(
            f"The agent inside the machine did not answer within {timeout:g} s.", hint="Look at its console: boxshift lab console."
        ) from error
    finally:
        late.cancel()
        _abort(stream)
    return heard


def _abort(stream: libvirt.virStream) -> None:
    with _quiet():
        stream.abort()


@contextmanager
def _quiet() -> Iterator[None]:
    """For closing what may be gone already."""
    try:
        yield
    except libvirt.libvirtError:
        return


@contextmanager
def _ignoring_vanished() -> Iterator[None]:
    """A domain that went away between being listed and being read is not in the list."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise


def _is_gone(domain: libvirt.virDomain) -> bool:
    try:
        return not domain.isActive()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return True


def _alive(link: libvirt.virConnect) -> bool:
    try:
        return bool(link.isAlive())
    except libvirt.libvirtError:
        return False


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
