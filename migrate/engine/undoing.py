"""Taking back what a run did: the ledger in reverse order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from migrate.engine.hub import NodeProgress
from migrate.engine.model import Call, EventKind, UndoState
from migrate.engine.work import Shop, StoppingError, call_safely
from migrate.runbook import Runbook


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: a node that acted, at which attempt."""

    node: str
    attempt: int


def find_blocker(runbook: Runbook, node: str, standing: Iterable[str]) -> str:
    """Which of ``standing`` (nodes that could not be undone) stands on ``node``; empty where none does.

    A node stands on what it comes after, directly or not, and on everything of earlier phases: taking away the new box while
    visitors are still sent to it would do harm that no later repair undoes.
    """
    place = {item.name: number for number, phase in enumerate(runbook.phases) for item in phase.nodes}
    below = stands_on(runbook)
    return next((name for name in standing if place[name] > place[node] or node in below[name]), "")


def stands_on(runbook: Runbook) -> Mapping[str, frozenset[str]]:
    """For every node all nodes of its phase that it comes after, directly or not."""
    answer: dict[str, frozenset[str]] = {}
    left = list(runbook.nodes())
    while left:
        rest = []
        for node in left:
            if all(name in answer for name in node.after):
                answer[node.name] = frozenset(node.after).union(*(answer[name] for name in node.after))
            else:
                rest.append(node)
        left = rest
    return answer


def undo_one(shop: Shop, run: str, runbook: Runbook, entry: Entry, standing: Iterable[str]) -> str:
    """Undo one node, unless one that stands on it could not be undone. Answers the :class:`UndoState`."""
    if shop.stopping.is_set():
        raise StoppingError
    node = runbook.node(entry.node)
    blocker = find_blocker(runbook, node.name, standing)
    if blocker:
        note = f"Left as it is, because {blocker} stands on it and could not be undone."
        shop.store.finish_undo(run, node.name, UndoState.BLOCKED, note)
        shop.hub.tell(EventKind.UNDONE, run, node.name, note, state=UndoState.BLOCKED.value)
        return UndoState.BLOCKED.value
    again = shop.store.begin_undo(run, node.name)
    if again is None:
        return UndoState.UNDONE.value
    shop.hub.tell(EventKind.UNDOING, run, node.name, node.title, again=again)
    call = Call(run, node, entry.attempt, shop.store.results(run), again)
    outcome = call_safely(shop.executor.undo, call, NodeProgress(shop.hub, shop.store, run, node.name))
    state = UndoState.UNDONE if outcome.ok else UndoState.FAILED
    note = outcome.sentence or ("" if outcome.ok else "It did not say why.")
    shop.store.finish_undo(run, node.name, state, note)
    shop.hub.tell(EventKind.UNDONE, run, node.name, note, state=state.value, seconds=outcome.seconds)
    return state.value
