"""What a step is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from kit.errors import UnexpectedError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.contract import Appliance, Credentials
from migrate.cutover.contract import Cutover
from migrate.pair_checks import PairFacts
from migrate.plan import MachinePlan, OldPlan, P_co, Plan
from migrate.runbook import Json, Node
from migrate.upgrade_plan import UpgradingPlan

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """One thing that was looked at: what, what was seen, and where that came from (a page, an address, a file)."""

    what: str
    seen: str
    source: str = ""


@dataclass(frozen=True)
class Done:
    """What a step leaves: one sentence for people, a value for later steps (a dataclass or small JSON), and evidence."""

    sentence: str
    value: object = None
    evidence: tuple[Evidence, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """As the engine stores it."""
        value: Json = TypeAdapter(type(self.value)).dump_python(self.value, mode="json") if self.value is not None else None
        rows: list[Json] = [{"what": row.what, "seen": row.seen, "source": row.source} for row in self.evidence]
        return {"sentence": self.sentence, "value": value, "evidence": rows}


class Boxes(Protocol):
    """Opens drivers. Each call gives a fresh one, pinned to the keys known so far; the caller closes it."""

    def open_old(self) -> Appliance: ...

    def open_new(self, *, restored: bool | None = None) -> Appliance:
        """With the accounts it has at this point: a restore brings the old site's. ``restored`` says so where it is known better."""
        ...

    def factory_credentials(self, *, of_old: bool = False) -> Credentials:
        """What opens a box fresh from the factory."""
        ...


@dataclass(frozen=True)
class PowerProof:
    """What the hypervisor says. ``running`` None: it could not be told."""

    running: bool | None
    said: str


class Machines(Protocol):
    """Virtual machines, as far as a migration needs them. Every verb may be repeated after a crash."""

    def ensure_new(self, plan: Plan, request: str, progress: Progress) -> str:
        """Provisioned, booted, its administration address answers. Answers the SPKI SHA-256 that it serves."""
        ...

    def remove_new(self, plan: Plan, request: str) -> str:
        """The machine that this request made is gone; a sentence says what was removed. Another one is never touched."""
        ...

    def read_hypervisor(self, machine: MachinePlan) -> str: ...

    def read_power(self, machine: MachinePlan) -> PowerProof: ...

    def retire(self, machine: MachinePlan) -> str:
        """Undefined when it is ours, its disk kept; otherwise left alone and said so."""
        ...


@dataclass(frozen=True)
class ServedProof:
    """What one address presented: leaf first, each certificate's SHA-256; ``verified``: chain and name hold against the trusted roots."""

    address: str
    port: int
    chain: tuple[str, ...]
    leaf_spki: str
    verified: bool
    said: str

    @property
    def place(self) -> str:
        """``127.0.0.11:8443``."""
        return f"{self.address}:{self.port}"


class Outside(Protocol):
    """Looks at the service as a visitor does."""

    def resolve(self) -> tuple[str, ...]:
        """Addresses of the site's name at its authoritative servers."""
        ...

    def read_key(self, host: str, port: int) -> str:
        """SHA-256 of the SPKI that an administration address serves."""
        ...

    def read_served(self, address: str, port: int) -> ServedProof: ...

    def probe(self, address: str, port: int) -> None:
        """One HTTPS request under the site's name, fully verified; raises a FailedError when it is not good."""
        ...


@dataclass(frozen=True)
class Work(Generic[P_co]):
    """What one attempt at one node is given, whatever the procedure.

    ``base`` is the plan's folder, from which its relative paths count; ``folder`` the run's own, mode 0700; ``results`` are of finished
    nodes.
    """

    plan: P_co
    run: str
    node: Node
    base: Path
    folder: Path
    results: Mapping[str, Json]
    progress: Progress
    outside: Outside
    reveal: Callable[[str, str], Secret]
    read_time: Callable[[], float]
    stop_wanted: Callable[[], bool]

    def find_result(self, node: str, kind: type[T]) -> T | None:
        """The value that a finished node left; None where it did not run (or was skipped)."""
        stored = self.results.get(node)
        if not isinstance(stored, dict) or stored.get("value") is None:
            return None
        return TypeAdapter(kind).validate_python(stored["value"])

    def result(self, node: str, kind: type[T]) -> T:
        """The same where it must be there."""
        found = self.find_result(node, kind)
        if found is None:
            raise UnexpectedError(
                f"The step {node} left no result, so {self.node.name} cannot go on.", hint="boxshift status shows what ran."
            )
        return found

    def find_stop(self) -> str | None:
        """Why a step that only waits should wait no longer; None where nobody wants the run to stop."""
        return "the run is to stop." if self.stop_wanted() else None

    def secret(self, reference: str, what: str) -> Secret:
        """Resolve a reference of the plan."""
        return self.reveal(reference, what)


@dataclass(frozen=True)
class Context(Work[Plan]):
    """The same for a node of a migration."""

    boxes: Boxes
    machines: Machines
    cutover: Cutover
    pair: PairHands | None = None

    def need_pair(self) -> PairHands:
        """Both boxes as the pair that they are meanwhile; UnexpectedError where the plan moves its data in another way."""
        if self.pair is None:
            raise UnexpectedError(f"{self.node.name} needs a pair, and this plan makes none.")
        return self.pair


class PairHands(Protocol):
    """Both boxes of a failover pair: each verb looks at both, acts on the right one, and looks again. Every verb may be repeated."""

    def read(self) -> PairFacts: ...

    def sync(self) -> PairFacts:
        """A whole data sync, to its real end."""
        ...

    def end(self) -> PairFacts:
        """No relationship on either box."""
        ...

    def establish(self, primary: str) -> PairFacts:
        """``primary`` (a or b) is the primary of the other, which is synced."""
        ...

    def join(self, primary: str) -> PairFacts:
        """The same without the data sync."""
        ...

    def promote(self, name: str) -> PairFacts:
        """``name`` is the primary of the other, after a data sync; a conflict or a box that cannot be read is refused."""
        ...

    def resolve(self) -> PairFacts:
        """Where both have the same role, the boxes decide which of them keeps it."""
        ...

    def open_box(self, name: str) -> Appliance:
        """A fresh driver; the caller closes it."""
        ...


@dataclass(frozen=True)
class UpgradeContext(Work[UpgradingPlan]):
    """The same for a node of an upgrade, of one box or of a pair.

    ``box``: the one that this node is about, ``who`` its name in a pair (``a`` or ``b``, empty where there is one box only). ``open_box``
    gives a fresh driver for it, pinned to the keys known so far; the caller closes it.
    """

    box: OldPlan
    who: str
    open_box: Callable[[], Appliance]
    pair: PairHands | None = None

    @property
    def title(self) -> str:
        """What the box is called in findings."""
        return self.who or "box"

    def own(self, node: str) -> str:
        """The node of that name for this box: a pair's runbook has each twice."""
        return f"{self.who}-{node}" if self.who else node

    @property
    def serving(self) -> bool:
        """Whether this box serves visitors when the node runs."""
        return bool(self.node.params.get("serving", True))

    def need_pair(self) -> PairHands:
        """Both boxes; UnexpectedError where the plan has one."""
        if self.pair is None:
            raise UnexpectedError(f"{self.node.name} needs a pair, and this plan has one box.")
        return self.pair


# Each step takes the context of its own procedure; the runbook that names the step is made for the same plan.
Action = Callable[[Any], Done]


@dataclass(frozen=True)
class Step:
    """``apply`` looks, acts and confirms; ``undo`` takes it back, and may find that there is nothing to take back."""

    name: str
    apply: Action
    undo: Action | None


STEPS: dict[str, Step] = {}


def step(name: str, *, undo: Action | None = None) -> Callable[[Action], Action]:
    """Register a step under the name that runbooks use."""

    def register(apply: Action) -> Action:
        if name in STEPS:
            raise ValueError(f"two steps are called {name}")
        STEPS[name] = Step(name, apply, undo)
        return apply

    return register


def to_prints(chain: Sequence[str]) -> str:
    """Fingerprints of a chain for evidence rows, the leaf first, long enough to be told apart."""
    return ", ".join(each[:16] for each in chain) or "nothing"


def to_sentence(values: Mapping[str, Any]) -> str:
    """``a=1, b=2`` for evidence rows."""
    return ", ".join(f"{key}={value}" for key, value in values.items())
