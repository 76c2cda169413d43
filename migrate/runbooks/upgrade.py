"""The order of an upgrade of one box: base packages first and without wait, then the site's, each followed by its clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from migrate.facts import PackageKind
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json, Node, NodeKind, Phase, Runbook, Undo
from migrate.upgrade_path import PathItem, UpgradePath
from migrate.upgrade_plan import GUIDE_WAIT, ClientWait, UpgradePlan, UpgradingPlan

VERSION = 2
LOGIN, READ, BACKUP, CHECKIN = 3.0, 10.0, 5.0, 300.0
USUAL = 0.25  # what a package usually takes of the longest that one may take: 15 minutes of the guide's hour


def plan_upgrade(loaded: LoadedPlan[UpgradePlan], path: UpgradePath) -> Runbook:
    """The runbook of a plan for a box that is offered this path. The path is part of it: what was shown is what runs."""
    plan = loaded.plan
    phases = (
        _inspect(path),
        _prepare(),
        *plan_removal(plan, (path,), {}),
        *(plan_package(plan, path, item) for item in path.items),
        _finish(plan),
    )
    return Runbook("upgrade", VERSION, plan.site.name, str(loaded.path), loaded.digest, phases)


def _inspect(path: UpgradePath) -> Phase:
    frozen: dict[str, Json] = {"path": TypeAdapter(UpgradePath).dump_python(path, mode="json")}
    return Phase(
        "inspect",
        "Look at the box; nothing is changed",
        (
            Node("read-box", "Read the box", step="read-box", estimate=READ),
            Node("read-path", "Ask the box what it is offered", step="read-path", params=frozen, after=("read-box",), estimate=LOGIN),
            Node("read-service", "Look at what visitors are served", step="read-service", estimate=1.0),
            Node("judge", "Judge everything found", step="judge-upgrade", after=("read-path", "read-service"), estimate=0.5),
            Node("preflight", "Stop here if anything blocks", step="preflight", after=("judge",), estimate=0.1),
        ),
    )


def _prepare() -> Phase:
    return Phase(
        "prepare",
        "A fresh backup, and a copy of the certificate with its key; the service goes on",
        (
            Node("backup", "Back up the site", step="backup-box", estimate=BACKUP),
            Node("safety-copy", "Keep an encrypted copy of certificate and key", step="safety-copy-box", estimate=LOGIN),
            Node(
                "approve-upgrade",
                "Approve the upgrade: packages cannot be taken off again",
                kind=NodeKind.GATE,
                after=("backup", "safety-copy"),
                estimate=0.0,
            ),
        ),
    )


def plan_removal(plan: UpgradingPlan, paths: Sequence[UpgradePath], params: dict[str, Json]) -> tuple[Phase, ...]:
    """Where nobody is waited for: people remove all client software before the first package, and the box is asked whether they have."""
    if plan.clients.wait is not ClientWait.NONE or not any(path.site_items for path in paths):
        return ()
    nodes = (
        Node("list-clients", "List the client software that has to be removed", step="list-clients", params=params, estimate=READ),
        _gate("clients-removed", "All client software was removed, as clients-to-remove.md lists it", "list-clients"),
        Node(
            "confirm-removal",
            "Ask the box whether a client is still connected",
            step="confirm-removal",
            params=params,
            after=("clients-removed",),
            may_skip=True,
            estimate=READ,
        ),
    )
    return (Phase("removal", "Client software is removed, since nobody is waited for", nodes),)


def plan_deployed(plan: UpgradingPlan, *after: str) -> tuple[Node, ...]:
    """Where nobody was waited for, the last node: a person says that the clients are back."""
    return (_gate("clients-deployed", "Client software was deployed again", *after),) if plan.clients.wait is ClientWait.NONE else ()


def plan_package(plan: UpgradingPlan, path: UpgradePath, item: PathItem) -> Phase:
    """The nodes of one package on one box."""
    seconds = plan.packages.longest * USUAL
    params: dict[str, Json] = {"item": TypeAdapter(PathItem).dump_python(item, mode="json")}
    nodes: list[Node] = []
    first = path.site_items[:1] == (item,)
    if item.kind is PackageKind.SITE and not first:
        # Since the last backup people have worked on the site, and a backup goes back only into the version that it is of.
        nodes.append(Node(f"backup-{item.label}", "A fresh backup of this version", step="backup-box", estimate=BACKUP))
    if plan.window is not None:
        nodes.append(_after(nodes, Node(f"window-{item.label}", "Wait for the maintenance window", step="wait-for-window", estimate=0.0)))
    nodes.append(_after(nodes, Node(f"look-{item.label}", "Look at the box right before", step="read-before-package", estimate=READ)))
    install = Node(
        f"install-{item.label}",
        f"Install {item.name}",
        step="install-package",
        params=params,
        undo=Undo.IMPOSSIBLE,
        estimate=seconds,
        outage=seconds,
    )
    nodes.append(_after(nodes, install))
    nodes.append(_after(nodes, Node(f"prove-{item.label}", "Prove the box", step="prove-package", params=params, estimate=READ)))
    if item.kind is PackageKind.SITE and plan.clients.wait is not ClientWait.NONE:
        nodes.append(_after(nodes, _wait(plan, item, params)))
    return Phase(item.label, f"Package {item.name}", tuple(nodes))


def _wait(plan: UpgradingPlan, item: PathItem, params: dict[str, Json]) -> Node:
    if plan.clients.wait is ClientWait.DAY:
        return Node(f"clients-{item.label}", "Give the clients their 24 hours", kind=NodeKind.SOAK, seconds=GUIDE_WAIT, estimate=0.0)
    return Node(
        f"clients-{item.label}",
        f"Wait until every client has updated, at most {plan.clients.at_most / 3600:g} h",
        step="wait-for-clients",
        params=params,
        may_skip=True,
        estimate=min(CHECKIN, plan.clients.at_most),
    )


def _finish(plan: UpgradePlan) -> Phase:
    nodes = (
        Node("compare", "Compare the box with what it was", step="compare-upgrade", estimate=READ),
        Node("clients-papers", "List what has to be done by hand", step="clients-papers", after=("compare",), estimate=1.0),
        *plan_deployed(plan, "clients-papers"),
    )
    return Phase("finish", "Prove the upgrade, and say what is left to do", nodes)


def _gate(name: str, title: str, *after: str) -> Node:
    return Node(name, title, kind=NodeKind.GATE, after=after, estimate=0.0)


def _after(nodes: list[Node], node: Node) -> Node:
    """The node, to come after the last one of its phase."""
    return replace(node, after=(nodes[-1].name,)) if nodes else node
