"""A runbook is data: phases of nodes, gates, windows, soaks. The one that is shown is the one that runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import TypeAdapter
from typing_extensions import TypeAliasType

# A named alias: pydantic follows a recursive one only by its name.
Json = TypeAliasType("Json", "str | int | float | bool | list[Json] | dict[str, Json] | None")


class NodeKind(StrEnum):
    """What the engine does with a node."""

    STEP = "step"  # run the named step
    GATE = "gate"  # wait until a person approves
    WINDOW = "window"  # wait until a time
    SOAK = "soak"  # wait for a length of time; a person may shorten it


class Undo(StrEnum):
    """What can be taken back."""

    NONE = "none"  # changes nothing, or nothing that matters: there is nothing to undo
    STEP = "step"  # the step's own undo takes it back
    IMPOSSIBLE = "impossible"  # a point of no return: rollback ends here


@dataclass(frozen=True)
class Node:
    """One box of the runbook. ``name`` is unique in the runbook; ``after`` names nodes of the same phase; ``params`` holds no secret.

    ``estimate``, ``outage`` (how long visitors are without service) and ``undo_estimate`` in seconds. ``may_skip``: an operator may
    decide to go on without it. ``until`` (Unix seconds) belongs to windows, ``seconds`` to soaks.
    """

    name: str
    title: str
    kind: NodeKind = NodeKind.STEP
    step: str = ""
    params: dict[str, Json] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    undo: Undo = Undo.NONE
    may_skip: bool = False
    estimate: float = 1.0
    outage: float = 0.0
    undo_estimate: float = 0.0
    seconds: float = 0.0
    until: float = 0.0


@dataclass(frozen=True)
class Phase:
    """Nodes that belong together; phases run one after the other."""

    name: str
    title: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Runbook:
    """The whole order of work, frozen when a run is submitted. ``plan`` is the path of the plan file, ``digest`` its SHA-256."""

    name: str
    version: int
    site: str
    plan: str
    digest: str
    phases: tuple[Phase, ...]

    def nodes(self) -> Iterator[Node]:
        """Every node in order."""
        for phase in self.phases:
            yield from phase.nodes

    def node(self, name: str) -> Node:
        """The node of that name; KeyError where there is none."""
        for node in self.nodes():
            if node.name == name:
                return node
        raise KeyError(name)

    def estimate(self) -> float:
        """Seconds the machines need, people not counted: the longest path through each phase."""
        return sum(_longest(phase) for phase in self.phases)

    def outage(self) -> float:
        """Seconds visitors are without service, as far as can be told ahead."""
        return sum(node.outage for node in self.nodes())

    def to_json(self) -> dict[str, Json]:
        """As JSON values."""
        answer: dict[str, Json] = _ADAPTER.dump_python(self, mode="json")
        return answer

    @staticmethod
    def from_json(value: object) -> Runbook:
        """Back from :meth:`to_json`."""
        return _ADAPTER.validate_python(value)


_ADAPTER = TypeAdapter(Runbook)


def _longest(phase: Phase) -> float:
    ends: dict[str, float] = {}
    for node in phase.nodes:
        ends[node.name] = max((ends.get(name, 0.0) for name in node.after), default=0.0) + node.estimate + node.seconds
    return max(ends.values(), default=0.0)
