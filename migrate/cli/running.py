"""A run at the terminal: draws it, asks at gates, offers what can be done when a node fails."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from migrate.cli.options import engine_option
from migrate.cli.say import console
from migrate.cli.view import View
from migrate.engine.model import NodeState, NothingToDecideError, RunState, RunStatus, Watcher
from migrate.plan import CommonPlan, Plan
from migrate.plan_file import LoadedPlan, read_any_plan
from migrate.runbook import NodeKind
from migrate.wiring.running import Running, open_run, start

ANSWERS = {"r": "retry", "s": "skip", "b": "rollback", "l": "leave it as it is"}


def run_plan(plan: Path, *, engine: str, yes: bool, anew: bool) -> RunStatus:
    """Run to the end, or to where nobody decides. The report is written in either case."""
    return run_loaded(read_any_plan(plan), engine=engine, yes=yes, anew=anew)


def run_loaded(loaded: LoadedPlan[CommonPlan], *, engine: str = "", yes: bool = False, anew: bool = False, run: str = "") -> RunStatus:
    """The same with a plan that is read already; ``run`` names the one to go on with."""
    from migrate.wiring.notices import open_notices
    from migrate.wiring.reporting import write_report

    warn_of_loss(loaded.plan)
    with open_run(loaded, engine=engine, anew=anew, run=run) as running:
        console().print(_say_begin(running, f"boxshift status {loaded.path}{engine_option(engine)}"), markup=False)
        with open_notices(loaded, running.desk.status) as notice:
            status = _work(running, notice, yes=yes)
        written = write_report(running.desk.workspace, status)
    console().print(f"{status.run}: {status.state.value}. Report: {written.html}", markup=False)
    return status


def warn_of_loss(plan: CommonPlan) -> None:
    """In red, where a plan gives records up."""
    if isinstance(plan, Plan) and plan.cutover.data == "none":
        console().print("[bold red]cutover.data: none. What visitors write between the backup and the switch IS LOST.[/]")


def _say_begin(running: Running, command: str) -> str:
    if running.over:
        return f"{running.desk.run} has ended already and nothing of it is done again; --new begins another run of this plan."
    return f"{'Going on with' if running.resumed else 'Run'} {running.desk.run}. From another terminal: {command}"


def _work(running: Running, notice: Watcher | None, *, yes: bool) -> RunStatus:
    with View(running.runbook) as view, running.engine.signals():
        _show_earlier(view, running)
        running.engine.watch(view.on_event)
        if notice is not None:
            running.engine.watch(notice)
        start(running)
        while True:
            status = running.engine.wait(running.desk.run)
            if status.state.ended or not _decide(running, view, status, yes=yes):
                return status


def _show_earlier(view: View, running: Running) -> None:
    if not running.resumed:
        return
    for node in running.desk.status().nodes:
        if node.state.finished:
            said = node.value.get("sentence") if isinstance(node.value, dict) else ""
            view.show_finished(node.name, node.state.value, node.seconds, str(said or ""))


def _decide(running: Running, view: View, status: RunStatus, *, yes: bool) -> bool:
    """Ask the person at the terminal. False when nobody decides: the run stays as it is. Who decides elsewhere meanwhile, decides."""
    try:
        return _ask(running, view, status, yes=yes) or _is_answered(running, status)
    except NothingToDecideError as decided:
        console().print(f"{decided.sentence} Somebody decided at another terminal.", markup=False)
        return True


def _is_answered(running: Running, status: RunStatus) -> bool:
    """Whether what the run waited for has been decided since: that node, or the end of the whole run."""
    now = running.desk.status()
    return bool(status.waiting) and (not now.state.needs_person or not set(status.waiting) & set(now.waiting))


def _ask(running: Running, view: View, status: RunStatus, *, yes: bool) -> bool:
    gates = [name for name in status.waiting if status.runbook.node(name).kind is NodeKind.GATE]
    if gates and yes:
        running.desk.approve(gates[0], getpass.getuser(), "approved in advance by --yes")
        return True
    if not sys.stdin.isatty():
        return False
    view.pause()
    try:
        return _ask_gate(running, gates[0]) if gates else _ask_failure(running, status)
    finally:
        view.resume()


def _ask_gate(running: Running, gate: str) -> bool:
    from rich.prompt import Confirm

    console().print(running.desk.rollback_sentence(), markup=False)
    if not Confirm.ask(f"{running.runbook.node(gate).title}?", default=False, console=console()):
        return False
    running.desk.approve(gate, getpass.getuser(), "approved at the prompt")
    return True


def _ask_failure(running: Running, status: RunStatus) -> bool:
    from rich.prompt import Prompt

    failed = [node for node in status.nodes if node.state is NodeState.FAILED]
    for node in failed:
        error = node.error or {}
        console().print(f"{node.name}: {error.get('sentence', '')}\n  -> {error.get('hint', '')}", markup=False)
    if status.state is not RunState.DECISION:
        return False
    words = ", ".join(f"{letter} = {word}" for letter, word in ANSWERS.items())
    answer = Prompt.ask(words, choices=list(ANSWERS), default="l", console=console())
    who = getpass.getuser()
    match answer:
        case "r":
            running.desk.retry("", who, "at the prompt")
        case "s":
            running.desk.skip("", who, "at the prompt")
        case "b":
            running.desk.rollback(who, "at the prompt")
        case _:
            return False
    return True
