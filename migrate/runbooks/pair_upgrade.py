"""The order of a pair's upgrade: sync, break, one box, the other, together again. Which box is first is the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from migrate.pair_plan import PairMethod, PairUpgradePlan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json, Node, NodeKind, Phase, Runbook, Undo
from migrate.runbooks.upgrade import BACKUP, LOGIN, READ, plan_deployed, plan_package, plan_removal
from migrate.upgrade_path import UpgradePath
from migrate.upgrade_plan import ClientWait

VERSION = 4
SYNC, SWING = 60.0, 5.0


def plan_pair_upgrade(loaded: LoadedPlan[PairUpgradePlan], paths: Mapping[str, UpgradePath]) -> Runbook:
    """The runbook of a plan for two boxes that are offered these paths, by ``a`` and ``b``."""
    plan = loaded.plan
    first, second = ("b", "a") if plan.method is PairMethod.ASYNC else ("a", "b")
    phases = (
        _inspect(paths),
        _prepare(),
        *plan_removal(plan, tuple(paths.values()), {"box": "a"}),
        Phase("break", "End the relationship; from here on there is no failover", (_break(),)),
        *_box(plan, paths, first, serving=plan.method is PairMethod.SYNC),
        _between(plan, paths[first], first, second),
        *_box(plan, paths, second, serving=False),
        _join(plan),
    )
    return Runbook("pair-upgrade", VERSION, plan.site.name, str(loaded.path), loaded.digest, phases)


def _inspect(paths: Mapping[str, UpgradePath]) -> Phase:
    a: dict[str, Json] = {"box": "a"}
    nodes = [node for name in ("a", "b") for node in _read(name, paths[name])]
    nodes += [
        Node("read-pair", "Read both failover pages", step="read-pair", params=a, after=("a-read-path", "b-read-path"), estimate=READ),
        Node("read-service", "Look at what visitors are served", step="read-service", params=a, after=("read-pair",), estimate=1.0),
        Node("judge", "Judge everything found", step="judge-pair", params=a, after=("read-service",), estimate=0.5),
        Node("preflight", "Stop here if anything blocks", step="preflight", params=a, after=("judge",), estimate=0.1),
    ]
    return Phase("inspect", "Look at both boxes; nothing is changed", tuple(nodes))


def _read(name: str, path: UpgradePath) -> tuple[Node, Node]:
    box: dict[str, Json] = {"box": name}
    frozen: dict[str, Json] = {**box, "path": TypeAdapter(UpgradePath).dump_python(path, mode="json")}
    title, first = f"Ask box {name} what it is offered", f"{name}-read-box"
    return (
        Node(first, f"Read box {name}", step="read-box", params=box, estimate=READ),
        Node(f"{name}-read-path", title, step="read-path", params=frozen, after=(first,), estimate=LOGIN),
    )


def _prepare() -> Phase:
    a: dict[str, Json] = {"box": "a"}
    return Phase(
        "prepare",
        "A fresh backup and a data sync; the service goes on",
        (
            Node("backup", "Back up the site", step="backup-box", params=a, estimate=BACKUP),
            Node("a-safety-copy", "Keep an encrypted copy of certificate and key", step="safety-copy-box", params=a, estimate=LOGIN),
            Node("sync-pair", "Sync now, and wait for its end", step="sync-pair", params=a, after=("backup",), estimate=SYNC),
            Node(
                "approve-upgrade",
                "Approve the upgrade: packages cannot be taken off again",
                kind=NodeKind.GATE,
                after=("a-safety-copy", "sync-pair"),
                estimate=0.0,
            ),
        ),
    )


def _break() -> Node:
    return Node(
        "break-pair",
        "Break the failover relationship",
        step="break-pair",
        params={"box": "a"},
        undo=Undo.STEP,
        estimate=LOGIN,
        undo_estimate=SYNC,
    )


def _box(plan: PairUpgradePlan, paths: Mapping[str, UpgradePath], name: str, *, serving: bool) -> tuple[Phase, ...]:
    phases = [plan_package(plan, paths[name], item) for item in paths[name].items]
    return tuple(_of_box(phase, name, serving=serving) for phase in phases)


def _of_box(phase: Phase, name: str, *, serving: bool) -> Phase:
    """The same phase for one box of the pair: every node has the box's name before its own."""
    nodes = tuple(
        replace(
            node,
            name=f"{name}-{node.name}",
            title=f"{node.title} ({name})",
            params={**node.params, "box": name, "serving": serving} if node.step else node.params,
            after=tuple(f"{name}-{one}" for one in node.after),
            outage=node.outage if serving else 0.0,
        )
        for node in phase.nodes
        if serving or not node.name.startswith("clients-")  # no client connects to a box that serves nobody
    )
    return Phase(f"{name}-{phase.name}", f"{phase.title} on box {name}", nodes)


def _between(plan: PairUpgradePlan, path: UpgradePath, first: str, second: str) -> Phase:
    title = f"Box {first} is good: go on with box {second}"
    if plan.method is PairMethod.SYNC:  # a box that serves is proved by its visitors
        gate = Node("approve-second", title, kind=NodeKind.GATE, estimate=0.0)
        return Phase("between", f"Box {first} serves in its new version", (gate,))
    b: dict[str, Json] = {"box": "b"}
    probe = Node("probe-as-site", "Ask box b under the site's name", step="probe-as-site", params=b, may_skip=True, estimate=LOGIN)
    gate = Node("approve-second", f"{title}, after visitors are moved", kind=NodeKind.GATE, after=("probe-as-site",), estimate=0.0)
    swing = Node(
        "swing-shared",
        "Move the shared addresses to b",
        step="swing-shared",
        params=b,
        undo=Undo.STEP,
        after=("approve-second",),
        estimate=SWING,
        outage=SWING,
        undo_estimate=SWING,
    )
    return Phase("between", "Box b is proved, then visitors are moved to it", (probe, gate, swing, *_follow(plan, path)))


def _follow(plan: PairUpgradePlan, path: UpgradePath) -> tuple[Node, ...]:
    """Clients follow once they reach the box that is upgraded already."""
    if not path.site_items or plan.clients.wait is ClientWait.NONE:
        return ()
    phase = _of_box(plan_package(plan, path, path.site_items[-1]), "b", serving=True)
    return tuple(replace(node, after=("swing-shared",)) for node in phase.nodes if node.name.startswith("b-clients-"))


def _join(plan: PairUpgradePlan) -> Phase:
    primary: dict[str, Json] = {"box": "b" if plan.method is PairMethod.ASYNC else "a"}
    return Phase(
        "join",
        "A pair again, with the sessions of both",
        (
            Node("establish-pair", "Establish the relationship and sync", step="establish-pair", params=primary, estimate=SYNC),
            Node(
                "compare",
                "Look at both boxes and at what visitors are served",
                step="compare-pair",
                params=primary,
                after=("establish-pair",),
                estimate=READ,
            ),
            Node(
                "clients-papers",
                "List what has to be done by hand",
                step="clients-papers",
                params=primary,
                after=("compare",),
                estimate=1.0,
            ),
            *plan_deployed(plan, "clients-papers"),
        ),
    )
