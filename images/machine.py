"""Virtual machines of ours: made from an image, asked, stopped, taken out, deleted. Every verb may be killed at any point and repeated."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from images.acceleration import Acceleration
from images.console import CONSOLE_LINES
from images.daemon import find_uri
from images.domain import Domain, render_domain
from images.errors import (
    AddressTakenError,
    HypervisorError,
    NotOursError,
    RequestChangedError,
    RetiredError,
    SpecError,
    UnknownMachineError,
)
from images.home import Home, ensure_home, find_home
from images.hypervisor import DomainFacts, Hypervisor, Power
from images.hypervisor_networks import find_address, verify_network
from images.ledger import Entry, EntryState, Ledger
from images.locking import hold
from images.place import LocalPlace, Place
from images.pool_place import PoolPlace, find_pool_folder
from images.ports import is_taken
from images.ready_page import ReadyPage
from images.spec import MachineFacts, MachineSpec
from images.store import Image, Store
from images.uplink import Uplink, UplinkKind
from kit.errors import DeadlineError, FailedError
from kit.process import Completed
from kit.progress import Progress, Silent
from kit.secret import Secret
from kit.waiting import wait_for

VERB_SECONDS = 300.0
GUEST_SECONDS = 60.0
SHUTDOWN_SECONDS = 60.0
START_SECONDS = 30.0


class Machines:
    """The machines of one home on one hypervisor."""

    def __init__(self, home: Home, hypervisor: Hypervisor, *, progress: Progress | None = None) -> None:
        self.home = ensure_home(home)
        self.hypervisor = hypervisor
        self.store = Store(home)
        self._pool_folder = find_pool_folder(hypervisor.uri)
        self.ledger = Ledger(home.ledger if self._pool_folder is None else home.ledger_of(hypervisor.uri))
        self._progress = progress or Silent()

    @cached_property
    def place(self) -> Place:
        """Where the files of these machines are."""
        if self._pool_folder is None:
            return LocalPlace(self.home, self.store, self.hypervisor, self._progress)
        return PoolPlace(self.home, self.store, self.hypervisor, self.ledger.read_owner(), self._pool_folder, progress=self._progress)

    @property
    def acceleration(self) -> Acceleration:
        """The accelerator in use; proved by booting something, and remembered."""
        return self.place.find_acceleration()

    def verify_way(self, uplink: Uplink | None) -> None:
        """Make sure, before anything is made, that a machine on ``uplink`` (None: behind ports of its hypervisor) could be reached.

        Raises:
            SpecError: the hypervisor is another computer, or has no such network.

        """
        if uplink is None and self.place.is_remote:
            raise SpecError(
                "With user networking the ports that lead into a machine are on its hypervisor's loopback, and that is another computer.",
                hint="Put it on its network or bridge: --network or --bridge, in a plan machine.network or machine.bridge.",
            )
        if uplink is not None and uplink.kind is UplinkKind.NETWORK:
            verify_network(self.hypervisor, uplink.name)

    def ensure_machine(self, spec: MachineSpec) -> MachineFacts:
        """Make the machine and start it; where it is there already, find it; where a killed process left half of it, complete it.

        It is not ready yet when this returns: :func:`images.readiness.wait_for_ready`.

        Raises:
            SpecError, UnknownImageError: the name is taken, or there is no such image.
            RequestChangedError, RetiredError: the request was for another machine, or that one was taken out on purpose.
            NotOursError: a domain of that name exists that boxshift did not make; it is left alone.
            AlteredImageError: the stored image is not what was stored.
            AddressTakenError, SpaceError, HypervisorError, HypervisorUnreachableError: it could not be made.

        """
        with self.only(spec.name):
            entry = self.ledger.find_request(spec.request_id)
            if entry is None:
                self._refuse_foreign(spec.name)
                if spec.uplink is not None or spec.forwards:
                    self.verify_way(spec.uplink)
                entry = self._plan(spec)
            self._verify_same(entry, spec)
            return self._facts(self._ensure_running(entry))

    def ensure_restored(self, spec: MachineSpec, *, base: Path, restore: Callable[[Domain], None]) -> MachineFacts:
        """Make a new machine from a saved one, with a disk on top of ``base``; ``restore`` starts it.

        Raises:
            As :meth:`ensure_machine`, and whatever ``restore`` raises; what was made until then stays.

        """
        with self.only(spec.name):
            self._refuse_foreign(spec.name)
            entry = self._plan(spec)
            mark, accelerator = self.ledger.mark_of(entry), self.acceleration.accelerator
            domain = self.place.ensure_copy(entry, base, mark=mark, accelerator=accelerator)
            self.hypervisor.define(render_domain(domain))
            entry = self.ledger.change_state(entry, EntryState.BOOTED)
            with self._naming_taken_ports(entry):
                restore(domain)
            return self._facts(entry)

    def read_machine(self, name: str) -> MachineFacts:
        """What is true of a machine of ours.

        Raises:
            UnknownMachineError: the ledger knows none of that name.

        """
        return self._facts(self._entry(name))

    def find_machine(self, name: str) -> MachineFacts | None:
        """The machine of ours of that name."""
        entry = self.ledger.find_name(name)
        return self._facts(entry) if entry is not None else None

    def list_machines(self) -> tuple[MachineFacts, ...]:
        """All machines of ours, by name."""
        return tuple(self._facts(entry) for entry in self.ledger.list_entries())

    def read_power(self, name: str) -> Power:
        """Whether a machine of ours runs, as libvirt says now."""
        return self.read_machine(name).power

    def read_console(self, name: str, *, lines: int = CONSOLE_LINES) -> tuple[str, ...]:
        """The last lines of its serial console, without control characters."""
        return self.place.read_console(self._entry(name), lines=lines)

    def run_in_guest(
        self, name: str, argv: Sequence[str], *, stdin: bytes | Secret | None = None, timeout: float = GUEST_SECONDS
    ) -> Completed:
        """Run a program inside through the guest agent. ``timeout`` in seconds on the reference machine: scaled to this one.

        Raises:
            GuestSilentError, GuestError, DeadlineError: the agent does not answer, cannot start it, or it does not end.

        """
        entry = self._entry(name)
        self._own_domain(entry)
        return self.hypervisor.run_in_guest(entry.uuid, argv, stdin=stdin, timeout=timeout * self.acceleration.factor)

    def ensure_stopped(self, name: str, *, grace: float = SHUTDOWN_SECONDS) -> Power:
        """See to it that no process runs for it: ask the system inside, wait ``grace`` seconds (scaled), then cut its power."""
        with self.only(name):
            entry = self._entry(name)
            self._stop(entry, grace=grace)
            return self._facts(entry).power

    def ensure_started(self, name: str) -> MachineFacts:
        """Start a machine of ours that is off."""
        with self.only(name):
            entry = self._entry(name)
            self._verify_not_retired(entry)
            return self._facts(self._ensure_running(entry))

    def ensure_undefined(self, name: str) -> MachineFacts:
        """Take it out of the hypervisor and keep its disk: nothing can start it by accident. It must be off.

        Raises:
            HypervisorError: it runs.

        """
        with self.only(name):
            entry = self._entry(name)
            domain = self._own_domain(entry)
            if domain is not None and not domain.power.is_off:
                raise HypervisorError(f"The machine {name} still runs; it was not taken out.", hint="Shut it down first.")
            entry = self.ledger.change_state(entry, EntryState.RETIRED)
            if domain is not None:
                self.hypervisor.undefine(entry.uuid)
            self.place.forget_answers(entry)
            return self._facts(entry)

    def ensure_removed(self, name: str) -> bool:
        """Delete a machine of ours with its disk. True where there was one; a domain that is not ours is left alone.

        Raises:
            NotOursError: ledger and domain do not agree that it is ours.

        """
        with self.only(name):
            entry = self.ledger.find_name(name)
            if entry is None:
                self._refuse_foreign(name)
                return False
            domain = self._own_domain(entry)
            entry = self.ledger.change_state(entry, EntryState.REMOVING)
            if domain is not None:
                if not domain.power.is_off:
                    self.hypervisor.destroy(entry.uuid)
                self.hypervisor.undefine(entry.uuid)
            self.place.remove(entry.uuid)
            self.ledger.delete(entry)
            return True

    def ensure_forgotten(self, name: str) -> None:
        """Take a machine that is off out of hypervisor and ledger and leave its files, which are somebody else's from now on."""
        with self.only(name):
            entry = self._entry(name)
            if self._own_domain(entry) is not None:
                self.hypervisor.undefine(entry.uuid)
            self.ledger.delete(entry)

    def _plan(self, spec: MachineSpec) -> Entry:
        image = self.store.read_image(spec.image)
        entry = Entry(
            request=spec.request_id,
            name=spec.name,
            uuid=str(uuid.uuid4()),
            mark=str(uuid.uuid4()),
            mac=spec.mac or "52:54:00:" + ":".join(f"{octet:02x}" for octet in secrets.token_bytes(3)),
            state=EntryState.PLANNED,
            image=image.digest,
            memory_mib=spec.memory_mib or image.memory_mib,
            cpus=spec.cpus or image.cpus,
            forwards=spec.forwards,
            ready=spec.ready or _usual_page(image),
            segments=spec.segments,
            uplink=spec.uplink,
        )
        self.ledger.add(entry)
        return entry

    def _verify_same(self, entry: Entry, spec: MachineSpec) -> None:
        self._verify_not_retired(entry)
        size = (spec.memory_mib or entry.memory_mib, spec.cpus or entry.cpus)
        asked = (spec.name, spec.forwards, *size, spec.segments, spec.uplink, spec.mac or entry.mac)
        if asked != (entry.name, entry.forwards, entry.memory_mib, entry.cpus, entry.segments, entry.uplink, entry.mac):
            raise RequestChangedError(
                f"The request {spec.request_id} was for the machine {entry.name} with other values than now.",
                hint="Use a new request, or remove that machine first.",
            )

    def _verify_not_retired(self, entry: Entry) -> None:
        if entry.state in (EntryState.RETIRED, EntryState.REMOVING):
            raise RetiredError(
                f"The machine {entry.name} was taken out of the hypervisor; it is not started again.",
                hint=f"Its disk is kept in {self.place.find_disk(entry).parent} until it is removed.",
            )

    def _ensure_running(self, entry: Entry) -> Entry:
        domain = self._own_domain(entry)
        if domain is not None and not domain.power.is_off:
            self._wait_until_runs(entry)
            return entry
        mark, accelerator = self.ledger.mark_of(entry), self.acceleration.accelerator
        self.hypervisor.define(self.place.ensure_definition(entry, mark=mark, accelerator=accelerator))
        entry = self.ledger.change_state(entry, EntryState.BOOTED)
        with self._naming_taken_ports(entry):
            self.hypervisor.start(entry.uuid)
        return entry

    @contextmanager
    def _naming_taken_ports(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except AddressTakenError as error:
            taken = ", ".join(f"{one.host}:{one.host_port}" for one in entry.forwards if is_taken(one)) or "a port"
            raise AddressTakenError(f"The machine {entry.name} cannot start: {taken} is in use.", hint=error.hint, **error.facts) from error

    def _wait_until_runs(self, entry: Entry) -> None:
        """A process that was killed while it started the machine leaves it paused for the moment that the daemon still needs."""

        def look() -> bool | None:
            domain = self._own_domain(entry)
            return True if domain is None or domain.power is not Power.PAUSED else None

        try:
            wait_for(look, what=f"{entry.name} to run on", timeout=START_SECONDS, poll=0.1)
        except DeadlineError as late:
            raise HypervisorError(
                f"The machine {entry.name} is paused.", hint="Its disk may be full, or someone paused it: virsh resume lets it go on."
            ) from late

    def _own_domain(self, entry: Entry) -> DomainFacts | None:
        """The entry's domain; None where there is none.

        Raises:
            NotOursError: the domain of that name, or its mark, is not the one in the ledger.

        """
        domain = self.hypervisor.find_domain(entry.name)
        if domain is None or (domain.uuid == entry.uuid and domain.mark == self.ledger.mark_of(entry)):
            return domain
        raise NotOursError(
            f"The domain {entry.name} is not the one that boxshift made: its mark or UUID differs from the ledger's. It is left alone.",
            hint="Rename or remove that domain by hand if it is yours, then do it again.",
            domain_uuid=domain.uuid,
            ledger_uuid=entry.uuid,
        )

    def _refuse_foreign(self, name: str) -> None:
        domain = self.hypervisor.find_domain(name)
        if domain is not None:
            raise NotOursError(
                f"A domain named {name} exists that is not in boxshift's ledger. It is left alone.",
                hint="Choose another name, or see to that domain by hand.",
                domain_uuid=domain.uuid,
            )

    def _stop(self, entry: Entry, *, grace: float) -> None:
        domain = self._own_domain(entry)
        if domain is None or domain.power.is_off:
            return
        try:
            self.hypervisor.request_shutdown(entry.uuid)
            self._wait_until_off(entry, timeout=grace * self.acceleration.factor)
        except (FailedError, UnknownMachineError):
            self.hypervisor.destroy(entry.uuid)
            self._wait_until_off(entry, timeout=SHUTDOWN_SECONDS)

    def _wait_until_off(self, entry: Entry, *, timeout: float) -> None:
        def look() -> bool | None:
            domain = self._own_domain(entry)
            return True if domain is None or domain.power.is_off else None

        wait_for(look, what=f"{entry.name} to be off", timeout=timeout)

    def _facts(self, entry: Entry) -> MachineFacts:
        domain = self._own_domain(entry)
        return MachineFacts(
            name=entry.name,
            uuid=entry.uuid,
            mac=entry.mac,
            power=Power.ABSENT if domain is None else domain.power,
            state=entry.state,
            request_id=entry.request,
            image=entry.image,
            memory_mib=entry.memory_mib,
            cpus=entry.cpus,
            forwards=entry.forwards,
            ready=entry.ready,
            segments=entry.segments,
            disk=self.place.find_disk(entry),
            console_log=self.place.find_console(entry),
            uplink=entry.uplink,
            address=self._find_address(entry, domain),
        )

    def _find_address(self, entry: Entry, domain: DomainFacts | None) -> str:
        if entry.uplink is None or domain is None or domain.power.is_off:
            return ""
        return find_address(self.hypervisor, entry.uuid, entry.mac)

    def _entry(self, name: str) -> Entry:
        entry = self.ledger.find_name(name)
        if entry is None:
            raise UnknownMachineError(f"There is no machine {name!r} of boxshift's here.", hint="`boxshift lab list` shows them.")
        return entry

    @contextmanager
    def only(self, name: str) -> Iterator[None]:
        """While no other process works on the machine of that name."""
        with hold(self.home.locks / f"machine-{name}", what=f"working on the machine {name}", timeout=VERB_SECONDS):
            yield


@contextmanager
def open_machines(home: Home | None = None, *, uri: str | None = None, progress: Progress | None = None) -> Iterator[Machines]:
    """The machines of this user, on the daemon that :func:`images.daemon.find_uri` chooses; started where none runs."""
    used = ensure_home(home or find_home())
    with Hypervisor(uri or find_uri(used, progress=progress or Silent())) as hypervisor:
        yield Machines(used, hypervisor, progress=progress)


def _usual_page(image: Image) -> ReadyPage | None:
    """Nothing of ours runs in a foreign image, and nobody has said what it shows: that its TLS port answers is what can be asked of any."""
    return image.ready or (ReadyPage() if image.hardware is not None else None)


__all__ = ["MachineFacts", "MachineSpec", "Machines", "open_machines"]
