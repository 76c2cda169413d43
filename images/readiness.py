"""Waiting until a machine is ready, and telling how far it came when it does not get there."""

from __future__ import annotations

import enum
import hashlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass

from images.errors import GuestSilentError, NotReadyError
from images.hypervisor import Power
from images.machine import MachineFacts, Machines
from images.ready_page import ReadyPage, ask_page, link_unjudged
from kit.errors import DeadlineError, FailedError, UnreachableError
from kit.progress import Progress, Silent
from kit.waiting import wait_for

BOOT_SECONDS = 180.0
TLS_PORT = 443
PANIC = "Kernel panic - not syncing"

Probe = Callable[[MachineFacts], bool]


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, and the SHA-256 of the certificate that was served, in hex."""

    status: int
    leaf: str

    @property
    def is_service(self) -> bool:
        """The service itself answered, not a front that says it is not there."""
        return self.status < http.client.INTERNAL_SERVER_ERROR


class Stage(enum.Enum):
    """How far a machine came, in order."""

    STOPPED = "its process does not run"
    PANIC = "its kernel gave up"
    NO_PAGE = "it runs, but its page does not answer as wanted, and no agent inside tells more"
    NO_ADDRESS = "it runs, but nobody knows an address of it on its network"
    STARTING = "it runs, but the agent inside does not answer: the system has not come up"
    NO_NETWORK = "its system is up, but has no network address"
    NO_SERVICE = "its system is up and has an address, but its service does not answer"
    READY = "it answers"


def https_probe(path: str = "/", *, status: int | None = None, guest: str | None = None) -> Probe:
    """Ask whether its TLS port answers an HTTP request; what comes back is the probe.

    ``status``: only this one counts (None: any below 500). ``guest``: the address inside; None for the first that a forward to 443
    leads to; a machine on a network is asked at its address there. The certificate is not judged, since a new box has one that it made
    itself. The probe raises :class:`UnreachableError` while nothing answers.
    """

    def probe(facts: MachineFacts) -> bool:
        answer = read_answer(*facts.find_way(TLS_PORT, guest), path)
        return answer.status == status if status is not None else answer.is_service

    return probe


def page_probe(page: ReadyPage) -> Probe:
    """Ask the machine's own page, through the first forward that leads to its port, or at its address on a network.

    The probe raises :class:`UnreachableError` while nothing answers.
    """

    def probe(facts: MachineFacts) -> bool:
        return ask_page(page, *facts.find_way(page.port))

    return probe


def usual_probe(facts: MachineFacts) -> bool:
    """The machine's own page where it has one, else any answer over HTTPS."""
    return page_probe(facts.ready)(facts) if facts.ready is not None else https_probe()(facts)


def wait_for_ready(
    machines: Machines, name: str, *, probe: Probe | None = None, timeout: float = BOOT_SECONDS, progress: Progress | None = None
) -> MachineFacts:
    """Wait until the machine's ``probe`` (default: :func:`usual_probe`) says yes.

    ``timeout`` in seconds on the reference machine, scaled to how fast this one emulates.

    Raises:
        NotReadyError: it did not; says how far it came, with the console's last lines.

    """
    asked, shown = probe or usual_probe, progress or Silent()
    scaled = timeout * machines.acceleration.factor

    def look() -> MachineFacts | None:
        facts = machines.read_machine(name)
        return facts if not facts.power.is_off and asked(facts) else None

    def give_up() -> str | None:
        facts = machines.read_machine(name)
        if facts.power.is_off:
            return Stage.STOPPED.value
        return Stage.PANIC.value if _panicked(machines, facts) else None

    shown.update(f"{name} boots", None, scaled)
    try:
        return wait_for(look, what=f"{name} to be ready", timeout=scaled, poll=0.2, give_up=give_up)
    except DeadlineError as late:
        raise explain(machines, name, last_seen=str(late.facts.get("last_seen", ""))) from late


def explain(machines: Machines, name: str, *, last_seen: str) -> NotReadyError:
    """The error for a machine that is not ready: how far it came and what its console says last."""
    facts = machines.read_machine(name)
    stage = read_stage(machines, facts)
    console = machines.read_console(name)
    last = f" Its console's last line: {console[-1]}" if console else " Its console said nothing."
    hints = {
        Stage.STOPPED: "It went off or crashed; the console log tells why.",
        Stage.PANIC: "Its image or its disk is damaged; the console log tells what the kernel missed.",
        Stage.NO_PAGE: f"Looked for was {facts.ready}. Look at its console: boxshift lab console; --ready says what to look for.",
        Stage.NO_ADDRESS: "Does a DHCP server answer there? On a bridge, without an agent, only that server may know.",
        Stage.STARTING: "Give it more time, or look at the console: boxshift lab console.",
        Stage.NO_NETWORK: "No DHCP answer reached it; the image may lack a driver for its network card.",
        Stage.NO_SERVICE: "Look at its failed units inside: systemctl --failed.",
        Stage.READY: "It became ready just now; do it again.",
    }
    return NotReadyError(
        f"The machine {name} did not become ready: {stage.value}.{last}",
        hint=hints[stage],
        stage=stage.name.lower(),
        console="\n".join(console),
        console_log=str(facts.console_log),
        last_seen=last_seen,
        failed_units=_failed_units(machines, facts) if stage is Stage.NO_SERVICE else "",
    )


def read_stage(machines: Machines, facts: MachineFacts) -> Stage:  # noqa: PLR0911 - one row for each stage
    """How far the machine came, by asking libvirt, then the agent inside, then the forwarded port."""
    if facts.power.is_off or facts.power is Power.PAUSED:
        return Stage.STOPPED
    if _panicked(machines, facts):
        return Stage.PANIC
    if not machines.hypervisor.ping_agent(facts.uuid):
        return Stage.STARTING if facts.ready is None and facts.uplink is None else _read_page(facts)
    try:
        if not machines.hypervisor.read_addresses(facts.uuid):
            return Stage.NO_NETWORK
        return Stage.READY if usual_probe(facts) else Stage.NO_SERVICE
    except GuestSilentError:
        return Stage.STARTING
    except FailedError:
        return Stage.NO_SERVICE


def _read_page(facts: MachineFacts) -> Stage:
    if facts.uplink is not None and not facts.address:
        return Stage.NO_ADDRESS
    try:
        return Stage.READY if usual_probe(facts) else Stage.NO_PAGE
    except UnreachableError:
        return Stage.NO_PAGE


def _panicked(machines: Machines, facts: MachineFacts) -> bool:
    return any(PANIC in line for line in machines.read_console(facts.name, lines=40))


def _failed_units(machines: Machines, facts: MachineFacts) -> str:
    try:
        return machines.run_in_guest(facts.name, ["/usr/bin/systemctl", "--failed", "--plain", "--no-legend"], timeout=20).text.strip()
    except FailedError as error:
        return f"could not tell: {error.sentence}"


def read_answer(host: str, port: int, path: str = "/") -> Answer:
    """Ask once over HTTPS; the certificate is not judged.

    Raises:
        UnreachableError: nothing answers.

    """
    link = link_unjudged(host, port)
    try:
        link.connect()
        leaf = link.sock.getpeercert(binary_form=True) or b""
        link.request("GET", path, headers={"Connection": "close"})
        return Answer(link.getresponse().status, hashlib.sha256(leaf).hexdigest())
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{host}:{port} does not answer over HTTPS: {error}") from error
    finally:
        link.close()


def read_leaf(host: str, port: int) -> str:
    """SHA-256 of the certificate that is served there, in hex."""
    return read_answer(host, port).leaf
