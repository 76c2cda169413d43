"""Tells people that a run waits for them, failed, or ended: by mail, chat or webhook, through Apprise.

A notice never holds a run up and never fails it. Addresses hold secrets: they are in no message, log or error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.errors import UsageError
from kit.plain import spell_out
from kit.secret import Secret
from migrate.engine.model import Event, EventKind, NodeState, RunState, RunStatus
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan
from migrate.runbook import NodeKind
from migrate.secrets import resolve_secret

log = logging.getLogger("boxshift.notices")
LAST = 15.0  # seconds that the end of the program waits for notices under way


@dataclass(frozen=True)
class Notice:
    """What is told."""

    title: str
    body: str


Send = Callable[[Notice], bool]


class Notices:
    """Sends from a thread of its own what the run's status calls for, each thing once.

    Events only wake it: one may come after the run's process has decided to end, and the status is never late.
    """

    def __init__(self, plan: CommonPlan, path: Path, read_status: Callable[[], RunStatus], send: Send) -> None:
        self._plan = plan
        self._path = path
        self._read_status = read_status
        self._send = send
        self._told: set[str] = set()
        self._over = False
        self._news = threading.Event()
        self._sender = threading.Thread(target=self._work, name="notices", daemon=True)
        self._sender.start()

    def on_event(self, event: Event) -> None:
        """Wake the sender; called from the engine's threads, so nothing is looked up and nothing is sent here."""
        if event.kind in {EventKind.WAITING, EventKind.RUN}:
            self._news.set()

    def close(self) -> None:
        """Look a last time, and send what is due, for a short while."""
        self._over = True
        self._news.set()
        self._sender.join(LAST)

    def _work(self) -> None:
        over = False
        while not over:
            self._news.wait()
            self._news.clear()
            over = self._over
            try:
                self._tell()
            except Exception as error:  # noqa: BLE001 - whatever a mail server does wrong, the run goes on
                log.warning("a notice could not be sent: %s", type(error).__name__)

    def _tell(self) -> None:
        for key, notice in list_notices(self._plan, self._path, self._read_status()):
            if key not in self._told:
                self._told.add(key)
                if not self._send(notice):
                    log.warning("a notice could not be sent: %s", notice.title)


def list_notices(plan: CommonPlan, path: Path, status: RunStatus) -> Iterator[tuple[str, Notice]]:
    """What is to be told of a run as it stands, of what the plan asks for; each with a key that stays the same."""
    wanted = plan.notify.at if plan.notify is not None else ()
    site, run = plan.site.name, status.run
    gates = [name for name in status.waiting if status.runbook.node(name).kind is NodeKind.GATE]
    for gate in gates if "gates" in wanted else ():
        said = f"{status.runbook.node(gate).title}?\n\nboxshift status {path}\nboxshift approve {path} --node {gate}"
        yield f"gate {gate}", Notice(f"boxshift: {site} waits for approval", spell_out(f"Run {run}: {said}", keep="\n"))
    if status.state is RunState.DECISION and "failures" in wanted:
        failed = [node for node in status.nodes if node.state is NodeState.FAILED]
        said = "\n".join(f"{node.title}: {(node.error or {}).get('sentence', 'failed')}" for node in failed) or "A step failed."
        key = ", ".join(f"{node.name} {node.attempt}" for node in failed)
        text = spell_out(f"Run {run}.\n{said}\n\nboxshift status {path}", keep="\n")
        yield f"failed {key}", Notice(f"boxshift: {site} waits for a decision", text)
    if status.state.ended and "ends" in wanted:
        way = "" if status.state is RunState.DONE else f"\n\nboxshift status {path}"
        yield "end", Notice(f"boxshift: {site} is {status.state.value}", f"Run {run} has ended: {status.state.value}.{way}")


@contextmanager
def open_notices(loaded: LoadedPlan[CommonPlan], read_status: Callable[[], RunStatus]) -> Iterator[Callable[[Event], None] | None]:
    """A watcher for the engine; None where the plan tells nobody.

    Raises:
        UsageError: a reference leads to no address that is known.

    """
    if loaded.plan.notify is None:
        yield None
        return
    notices = Notices(loaded.plan, loaded.path, read_status, make_sender(read_targets(loaded)))
    try:
        yield notices.on_event
    finally:
        notices.close()


def read_targets(loaded: LoadedPlan[CommonPlan]) -> tuple[Secret, ...]:
    """The addresses that the plan's references lead to."""
    references = loaded.plan.notify.to if loaded.plan.notify is not None else ()
    return tuple(resolve_secret(reference, base=loaded.folder, what="an address for notices") for reference in references)


def make_sender(targets: Sequence[Secret]) -> Send:
    """Sends to all of them; True where every one took it. Raises UsageError where one is no address, without repeating it."""
    import apprise

    quiet = logging.getLogger("apprise")  # it repeats addresses, and they hold passwords
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    sender = apprise.Apprise()
    for number, target in enumerate(targets):
        if not sender.add(target.reveal().strip()):
            raise UsageError(
                f"The address for notices that notify.to[{number}] leads to is of no kind that is known.",
                hint="Its form is Apprise's, such as mailto://user:password@example.com or json://host/path.",
            )

    def send(notice: Notice) -> bool:
        return bool(sender.notify(title=notice.title, body=notice.body))

    return send
