"""Runs the steps of a runbook for the engine: builds each one's context, and turns every failure into data."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from kit.errors import BoxshiftError
from kit.files import explain_refusal
from kit.progress import Progress
from kit.secret import Secret, scrub
from migrate.engine.model import Call, Outcome
from migrate.plan import CommonPlan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json
from migrate.secrets import resolve_secret
from migrate.steps.context import STEPS, Done, Work
from migrate.wiring.boxes import Stopwatch
from migrate.wiring.contexts import GO_ON, Tools, make_context
from migrate.wiring.workspace import Workspace

T = TypeVar("T")
log = logging.getLogger("boxshift.steps")


class BugError(BoxshiftError):
    """An exception that is not of our tree came out of a step."""

    code = "bug"


def parse_result(results: Mapping[str, Json], node: str, kind: type[T]) -> T:
    """The value that a finished node left."""
    stored = results[node]
    return TypeAdapter(kind).validate_python(stored["value"] if isinstance(stored, dict) else None)


class StepExecutor:
    """An executor for all runs of one workspace."""

    def __init__(self, workspace: Workspace, plan_path: Callable[[str], Path]) -> None:
        from migrate import steps  # importing the modules registers their steps

        steps.load_all()
        self._workspace = workspace
        self._plan_path = plan_path
        self._loaded: dict[str, LoadedPlan[CommonPlan]] = {}
        self._revealed: set[Secret] = set()

    def execute(self, call: Call, progress: Progress) -> Outcome:
        """Apply the node's step."""
        return self._guarded(call, progress, STEPS[call.node.step].apply)

    def undo(self, call: Call, progress: Progress) -> Outcome:
        """Take the node's step back."""

        def take_back(context: Work[CommonPlan]) -> Done:
            undo = STEPS[call.node.step].undo
            return undo(context) if undo is not None else Done("Nothing to take back.")

        return self._guarded(call, progress, take_back)

    def _guarded(self, call: Call, progress: Progress, action: Callable[[Work[CommonPlan]], Done]) -> Outcome:
        start = time.monotonic()
        watch = Stopwatch()
        try:
            log.info("%s begins (attempt %d%s)", call.node.name, call.attempt, ", again after a crash" if call.again else "")
            done = action(self._context(call, progress, watch)).to_json()
            done["inside"] = [[begin, end] for begin, end in watch.spells]
            return Outcome(ok=True, value=self._scrubbed(done), seconds=time.monotonic() - start)
        except BoxshiftError as error:
            return self._failed(error, call, start)
        except OSError as error:
            return self._failed(explain_refusal(error), call, start)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an outcome too
            where = traceback.extract_tb(error.__traceback__)[-1]
            bug = BugError(
                f"boxshift itself failed in {call.node.name}: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}.",
                hint="Both boxes are as the last finished node left them. Please report this; boxshift retry tries the node again.",
            )
            log.error("%s", self._scrub(traceback.format_exc()))  # noqa: TRY400 - it would add the text that is not scrubbed
            return self._failed(bug, call, start)

    def _failed(self, error: BoxshiftError, call: Call, start: float) -> Outcome:
        facts = {key: self._scrub(value) if isinstance(value, str) else value for key, value in error.facts.items()}
        sentence = self._scrub(error.sentence)
        clean = error.to_record() | {"sentence": sentence, "hint": self._scrub(error.hint) or GO_ON, "facts": facts}
        log.warning("%s failed: %s", call.node.name, sentence)
        return Outcome(ok=False, error=clean, seconds=time.monotonic() - start)

    def _context(self, call: Call, progress: Progress, watch: Stopwatch) -> Work[CommonPlan]:
        loaded = self._loaded_plan(call.run)

        def reveal(reference: str, what: str) -> Secret:
            secret = resolve_secret(reference, base=loaded.folder, what=what)
            self._revealed.add(secret)
            return secret

        return make_context(loaded, call, self._workspace.run_folder(call.run), Tools(progress, watch, reveal))

    def _loaded_plan(self, run: str) -> LoadedPlan[CommonPlan]:
        if run not in self._loaded:
            self._loaded[run] = self._workspace.load_run(run, self._plan_path(run))
        return self._loaded[run]

    def _scrub(self, text: str) -> str:
        return scrub(text, *self._revealed)

    def _scrubbed(self, value: Json) -> Json:
        if isinstance(value, str):
            return self._scrub(value)
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        if isinstance(value, dict):
            return {key: self._scrubbed(item) for key, item in value.items()}
        return value
