"""The inspection alone: the same steps that a run begins with, nothing stored, nothing changed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from kit.errors import from_record
from kit.findings import Finding
from kit.progress import Silent
from migrate.engine.model import Call
from migrate.facts import ApplianceFacts
from migrate.plan import CommonPlan, Plan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json
from migrate.runbooks.migration import plan_migration
from migrate.steps.inspect import Preflight
from migrate.wiring.executor import StepExecutor, parse_result
from migrate.wiring.procedures import make_runbook
from migrate.wiring.references import verify_secrets
from migrate.wiring.workspace import Workspace


@dataclass(frozen=True)
class Inspection:
    """What was found, and the estimates that the facts allow."""

    findings: tuple[Finding, ...]
    sentence: str
    summary: dict[str, Json]


def inspect_now(loaded: LoadedPlan[CommonPlan], *, say: Callable[[str], None]) -> Inspection:
    """Read whatever the plan is about, and judge. Raises the error of the first look that fails."""
    logging.getLogger("boxshift").addHandler(logging.NullHandler())  # what fails is raised; there is no run to log it for
    verify_secrets(loaded)
    workspace = Workspace.beside(loaded.path)
    run = workspace.open_run(loaded)
    try:
        executor = StepExecutor(workspace, lambda _: loaded.path)
        results: dict[str, Json] = {}
        runbook = make_runbook(loaded)
        for node in runbook.phases[0].nodes:
            if node.name == "preflight":
                continue
            outcome = executor.execute(Call(run, node, 1, results), Silent())
            if not outcome.ok:
                raise from_record(outcome.error or {})
            results[node.name] = outcome.value
            say(f"{node.title}: {outcome.value['sentence'] if isinstance(outcome.value, dict) else ''}")
    finally:
        shutil.rmtree(workspace.run_folder(run), ignore_errors=True)
    findings = parse_result(results, "judge", Preflight).findings
    if isinstance(loaded.plan, Plan):  # the old box's content makes the estimate better
        migration = LoadedPlan(loaded.plan, loaded.path, loaded.digest)
        runbook = plan_migration(migration, parse_result(results, "read-old", ApplianceFacts))
    sentence = f"About {runbook.estimate():.0f} s of work; visitors without service for about {runbook.outage():.0f} s."
    return Inspection(findings, sentence, {"estimate_seconds": runbook.estimate(), "outage_seconds": runbook.outage()})
